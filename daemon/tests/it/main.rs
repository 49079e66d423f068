//! Whole nodes in this process, spoken to as their clients do.

mod api;
