use super::*;
use crate::keys::{KemSecret, SecretKey};
use crate::signed::Signed;

struct World {
    amber: SecretKey,
    birch: SecretKey,
    chain: SettingsChain,
}

/// A pool of amber and birch at epoch 1.
fn two_studios() -> World {
    let (amber, birch) = (SecretKey::generate(), SecretKey::generate());
    let genesis = Settings::genesis("aurora", Studio::found("amber", amber.public()), 1);
    let mut chain = SettingsChain::found(&genesis, &amber).unwrap();
    chain.append(SignedSettings::new(&with(&chain, "birch", birch.public()), &amber)).unwrap();
    World { amber, birch, chain }
}

fn with(chain: &SettingsChain, name: &str, admin: PublicKey) -> Settings {
    let mut next = chain.current().next(2);
    next.studios.push(Studio::found(name, admin));
    next
}

fn member(world: &World, studio: &str, version: u32, name: &str, node: &SecretKey) -> Member {
    let studio = world.chain.current().studios.iter().find(|s| s.name == studio).unwrap().id;
    let kem = KemSecret::from_bytes(&[5; 32]).public();
    Member {
        consent: Consent { pool: world.chain.pool(), studio, kem }.sign(node),
        pool: world.chain.pool(),
        studio,
        node: node.public(),
        kem,
        name: name.into(),
        roles: Roles::ALL,
        version,
        issued_ms: 3,
        not_after_ms: None,
    }
}

fn signed(member: &Member, key: &SecretKey) -> SignedRecord {
    SignedRecord::Member(Signed::new(member, key))
}

#[test]
fn a_change_needs_more_than_half_of_the_studios_before_it() {
    let mut world = two_studios();
    let cedar = SecretKey::generate();
    let mut change = SignedSettings::new(&with(&world.chain, "cedar", cedar.public()), &world.amber);
    assert_eq!(world.chain.append(change.clone()), Err(BadSettings::NoQuorum { have: 1, need: 2 }));
    change.sign(&cedar);
    assert_eq!(
        world.chain.append(change.clone()),
        Err(BadSettings::NoQuorum { have: 1, need: 2 }),
        "no self-admission"
    );
    change.sign(&world.birch);
    assert_eq!(world.chain.append(change), Ok(()));
    assert_eq!(world.chain.current().studios.len(), 3);
}

#[test]
fn a_forged_or_unchained_epoch_is_refused() {
    let world = two_studios();
    let mut links: Vec<_> = world.chain.links().cloned().collect();
    links.remove(0);
    assert!(matches!(SettingsChain::verify(links), Err(BadSettings::Broken(_))));
    let mut links: Vec<_> = world.chain.links().cloned().collect();
    links[1].signatures[0].signature = links[0].signatures[0].signature;
    assert!(matches!(SettingsChain::verify(links), Err(BadSettings::Forged(_))));
}

#[test]
fn on_a_fork_both_sides_choose_the_same_branch() {
    let world = two_studios();
    let grow = |name: &str| {
        let mut chain = world.chain.clone();
        let mut change =
            SignedSettings::new(&with(&chain, name, SecretKey::generate().public()), &world.amber);
        change.sign(&world.birch);
        chain.append(change).unwrap();
        chain
    };
    let (cedar, dogwood) = (grow("cedar"), grow("dogwood"));
    let none = BTreeSet::new();
    let (mut a, mut b) = (cedar.clone(), dogwood.clone());
    let at = a.merge(dogwood.after(1, &world.chain.head()), &none).unwrap();
    let bt = b.merge(cedar.links().cloned().collect(), &none).unwrap();
    assert_eq!(a.head(), b.head());
    assert!(matches!(
        (at, bt),
        (ChainMerge::ForkLost { at_epoch: 2 }, ChainMerge::ForkWon { at_epoch: 2 })
            | (ChainMerge::ForkWon { at_epoch: 2 }, ChainMerge::ForkLost { at_epoch: 2 })
    ));
    // The longer branch wins whatever its hash.
    let mut longer = b.clone();
    let mut next = SignedSettings::new(&longer.current().next(9), &world.amber);
    next.sign(&world.birch);
    let third = grow("elm");
    longer.append(next).unwrap();
    let mut c = third;
    assert_eq!(c.merge(longer.links().cloned().collect(), &none), Ok(ChainMerge::ForkLost { at_epoch: 2 }));
    assert_eq!(c.head(), longer.head());
}

#[test]
fn what_another_lacks_continues_its_chain() {
    let world = two_studios();
    let mut old = SettingsChain::verify(world.chain.links().take(1).cloned().collect()).unwrap();
    let missing = world.chain.after(0, &old.head());
    assert_eq!(missing.len(), 1);
    assert_eq!(old.merge(missing, &BTreeSet::new()), Ok(ChainMerge::Extended));
    assert_eq!(old.merge(world.chain.links().cloned().collect(), &BTreeSet::new()), Ok(ChainMerge::Same));
}

#[test]
fn only_a_studios_own_admin_admits_its_nodes() {
    let world = two_studios();
    let mut roster = Roster::new(world.chain.clone());
    let node = SecretKey::generate();
    let record = member(&world, "amber", 1, "ws-01", &node);
    assert_eq!(roster.add(&signed(&record, &world.birch)), Err(RefusedRecord::NotItsAdmin));
    assert_eq!(roster.add(&signed(&record, &world.amber)), Ok(Added::New));
    assert_eq!(roster.add(&signed(&record, &world.amber)), Ok(Added::Known));
    assert_eq!(roster.member(&node.public().node(), 0).unwrap().name, "ws-01");
    // Another studio cannot take the node over: it did not choose it.
    let grab = Member { consent: record.consent, ..member(&world, "birch", 9, "mine", &node) };
    assert!(matches!(roster.add(&signed(&grab, &world.birch)), Err(RefusedRecord::NoConsent(_))));
    assert_eq!(roster.member(&node.public().node(), 0).unwrap().name, "ws-01");
}

#[test]
fn a_studio_cannot_revoke_anothers_node_in_any_order() {
    let world = two_studios();
    let node = SecretKey::generate();
    let record = signed(&member(&world, "amber", 1, "ws-01", &node), &world.amber);
    let birch = world.chain.current().studios[1].id;
    let gone = Revoked {
        pool: world.chain.pool(),
        studio: birch,
        key: node.public(),
        reason: "mine".into(),
        issued_ms: 4,
    };
    let gone = SignedRecord::Revoked(Signed::new(&gone, &world.birch));
    for order in [[&record, &gone], [&gone, &record]] {
        let mut roster = Roster::new(world.chain.clone());
        for record in order {
            roster.add(record).unwrap();
        }
        assert!(roster.member(&node.public().node(), 0).is_some());
        assert!(roster.revoked_keys().is_empty());
    }
}

#[test]
fn two_studios_that_a_node_chose_agree_on_one_in_any_order() {
    let world = two_studios();
    let node = SecretKey::generate();
    let first = signed(&member(&world, "amber", 1, "ws-01", &node), &world.amber);
    let moved = signed(&member(&world, "birch", 2, "ws-01", &node), &world.birch);
    let digest = |order: [&SignedRecord; 2]| {
        let mut roster = Roster::new(world.chain.clone());
        for record in order {
            roster.add(record).unwrap();
        }
        roster.digest()
    };
    assert_eq!(digest([&first, &moved]), digest([&moved, &first]));
}

#[test]
fn records_merge_alike_in_any_order_and_a_revocation_stays() {
    let world = two_studios();
    let node = SecretKey::generate();
    let gone = Revoked {
        pool: world.chain.pool(),
        studio: world.chain.current().studios[0].id,
        key: node.public(),
        reason: "lost laptop".into(),
        issued_ms: 4,
    };
    let records = [
        signed(&member(&world, "amber", 1, "old", &node), &world.amber),
        signed(&member(&world, "amber", 2, "new", &node), &world.amber),
        signed(&member(&world, "amber", 2, "other", &node), &world.amber),
        SignedRecord::Revoked(Signed::new(&gone, &world.amber)),
    ];
    let mut forward = Roster::new(world.chain.clone());
    let mut backward = Roster::new(world.chain.clone());
    for record in &records {
        forward.add(record).unwrap();
    }
    for record in records.iter().rev() {
        backward.add(record).unwrap();
    }
    assert_eq!(forward.digest(), backward.digest());
    assert_eq!(forward.member(&node.public().node(), 0), None);
    assert_eq!(forward.revocation(&node.public()).unwrap().reason, "lost laptop");
}

#[test]
fn a_rotation_needs_both_keys_and_an_admin_of_the_studio() {
    let world = two_studios();
    let (old, new, kem) = (SecretKey::generate(), SecretKey::generate(), KemSecret::generate());
    let rotation = Rotation {
        pool: world.chain.pool(),
        studio: world.chain.current().studios[0].id,
        old: old.public(),
        new: new.public(),
        kem: kem.public(),
        issued_ms: 4,
    };
    let rotated = |old_key: &SecretKey, new_key: &SecretKey, admin: &SecretKey| {
        let (old_signature, new_signature) = (rotation.sign(old_key), rotation.sign(new_key));
        SignedRecord::Rotated(Signed::new(&Rotated { rotation, old_signature, new_signature }, admin))
    };
    let member = signed(&member(&world, "amber", 1, "ws-01", &old), &world.amber);
    let mut roster = Roster::new(world.chain.clone());
    roster.add(&member).unwrap();
    for (record, why) in [
        (rotated(&new, &new, &world.amber), "the old key did not sign"),
        (rotated(&old, &old, &world.amber), "the new key did not sign"),
        (rotated(&old, &new, &world.birch), "an admin of another studio"),
    ] {
        assert!(roster.add(&record).is_err(), "{why}");
    }
    assert!(roster.member(&old.public().node(), 0).is_some());
    let sound = rotated(&old, &new, &world.amber);
    for order in [[&member, &sound], [&sound, &member]] {
        let mut roster = Roster::new(world.chain.clone());
        for record in order {
            roster.add(record).unwrap();
        }
        assert_eq!(roster.member(&old.public().node(), 0), None);
        assert!(roster.revoked_keys().contains(&old.public()));
        assert_eq!(roster.successor(&old.public()), Some(new.public()));
        assert_eq!(roster.records().count(), 2);
    }
}

#[test]
fn a_key_that_signs_twice_is_no_signature_at_all() {
    let world = two_studios();
    let mut next = SignedSettings::new(&world.chain.current().next(9), &world.amber);
    next.sign(&world.birch);
    let twice = next.signatures[0].clone();
    next.signatures.push(twice);
    let mut chain = world.chain.clone();
    assert_eq!(chain.merge(vec![next], &BTreeSet::new()), Err(BadSettings::Form("a key signs twice")));
}

#[test]
fn a_chain_of_another_pool_is_refused_before_its_signatures() {
    let (mut world, other) = (two_studios(), two_studios());
    let mut links: Vec<_> = other.chain.links().cloned().collect();
    // Not even looked at.
    links[1].signatures.clear();
    let refused = world.chain.merge(links, &BTreeSet::new());
    assert_eq!(refused, Err(BadSettings::Broken("it is of another pool")));
}

/// A studio with three admin keys, and what they say about each other and about a node.
struct Admins {
    keys: [SecretKey; 3],
    chain: SettingsChain,
    node: SecretKey,
}

impl Admins {
    fn new() -> Self {
        let keys = [SecretKey::generate(), SecretKey::generate(), SecretKey::generate()];
        let mut studio = Studio::found("amber", keys[0].public());
        studio.admins.extend([keys[1].public(), keys[2].public()]);
        let chain = SettingsChain::found(&Settings::genesis("aurora", studio, 1), &keys[0]).unwrap();
        Self { keys, chain, node: SecretKey::generate() }
    }

    fn member(&self, by: usize, version: u32) -> SignedRecord {
        let (pool, studio) = (self.chain.pool(), self.chain.current().studios[0].id);
        let kem = KemSecret::from_bytes(&[5; 32]).public();
        let member = Member {
            consent: Consent { pool, studio, kem }.sign(&self.node),
            pool,
            studio,
            node: self.node.public(),
            kem,
            name: "ws-01".into(),
            roles: Roles::ALL,
            version,
            issued_ms: 3,
            not_after_ms: None,
        };
        signed(&member, &self.keys[by])
    }

    fn revoked(&self, by: usize, key: PublicKey) -> SignedRecord {
        let (pool, studio) = (self.chain.pool(), self.chain.current().studios[0].id);
        let gone = Revoked { pool, studio, key, reason: "stolen".into(), issued_ms: 4 };
        SignedRecord::Revoked(Signed::new(&gone, &self.keys[by]))
    }

    /// The roster after these records in every order that matters; what is refused is known to be void.
    fn told(&self, records: &[SignedRecord]) -> Roster {
        let tell = |records: Vec<&SignedRecord>| {
            let mut roster = Roster::new(self.chain.clone());
            records.iter().for_each(|record| drop(roster.add(record)));
            roster
        };
        let (forward, backward) = (tell(records.iter().collect()), tell(records.iter().rev().collect()));
        assert_eq!(forward.digest(), backward.digest(), "order does not matter");
        assert_eq!(forward.revoked_keys(), backward.revoked_keys());
        forward
    }

    fn is_member(&self, roster: &Roster) -> bool {
        roster.member(&self.node.public().node(), 0).is_some()
    }
}

#[test]
fn what_a_revoked_admin_signed_falls_unless_another_signs_it_again() {
    let admins = Admins::new();
    let thief = admins.keys[0].public();
    let (by_thief, gone) = (admins.member(0, 1), admins.revoked(1, thief));
    let roster = admins.told(&[by_thief.clone(), gone.clone()]);
    assert!(!admins.is_member(&roster));
    assert_eq!(roster.revocation(&thief).unwrap().reason, "stolen");
    assert!(admins.is_member(&admins.told(&[by_thief, admins.member(1, 2), gone.clone()])));
    // A node that the thief revoked is a member again; one that another admin revoked is not.
    let node = admins.node.public();
    let records = [admins.member(1, 1), admins.revoked(0, node), gone];
    assert!(admins.is_member(&admins.told(&records)));
    let mut records = records.to_vec();
    records.push(admins.revoked(2, node));
    assert!(!admins.is_member(&admins.told(&records)));
}

#[test]
fn of_two_admins_that_revoke_each_other_the_later_one_stays() {
    let admins = Admins::new();
    let [first, second, paper] = [0, 1, 2].map(|at: usize| admins.keys[at].public());
    let fight = [admins.revoked(0, paper), admins.revoked(2, first)];
    let roster = admins.told(&fight);
    assert_eq!(roster.revoked_keys(), BTreeSet::from([first]));
    assert_eq!(roster.revocation(&paper), None);
    // One that does not answer is out, whoever it is, and stays out when its revoker falls.
    let mut records = fight.to_vec();
    records.push(admins.revoked(0, second));
    assert_eq!(admins.told(&records).revoked_keys(), BTreeSet::from([first, second]));
}
