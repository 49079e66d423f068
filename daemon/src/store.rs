//! Stub until the store lands.

#[derive(Clone, Debug, Default)]
pub struct Blobs;
