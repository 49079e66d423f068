//! Tasks that build on each other, are held back, or need different things: all of one job.

use scenemesh_protocol::ids::{JobId, TaskId};
use scenemesh_protocol::task::{FailureClass, ModelName, OnSuspect, Shape};

use super::world::{Comfy, World, root, task_id};
use crate::scheduler::Id;
use crate::scheduler::batch::{Batch, Feed, Stage, Varied};
use crate::scheduler::record::Recipe;
use crate::scheduler::requester::Input;
use crate::scheduler::story::Why;
use crate::scheduler::suspicion::{Suspect, Suspicion};
use crate::scheduler::view::TaskPhase;

fn feed(name: &str) -> Feed {
    Feed { name: name.into(), stage: 0, node: "9".into(), file: 0 }
}

fn stage(first: u32, tasks: u32, feeds: Vec<Feed>) -> Stage {
    Stage { first, tasks, count: 1, varied: Vec::new(), feeds }
}

fn submit(world: &mut World, job: u8, tasks: usize, stages: Vec<Stage>) {
    let submission = world.submission(job, tasks);
    world.tell_requester(
        0,
        Input::Submitted { batch: Box::new(Batch { stages, ..submission.into() }), deputy: None },
    );
}

/// One task, and one that takes its result.
pub(super) fn chain(world: &World, job: u8) -> Batch {
    let stages = vec![stage(0, 1, Vec::new()), stage(1, 1, vec![feed("a.png")])];
    Batch { stages, ..world.submission(job, 2).into() }
}

pub(super) fn submit_chain(world: &mut World, job: u8) {
    let batch = Box::new(chain(world, job));
    world.tell_requester(0, Input::Submitted { batch, deputy: None });
}

fn submit_wary(world: &mut World, on_suspect: OnSuspect) {
    let submission = world.submission(7, 1);
    world.tell_requester(
        0,
        Input::Submitted { batch: Box::new(Batch { on_suspect, ..submission.into() }), deputy: None },
    );
}

fn why(world: &World, task: TaskId) -> Why {
    world.machines[0].requester.why(world.now(), task).unwrap()
}

fn recipe(world: &World, task: TaskId) -> Result<Recipe, String> {
    world.machines[0].requester.jobs().recipe_of(&task).unwrap()
}

#[test]
fn a_task_waits_for_those_it_builds_on_and_takes_their_results_as_they_lie() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    // Two drawings, one picture made of each, and one of both.
    let stages = vec![
        stage(0, 2, Vec::new()),
        stage(2, 2, vec![feed("drawn.png")]),
        stage(4, 1, vec![feed("frame-{i}.png")]),
    ];
    submit(&mut world, 7, 5, stages);
    world.flow();
    assert_eq!(why(&world, task_id(7, 2)), Why::BuildsOn { on: 0, more: 0 });
    assert_eq!(why(&world, task_id(7, 4)), Why::BuildsOn { on: 0, more: 1 });
    assert!(recipe(&world, task_id(7, 2)).unwrap_err().contains("takes file 0 of node 9 of task #0"));
    assert_eq!(world.phase(0, task_id(7, 2)), TaskPhase::Queued);
    world.machines[1].comfy = Comfy::Renders;
    world.finish_runs(1);
    let done = |world: &World, index| world.phase(0, task_id(7, index)) == TaskPhase::Done;
    world.until("the frames are there", |world| done(world, 2) && done(world, 3));
    // Of a job that is done no recipe is left to look at.
    assert!(!done(&world, 4));
    for index in 2..4 {
        let [input] = &recipe(&world, task_id(7, index)).unwrap().inputs[..] else { panic!("one input") };
        let from = task_id(7, index - 2);
        assert_eq!((input.name.as_str(), input.root), ("drawn.png", root(&format!("result of {from} 1"))));
    }
    let gathered = recipe(&world, task_id(7, 4)).unwrap().inputs;
    let names: Vec<_> = gathered.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["frame-0.png", "frame-1.png"]);
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
}

#[test]
fn what_builds_on_a_failure_does_not_run_and_runs_when_that_is_tried_again() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::InvalidGraph);
    submit_chain(&mut world, 7);
    world.until("both end", |world| world.phase(0, task_id(7, 1)) == TaskPhase::Cancelled);
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Failed);
    assert_eq!(why(&world, task_id(7, 1)), Why::Skipped { on: 0, failed: true });
    world.assert_replay_gives_the_state();
    world.machines[1].comfy = Comfy::Renders;
    // Whoever wants the second wants the first.
    world.tell_requester(0, Input::RetryWanted(vec![task_id(7, 1)]));
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
}

#[test]
fn a_cancelled_task_takes_those_along_that_build_on_it() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    submit_chain(&mut world, 7);
    world.flow();
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    world.until("everything settles", World::is_settled);
    assert_eq!(world.phase(0, task_id(7, 1)), TaskPhase::Cancelled);
    assert_eq!(why(&world, task_id(7, 1)), Why::Skipped { on: 0, failed: false });
    world.assert_replay_gives_the_state();
}

#[test]
fn what_is_paused_does_not_begin_and_what_runs_goes_on() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 3);
    world.flow();
    let all: Vec<TaskId> = (0..3).map(|index| task_id(7, index)).collect();
    world.tell_requester(0, Input::PauseWanted(all.clone()));
    world.restart(0);
    world.machines[1].comfy = Comfy::Renders;
    world.finish_runs(1);
    world.until("the one that ran is done", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    world.pass(std::time::Duration::from_mins(2));
    for task in &all[1..] {
        assert_eq!((world.phase(0, *task), why(&world, *task)), (TaskPhase::Queued, Why::Paused));
    }
    assert!(world.machines[0].requester.deadline().is_none(), "nothing is asked meanwhile");
    world.tell_requester(0, Input::ResumeWanted(all[1..2].to_vec()));
    world.until("the second is done", |world| world.phase(0, task_id(7, 1)) == TaskPhase::Done);
    assert_eq!(why(&world, task_id(7, 2)), Why::Paused);
    world.tell_requester(0, Input::ResumeWanted(all));
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
}

#[test]
fn a_task_that_is_paused_while_its_grant_is_sealed_gets_none() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    while !matches!(why(&world, task_id(7, 0)), Why::Claimed { .. }) {
        let packet = world.packets.remove(0);
        world.deliver(packet);
    }
    world.tell_requester(0, Input::PauseWanted(vec![task_id(7, 0)]));
    world.pass(std::time::Duration::from_secs(30));
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 0);
    world.tell_requester(0, Input::ResumeWanted(vec![task_id(7, 0)]));
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
}

#[test]
fn a_node_that_lacks_the_first_model_still_gets_the_tasks_of_the_second() {
    let mut world = World::with_slots(&[0, 1]);
    let mut submission = world.submission(7, 4);
    let shape = |name: &str| Shape {
        classes: vec!["SaveImage".into()],
        models: vec![ModelName::new("checkpoints", name)],
        ..Shape::default()
    };
    submission.recipes.push(submission.recipes[0].clone());
    submission.recipes[0].shape = shape("nobody-has-it.safetensors");
    for (index, plan) in submission.tasks.iter_mut().enumerate() {
        plan.recipe = u16::from(index >= 2);
    }
    world.tell_requester(0, Input::Submitted { batch: Box::new(submission.into()), deputy: None });
    world.until("the second half is done", |world| {
        (2..4).all(|index| world.phase(0, task_id(7, index)) == TaskPhase::Done)
    });
    let told = why(&world, task_id(7, 0)).to_string();
    assert!(told.contains("nobody-has-it.safetensors"), "{told}");
    world.assert_replay_gives_the_state();
}

#[test]
fn what_is_varied_is_in_the_graph_and_in_the_view() {
    let mut world = World::new(1);
    let mut submission = world.submission(7, 4);
    submission.recipes[0].graph =
        br#"{"3":{"class_type":"KSampler","inputs":{"cfg":1,"seed":5,"text":"x"}}}"#.to_vec();
    let varied = |path: &str, values: [&str; 2]| Varied {
        path: path.into(),
        values: values.map(str::to_owned).to_vec(),
    };
    let varied = vec![varied("3.cfg", ["6.5", "7"]), varied("3.text", ["\"a\"", "\"b\""])];
    let stages = vec![Stage { first: 0, tasks: 4, count: 1, varied, feeds: Vec::new() }];
    world.tell_requester(
        0,
        Input::Submitted { batch: Box::new(Batch { stages, ..submission.into() }), deputy: None },
    );
    let graph = String::from_utf8(recipe(&world, task_id(7, 1)).unwrap().graph).unwrap();
    assert!(graph.contains(r#""cfg":6.5"#) && graph.contains(r#""text":"b""#), "{graph}");
    let told = world.task(0, task_id(7, 2)).varied;
    assert_eq!(told, [("3.cfg".to_owned(), "7".to_owned()), ("3.text".to_owned(), "\"a\"".to_owned())]);
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
}

#[test]
fn ids_are_found_by_how_they_begin() {
    let mut world = World::new(1);
    world.submit(0, 7, 3);
    let jobs = world.machines[0].requester.jobs();
    let whole = task_id(7, 2).to_string();
    let job = JobId::from_bytes([7; 16]);
    assert_eq!(jobs.ids_from(&whole), [Id::Task { job, task: task_id(7, 2) }]);
    assert_eq!(jobs.ids_from("0707").len(), 4, "the job and its tasks");
    assert_eq!(jobs.ids_from(&job.to_string()), [Id::Job(job)]);
    for none in ["", "08", "+7", "xyz", &format!("{whole}0")] {
        assert_eq!(jobs.ids_from(none), [], "{none:?}");
    }
}

#[test]
fn a_task_that_everybody_failed_is_over_and_one_that_may_still_go_somewhere_waits() {
    let mut world = World::with_slots(&[0, 1, 1]);
    for n in 1..3 {
        world.machines[n].comfy = Comfy::Fails(FailureClass::Execution);
    }
    world.cut(0, 2);
    world.submit(0, 7, 1);
    world.until("one has failed it", |world| world.task(0, task_id(7, 0)).failures.len() == 1);
    world.pass(std::time::Duration::from_mins(2));
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Queued, "the other may come back");
    world.restart(0);
    world.pass(std::time::Duration::from_mins(2));
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Queued, "a start changes nothing of that");
    world.heal(0, 2);
    world.until("both have failed it", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Failed);
    let told = why(&world, task_id(7, 0)).to_string();
    assert_eq!(told.matches("execution error").count(), 2, "both reasons: {told}");
    world.assert_replay_gives_the_state();
    world.machines[2].comfy = Comfy::Renders;
    world.tell_requester(0, Input::RetryWanted(vec![task_id(7, 0)]));
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
}

#[test]
fn a_task_that_is_too_large_for_the_only_gpu_is_over() {
    let mut world = World::new(1);
    world.machines[0].comfy = Comfy::Fails(FailureClass::OutOfMemory);
    world.submit(0, 7, 1);
    world.until("it is over", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Failed);
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 1);
}

#[test]
fn a_picture_that_looks_wrong_is_kept_and_said_to_be_suspect() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::LooksWrong;
    submit_wary(&mut world, OnSuspect::Keep);
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
    assert_eq!(world.task(0, task_id(7, 0)).suspects, [Suspect { output: 0, why: Suspicion::Uniform }]);
    world.restart(0);
    assert_eq!(world.task(0, task_id(7, 0)).suspects.len(), 1);
    world.assert_replay_gives_the_state();
}

#[test]
fn a_picture_that_looks_wrong_is_rendered_elsewhere_for_whoever_wants_that() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::LooksWrong;
    world.cut(0, 2);
    submit_wary(&mut world, OnSuspect::Retry);
    world.until("the first has failed", |world| world.task(0, task_id(7, 0)).failures.len() == 1);
    world.heal(0, 2);
    world.until("everything settles", World::is_settled);
    let view = world.task(0, task_id(7, 0));
    assert_eq!((view.state, view.suspects.len(), view.attempts), (TaskPhase::Done, 0, 2));
    let (_, failure) = &view.failures[0];
    assert_eq!(failure.to_string(), "suspect result: a.png: every pixel has the same colour");
    world.assert_replay_gives_the_state();
}

#[test]
fn a_node_that_fails_three_tasks_of_a_job_is_left_out_of_it_for_five_hours() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::Execution);
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 9);
    let node = world.machines[1].id;
    let failed = |world: &World| {
        let failures = (0..9).map(|index| world.task(0, task_id(7, index)).failures.len());
        failures.sum::<usize>()
    };
    world.until("it has failed three", |world| failed(world) == 3);
    world.pass(std::time::Duration::from_mins(30));
    assert_eq!(failed(&world), 3, "it got no more of it");
    world.machines[2].comfy = Comfy::Fails(FailureClass::OwnerReturned);
    world.cut(0, 2);
    let told = why(&world, task_id(7, 8)).to_string();
    assert!(told.contains("failed 3 tasks of this job"), "{told}");
    world.machines[1].comfy = Comfy::Renders;
    world.pass(std::time::Duration::from_hours(5));
    world.until("it has its turn again", |world| {
        (0..9).filter(|index| world.phase(0, task_id(7, *index)) == TaskPhase::Done).count() >= 5
    });
    assert!(world.machines[0].requester.granted_to(
        node,
        &scenemesh_protocol::lease::Probe {
            task: task_id(7, 8),
            attempt: world.task(0, task_id(7, 8)).attempts,
        }
    ));
}
