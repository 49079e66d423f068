//! A requester whose roster lies to it grants what it should not: the renderer does not believe it.

use scenemesh_protocol::ids::{ContentHash, PoolId, ProjectId};
use scenemesh_protocol::studio::{MemoPlace, Project, StudioKey, StudioSecret};

use super::*;

/// The same pool as a requester would have it that counts the renderer among its own studio's machines.
fn lying(roster: &Arc<Roster>, admins: &[SecretKey], renders: &House) -> Arc<Roster> {
    let mut lie = (**roster).clone();
    let (pool, kem, studio) = (lie.pool(), renders.kem.public(), lie.settings().studios[0].id);
    let member = Member {
        pool,
        studio,
        node: renders.node.public(),
        kem,
        consent: Consent { pool, studio, kem }.sign(&renders.node),
        name: "machine 1".into(),
        roles: Roles::ALL,
        version: 2,
        issued_ms: 1,
        not_after_ms: None,
    };
    lie.add(&SignedRecord::Member(Signed::new(&member, &admins[0]))).unwrap();
    Arc::new(lie)
}

fn project(roster: &Roster, max_reach: Reach, admin: &SecretKey) -> StudioRules {
    let studio = roster.settings().studios[0].id;
    let project = Project {
        pool: roster.pool(),
        studio,
        project: ProjectId::from_bytes([4; 16]),
        name: ContentHash::from_bytes([0; 32]),
        version: 1,
        issued_ms: 1,
        max_reach,
        nodes: None,
        hygiene: Hygiene::Partial,
        retention_s: None,
        closed: false,
    };
    let rules = Signed::new(&project, admin).verify().unwrap();
    let projects = std::collections::BTreeMap::from([(project.project, rules)]);
    StudioRules { home: Some((roster.pool(), studio)), projects, key: None }
}

async fn refused_by_policy(here: &Daemon, job: JobId, words: &str) {
    let view = here.until(job, |view| !view.tasks[0].failures.is_empty()).await;
    let (node, failure) = &view.tasks[0].failures[0];
    let why = failure.to_string();
    assert_eq!(node, "machine 1");
    assert!(why.starts_with("refused by policy") && why.contains(words), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renderer_of_another_studio_refuses_what_stays_in_the_studio() {
    let (asks, renders) = (House::new(0), House::new(1));
    renders.permits.add_permits(10);
    let (roster, admins) = pool_with_admins(&[&asks, &renders]);
    let lie = lying(&roster, &admins, &renders);
    let there = renders.start(Some(&roster)).await;
    let own = project(&roster, Reach::Studio, &admins[0]);
    let here = asks.start_with(Some(&lie), &own).await;
    here.knows(renders.id(), &there).await;
    there.knows(asks.id(), &here).await;

    let input = here.sealed_input("face.png", b"canary of the input").await;
    let graph = r#"{"1":{"class_type":"LoadImage","inputs":{"image":"face.png"}}}"#;
    let with_input = with_input(input, graph, 1, Reach::Studio);
    let job = here.scheduler.submit(with_input).await.unwrap();
    refused_by_policy(&here, job, "the task stays in its own studio").await;
    assert_eq!(there.store.blobs.used_bytes(), 0, "it was refused before its input travelled");

    // So far as a blob of its own is judged: it comes alone.
    let large = sampler(&"x".repeat(1 << 20));
    let job = here.scheduler.submit(spec(&large, 1, Reach::Studio)).await.unwrap();
    refused_by_policy(&here, job, "the task stays in its own studio").await;

    // The task itself says pool; its project does not.
    let job =
        JobSpec { project: Some(ProjectId::from_bytes([4; 16])), ..spec(&sampler("x"), 1, Reach::Pool) };
    let job = here.scheduler.submit(job).await.unwrap();
    refused_by_policy(&here, job, "the task stays in its own studio").await;

    // And one that the requester's own admin did not sign.
    let forged = project(&roster, Reach::Pool, &SecretKey::generate());
    here.studio.send_replace(Arc::new(forged));
    let job =
        JobSpec { project: Some(ProjectId::from_bytes([4; 16])), ..spec(&sampler("y"), 1, Reach::Pool) };
    let job = here.scheduler.submit(job).await.unwrap();
    refused_by_policy(&here, job, "not signed by an admin of the requester's studio").await;
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_and_for_what_is_sealed_for_ones_own_studio() {
    let (asks, renders) = (House::new(0), House::new(1));
    let (roster, admins) = pool_with_admins(&[&asks, &renders]);
    let secret = StudioSecret::generate();
    let (pool, studio) = (roster.pool(), roster.settings().studios[0].id);
    let key = StudioKey { pool, studio, version: 1, kem: secret.kem().public(), issued_ms: 1 };
    let own = StudioRules { key: Some(key), ..project(&roster, Reach::Pool, &admins[0]) };
    let there = renders.start(Some(&roster)).await;
    let here = asks.start_with(Some(&roster), &own).await;
    here.knows(renders.id(), &there).await;
    there.knows(asks.id(), &here).await;
    let job =
        JobSpec { project: Some(ProjectId::from_bytes([4; 16])), ..spec(&sampler("x"), 1, Reach::Pool) };
    let job = here.scheduler.submit(job).await.unwrap();
    let view = here.until(job, |view| view.tasks[0].state == scheduler::TaskPhase::Running).await;
    let task = view.tasks[0].task;
    there.stop().await;

    // What the renderer wrote down has a memo that opens with the studio's secret, for this attempt.
    let supervisor = Supervisor::new(Duration::from_secs(5));
    let config = store::Config { reserve: 0, ..store::Config::at(renders.dir.path()) };
    let (_store, replay) = store::open(&config, &supervisor.tasks()).await.unwrap();
    let records = replay.records::<crate::scheduler::record::RendererRecord>();
    let memo = records.filter_map(|record| match record.unwrap().1 {
        crate::scheduler::record::RendererRecord::Accepted(held) => {
            held.grant.terms.verify().unwrap().memo.clone()
        }
        _ => None,
    });
    let memo = memo.last().unwrap();
    let place = MemoPlace { pool, studio, task, attempt: 1 };
    let opened = memo.open(&secret, &place).unwrap();
    assert_eq!((opened.person.as_str(), opened.label.as_str()), ("somebody", "test"));
    assert_eq!(opened.project, Some(ProjectId::from_bytes([4; 16])));
    assert!(memo.open(&secret, &MemoPlace { pool: PoolId::from_bytes([0; 16]), ..place }).is_err());
    here.stop().await;
}
