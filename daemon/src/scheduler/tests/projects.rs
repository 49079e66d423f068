//! Projects that change while their jobs wait, run and lie about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{ContentHash, ProjectId, StudioId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{Project, StudioRules};
use scenemesh_protocol::task::Reach;

use super::world::{Comfy, POOL, World, task_id};
use crate::scheduler::requester::Input;
use crate::scheduler::view::TaskPhase;

const PROJECT: ProjectId = ProjectId::from_bytes([9; 16]);

fn rules(max_reach: Reach, change: impl FnOnce(&mut Project)) -> Arc<StudioRules> {
    let studio = StudioId::from_bytes([50; 16]);
    let mut project = Project {
        pool: POOL,
        studio,
        project: PROJECT,
        name: ContentHash::from_bytes([0; 32]),
        version: 1,
        issued_ms: 0,
        max_reach,
        nodes: None,
        hygiene: Hygiene::Partial,
        retention_s: None,
        closed: false,
    };
    change(&mut project);
    let verified = Signed::new(&project, &SecretKey::generate()).verify().unwrap();
    let projects = BTreeMap::from([(PROJECT, verified)]);
    Arc::new(StudioRules { home: Some((POOL, studio)), projects, key: None })
}

#[test]
fn a_job_goes_nowhere_while_nobody_knows_its_project() {
    let mut world = World::with_slots(&[1, 1]);
    world.submit_with(0, 7, 1, |job| job.project = Some(PROJECT));
    world.flow();
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.state, TaskPhase::Queued);
    let why = view.why.to_string();
    assert!(why.contains("the job's project has no record that holds"), "{why}");
    world.tell_requester(0, Input::Rules(rules(Reach::Studio, |_| {})));
    world.finish();
    assert_eq!(world.task(0, task_id(7, 0)).node_name, "amber");
}

#[test]
fn what_waits_follows_the_stricter_record_and_results_from_outside_are_not_taken() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.tell_requester(0, Input::Rules(rules(Reach::Pool, |_| {})));
    world.submit_with(0, 7, 2, |job| job.project = Some(PROJECT));
    world.flow();
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Running);
    world.tell_requester(0, Input::Rules(rules(Reach::Studio, |project| project.version = 2)));
    world.flow();
    let waiting = world.task(0, task_id(7, 1));
    let why = waiting.why.to_string();
    assert!(why.contains("birch is outside the project's reach (studio)"), "{why}");
    world.machines[1].comfy = Comfy::Renders;
    world.finish_runs(1);
    world.flow();
    let refused = world.task(0, task_id(7, 0));
    assert_eq!(refused.state, TaskPhase::Queued);
    assert!(refused.outputs.is_empty());
    assert!(refused.failures[0].1.detail.contains("outside the reach"), "{:?}", refused.failures);
    assert!(world.machines[1].blobs.is_empty(), "the renderer drops what is not wanted");
}

#[test]
fn a_project_bound_to_nodes_is_rendered_there() {
    let mut world = World::with_slots(&[1, 1, 1]);
    let cedar = world.machines[2].id;
    world.tell_requester(0, Input::Rules(rules(Reach::Pool, |project| project.nodes = Some(vec![cedar]))));
    world.submit_with(0, 7, 3, |job| job.project = Some(PROJECT));
    world.finish();
    for n in 0..3 {
        assert_eq!(world.task(0, task_id(7, n)).node_name, "cedar");
    }
}

#[test]
fn after_its_retention_a_job_is_forgotten_with_everything_of_it() {
    let mut world = World::with_slots(&[1]);
    let keeps = || rules(Reach::Machine, |project| project.retention_s = Some(3600));
    world.tell_requester(0, Input::Rules(keeps()));
    let job = world.submit_with(0, 7, 2, |job| job.project = Some(PROJECT));
    let other = world.submit(0, 8, 1);
    world.finish();
    assert!(!world.machines[0].blobs.is_empty());
    world.elapsed += Duration::from_mins(59);
    world.tell_requester(0, Input::Rules(keeps()));
    assert!(world.machines[0].requester.jobs().job(&job).is_some());
    world.elapsed += Duration::from_mins(2);
    world.tell_requester(0, Input::Rules(keeps()));
    world.flow();
    let forgotten = |world: &World| {
        let jobs = world.machines[0].requester.jobs();
        jobs.job(&job).is_none() && jobs.task(&task_id(7, 0)).is_none() && jobs.job(&other).is_some()
    };
    assert!(forgotten(&world));
    let kept = world.machines[0].requester.jobs().roots_of(&other);
    let held = world.machines[0].blobs.clone();
    assert!(held.iter().all(|root| kept.contains(root)), "only the other job's results are left");
    world.restart(0);
    assert!(forgotten(&world), "a restart brings nothing back");
}

#[test]
fn a_renderer_keeps_an_unfetched_result_no_longer_than_its_project() {
    let mut world = World::with_slots(&[0, 1]);
    world.keep_ms = Some(3_600_000);
    world.submit(0, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.finish_runs(1);
    world.flow();
    world.elapsed += Duration::from_mins(50);
    world.tick();
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 1);
    world.elapsed += Duration::from_hours(2);
    world.tick();
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 0);
    assert!(world.machines[1].blobs.is_empty());
}
