//! What others say that does not hold.

use scenemesh_protocol::messages::RosterDiff;
use scenemesh_protocol::roster::SignedSettings;

use super::*;

#[test]
fn an_answer_of_another_pool_is_not_taken() {
    let mut village = Village::founded(2);
    let mut other = Village::founded(1);
    let invite = village.invite(0, None).unwrap();
    let everything = other.nodes[0].state.card().unwrap();
    let asked = question(&village.nodes[1].state.me.clone(), &invite, "ws-01", None);
    let (settings, records) = (everything.settings, everything.records);
    let reply = JoinReply::Admitted { settings, records, addresses: Vec::new() };
    let (step, outcome) = village.nodes[1].state.on_join_reply(asked, None, reply, NOW);
    let refused = outcome.unwrap_err();
    assert!(refused.words.contains("the invite is for"), "{}", refused.words);
    village.perform(1, step);
    village.restart(1, false);
    assert_eq!(village.nodes[1].state.standing(NOW), Standing::Alone);
    drop(other.nodes.remove(0));
}

#[test]
fn nobody_else_brings_a_studio_in() {
    // A foreign admin proposes itself: without a vote the proposal is not even kept.
    let mut village = two_studios(2);
    let thief = SecretKey::generate();
    let mut settings = village.roster(0).settings().next(NOW);
    settings.studios.push(Studio::found("thief", thief.public()));
    let forged = SignedSettings::new(&settings, &thief);
    let diff = RosterDiff { proposals: vec![forged], ..Default::default() };
    let from = village.id(1);
    let (step, _) = village.nodes[0].state.on_request(from, diff.into(), NOW);
    assert!(step.facts.is_empty() && step.news.is_empty());
    assert_eq!(village.nodes[0].state.circle.as_ref().unwrap().proposals().count(), 0);
}
