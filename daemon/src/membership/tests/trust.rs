//! Scripts of keys that go: nodes and admins revoked, nodes blocked, keys exchanged.

use scenemesh_protocol::keyfile;
use scenemesh_protocol::messages::Standing as Regard;
use scenemesh_protocol::messages::StandingGet;

use super::super::admins::{AdminChange, CannotChangeAdmins};
use super::super::blocks::{Barrier, BlockTerms, CannotBlock};
use super::super::revoking::{CannotRevoke, NoSuchMember, RevokeTerms, RevokedHere, Target};
use super::super::rotating::CannotRotate;
use super::*;

fn node(name: &str) -> RevokeTerms {
    RevokeTerms { target: Target::Node(name.into()), reason: "lost laptop".into(), void: false }
}

impl Village {
    /// amber with three machines and birch with two; amber has a second admin key, on paper.
    fn of_two_studios() -> (Self, SecretKey) {
        let mut village = Self::of(5);
        let (key, paper) = (SecretKey::generate(), SecretKey::generate());
        let settings = State::genesis("aurora", "amber", key.public(), Some(paper.public()), NOW);
        let step = village.nodes[0].state.found(&settings, "ws-00", &key, NOW).unwrap();
        village.perform(0, step);
        for (at, name) in [(1, "ws-01"), (2, "ws-02")] {
            let invite = village.invite(0, None).unwrap();
            village.join(at, &invite, name).unwrap();
        }
        let invite = village.invite(0, Some("birch")).unwrap();
        village.join_with(3, &invite, "bx-00", Some(SecretKey::generate())).unwrap();
        let invite = village.invite(3, None).unwrap();
        village.join(4, &invite, "bx-01").unwrap();
        village.assert_agreed(5);
        (village, paper)
    }

    fn revoke(&mut self, at: usize, terms: &RevokeTerms) -> Result<RevokedHere, CannotRevoke> {
        let (step, revoked) = self.nodes[at].state.revoke(terms, self.now_ms)?;
        self.perform(at, step);
        Ok(revoked)
    }

    fn links(&self, at: usize) -> Vec<NodeId> {
        let view = self.nodes[at].state.roster_view(self.now_ms).unwrap();
        view.members.into_keys().collect()
    }
}

#[test]
fn a_revoked_node_is_out_everywhere_and_learns_why() {
    let (mut village, _) = Village::of_two_studios();
    let gone = village.id(2);
    let done = village.revoke(0, &node("ws-02")).unwrap();
    assert_eq!((done.node, done.studio.as_str(), done.resigned), (Some(gone), "amber", 0));
    for at in [0, 1, 3, 4] {
        assert!(!village.links(at).contains(&gone), "node {at} has a link to it");
        let barred = village.nodes[at].state.barred(NOW);
        assert_eq!(barred[&gone], "ws-02 was revoked by amber: lost laptop");
        let view = village.nodes[at].state.roster_view(NOW).unwrap();
        assert_eq!(view.parting[&gone].proof.records.len(), 1);
    }
    // The others' digests agree; it heard nothing yet, as nobody talks to it.
    let digest = village.roster(0).digest();
    assert!([1, 3, 4].iter().all(|at| village.roster(*at).digest() == digest));
    assert!(village.is_member(2));
    // At any porch it is shown the proof, and told.
    let card = PorchRequest::Roster(village.nodes[2].state.card().unwrap());
    let (_, answer) = village.nodes[4].state.on_porch(gone, "/ip4/10.0.0.2/tcp/5", card, village.now, NOW);
    let PorchResponse::Roster(proof) = answer else { panic!("{answer:?}") };
    let asked = PorchRequest::Standing(StandingGet { key: village.nodes[2].state.me.node.public() });
    let (_, answer) = village.nodes[4].state.on_porch(gone, "/ip4/10.0.0.2/tcp/5", asked, village.now, NOW);
    let PorchResponse::Standing(Regard::Revoked { reason, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(reason, "lost laptop");
    let mut step = Step::default();
    let from = village.id(4);
    village.nodes[2].state.on_news(from, proof, NOW, &mut step);
    village.perform(2, step);
    let Standing::Outside { why, .. } = village.nodes[2].state.standing(NOW) else { panic!("not outside") };
    assert_eq!(why, "this node was revoked by amber: lost laptop");
    assert!(village.links(2).is_empty(), "it dials nobody any more");
    let barred = village.nodes[2].state.barred(NOW);
    assert!([0, 1, 2, 3, 4].iter().all(|at| barred[&village.id(*at)] == why));
    for at in 0..5 {
        village.restart(at, at == 0);
    }
    assert!(!village.is_member(2));
    // Its key is of no use for another invite.
    let invite = village.invite(0, None).unwrap();
    let refused = village.join(2, &invite, "ws-02").unwrap_err();
    assert!(matches!(refused.reason, Some(JoinRefusal::RevokedKey)), "{refused}");
}

#[test]
fn what_cannot_be_revoked_is_said_before_a_passphrase_is_asked_for() {
    let (mut village, _) = Village::of_two_studios();
    village.revoke(0, &node("ws-02")).unwrap();
    let key = village.nodes[0].state.admin.take().unwrap();
    let mut why = |terms: &RevokeTerms| village.nodes[0].state.revoke(terms, NOW).unwrap_err();
    assert_eq!(why(&node("ws-01")), CannotRevoke::Locked);
    assert_eq!(why(&node("ws-00")), CannotRevoke::ThisNode);
    let foreign = why(&node("bx-01"));
    assert!(matches!(&foreign, CannotRevoke::OtherStudio { studio, .. } if studio == "birch"));
    assert!(foreign.to_string().ends_with("scenemesh block bx-01"), "{foreign}");
    assert!(matches!(why(&node("ws-02")), CannotRevoke::Already { .. }));
    assert!(matches!(why(&node("ws-09")), CannotRevoke::NoSuch(NoSuchMember::None { .. })));
    let long = RevokeTerms { reason: "x".repeat(257), ..node("ws-01") };
    assert_eq!(why(&long), CannotRevoke::BadReason);
    let admin = |of: &SecretKey| Target::Admin(of.public().to_string());
    let no_such = RevokeTerms { target: admin(&SecretKey::generate()), ..node("") };
    assert!(matches!(why(&no_such), CannotRevoke::NoSuchAdmin { .. }));
    village.nodes[0].state.admin = Some(key.clone());
    let own = RevokeTerms { target: admin(&key), ..node("") };
    assert_eq!(village.nodes[0].state.revoke(&own, NOW).unwrap_err(), CannotRevoke::ItsOwnSigner);
    // birch has one key only.
    let only = village.nodes[3].state.admin.clone().unwrap();
    let only = RevokeTerms { target: admin(&only), ..node("") };
    let refused = village.nodes[3].state.revoke(&only, NOW).unwrap_err();
    assert!(matches!(refused, CannotRevoke::OnlyAdmin { .. }), "{refused}");
}

#[test]
fn a_stolen_admin_key_is_revoked_by_the_one_on_paper() {
    let (mut village, paper) = Village::of_two_studios();
    let stolen = village.nodes[0].state.admin.clone().unwrap();
    // A code brings the paper key onto another machine.
    let typed = keyfile::from_recovery_code(&keyfile::recovery_code(&paper)).unwrap();
    assert!(village.nodes[1].state.is_own_admin(&typed.public()));
    village.nodes[1].state.admin = Some(typed);
    let terms = RevokeTerms {
        target: Target::Admin(stolen.public().to_string()[..12].into()),
        reason: "stolen".into(),
        void: false,
    };
    let done = village.revoke(1, &terms).unwrap();
    assert_eq!((done.resigned, done.fallen.len(), done.node), (3, 0, None));
    village.assert_agreed(5);
    // What the thief signs from now on counts nowhere, and this node's own copy is of no use either.
    assert!(village.nodes[0].state.admin_of().is_none());
    assert_eq!(village.invite(0, None).unwrap_err(), CannotInvite::Locked);
    let last = RevokeTerms { target: Target::Admin(paper.public().to_string()), ..terms };
    assert!(matches!(village.revoke(1, &last).unwrap_err(), CannotRevoke::OnlyAdmin { .. }));
}

#[test]
fn with_void_everything_falls_that_the_key_signed() {
    let (mut village, paper) = Village::of_two_studios();
    let stolen = village.nodes[0].state.admin.take().unwrap();
    village.nodes[1].state.admin = Some(paper);
    let target = Target::Admin(stolen.public().to_string());
    let terms = RevokeTerms { target, reason: "stolen".into(), void: true };
    let mut done = village.revoke(1, &terms).unwrap();
    done.fallen.sort();
    assert_eq!(done.fallen, ["ws-00", "ws-01", "ws-02"]);
    assert_eq!(village.roster(3).members(NOW).count(), 2, "birch stays");
}

#[test]
fn a_block_is_of_ones_own_studio_and_ends() {
    let (mut village, _) = Village::of_two_studios();
    let (guest, until) = (village.id(4), NOW + 72 * 3_600_000);
    let terms = BlockTerms { node: "bx-01".into(), reason: "odd results".into(), lift: false };
    // No admin key is needed.
    let (step, blocked) = village.nodes[1].state.block(&terms, NOW).unwrap();
    assert_eq!((blocked.node, blocked.until_ms), (guest, Some(until)));
    village.perform(1, step);
    for at in [0, 1, 2] {
        assert!(!village.links(at).contains(&guest), "node {at}");
        let shut = village.nodes[at].state.shut_out(NOW);
        assert_eq!(shut[&guest].barrier, Barrier::Blocked { until_ms: until });
        assert_eq!(shut[&guest].words, "bx-01 is blocked by amber: odd results");
        let parting = village.nodes[at].state.roster_view(NOW).unwrap().parting[&guest].clone();
        assert!(parting.proof.is_empty() && !parting.words.contains("odd"), "it is not told why");
        village.restart(at, at == 0);
        assert!(village.nodes[at].state.barred(NOW).contains_key(&guest));
        assert!(village.nodes[at].state.barred(until).is_empty(), "it ends by itself");
    }
    assert!(village.links(3).contains(&guest), "another studio does not care");
    assert!(village.roster(0).member(&guest, NOW).is_some(), "it is a member all the same");
    let lift = BlockTerms { lift: true, reason: String::new(), ..terms.clone() };
    let (step, lifted) = village.nodes[2].state.block(&lift, NOW).unwrap();
    assert_eq!(lifted.until_ms, None);
    village.perform(2, step);
    assert!((0..3).all(|at| village.links(at).contains(&guest)));
    assert!(matches!(village.nodes[0].state.block(&lift, NOW), Err(CannotBlock::NotBlocked(_))));
    let own = BlockTerms { node: "ws-00".into(), ..terms };
    assert_eq!(village.nodes[0].state.block(&own, NOW).unwrap_err(), CannotBlock::ThisNode);
}

#[test]
fn a_node_goes_on_under_a_new_key_with_an_admins_word() {
    let (mut village, _) = Village::of_two_studios();
    let (old, new, kem) = (village.id(2), SecretKey::generate(), KemSecret::generate().public());
    let request = village.nodes[2].state.ask_rotation(&new, kem, NOW).unwrap();
    // Others' admins and nodes without a key have no say.
    let refused = village.nodes[3].state.countersign(&request, NOW).unwrap_err();
    assert_eq!(refused, CannotRotate::OtherStudio);
    assert_eq!(village.nodes[1].state.countersign(&request, NOW).unwrap_err(), CannotRotate::Locked);
    let (step, done) = village.nodes[0].state.countersign(&request, NOW).unwrap();
    assert_eq!((done.name.as_str(), done.old, done.new), ("ws-02", old, new.public().node()));
    village.perform(0, step);
    for at in [0, 1, 3, 4] {
        let roster = village.roster(at);
        assert!(roster.member(&old, NOW).is_none());
        assert_eq!(roster.member(&done.new, NOW).unwrap().name, "ws-02");
        let view = village.nodes[at].state.roster_view(NOW).unwrap();
        assert!(!view.members.contains_key(&old) && view.members.contains_key(&done.new));
        // The old key is told what makes it the new one.
        let proof = view.parting[&old].proof.clone();
        let mut asleep = village.nodes[2].state.clone();
        asleep.on_news(village.id(at), proof, NOW, &mut Step::default());
        assert_eq!(asleep.own_successor(), Some(new.public()));
    }
    // The same code again says the same; another key for the old one is too late.
    assert!(village.nodes[0].state.countersign(&request, NOW).is_ok());
    let late = village.nodes[2].state.ask_rotation(&SecretKey::generate(), kem, NOW).unwrap();
    let refused = village.nodes[0].state.countersign(&late, NOW).unwrap_err();
    assert!(matches!(refused, CannotRotate::NotMemberThere { .. }), "{refused}");
}

#[test]
fn admin_keys_are_added_and_taken_off_by_those_that_are_there() {
    let mut village = Village::founded(2);
    let invite = village.invite(0, None).unwrap();
    village.join(1, &invite, "ws-01").unwrap();
    let first = village.nodes[0].state.admin.clone().unwrap();
    let second = SecretKey::generate();
    let remove = |key: &SecretKey| AdminChange::Remove(key.public().to_string());
    let only = village.nodes[0].state.change_admins(&remove(&first), NOW).unwrap_err();
    assert!(matches!(only, CannotChangeAdmins::OnlyAdmin { .. }), "{only}");
    // A pool of one signs alone.
    let add = AdminChange::Add(second.public());
    let (step, changed) = village.nodes[0].state.change_admins(&add, NOW).unwrap();
    assert!(changed.decided && changed.proposal.change.starts_with("adds the admin key "), "{changed:?}");
    village.perform(0, step);
    let known = village.nodes[0].state.change_admins(&add, NOW).unwrap_err();
    assert!(matches!(known, CannotChangeAdmins::Known { .. }), "{known}");
    // The second one, on the other machine, takes the first off: what it had signed is signed again.
    village.nodes[1].state.admin = Some(second);
    let (step, changed) = village.nodes[1].state.change_admins(&remove(&first), NOW).unwrap();
    assert_eq!((changed.decided, changed.resigned), (true, 2));
    village.perform(1, step);
    village.assert_agreed(2);
    assert!(village.nodes[0].state.admin_of().is_none());
    assert_eq!(village.nodes[0].state.own_admins().len(), 1);
    for at in 0..2 {
        village.restart(at, at == 1);
    }
    village.assert_agreed(2);
}

#[test]
fn in_a_pool_of_several_an_admin_key_needs_the_others_word() {
    let (mut village, _) = Village::of_two_studios();
    let add = AdminChange::Add(SecretKey::generate().public());
    let (step, changed) = village.nodes[0].state.change_admins(&add, NOW).unwrap();
    assert!(!changed.decided);
    village.perform(0, step);
    let id = changed.proposal.id.to_string();
    assert_eq!(village.approve(3, &id), Ok(true));
    village.assert_agreed(5);
    assert_eq!(village.nodes[2].state.own_admins().len(), 3);
}

#[test]
fn nobody_gets_into_a_solo_pool() {
    let mut village = Village::founded(2);
    village.nodes[0].state.solo = true;
    village.nodes[0].journal.push(Fact::Solo);
    village.restart(0, true);
    assert_eq!(village.invite(0, None).unwrap_err(), CannotInvite::Solo);
    let other = Village::founded(1).invite(0, None).unwrap();
    let refused = village.nodes[0].state.check_join(&other, "ws-00", NOW).unwrap_err();
    assert_eq!(refused, CannotJoin::Solo("aurora".into()));
    let step = village.nodes[0].state.leave().unwrap();
    village.perform(0, step);
    village.restart(0, false);
    assert!(!village.nodes[0].state.solo);
}
