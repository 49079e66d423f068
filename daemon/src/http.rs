//! What every HTTP face of this node shares: connections, whose pages may ask, bodies that come in pieces.

pub(crate) mod body;
pub(crate) mod hosts;
pub(crate) mod serving;
