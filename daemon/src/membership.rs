//! Who belongs, as far as this node can say.
mod admission;
mod invites;
mod joining;
pub mod keys;
mod roster;
mod state;
mod view;
#[cfg(test)]
mod tests;
