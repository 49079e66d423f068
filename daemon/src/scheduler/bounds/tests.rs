//! Grants made by hand, as a hostile or an outdated requester would make them.

use scenemesh_protocol::ids::{ContentHash, ProjectId, TaskId};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::roster::{
    Consent, Member, Revoked, Roles, Settings, SettingsChain, SignedRecord, SignedSettings, Studio,
};
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::Project;

use super::*;

const NOW: u64 = 1_800_000_000_000;

struct Pool {
    roster: Roster,
    amber: StudioId,
    birch: StudioId,
    amber_admin: SecretKey,
    birch_admin: SecretKey,
    asks: SecretKey,
    sister: SecretKey,
    renders: SecretKey,
}

impl Pool {
    fn new() -> Self {
        let [amber_admin, birch_admin, asks, sister, renders] = [(); 5].map(|()| SecretKey::generate());
        let amber = Studio::found("amber", amber_admin.public());
        let birch = Studio::found("birch", birch_admin.public());
        let mut chain =
            SettingsChain::found(&Settings::genesis("aurora", amber.clone(), NOW), &amber_admin).unwrap();
        let mut next = chain.current().next(NOW);
        next.studios.push(birch.clone());
        chain.append(SignedSettings::new(&next, &amber_admin)).unwrap();
        let mut roster = Roster::new(chain);
        let pool = roster.pool();
        for (node, studio, admin) in [
            (&asks, amber.id, &amber_admin),
            (&sister, amber.id, &amber_admin),
            (&renders, birch.id, &birch_admin),
        ] {
            let kem = KemSecret::generate().public();
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
            roster.add(&SignedRecord::Member(Signed::new(&member, admin))).unwrap();
        }
        let (amber, birch) = (amber.id, birch.id);
        Self { roster, amber, birch, amber_admin, birch_admin, asks, sister, renders }
    }

    fn project(&self) -> Project {
        Project {
            pool: self.roster.pool(),
            studio: self.amber,
            project: ProjectId::from_bytes([1; 16]),
            name: ContentHash::from_bytes([2; 32]),
            version: 1,
            issued_ms: NOW,
            max_reach: Reach::Pool,
            nodes: None,
            hygiene: Hygiene::Partial,
            retention_s: None,
            closed: false,
        }
    }

    fn judge(&self, me: &SecretKey, hygiene: Hygiene, spec: &TaskSpec) -> Result<(), OutOfBounds> {
        may_run(&self.roster, self.asks.public().node(), me.public().node(), hygiene, spec, NOW)
    }
}

fn spec(reach: Reach, project: Option<Signed<Project>>) -> TaskSpec {
    TaskSpec {
        task: TaskId::from_bytes([0; 16]),
        attempt: 1,
        graph: Vec::new(),
        extra_data: Vec::new(),
        inputs: Vec::new(),
        previews: false,
        full_hygiene: false,
        time_limit_ms: 1,
        reach,
        project,
    }
}

#[test]
fn a_task_runs_no_further_than_its_reach_whoever_sends_it() {
    let pool = Pool::new();
    let table = [
        (Reach::Machine, Err(OutOfBounds::Machine), Err(OutOfBounds::Machine)),
        (Reach::Studio, Ok(()), Err(OutOfBounds::Studio)),
        (Reach::Studios(vec![pool.birch]), Err(OutOfBounds::NotChosen), Ok(())),
        (Reach::Studios(vec![pool.amber]), Ok(()), Err(OutOfBounds::NotChosen)),
        (Reach::Pool, Ok(()), Ok(())),
    ];
    for (reach, at_sister, at_birch) in table {
        let spec = spec(reach.clone(), None);
        assert_eq!(pool.judge(&pool.sister, Hygiene::Full, &spec), at_sister, "{reach:?}");
        assert_eq!(pool.judge(&pool.renders, Hygiene::Full, &spec), at_birch, "{reach:?}");
    }
}

#[test]
fn a_project_holds_whatever_the_grant_says_besides() {
    let pool = Pool::new();
    let me = pool.renders.public().node();
    type Change = fn(&Pool, &mut Project);
    let table: [(Change, Result<(), OutOfBounds>); 7] = [
        (|_, _| {}, Ok(())),
        (|_, p| p.max_reach = Reach::Machine, Err(OutOfBounds::Machine)),
        (|_, p| p.max_reach = Reach::Studio, Err(OutOfBounds::Studio)),
        (|at, p| p.max_reach = Reach::Studios(vec![at.amber]), Err(OutOfBounds::NotChosen)),
        (|at, p| p.nodes = Some(vec![at.sister.public().node()]), Err(OutOfBounds::OtherNodes)),
        (|at, p| p.nodes = Some(vec![at.renders.public().node()]), Ok(())),
        (|_, p| p.hygiene = Hygiene::Full, Err(OutOfBounds::PartialHygiene)),
    ];
    for (change, expected) in table {
        let mut project = pool.project();
        change(&pool, &mut project);
        let spec = spec(Reach::Pool, Some(Signed::new(&project, &pool.amber_admin)));
        assert_eq!(pool.judge(&pool.renders, Hygiene::Partial, &spec), expected, "{project:?}");
    }
    let mut full = spec(Reach::Pool, None);
    full.full_hygiene = true;
    assert_eq!(pool.judge(&pool.renders, Hygiene::Partial, &full), Err(OutOfBounds::PartialHygiene));
    assert_eq!(pool.judge(&pool.renders, Hygiene::Full, &full), Ok(()));
    let stranger = SecretKey::generate().public().node();
    let plain = spec(Reach::Pool, None);
    let refused = may_run(&pool.roster, stranger, me, Hygiene::Full, &plain, NOW);
    assert_eq!(refused, Err(OutOfBounds::NoRequester));
}

#[test]
fn only_an_admin_of_the_requesters_studio_speaks_for_its_project() {
    let mut pool = Pool::new();
    let judge = |pool: &Pool, project: &Project, by: &SecretKey| {
        pool.judge(&pool.renders, Hygiene::Full, &spec(Reach::Pool, Some(Signed::new(project, by))))
    };
    let refused = Err(OutOfBounds::NotTheirProject);
    let project = pool.project();
    for by in [&pool.asks, &pool.birch_admin, &SecretKey::generate()] {
        assert_eq!(judge(&pool, &project, by), refused);
    }
    let theirs = Project { studio: pool.birch, ..project.clone() };
    assert_eq!(judge(&pool, &theirs, &pool.birch_admin), refused, "a real project, of another studio");
    assert_eq!(judge(&pool, &theirs, &pool.amber_admin), refused);
    let elsewhere = Project { pool: scenemesh_protocol::ids::PoolId::from_bytes([0; 16]), ..project.clone() };
    assert_eq!(judge(&pool, &elsewhere, &pool.amber_admin), refused);
    assert_eq!(judge(&pool, &project, &pool.amber_admin), Ok(()));
    let gone = Revoked {
        pool: pool.roster.pool(),
        studio: pool.amber,
        key: pool.amber_admin.public(),
        reason: "lost".into(),
        issued_ms: NOW,
    };
    let signed = Signed::new(&gone, &pool.amber_admin);
    pool.roster.add(&SignedRecord::Revoked(signed)).unwrap();
    assert!(judge(&pool, &project, &pool.amber_admin).is_err());
}
