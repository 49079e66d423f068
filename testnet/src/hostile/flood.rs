//! Floods that stop by themselves.
