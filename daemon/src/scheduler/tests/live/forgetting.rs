//! What a project no longer keeps leaves the disk, whole files searched: the journal holds prompts in plain.

use scenemesh_protocol::ids::{ContentHash, ProjectId};
use scenemesh_protocol::studio::Project;

use super::*;

const PROJECT: ProjectId = ProjectId::from_bytes([4; 16]);

/// One project of the first studio, on this machine only.
fn keeping(roster: &Roster, retention_s: Option<u32>, admin: &SecretKey) -> StudioRules {
    let studio = roster.settings().studios[0].id;
    let project = Project {
        pool: roster.pool(),
        studio,
        project: PROJECT,
        name: ContentHash::from_bytes([0; 32]),
        version: 1,
        issued_ms: 1,
        max_reach: Reach::Machine,
        nodes: None,
        hygiene: Hygiene::Partial,
        retention_s,
        closed: false,
    };
    let rules = Signed::new(&project, admin).verify().unwrap();
    let projects = std::collections::BTreeMap::from([(PROJECT, rules)]);
    StudioRules { home: Some((roster.pool(), studio)), projects, key: None }
}

async fn eventually(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let seen = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !fact().await {
            look.tick().await;
        }
    };
    assert!(tokio::time::timeout(SOON, seen).await.is_ok(), "never came: {what}");
}

async fn rendered(daemon: &Daemon, canary: &str) -> JobId {
    let asked = JobSpec { project: Some(PROJECT), ..spec(&sampler(canary), 1, Reach::Machine) };
    let job = daemon.scheduler.submit(asked).await.unwrap();
    daemon.done(job).await;
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_project_no_longer_keeps_leaves_the_journal_too() {
    let house = House::new(1);
    house.permits.add_permits(10);
    let (roster, admins) = pool_with_admins(&[&house]);
    let (kept, over) = (keeping(&roster, None, &admins[0]), keeping(&roster, Some(0), &admins[0]));
    let written = |canary: &str| is_written_under(house.dir.path(), canary.as_bytes());

    let daemon = house.start_with(Some(&roster), &kept).await;
    rendered(&daemon, "the first canary").await;
    assert!(written("the first canary"));
    daemon.studio.send_replace(Arc::new(over.clone()));
    eventually("the journal forgets at once", async || !written("the first canary")).await;

    // The next is forgotten as soon, but not compacted away: that comes once in a while, or at the next start.
    daemon.studio.send_replace(Arc::new(kept.clone()));
    let job = rendered(&daemon, "the second canary").await;
    let spared = spec(&sampler("the third canary"), 1, Reach::Machine);
    let spared = daemon.scheduler.submit(spared).await.unwrap();
    daemon.done(spared).await;
    daemon.studio.send_replace(Arc::new(over));
    eventually("the job is forgotten", async || daemon.scheduler.show(job).await.is_none()).await;
    assert!(written("the second canary"));
    daemon.stop().await;
    let daemon = house.start_with(Some(&roster), &kept).await;
    eventually("a start compacts", async || !written("the second canary")).await;
    assert!(written("the third canary") && daemon.scheduler.show(spared).await.is_some());
    daemon.stop().await;
}
