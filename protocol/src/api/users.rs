//! Who may use a node's local API, besides the user that its daemon runs as.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Role;

/// Gives a user of this machine a token of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// As the operating system calls them; this name is the person in the studio's books.
    pub name: String,
    pub role: Role,
}

/// A token, told this once. Never printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserReply {
    pub name: String,
    pub role: Role,
    pub token: String,
    /// The daemon's address, for the user's token file.
    pub url: String,
}

impl fmt::Debug for UserReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserReply")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Takes a user's token away; it is refused at once and their event streams end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRemoveRequest {
    pub name: String,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub name: String,
    pub role: Role,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// Everybody who has a token, by name; the daemon's own user is not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersReply {
    pub users: Vec<UserView>,
}
