//! Scripts: several nodes without sockets or clocks, told what they would hear.

use std::collections::VecDeque;
use std::time::Duration;

use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::invite::{Invite, InviteSecret, JoinNeeds, JoinRefusal, JoinReply};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::messages::{PorchRequest, PorchResponse, Request, Response};
use scenemesh_protocol::roster::{Roles, Roster, Studio};
use scenemesh_protocol::studio::StudioSecret;
use scenemesh_protocol::task::Reach;
use tokio::time::Instant;

use super::admission::{CannotApprove, CannotInvite, InviteTerms};
use super::invites::DEFAULT_EXPIRY;
use super::joining::{CannotJoin, JoinOutcome, JoinRefused, question};
use super::rights::{NotAllowed, Role, may, may_render};
use super::state::{Asked, Fact, Me, Standing, State, Step};

mod hostile;
mod studio;

mod trust;

const NOW: u64 = 1_800_000_000_000;

/// A node, its journal, and whether the others reach it.
struct Node {
    state: State,
    journal: Vec<Fact>,
    /// Key files of the studio.
    secrets: Vec<(u32, StudioSecret)>,
    awake: bool,
}

/// Nodes that hear each other as far as their rosters and their being awake allow.
struct Village {
    nodes: Vec<Node>,
    now_ms: u64,
    now: Instant,
}

impl Village {
    fn of(count: usize) -> Self {
        let node = || {
            let me = Me { node: SecretKey::generate(), kem: KemSecret::generate().public() };
            Node { state: State::new(me), journal: Vec::new(), secrets: Vec::new(), awake: true }
        };
        Self { nodes: (0..count).map(|_| node()).collect(), now_ms: NOW, now: Instant::now() }
    }

    /// A pool of one studio, `amber`, on node 0, and `count` nodes in all.
    fn founded(count: usize) -> Self {
        let mut village = Self::of(count);
        let key = SecretKey::generate();
        let settings = State::genesis("aurora", "amber", key.public(), None, village.now_ms);
        let step = village.nodes[0].state.found(&settings, "ws-00", &key, village.now_ms).unwrap();
        village.perform(0, step);
        village
    }

    fn id(&self, at: usize) -> NodeId {
        self.nodes[at].state.me.id()
    }

    fn at(&self, id: &NodeId) -> Option<usize> {
        (0..self.nodes.len()).find(|at| self.id(*at) == *id)
    }

    fn roster(&self, at: usize) -> &Roster {
        self.nodes[at].state.roster().unwrap()
    }

    fn are_linked(&self, a: usize, b: usize) -> bool {
        let knows = |a: usize, b: usize| {
            let roster = self.nodes[a].state.roster();
            roster.is_some_and(|roster| roster.member(&self.id(b), self.now_ms).is_some())
        };
        a != b && self.nodes[a].awake && self.nodes[b].awake && knows(a, b) && knows(b, a)
    }

    /// Journals and spreads what follows, until nobody has anything more to say.
    fn perform(&mut self, at: usize, step: Step) {
        let mut work = VecDeque::from([(at, step)]);
        let mut turns = 0;
        while let Some((at, step)) = work.pop_front() {
            turns += 1;
            assert!(turns < 2000, "the village talks without end");
            self.nodes[at].secrets.extend(step.secrets.clone());
            self.nodes[at].journal.extend(step.facts);
            work.extend(self.spread_studio(at, &step.studio, &step.ask_studio));
            step.warnings.iter().for_each(|words| self.nodes[at].state.warn(words));
            let (me, now_ms) = (self.id(at), self.now_ms);
            for to in 0..self.nodes.len() {
                if !step.news.is_empty() && self.are_linked(at, to) {
                    let told = Request::Roster(step.news.clone());
                    let (next, _) = self.nodes[to].state.on_request(me, told, now_ms);
                    work.push_back((to, next));
                }
            }
            for peer in step.show {
                let Some(to) = self.at(&peer).filter(|to| self.nodes[*to].awake) else { continue };
                let card = PorchRequest::Roster(self.nodes[at].state.card().unwrap());
                let (next, _) =
                    self.nodes[to].state.on_porch(me, "/ip4/10.9.9.9/tcp/1", card, self.now, now_ms);
                work.push_back((to, next));
            }
            for peer in step.ask {
                let Some(to) = self.at(&peer).filter(|to| self.are_linked(at, *to)) else { continue };
                let sync = self.nodes[at].state.circle.as_ref().unwrap().sync();
                let (next, answer) = self.nodes[to].state.on_request(me, Request::RosterSync(sync), now_ms);
                work.push_back((to, next));
                let Response::Roster(diff) = answer else { panic!("{answer:?}") };
                let next = self.nodes[at].state.on_synced(peer, diff, self.now_ms);
                work.push_back((at, next));
            }
        }
    }

    /// Everybody who can says Hello to everybody.
    fn meet(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                if self.are_linked(a, b) {
                    let differs = self.nodes[a].state.differs(&self.roster(b).digest());
                    let ask = if differs { vec![self.id(b)] } else { Vec::new() };
                    self.perform(a, Step { ask, ask_studio: vec![self.id(b)], ..Step::default() });
                }
            }
        }
    }

    fn invite(&mut self, at: usize, new_studio: Option<&str>) -> Result<Invite, CannotInvite> {
        let terms = InviteTerms {
            roles: Roles::ALL,
            new_studio: new_studio.map(str::to_owned),
            expires: DEFAULT_EXPIRY,
        };
        let porch = ["/ip4/127.0.0.1/tcp/7873".to_owned()];
        let (step, invite, _) =
            self.nodes[at].state.invite(terms, InviteSecret::generate(), &porch, self.now_ms)?;
        self.perform(at, step);
        Ok(invite)
    }

    fn knock(&mut self, at: usize, asked: &Asked) -> JoinReply {
        let to = self.at(&asked.inviter).unwrap();
        let request = PorchRequest::Join(asked.request.clone());
        let from = self.id(at);
        let address = format!("/ip4/10.0.0.{at}/tcp/5");
        let (step, answer) = self.nodes[to].state.on_porch(from, &address, request, self.now, self.now_ms);
        self.perform(to, step);
        match answer {
            PorchResponse::Join(reply) => reply,
            PorchResponse::Declined(declined) => {
                JoinReply::Refused { reason: JoinRefusal::BadRequest, words: declined.detail }
            }
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, at: usize, invite: &Invite, name: &str) -> Result<JoinOutcome, JoinRefused> {
        self.join_with(at, invite, name, None)
    }

    fn join_with(
        &mut self,
        at: usize,
        invite: &Invite,
        name: &str,
        admin: Option<SecretKey>,
    ) -> Result<JoinOutcome, JoinRefused> {
        let me = self.nodes[at].state.me.clone();
        let asked = question(&me, invite, name, admin.as_ref().map(SecretKey::public));
        let reply = self.knock(at, &asked);
        let (step, outcome) = self.nodes[at].state.on_join_reply(asked, admin, reply, self.now_ms);
        self.perform(at, step);
        self.meet();
        outcome
    }

    /// Asks again, as a node does that waits.
    fn ask_again(&mut self, at: usize) {
        let Some(asked) = self.nodes[at].state.pending_question(self.now_ms).cloned() else { return };
        let reply = self.knock(at, &asked);
        let (step, outcome) = self.nodes[at].state.on_join_reply(asked, None, reply, self.now_ms);
        outcome.unwrap();
        self.perform(at, step);
        self.meet();
    }

    fn approve(&mut self, at: usize, which: &str) -> Result<bool, CannotApprove> {
        let (step, approved) = self.nodes[at].state.approve(Some(which), self.now_ms)?;
        self.perform(at, step);
        Ok(approved.decided)
    }

    /// The node starts anew from its journal; `unlock` as an unsealed admin key does.
    fn restart(&mut self, at: usize, unlock: bool) {
        let node = &mut self.nodes[at];
        let admin = node.state.admin.take().filter(|_| unlock);
        let mut state = State::new((*node.state.me).clone());
        for fact in node.journal.clone() {
            state.replay(fact).unwrap();
        }
        state.admin = admin;
        state.replay_secrets(node.secrets.iter().cloned().collect());
        assert_eq!(
            state.roster().map(|roster| roster.digest()),
            node.state.roster().map(|roster| roster.digest()),
            "a restart forgets nothing"
        );
        node.state = state;
    }

    fn is_member(&self, at: usize) -> bool {
        matches!(self.nodes[at].state.standing(self.now_ms), Standing::Member { .. })
    }

    fn assert_agreed(&self, count: usize) {
        let digest = self.roster(0).digest();
        for at in 0..count {
            assert!(self.is_member(at), "{at}: {:?}", self.nodes[at].state.standing(self.now_ms));
            assert_eq!(self.roster(at).digest(), digest, "node {at}");
            assert_eq!(self.roster(at).members(self.now_ms).count(), count, "node {at}");
        }
    }

    fn studios(&self, at: usize) -> Vec<&str> {
        let mut names: Vec<_> =
            self.roster(at).settings().studios.iter().map(|studio| studio.name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

fn pending(outcome: Result<JoinOutcome, JoinRefused>) -> JoinNeeds {
    match outcome {
        Ok(JoinOutcome::Pending { needs, .. }) => needs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn three_machines_of_a_studio_find_the_same_roster() {
    let mut village = Village::founded(3);
    for at in [1, 2] {
        let invite = village.invite(0, None).unwrap();
        let outcome = village.join(at, &invite, &format!("ws-0{at}")).unwrap();
        let JoinOutcome::Joined(joined) = outcome else { panic!("{outcome:?}") };
        assert_eq!((joined.pool_name.as_str(), joined.studio.as_str()), ("aurora", "amber"));
        assert!(joined.notes.is_empty());
    }
    village.assert_agreed(3);
    for at in 0..3 {
        village.restart(at, false);
    }
    village.assert_agreed(3);
}

#[test]
fn a_pool_of_one_admits_a_studio_alone_which_then_admits_its_own() {
    let mut village = Village::founded(3);
    let invite = village.invite(0, Some("birch")).unwrap();
    let refused = village.join(1, &invite, "b-01").unwrap_err();
    assert_eq!(refused.reason, Some(JoinRefusal::AdminKey), "{}", refused.words);
    assert!(matches!(village.nodes[1].state.standing(NOW), Standing::Alone));
    let admin = SecretKey::generate();
    let outcome = village.join_with(1, &invite, "b-01", Some(admin)).unwrap();
    assert!(matches!(outcome, JoinOutcome::Joined(_)), "{outcome:?}");
    village.assert_agreed(2);
    let invite = village.invite(1, None).unwrap();
    village.join(2, &invite, "b-02").unwrap();
    village.assert_agreed(3);
    assert_eq!(village.studios(2), ["amber", "birch"]);

    let roster = village.roster(0);
    let (amber, birch, second) = (village.id(0), village.id(1), village.id(2));
    assert!(may_render(roster, &Reach::Pool, &amber, &birch, NOW).is_ok());
    assert!(may_render(roster, &Reach::Studio, &second, &birch, NOW).is_ok());
    let other = may_render(roster, &Reach::Studio, &amber, &birch, NOW).unwrap_err();
    assert_eq!(other.to_string(), "the task stays in its studio, and b-01 is of birch");
    assert_eq!(may_render(roster, &Reach::Machine, &amber, &birch, NOW), Err(NotAllowed::OtherMachine));
    assert!(may_render(roster, &Reach::Machine, &amber, &amber, NOW).is_ok());
    let ours = Reach::Studios(vec![may(roster, &amber, Role::Render, NOW).unwrap()]);
    assert!(matches!(may_render(roster, &ours, &amber, &birch, NOW), Err(NotAllowed::NotChosen { .. })));
    let stranger = SecretKey::generate().public().node();
    assert_eq!(may_render(roster, &Reach::Pool, &stranger, &birch, NOW), Err(NotAllowed::NoMember(stranger)));
}

/// amber on node 0, birch on node 1.
fn two_studios(count: usize) -> Village {
    let mut village = Village::founded(count);
    let invite = village.invite(0, Some("birch")).unwrap();
    village.join_with(1, &invite, "b-01", Some(SecretKey::generate())).unwrap();
    village.assert_agreed(2);
    village
}

#[test]
fn a_third_studio_waits_for_the_second_ones_approval() {
    let mut village = two_studios(3);
    let invite = village.invite(0, Some("cedar")).unwrap();
    let outcome = village.join_with(2, &invite, "c-01", Some(SecretKey::generate()));
    assert_eq!(pending(outcome), JoinNeeds::Approvals { have: 1, need: 2 });
    village.restart(2, true);
    village.restart(0, true);
    assert!(matches!(village.nodes[2].state.standing(NOW), Standing::Joining { .. }));
    village.ask_again(2);
    assert!(!village.is_member(2));
    assert!(matches!(village.approve(1, "dogwood"), Err(CannotApprove::Unknown { .. })));
    assert_eq!(village.approve(1, "cedar"), Ok(true));
    village.ask_again(2);
    village.assert_agreed(3);
    assert_eq!(village.approve(1, "cedar"), Err(CannotApprove::Nothing));
}

#[test]
fn two_studios_invited_at_once_both_get_in() {
    let mut village = two_studios(4);
    let cedar = village.invite(0, Some("cedar")).unwrap();
    let dogwood = village.invite(1, Some("dogwood")).unwrap();
    pending(village.join_with(2, &cedar, "c-01", Some(SecretKey::generate())));
    pending(village.join_with(3, &dogwood, "d-01", Some(SecretKey::generate())));
    assert_eq!(village.approve(1, "cedar"), Ok(true));
    // dogwood was proposed on settings that are past now: amber approves the studio, not the bytes.
    assert_eq!(village.approve(0, "dogwood"), Ok(true));
    village.ask_again(2);
    village.ask_again(3);
    village.assert_agreed(4);
    assert_eq!(village.studios(3), ["amber", "birch", "cedar", "dogwood"]);
}

#[test]
fn approvals_that_cross_fork_the_settings_and_heal() {
    let mut village = two_studios(4);
    let cedar = village.invite(0, Some("cedar")).unwrap();
    let dogwood = village.invite(1, Some("dogwood")).unwrap();
    pending(village.join_with(2, &cedar, "c-01", Some(SecretKey::generate())));
    pending(village.join_with(3, &dogwood, "d-01", Some(SecretKey::generate())));
    // Neither hears the other's approval in time: both sign, and each sees a quorum for another change.
    village.nodes[0].awake = false;
    assert_eq!(village.approve(1, "cedar"), Ok(true));
    village.nodes[0].awake = true;
    village.nodes[1].awake = false;
    assert_eq!(village.approve(0, "dogwood"), Ok(true));
    village.nodes[1].awake = true;
    assert_ne!(village.studios(0), village.studios(1));
    village.ask_again(2);
    village.ask_again(3);
    for _ in 0..3 {
        village.meet();
        village.ask_again(2);
        village.ask_again(3);
    }
    village.assert_agreed(4);
    assert_eq!(village.studios(0), ["amber", "birch", "cedar", "dogwood"]);
    let told = |at: usize| village.nodes[at].state.view(NOW).unwrap().warnings;
    assert!(told(0).iter().chain(&told(1)).any(|words| words.contains("forked at epoch 2")));
    for at in 0..4 {
        village.restart(at, true);
    }
    village.assert_agreed(4);
}

#[test]
fn a_member_admitted_while_another_was_away() {
    let mut village = Village::founded(3);
    let invite = village.invite(0, None).unwrap();
    village.join(1, &invite, "ws-01").unwrap();
    village.nodes[1].awake = false;
    let invite = village.invite(0, None).unwrap();
    village.join(2, &invite, "ws-02").unwrap();
    // Now the inviter is away: the two know of each other only through what the new one shows at the porch.
    village.nodes[0].awake = false;
    village.nodes[1].awake = true;
    assert!(!village.are_linked(1, 2));
    let card = village.nodes[2].state.card().unwrap();
    let from = village.id(2);
    let (step, _) = village.nodes[1].state.on_porch(
        from,
        "/ip4/10.0.0.2/tcp/9",
        PorchRequest::Roster(card),
        village.now,
        NOW,
    );
    village.perform(1, step);
    assert!(village.are_linked(1, 2));
    village.nodes[0].awake = true;
    village.meet();
    village.assert_agreed(3);
}

#[test]
fn a_stranger_with_another_pools_records_changes_nothing() {
    let mut village = Village::founded(1);
    let mut others = Village::founded(1);
    let card = others.nodes[0].state.card().unwrap();
    let before = village.roster(0).digest();
    let from = others.id(0);
    let (step, _) = village.nodes[0].state.on_porch(
        from,
        "/ip4/10.0.0.2/tcp/9",
        PorchRequest::Roster(card),
        village.now,
        NOW,
    );
    assert!(step.facts.is_empty() && step.ask.is_empty());
    assert_eq!(village.roster(0).digest(), before);
    let sync = others.nodes[0].state.circle.as_ref().unwrap().sync();
    let (_, answer) = village.nodes[0].state.on_porch(
        from,
        "/ip4/10.0.0.2/tcp/9",
        PorchRequest::RosterSync(sync),
        village.now,
        NOW,
    );
    assert!(matches!(answer, PorchResponse::Declined(_)), "{answer:?}");
    // And back in its own pool it was not made to forget anything.
    let step = others.nodes[0].state.on_tick(NOW);
    assert!(step.facts.is_empty());
}

#[test]
fn used_expired_foreign_and_guessed_invites_have_their_own_words() {
    let mut village = Village::founded(4);
    let invite = village.invite(0, None).unwrap();
    village.join(1, &invite, "ws-01").unwrap();
    let used = village.join(2, &invite, "ws-02").unwrap_err();
    assert_eq!(used.reason, Some(JoinRefusal::Used));
    let late = village.invite(0, None).unwrap();
    village.now_ms += 25 * 3_600_000;
    let expired = village.join(2, &late, "ws-02").unwrap_err();
    assert_eq!(expired.reason, Some(JoinRefusal::Expired));
    assert!(expired.words.contains("60 min ago"), "{}", expired.words);
    let foreign = Invite::new(
        village.roster(0).pool(),
        village.id(0),
        village.roster(0).settings().studios[0].id,
        InviteSecret::generate(),
        ["/ip4/1.2.3.4/tcp/1"],
    );
    for _ in 0..5 {
        let refused = village.join(2, &foreign, "ws-02").unwrap_err();
        assert_eq!(refused.reason, Some(JoinRefusal::UnknownInvite));
    }
    // Five failed tries; a good invite has to wait, from this address only.
    let good = village.invite(0, None).unwrap();
    let wait = village.join(2, &good, "ws-02").unwrap_err();
    assert!(wait.words.contains("too many failed tries"), "{}", wait.words);
    village.join(3, &good, "ws-03").unwrap();
    village.now += Duration::from_mins(10);
    let good = village.invite(0, None).unwrap();
    village.join(2, &good, "ws-02").unwrap();
    assert_eq!(village.roster(0).members(village.now_ms).count(), 4);
}

#[test]
fn an_invite_is_locked_by_a_restart_until_its_admin_returns() {
    let mut village = Village::founded(2);
    let invite = village.invite(0, None).unwrap();
    let key = village.nodes[0].state.admin.clone();
    village.restart(0, false);
    assert_eq!(pending(village.join(1, &invite, "ws-01")), JoinNeeds::Unlock);
    assert_eq!(village.invite(0, None).unwrap_err(), CannotInvite::Locked);
    village.restart(1, false);
    village.nodes[0].state.admin = key;
    village.ask_again(1);
    village.assert_agreed(2);
}

#[test]
fn a_lost_answer_costs_nothing() {
    let mut village = Village::founded(2);
    let invite = village.invite(0, None).unwrap();
    let me = village.nodes[1].state.me.clone();
    let asked = question(&me, &invite, "ws-01", None);
    let lost = village.knock(1, &asked);
    assert!(matches!(lost, JoinReply::Admitted { .. }));
    assert!(matches!(village.nodes[1].state.standing(NOW), Standing::Alone));
    village.restart(0, true);
    village.join(1, &invite, "ws-01").unwrap();
    village.assert_agreed(2);
}

#[test]
fn an_uncommitted_admission_leaves_the_invite_unused() {
    let mut village = Village::founded(3);
    let invite = village.invite(0, None).unwrap();
    // The actor keeps the copy only when its facts are durable; here they never are.
    let asked = question(&village.nodes[1].state.me.clone(), &invite, "ws-01", None);
    let mut copy = village.nodes[0].state.clone();
    let (step, _) = copy.on_porch(
        village.id(1),
        "/ip4/10.0.0.1/tcp/5",
        PorchRequest::Join(asked.request),
        village.now,
        NOW,
    );
    assert!(!step.facts.is_empty());
    drop(copy);
    village.join(2, &invite, "ws-02").unwrap();
    assert!(village.is_member(2));
    assert_eq!(village.roster(0).digest(), village.roster(2).digest());
}

#[test]
fn names_are_unique_in_a_studio_and_a_free_one_is_proposed() {
    let mut village = Village::founded(3);
    let invite = village.invite(0, None).unwrap();
    let taken = village.join(1, &invite, "ws-00").unwrap_err();
    assert_eq!(taken.reason, Some(JoinRefusal::NameTaken));
    assert!(taken.words.contains("--name ws-00-2"), "{}", taken.words);
    village.join(1, &invite, "ws-00-2").unwrap();
    assert!(matches!(village.invite(0, Some("amber")), Err(CannotInvite::StudioExists(_))));
    let invite = village.invite(0, Some("birch")).unwrap();
    village.join_with(2, &invite, "ws-00", Some(SecretKey::generate())).unwrap();
    village.assert_agreed(3);
}

#[test]
fn who_is_in_a_pool_neither_founds_nor_joins_another() {
    let mut village = Village::founded(2);
    let invite = village.invite(0, None).unwrap();
    let mut other = Village::founded(1);
    let foreign = other.invite(0, None).unwrap();
    let state = &village.nodes[0].state;
    assert_eq!(state.check_join(&invite, "x", NOW), Err(CannotJoin::OwnInvite));
    assert!(matches!(state.check_join(&foreign, "x", NOW), Err(CannotJoin::OtherPool { .. })));
    assert!(state.check_found("p", "s", "n").is_err());
    assert!(village.nodes[1].state.check_found("p", "s", "").is_err());
    assert_eq!(village.nodes[1].state.check_join(&foreign, "x", NOW), Ok(()));
}

#[test]
fn leaving_forgets_the_pool_and_a_return_needs_an_invite() {
    let mut village = Village::founded(2);
    let invite = village.invite(0, None).unwrap();
    village.join(1, &invite, "ws-01").unwrap();
    let step = village.nodes[1].state.leave().unwrap();
    village.perform(1, step);
    village.restart(1, false);
    assert_eq!(village.nodes[1].state.standing(NOW), Standing::Alone);
    assert!(village.nodes[1].state.leave().is_none());
    let invite = village.invite(0, None).unwrap();
    village.join(1, &invite, "ws-new").unwrap();
    village.assert_agreed(2);
    let names: Vec<_> = village.roster(0).members(NOW).map(|member| member.name.clone()).collect();
    assert!(names.contains(&"ws-new".to_owned()), "{names:?}");
}

#[test]
fn a_slow_clock_is_told_when_joining() {
    let mut village = Village::founded(2);
    let invite = village.invite(0, None).unwrap();
    let me = village.nodes[1].state.me.clone();
    let asked = question(&me, &invite, "ws-01", None);
    let reply = village.knock(1, &asked);
    let behind = NOW - 20 * 60_000;
    let (_, outcome) = village.nodes[1].state.on_join_reply(asked, None, reply, behind);
    let JoinOutcome::Joined(joined) = outcome.unwrap() else { panic!("pending") };
    assert!(joined.notes[0].contains("20 min behind"), "{:?}", joined.notes);
}
