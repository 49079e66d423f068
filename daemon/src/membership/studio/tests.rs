//! A shelf of records and who may put what on it.

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{NodeId, PoolId};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::roster::{
    Consent, Member, Revoked, Roles, Settings, SettingsChain, SignedRecord, SignedSettings, Studio,
};
use scenemesh_protocol::signed::Signed;

use super::*;

const NOW: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

struct World {
    roster: Roster,
    studio: StudioId,
    other: StudioId,
    admin: SecretKey,
    second: SecretKey,
    stranger: SecretKey,
    machine: SecretKey,
    theirs: SecretKey,
}

impl World {
    fn new() -> Self {
        let [admin, second, stranger, machine, theirs] = [(); 5].map(|()| SecretKey::generate());
        let mut amber = Studio::found("amber", admin.public());
        amber.admins.push(second.public());
        let birch = Studio::found("birch", stranger.public());
        let (studio, other) = (amber.id, birch.id);
        let genesis = Settings::genesis("aurora", amber, NOW);
        let mut chain = SettingsChain::found(&genesis, &admin).unwrap();
        let mut settings = chain.current().next(NOW);
        settings.studios.push(birch);
        chain.append(SignedSettings::new(&settings, &admin)).unwrap();
        let mut world =
            Self { roster: Roster::new(chain), studio, other, admin, second, stranger, machine, theirs };
        world.admit(&world.machine.clone(), studio, &world.admin.clone());
        world.admit(&world.theirs.clone(), other, &world.stranger.clone());
        world
    }

    fn admit(&mut self, node: &SecretKey, studio: StudioId, admin: &SecretKey) {
        let (pool, kem) = (self.roster.pool(), KemSecret::generate().public());
        let member = Member {
            pool,
            studio,
            node: node.public(),
            kem,
            name: "ws".into(),
            roles: Roles::ALL,
            version: 1,
            issued_ms: NOW,
            not_after_ms: None,
            consent: Consent { pool, studio, kem }.sign(node),
        };
        self.roster.add(&SignedRecord::Member(Signed::new(&member, admin))).unwrap();
    }

    fn revoke(&mut self, key: &SecretKey) {
        let gone = Revoked {
            pool: self.roster.pool(),
            studio: self.studio,
            key: key.public(),
            reason: "lost".into(),
            issued_ms: NOW,
        };
        self.roster.add(&SignedRecord::Revoked(Signed::new(&gone, &self.admin))).unwrap();
    }

    fn home(&self) -> Home<'_> {
        self.home_at(NOW)
    }

    fn home_at(&self, now_ms: u64) -> Home<'_> {
        Home { roster: &self.roster, studio: self.studio, now_ms }
    }

    fn project(&self, version: u32) -> (Project, ProjectName) {
        let name = ProjectName { salt: [5; 16], name: "Night Train".into() };
        let project = Project {
            pool: self.roster.pool(),
            studio: self.studio,
            project: ProjectId::from_bytes([9; 16]),
            name: name.commitment(),
            version,
            issued_ms: NOW,
            max_reach: Reach::Studio,
            nodes: None,
            hygiene: Hygiene::Partial,
            retention_s: None,
            closed: false,
        };
        (project, name)
    }

    fn signed(&self, version: u32, by: &SecretKey) -> StudioRecord {
        let (project, name) = self.project(version);
        StudioRecord::Project { record: Signed::new(&project, by), name }
    }

    fn block(&self, key: &SecretKey, issued_ms: u64, until_ms: u64, by: &SecretKey) -> StudioRecord {
        let block = Block {
            pool: self.roster.pool(),
            studio: self.studio,
            key: key.public(),
            reason: "odd".into(),
            issued_ms,
            until_ms,
        };
        StudioRecord::Block(Signed::new(&block, by))
    }

    fn key(&self, version: u32, secret: &StudioSecret, by: &SecretKey) -> StudioRecord {
        let kem = secret.kem().public();
        let key = StudioKey { pool: self.roster.pool(), studio: self.studio, version, kem, issued_ms: NOW };
        StudioRecord::Key(Signed::new(&key, by))
    }
}

fn version(shelf: &Shelf, home: Home<'_>) -> Option<u32> {
    shelf.projects(home).next().map(|(record, _)| record.version)
}

#[test]
fn the_higher_version_of_a_project_holds_and_only_an_admin_signs_it() {
    let world = World::new();
    let mut shelf = Shelf::default();
    assert_eq!(shelf.add(&world.signed(2, &world.admin), world.home()), Ok(Added::New));
    assert_eq!(shelf.add(&world.signed(2, &world.admin), world.home()), Ok(Added::Known));
    assert_eq!(shelf.add(&world.signed(1, &world.second), world.home()), Ok(Added::Known));
    for by in [&world.stranger, &world.machine, &world.theirs] {
        let refused = shelf.add(&world.signed(9, by), world.home());
        assert_eq!(refused, Err(RefusedStudioRecord::NotItsAdmin));
    }
    assert_eq!(version(&shelf, world.home()), Some(2));
    assert_eq!(shelf.add(&world.signed(3, &world.second), world.home()), Ok(Added::New));
    assert_eq!(version(&shelf, world.home()), Some(3));
}

#[test]
fn what_a_revoked_admin_signed_gives_way() {
    let mut world = World::new();
    let mut shelf = Shelf::default();
    shelf.add(&world.signed(7, &world.second), world.home()).unwrap();
    world.revoke(&world.second.clone());
    assert_eq!(version(&shelf, world.home()), None);
    assert!(shelf.sync(world.home()).records.is_empty());
    assert_eq!(shelf.add(&world.signed(2, &world.admin), world.home()), Ok(Added::New));
    assert_eq!(version(&shelf, world.home()), Some(2));
    let again = shelf.add(&world.signed(8, &world.second), world.home());
    assert_eq!(again, Err(RefusedStudioRecord::NotItsAdmin));
}

#[test]
fn a_project_says_what_it_commits_to_and_no_more_than_fits() {
    let world = World::new();
    let mut shelf = Shelf::default();
    let (project, name) = world.project(1);
    let put = |shelf: &mut Shelf, project: &Project, name: &ProjectName| {
        let record = Signed::new(project, &world.admin);
        shelf.add(&StudioRecord::Project { record, name: name.clone() }, world.home())
    };
    let other = ProjectName { name: "Day Train".into(), ..name.clone() };
    assert_eq!(put(&mut shelf, &project, &other), Err(RefusedStudioRecord::BadName));
    let empty = ProjectName { name: String::new(), ..name.clone() };
    let nameless = Project { name: empty.commitment(), ..project.clone() };
    assert_eq!(put(&mut shelf, &nameless, &empty), Err(RefusedStudioRecord::BadName));
    let nodes = vec![NodeId::from_bytes([1; 32]); PROJECT_NODE_LIMIT + 1];
    for wrong in [
        Project { nodes: Some(nodes), ..project.clone() },
        Project { nodes: Some(Vec::new()), ..project.clone() },
        Project { max_reach: Reach::Studios(Vec::new()), ..project.clone() },
    ] {
        assert_eq!(put(&mut shelf, &wrong, &name), Err(RefusedStudioRecord::TooMuch));
    }
    for wrong in [
        Project { studio: world.other, ..project.clone() },
        Project { pool: PoolId::from_bytes([0; 16]), ..project.clone() },
    ] {
        assert_eq!(put(&mut shelf, &wrong, &name), Err(RefusedStudioRecord::OtherStudio));
    }
    let mut forged = Signed::new(&project, &world.admin);
    forged = {
        let mut bytes = codec::encode_body(&forged);
        bytes[20] ^= 1;
        codec::decode_body(&bytes, 8192).unwrap()
    };
    let refused = shelf.add(&StudioRecord::Project { record: forged, name }, world.home());
    assert!(matches!(refused, Err(RefusedStudioRecord::Unverified(_))), "{refused:?}");
}

#[test]
fn a_block_holds_for_its_time_and_a_later_one_lifts_it() {
    let world = World::new();
    let mut shelf = Shelf::default();
    let bad = SecretKey::generate();
    let put = |shelf: &mut Shelf, issued: u64, until: u64, by: &SecretKey| {
        shelf.add(&world.block(&bad, issued, until, by), world.home())
    };
    assert_eq!(put(&mut shelf, NOW, NOW + 72 * HOUR, &world.machine), Ok(Added::New));
    assert!(shelf.blocks(world.home()).contains_key(&bad.public()));
    assert!(shelf.blocks(world.home_at(NOW + 72 * HOUR)).is_empty());
    let too_long = put(&mut shelf, NOW, NOW + 72 * HOUR + 1, &world.machine);
    assert_eq!(too_long, Err(RefusedStudioRecord::TooLong));
    let future = put(&mut shelf, NOW + HOUR, NOW + 2 * HOUR, &world.machine);
    assert_eq!(future, Err(RefusedStudioRecord::Future));
    let over = put(&mut shelf, NOW - 80 * HOUR, NOW - 20 * HOUR, &world.machine);
    assert_eq!(over, Err(RefusedStudioRecord::Over));
    for by in [&world.theirs, &world.admin, &bad] {
        let refused = put(&mut shelf, NOW + 1, NOW + HOUR, by);
        assert_eq!(refused, Err(RefusedStudioRecord::NotItsMachine));
    }
    assert_eq!(put(&mut shelf, NOW + 1, NOW + 1, &world.machine), Ok(Added::New));
    assert!(shelf.blocks(world.home()).is_empty(), "lifted");
    assert_eq!(put(&mut shelf, NOW, NOW + 72 * HOUR, &world.machine), Ok(Added::Known));
    assert!(!shelf.has_over(NOW + HOUR) && shelf.has_over(NOW + 73 * HOUR));
    shelf.sweep(NOW + 73 * HOUR);
    assert!(shelf.sync(world.home()).records.is_empty());
}

#[test]
fn a_secret_has_to_fit_its_key() {
    let world = World::new();
    let mut shelf = Shelf::default();
    let (secret, other) = (StudioSecret::generate(), StudioSecret::generate());
    assert!(!shelf.add_secret(1, secret.clone()), "no key yet");
    shelf.add(&world.key(1, &secret, &world.admin), world.home()).unwrap();
    assert!(!shelf.add_secret(1, other));
    assert!(shelf.add_secret(1, secret.clone()));
    assert!(!shelf.add_secret(1, secret), "known");
    assert_eq!(shelf.next_key_version(), 2);
    let theirs = shelf.add(&world.key(2, &StudioSecret::generate(), &world.stranger), world.home());
    assert_eq!(theirs, Err(RefusedStudioRecord::NotItsAdmin));
}

#[test]
fn two_machines_end_with_the_same_records() {
    let world = World::new();
    let (mut a, mut b) = (Shelf::default(), Shelf::default());
    let secret = StudioSecret::generate();
    a.add(&world.key(1, &secret, &world.admin), world.home()).unwrap();
    a.add_secret(1, secret.clone());
    a.add(&world.signed(1, &world.admin), world.home()).unwrap();
    b.add(&world.signed(2, &world.admin), world.home()).unwrap();
    b.add(&world.block(&SecretKey::generate(), NOW, NOW + HOUR, &world.machine), world.home()).unwrap();
    assert!(a.lacks(&b.sync(world.home()), world.home()) && b.lacks(&a.sync(world.home()), world.home()));
    for _ in 0..2 {
        let to_b = a.lacking(&b.sync(world.home()), world.home());
        let to_a = b.lacking(&a.sync(world.home()), world.home());
        for (shelf, diff) in [(&mut b, to_b), (&mut a, to_a)] {
            diff.records.iter().for_each(|record| drop(shelf.add(record, world.home())));
            for (version, secret) in diff.secrets {
                shelf.add_secret(version, secret);
            }
        }
    }
    let (mut ours, mut theirs) = (a.sync(world.home()), b.sync(world.home()));
    ours.records.sort_unstable();
    theirs.records.sort_unstable();
    assert_eq!(ours, theirs);
    assert_eq!(version(&a, world.home()), Some(2));
    assert!(a.lacking(&b.sync(world.home()), world.home()).is_empty());
}
