//! PURE: the pool as people are shown it.

use scenemesh_protocol::ids::{ContentHash, NodeId, PoolId, StudioId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::roster::Roles;

use super::admins::AdminView;
use super::admission::describe;
use super::blocks::Shut;
use super::rights::studio_name;
use super::roster::{Circle, Proposal};
use super::state::State;

/// The pool as this node's roster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    pub pool: PoolId,
    pub name: String,
    pub epoch: u64,
    /// This node's own studio.
    pub studio: StudioId,
    pub studios: Vec<StudioView>,
    pub members: Vec<MemberView>,
    pub proposals: Vec<ProposalView>,
    pub invites: Vec<InviteView>,
    /// Whether this node can sign as an admin right now.
    pub unlocked: bool,
    /// The pool opens no socket.
    pub solo: bool,
    /// The own studio's admin keys.
    pub admins: Vec<AdminView>,
    /// Nodes that are shut out here.
    pub shut: Vec<(NodeId, Shut)>,
    /// What the operator should know: forks, clocks. Newest last.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudioView {
    pub id: StudioId,
    pub name: String,
    pub weight: u32,
    /// Number of admin keys.
    pub admins: usize,
    pub mine: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    pub node: NodeId,
    pub name: String,
    pub studio: StudioId,
    pub studio_name: String,
    pub roles: Roles,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    pub not_after_ms: Option<u64>,
    pub me: bool,
}

/// Settings that lack signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposalView {
    pub id: ContentHash,
    pub epoch: u64,
    /// What it changes, in words.
    pub change: String,
    /// Names of the studios that signed, and how many it takes.
    pub signed_by: Vec<String>,
    pub need: usize,
    /// Whether this node's own studio has signed.
    pub mine: bool,
}

/// An invite that this node made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteView {
    /// Names the invite; not a secret.
    pub key: PublicKey,
    pub new_studio: Option<String>,
    pub roles: Roles,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: u64,
    pub state: InviteState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteState {
    Open,
    /// The admin key is not in memory: `invite --unlock`.
    Locked,
    Expired,
    Used(NodeId),
}

impl State {
    /// Invites that can be used right now.
    pub(super) fn usable_invites(&self, now_ms: u64) -> usize {
        let open = self.invites.iter().filter(|invited| invited.is_open(now_ms)).count();
        if self.admin_of().is_some() { open } else { 0 }
    }

    pub(super) fn view(&self, now_ms: u64) -> Option<PoolView> {
        let (circle, place) = (self.circle.as_ref()?, self.place.as_ref()?);
        let roster = circle.roster();
        let settings = roster.settings();
        let unlocked = self.admin_of().is_some();
        let studios = settings.studios.iter().map(|studio| StudioView {
            id: studio.id,
            name: studio.name.clone(),
            weight: studio.weight,
            admins: studio.admins.len(),
            mine: studio.id == place.studio,
        });
        let mut members: Vec<_> = roster
            .members(now_ms)
            .map(|member| MemberView {
                node: member.node.node(),
                name: member.name.clone(),
                studio: member.studio,
                studio_name: studio_name(roster, &member.studio),
                roles: member.roles,
                issued_ms: member.issued_ms,
                not_after_ms: member.not_after_ms,
                me: member.node == self.me.node.public(),
            })
            .collect();
        members.sort_by(|a, b| (&a.studio_name, &a.name, a.node).cmp(&(&b.studio_name, &b.name, b.node)));
        let invites = self.invites.iter().map(|invited| InviteView {
            key: invited.key,
            new_studio: invited.new_studio.clone(),
            roles: invited.roles,
            expires_ms: invited.expires_ms,
            state: match &invited.redeemed {
                Some(by) => InviteState::Used(by.node),
                None if now_ms >= invited.expires_ms => InviteState::Expired,
                None if unlocked => InviteState::Open,
                None => InviteState::Locked,
            },
        });
        Some(PoolView {
            pool: roster.pool(),
            name: settings.pool_name.clone(),
            epoch: settings.epoch,
            studio: place.studio,
            studios: studios.collect(),
            members,
            proposals: circle.proposals().map(|p| proposal_view(circle, p, &place.studio)).collect(),
            invites: invites.collect(),
            unlocked,
            solo: self.solo,
            admins: self.admin_views(None),
            shut: self.shut_out(now_ms).into_iter().collect(),
            warnings: self.warnings.iter().cloned().collect(),
        })
    }
}

pub(super) fn proposal_view(circle: &Circle, proposal: &Proposal, own: &StudioId) -> ProposalView {
    let settings = circle.roster().settings();
    let signers = circle.signers(proposal);
    ProposalView {
        id: proposal.signed.hash(),
        epoch: proposal.settings.epoch,
        change: describe(proposal, settings),
        signed_by: signers.iter().map(|id| studio_name(circle.roster(), id)).collect(),
        need: settings.quorum(),
        mine: signers.contains(own),
    }
}
