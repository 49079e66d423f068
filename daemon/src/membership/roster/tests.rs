use scenemesh_protocol::keys::KemSecret;
use scenemesh_protocol::roster::{Consent, Member, Revoked, Roles};
use scenemesh_protocol::signed::Signed;

use super::*;
use crate::membership::rights::{NotAllowed, Role, may};

const NOW: u64 = 1_800_000_000_000;

/// amber alone, and its admin.
fn circle() -> (Circle, SecretKey) {
    let admin = SecretKey::generate();
    let genesis = Settings::genesis("aurora", Studio::found("amber", admin.public()), NOW);
    (Circle::new(SettingsChain::found(&genesis, &admin).unwrap()), admin)
}

fn member(
    circle: &Circle,
    name: &str,
    admin: &SecretKey,
    change: impl FnOnce(&mut Member),
) -> (NodeId, SignedRecord) {
    let node = SecretKey::generate();
    let kem = KemSecret::generate().public();
    let (pool, studio) = (circle.roster().pool(), circle.roster().settings().studios[0].id);
    let mut member = Member {
        pool,
        studio,
        consent: Consent { pool, studio, kem }.sign(&node),
        node: node.public(),
        kem,
        name: name.into(),
        roles: Roles::ALL,
        version: 1,
        issued_ms: NOW,
        not_after_ms: None,
    };
    change(&mut member);
    (node.public().node(), SignedRecord::Member(Signed::new(&member, admin)))
}

fn agreement(name: &str, admin: &SecretKey) -> Agreement {
    Agreement { studio: Studio::found(name, admin.public()), created_ms: NOW, agreed_ms: NOW }
}

/// amber and birch, as both of their nodes know it.
fn two() -> (Circle, SecretKey, SecretKey) {
    let (mut circle, amber) = circle();
    let birch = SecretKey::generate();
    circle.agree(agreement("birch", &birch));
    circle.pursue(&amber, NOW);
    assert_eq!(circle.roster().settings().studios.len(), 2);
    (circle, amber, birch)
}

#[test]
fn rights_end_with_role_time_and_revocation() {
    let (mut circle, admin) = circle();
    let (idle, record) = member(&circle, "box", &admin, |member| {
        member.roles = Roles { submit: true, render: false, keep: false };
        member.not_after_ms = Some(NOW + 10);
    });
    circle.publish(&record);
    let roster = circle.roster().clone();
    assert!(may(&roster, &idle, Role::Submit, NOW).is_ok());
    let no_role = may(&roster, &idle, Role::Render, NOW).unwrap_err();
    assert_eq!(no_role.to_string(), "box has no render role");
    assert_eq!(may(&roster, &idle, Role::Submit, NOW + 11), Err(NotAllowed::NoMember(idle)));
    let gone = Revoked {
        pool: roster.pool(),
        studio: roster.settings().studios[0].id,
        key: idle.into(),
        reason: "lost laptop".into(),
        issued_ms: NOW,
    };
    circle.publish(&SignedRecord::Revoked(Signed::new(&gone, &admin)));
    let revoked = may(circle.roster(), &idle, Role::Submit, NOW).unwrap_err();
    assert!(revoked.to_string().ends_with("was revoked: lost laptop"), "{revoked}");
}

#[test]
fn who_has_everything_lacks_nothing() {
    let (mut mine, admin) = circle();
    let (_, record) = member(&mine, "ws-00", &admin, |_| ());
    let mut theirs = mine.clone();
    mine.publish(&record);
    assert!(theirs.lacks(&mine.sync()) && !mine.lacks(&theirs.sync()));
    assert!(theirs.lacking(&mine.sync()).is_empty());
    let diff = mine.lacking(&theirs.sync());
    let learnt = theirs.learn(diff.clone(), NOW);
    assert_eq!(learnt.news.records, diff.records);
    assert_eq!(mine.roster().digest(), theirs.roster().digest());
    assert!(mine.lacking(&theirs.sync()).is_empty());
    let again = theirs.learn(diff, NOW);
    assert!(again.changes.is_empty() && again.news.is_empty(), "old news is not passed on");
}

#[test]
fn a_diff_is_cut_at_its_limit_and_the_rest_comes_next() {
    let (mut mine, admin) = circle();
    let mut sync = mine.sync();
    // More than a pool may have: their bytes are to add up to more than one answer holds.
    let count = 2700;
    for at in 0..count {
        let (_, record) = member(&mine, &format!("{at:064}"), &admin, |_| ());
        assert!(mine.add_record(&record));
    }
    let first = mine.lacking(&sync);
    let bytes: usize = first.records.iter().map(|record| codec::encode_body(record).len()).sum();
    assert!(bytes <= DIFF_BYTES && first.records.len() < count, "{bytes} bytes");
    sync.records = first.records.iter().map(SignedRecord::hash).collect();
    let second = mine.lacking(&sync);
    assert_eq!(first.records.len() + second.records.len(), count);
}

#[test]
fn signatures_made_apart_meet_under_one_body() {
    let (mut at_amber, amber, birch) = two();
    let mut at_birch = at_amber.clone();
    let cedar = SecretKey::generate();
    at_amber.agree(agreement("cedar", &cedar));
    at_birch.agree(agreement("cedar", &cedar));
    let mine = at_amber.pursue(&amber, NOW);
    let theirs = at_birch.pursue(&birch, NOW + 5);
    assert_eq!(mine.news.proposals[0].hash(), theirs.news.proposals[0].hash());
    at_amber.learn(theirs.news, NOW);
    at_birch.learn(mine.news, NOW);
    assert_eq!(at_amber.roster().settings().studios.len(), 3);
    assert_eq!(at_amber.roster().digest(), at_birch.roster().digest());
}

#[test]
fn an_admin_signs_only_what_it_agreed_to() {
    let (mut at_amber, amber, birch) = two();
    let mut at_birch = at_amber.clone();
    let cedar = SecretKey::generate();
    at_amber.agree(agreement("cedar", &cedar));
    // Birch proposes cedar too, but slips in a heavier weight and a second admin.
    let mut settings = at_birch.roster().settings().next(NOW);
    let mut studio = Studio::found("cedar", cedar.public());
    studio.weight = 9;
    studio.admins.push(SecretKey::generate().public());
    settings.studios.push(studio);
    let sly = SignedSettings::new(&settings, &birch);
    at_amber.learn(RosterDiff { proposals: vec![sly.clone()], ..RosterDiff::default() }, NOW);
    at_amber.pursue(&amber, NOW);
    let signers = |hash| {
        let proposal = at_amber.proposals().find(|proposal| proposal.signed.hash() == hash).unwrap();
        at_amber.signers(proposal).len()
    };
    assert_eq!(signers(sly.hash()), 1);
    assert_eq!(at_amber.proposals().count(), 2);
    assert_eq!(at_amber.roster().settings().studios.len(), 2);
    at_birch.lapse(NOW);
}

#[test]
fn junk_signatures_are_left_behind_and_proposals_are_bounded() {
    let (mut at_amber, _, birch) = two();
    let stranger = SecretKey::generate();
    for at in 0..PROPOSAL_LIMIT + 5 {
        let mut settings = at_amber.roster().settings().next(NOW + at as u64);
        settings.studios.push(Studio::found("cedar", SecretKey::generate().public()));
        let mut signed = SignedSettings::new(&settings, &birch);
        signed.sign(&stranger);
        at_amber.learn(RosterDiff { proposals: vec![signed], ..RosterDiff::default() }, NOW);
    }
    assert_eq!(at_amber.proposals().count(), PROPOSALS_PER_STUDIO);
    assert!(at_amber.proposals().all(|proposal| proposal.signed.signatures.len() == 1));
    at_amber.lapse(NOW + LAPSE_MS + 100);
    assert_eq!(at_amber.proposals().count(), 0);
}

#[test]
fn news_that_leaves_a_gap_asks_for_what_lies_between() {
    let (mut ahead, amber, birch) = two();
    let behind_chain: Vec<_> = ahead.roster().chain().links().take(1).cloned().collect();
    let mut behind = Circle::new(SettingsChain::verify(behind_chain).unwrap());
    let cedar = SecretKey::generate();
    ahead.agree(agreement("cedar", &cedar));
    ahead.pursue(&amber, NOW);
    let news = ahead.pursue(&birch, NOW).news;
    assert_eq!(news.settings.len(), 1);
    let learnt = behind.learn(news, NOW);
    assert!(learnt.gap && learnt.changes.is_empty());
    behind.learn(ahead.lacking(&behind.sync()), NOW);
    assert_eq!(behind.roster().digest(), ahead.roster().digest());
}

#[test]
fn a_date_in_the_future_is_told() {
    let (mut circle, admin) = circle();
    let (_, record) = member(&circle, "ws-07", &admin, |member| member.issued_ms = NOW + 20 * 60_000);
    let learnt = circle.learn(RosterDiff { records: vec![record], ..RosterDiff::default() }, NOW);
    assert!(learnt.warnings[0].contains("ws-07 was admitted 20 min in the future"), "{:?}", learnt.warnings);
}

#[test]
fn an_admin_that_signs_without_end_does_not_fill_the_journal_and_shuts_nobody_out() {
    let (mut at_amber, amber, birch) = two();
    let birch_id = at_amber.roster().settings().studios[1].id;
    let node = SecretKey::generate();
    let kem = KemSecret::generate().public();
    let pool = at_amber.roster().pool();
    let version = |version: u32| {
        let member = Member {
            pool,
            studio: birch_id,
            consent: Consent { pool, studio: birch_id, kem }.sign(&node),
            node: node.public(),
            kem,
            name: "x".repeat(60),
            roles: Roles::ALL,
            version,
            issued_ms: NOW,
            not_after_ms: None,
        };
        SignedRecord::Member(Signed::new(&member, &birch))
    };
    let (mut written, mut warned) = (0, false);
    // Each replaces the one before: the roster does not grow, but the journal would.
    for n in 1..20_000 {
        let learnt = at_amber.learn(RosterDiff { records: vec![version(n)], ..RosterDiff::default() }, NOW);
        written += learnt.changes.iter().map(|change| codec::encode_body(change).len()).sum::<usize>();
        warned |= learnt.warnings.iter().any(|words| words.contains("birch"));
        if warned {
            break;
        }
    }
    assert!(warned && written < 5 << 20, "{written} bytes were written");
    // Another studio's record and the revocation of that node are taken all the same.
    let (id, record) = member(&at_amber, "ws-01", &amber, |_| {});
    at_amber.learn(RosterDiff { records: vec![record], ..RosterDiff::default() }, NOW);
    assert!(at_amber.roster().member(&id, NOW).is_some());
    let gone = Revoked { pool, studio: birch_id, key: node.public(), reason: "flood".into(), issued_ms: NOW };
    let gone = SignedRecord::Revoked(Signed::new(&gone, &birch));
    at_amber.learn(RosterDiff { records: vec![gone], ..RosterDiff::default() }, NOW);
    assert!(at_amber.roster().revocation(&node.public()).is_some());
}
