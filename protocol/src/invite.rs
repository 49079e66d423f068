//! Invites: how a stranger becomes a member.

use crate::codec::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinReply;
