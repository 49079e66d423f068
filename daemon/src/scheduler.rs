//! Decides what runs where: our tasks out there, others' tasks here.

pub mod conversation;
pub mod link;
pub mod placement;
pub mod record;
pub mod renderer;
pub mod requester;
pub mod view;

#[cfg(test)]
mod tests;
