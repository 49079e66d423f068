use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::lease::Phase;
use scenemesh_protocol::task::{Failure, FailureClass, OutputKind};

use super::*;
use crate::gateway::record::Output;
use crate::scheduler::story::Why;

const OURS: SocketId = SocketId(1);
const OTHERS: SocketId = SocketId(2);

fn scope() -> Scope {
    "gateway".into()
}

fn key(id: &str) -> Key {
    Key { scope: scope(), id: id.into() }
}

fn job(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

fn graph() -> Classes {
    let nodes = [("3", "KSampler"), ("8", "VAEDecode"), ("9", "SaveImage"), ("10", record::STREAMS)]
        .map(|(id, class)| (id.to_owned(), json!({"class_type": class, "inputs": {}})));
    record::classes(&nodes.into_iter().collect())
}

fn prompt(desk: &mut Desk, id: &str, client: Option<&str>, number: u8) -> Vec<Effect> {
    let key = key(id);
    desk.reserve(&key).unwrap();
    let count = desk.number(&key.scope);
    desk.accepted(Prompt {
        key,
        number: count.into(),
        client: client.map(Arc::from),
        job: job(number),
        created_ms: u64::from(number),
        bytes: 1,
        started_ms: None,
        workflow: None,
        state: State::Live(Box::new(Live::new(graph(), vec!["9".into(), "10".into()]))),
        hidden: false,
    })
}

fn view(number: u8, state: TaskPhase) -> TaskView {
    TaskView {
        task: TaskId::from_bytes([number; 16]),
        job: job(number),
        index: 0,
        state,
        node: None,
        node_name: String::new(),
        attempts: 1,
        progress: None,
        outputs: Vec::new(),
        failures: Vec::new(),
        exec_ms: None,
        why: Why::Waits,
        ended_ms: None,
        full_hygiene: false,
        wipes: Vec::new(),
        varied: Vec::new(),
        suspects: Vec::new(),
    }
}

fn step(attempt: u32, node: &str, step: u32, max: u32) -> Progress {
    Progress {
        task: TaskId::from_bytes([1; 16]),
        attempt,
        seq: 0,
        phase: Phase::Running,
        node: node.into(),
        step,
        max,
        nodes_done: 0,
        nodes_total: 4,
        preview: None,
    }
}

/// What a socket hears: a text's type with what tells it apart, or a kind of binary frame.
fn heard(effects: &[Effect], by: SocketId) -> Vec<String> {
    let frame = |effect: &Effect| match effect {
        Effect::Send(socket, frame) if *socket == by => Some(match frame {
            Frame::Text(text) | Frame::Passing(text) => {
                let said: Value = serde_json::from_str(text).unwrap();
                let data = &said["data"];
                match said["type"].as_str().unwrap() {
                    "status" => format!("status {}", data["status"]["exec_info"]["queue_remaining"]),
                    "executing" => format!("executing {}", data["node"]),
                    "progress" => format!("progress {}/{}", data["value"], data["max"]),
                    other => other.to_owned(),
                }
            }
            Frame::Picture(bytes) => format!("picture {}", bytes[3]),
            Frame::Result { .. } => "result".to_owned(),
        }),
        _ => None,
    };
    effects.iter().filter_map(frame).collect()
}

/// A desk with two clients.
fn desk() -> Desk {
    let mut desk = Desk::default();
    assert_eq!(heard(&desk.connected(OURS, &scope(), &"ours".into()), OURS), ["status 0"]);
    assert_eq!(heard(&desk.connected(OTHERS, &scope(), &"others".into()), OTHERS), ["status 0"]);
    desk
}

#[test]
fn a_run_is_told_to_its_own_client_in_comfyuis_order() {
    let mut desk = desk();
    assert_eq!(heard(&prompt(&mut desk, "a", Some("ours"), 1), OURS), ["status 1"]);
    let mut all = desk.on_task(&view(1, TaskPhase::Granted), 9);
    assert!(all.is_empty(), "nobody has taken it yet");
    all.extend(desk.on_task(&view(1, TaskPhase::Running), 10));
    all.extend(desk.on_progress(job(1), &step(1, "3", 1, 2), 11));
    all.extend(desk.on_preview(job(1), "image/jpeg", b"x"));
    all.extend(desk.on_progress(job(1), &step(1, "3", 1, 2), 11));
    all.extend(desk.on_progress(job(1), &step(1, "8", 0, 0), 12));
    assert_eq!(
        heard(&all, OURS),
        [
            "status 1",
            "execution_start",
            "execution_cached",
            "progress_state",
            "executing \"3\"",
            "progress_state",
            "progress 1/2",
            "picture 1",
            "progress_state",
            "progress_state",
            "executing \"8\""
        ]
    );
    let done = desk.on_task(&view(1, TaskPhase::Done), 20);
    assert!(heard(&done, OURS).is_empty(), "nothing is said before the results are here");
    let [Effect::End { key: ending, how: How::Success, .. }] = &done[..] else { panic!("{done:?}") };
    assert_eq!(*ending, key("a"));
    assert!(desk.on_task(&view(1, TaskPhase::Done), 21).is_empty(), "it ends once");

    let file = |node: &str, name: &str| OutputFile {
        node: node.into(),
        kind: OutputKind::Image,
        filename: name.into(),
        root: ContentHash::from_bytes([1; 32]),
        key: BlobKey::from_bytes([1; 32]),
        bytes: 3,
    };
    let files = [file("9", "a_00001_.png"), file("10", "ws_00001_.png")];
    let outputs = files.iter().zip(0..).map(|(file, at)| Output::of(file, at, None)).collect();
    let streamed = [Streamed {
        node: "10".into(),
        filename: "ws_00001_.png".into(),
        root: files[1].root,
        key: files[1].key.clone(),
        bytes: 3,
    }];
    let ended = Ended { at_ms: 30, how: How::Success, outputs };
    let last = desk.ended(&key("a"), &ended, &streamed);
    assert_eq!(
        heard(&last, OURS),
        [
            "progress_state",
            "progress_state",
            "executing \"9\"",
            "executed",
            "progress_state",
            "progress_state",
            "executing \"10\"",
            "progress_state",
            "progress 0/1",
            "result",
            "progress_state",
            "execution_success",
            "status 0",
            "executing null"
        ]
    );
    for effects in [&all, &done, &last] {
        assert!(heard(effects, OTHERS).is_empty(), "another client hears nothing of it");
    }
    assert_eq!(desk.history(&scope()), [key("a")]);
    assert_eq!(desk.find(&scope(), "a").unwrap().job_view()["preview_output"]["filename"], "a_00001_.png");
}

#[test]
fn another_node_begins_from_the_beginning_and_nobody_hears_of_an_error() {
    let mut desk = desk();
    prompt(&mut desk, "a", Some("ours"), 1);
    desk.on_task(&view(1, TaskPhase::Running), 10);
    desk.on_progress(job(1), &step(1, "3", 7, 8), 11);
    let mut all = desk.on_task(&view(1, TaskPhase::Queued), 12);
    all.extend(desk.on_task(&view(1, TaskPhase::Running), 13));
    assert!(all.is_empty(), "{all:?}");
    let again = desk.on_progress(job(1), &step(2, "3", 1, 8), 14);
    assert_eq!(heard(&again, OURS), ["progress_state", "executing \"3\"", "progress_state", "progress 1/8"]);
    assert!(
        desk.on_progress(job(1), &step(1, "3", 8, 8), 15).is_empty(),
        "what comes late of the first is nobody's"
    );
}

#[test]
fn failures_and_interrupts_end_a_prompt() {
    let mut desk = desk();
    prompt(&mut desk, "a", Some("ours"), 1);
    prompt(&mut desk, "b", Some("ours"), 2);
    for number in [1, 2] {
        desk.on_task(&view(number, TaskPhase::Running), 10);
    }
    desk.on_progress(job(2), &step(1, "3", 1, 2), 11);
    let failure = Failure::new(FailureClass::Execution, "node 9 (SaveImage): OSError: no");
    let failed = TaskView { failures: vec![("birch".into(), failure)], ..view(1, TaskPhase::Failed) };
    let effects = desk.on_task(&failed, 12);
    let [Effect::End { how: How::Error(data), .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(data["node_type"], "SaveImage");
    let ended = Ended { at_ms: 13, how: How::Error(data.clone()), outputs: Vec::new() };
    assert_eq!(
        heard(&desk.ended(&key("a"), &ended, &[]), OURS),
        ["execution_error", "status 1", "executing null"]
    );

    assert_eq!(desk.interrupt(&scope(), &Named::Nobody, 14), [job(2)]);
    let effects = desk.on_task(&view(2, TaskPhase::Cancelled), 15);
    let [Effect::End { how, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*how, How::Interrupted(Some("3".into())));
    let ended = Ended { at_ms: 16, how: how.clone(), outputs: Vec::new() };
    assert_eq!(
        heard(&desk.ended(&key("b"), &ended, &[]), OURS),
        ["execution_interrupted", "status 0", "executing null"]
    );
    let page =
        Page { status: None, workflow: None, by: Sorted::Created, descending: true, limit: None, offset: 0 };
    let (jobs, count) = desk.jobs(&scope(), &page);
    let told: Vec<&str> = jobs.iter().map(|job| job["status"].as_str().unwrap()).collect();
    assert_eq!((told, count), (vec!["cancelled", "failed"], 2));
    assert!(jobs[1]["execution_error"]["timestamp"].is_u64());
}

#[test]
fn a_prompt_that_ends_before_anything_was_heard_of_it_is_told_whole() {
    let mut desk = desk();
    prompt(&mut desk, "a", Some("ours"), 1);
    desk.on_task(&view(1, TaskPhase::Done), 10);
    let ended = Ended { at_ms: 11, how: How::Success, outputs: Vec::new() };
    let said = heard(&desk.ended(&key("a"), &ended, &[]), OURS);
    assert_eq!(
        said,
        ["execution_start", "execution_cached", "execution_success", "status 0", "executing null"]
    );
}

fn these(ids: &[&str]) -> std::collections::HashSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn interrupts_and_clearings_hit_whom_they_name() {
    let mut desk = desk();
    for (id, client, number) in [("a", "ours", 1), ("b", "others", 2), ("c", "ours", 3), ("d", "others", 4)] {
        prompt(&mut desk, id, Some(client), number);
    }
    for (number, at) in [(1, 20), (2, 10)] {
        desk.on_task(&view(number, TaskPhase::Running), at);
    }
    let named = |desk: &mut Desk, named: Named| desk.interrupt(&scope(), &named, 30);
    assert_eq!(named(&mut desk, Named::Nobody), [], "of two clients nobody knows whose is meant");
    assert_eq!(named(&mut desk, Named::Client("ours".into())), [job(1)]);
    assert_eq!(named(&mut desk, Named::Prompt("c".into())), [], "it does not run");
    assert_eq!(named(&mut desk, Named::Prompt("a".into())), [job(1)]);
    assert_eq!(
        desk.interrupt(&Scope::from("gateway/lee"), &Named::Nobody, 30),
        [],
        "a stranger hits nothing"
    );
    assert_eq!(desk.interrupt(&Scope::from("gateway/lee"), &Named::Prompt("a".into()), 30), []);

    // What comfy-cli does to cancel: first a deletion, then an interrupt that names nothing.
    let (jobs, effects) = desk.delete(&scope(), &these(&["a"]), 40);
    assert!(jobs.is_empty() && effects.is_empty(), "what runs is not deleted");
    assert_eq!(named(&mut desk, Named::Prompt("b".into())), [job(2)], "in between another is named");
    desk.delete(&scope(), &these(&["b"]), 41);
    assert_eq!(named(&mut desk, Named::Nobody), [job(1), job(2)], "both that were deleted");
    assert_eq!(named(&mut desk, Named::Nobody), [], "once");
    desk.delete(&scope(), &these(&["a"]), 40);
    assert_eq!(desk.interrupt(&scope(), &Named::Nobody, 60_000), [], "and not a minute later");
    desk.delete(&scope(), &these(&["a"]), 40);
    desk.on_task(&view(1, TaskPhase::Done), 45);
    assert!(!named(&mut desk, Named::Nobody).contains(&job(2)), "it ended meanwhile: nobody else's is hit");

    let (jobs, effects) = desk.clear(&scope(), &Named::Client("ours".into()));
    assert_eq!(jobs, [job(3)]);
    assert_eq!(heard(&effects, OURS), ["status 1"]);
    assert!(heard(&effects, OTHERS).is_empty());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Forget(gone) if *gone == key("c"))));
    assert!(desk.on_task(&view(3, TaskPhase::Cancelled), 50).is_empty(), "as if it had never been");
    let (jobs, _) = desk.clear(&Scope::from("gateway/lee"), &Named::Nobody);
    assert!(jobs.is_empty());
    assert_eq!(desk.queue(&scope()), (vec![key("a"), key("b")], vec![key("d")]));
    assert_eq!(desk.cancel(&scope(), "d").0, Some(job(4)));
    assert_eq!(desk.cancel(&scope(), "b").0, Some(job(2)));
    assert_eq!(desk.cancel(&scope(), "nobody").0, None);
    assert_eq!(desk.remaining(&scope()), 2);
}

#[test]
fn a_socket_takes_the_place_of_the_one_before() {
    let mut desk = desk();
    prompt(&mut desk, "a", Some("ours"), 1);
    desk.on_task(&view(1, TaskPhase::Running), 10);
    desk.on_progress(job(1), &step(1, "3", 1, 2), 11);
    let again = SocketId(3);
    let effects = desk.connected(again, &scope(), &"ours".into());
    assert!(matches!(effects[0], Effect::Hangup(OURS)));
    assert_eq!(heard(&effects, again), ["status 1", "executing \"3\""]);
    desk.gone(OURS);
    desk.reads_metadata(again, true);
    let effects = desk.on_preview(job(1), "image/jpeg", b"x");
    assert_eq!((heard(&effects, again), heard(&effects, OURS)), (vec!["picture 4".to_owned()], Vec::new()));
    assert!(desk.is_watched(job(1)));
    desk.gone(again);
    assert!(!desk.is_watched(job(1)));
    // The same id at another listener is another client.
    let stranger = SocketId(4);
    let effects = desk.connected(stranger, &Scope::from("film"), &"ours".into());
    assert_eq!(heard(&effects, stranger), ["status 0"]);
    assert!(heard(&desk.on_progress(job(1), &step(1, "3", 2, 2), 12), stranger).is_empty());
}

#[test]
fn ids_are_taken_once_in_a_scope_and_numbers_count_up() {
    let mut desk = Desk::default();
    desk.reserve(&key("a")).unwrap();
    assert_eq!(desk.reserve(&key("a")), Err(NoRoom::Taken), "while it is being queued");
    desk.reserve(&Key { scope: "film".into(), id: "a".into() }).unwrap();
    desk.unreserve(&key("a"));
    prompt(&mut desk, "a", None, 1);
    assert_eq!(desk.reserve(&key("a")), Err(NoRoom::Taken));
    assert_eq!((desk.number(&scope()), desk.number(&"film".into())), (1, 0));
    for number in 0..LIVE_LIMIT - 1 {
        desk.reserve(&key(&format!("r{number}"))).unwrap();
    }
    assert_eq!(desk.reserve(&key("one more")), Err(NoRoom::Full));
}

#[test]
fn waiting_clients_hear_that_we_are_alive() {
    let mut desk = desk();
    assert!(desk.beat().is_empty());
    prompt(&mut desk, "a", Some("ours"), 1);
    let beat = desk.beat();
    assert_eq!((heard(&beat, OURS), heard(&beat, OTHERS)), (vec!["status 1".to_owned()], Vec::new()));
    assert_eq!(heard(&desk.lost(job(1), 9), OURS), ["execution_error", "executing null", "status 0"]);
    assert!(!desk.knows(job(1)));
}

fn over(number: usize, bytes: u64) -> Prompt {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Prompt {
        key: key(&format!("{number:05}")),
        number: (number as u64).into(),
        client: None,
        job: JobId::from_bytes(id),
        created_ms: number as u64,
        bytes,
        started_ms: Some(1),
        workflow: None,
        state: State::Over(Over { at_ms: 1, how: How::Success, summary: Summary::default() }),
        hidden: false,
    }
}

fn forgotten(effects: &[Effect]) -> Vec<String> {
    let key = |effect: &Effect| match effect {
        Effect::Forget(key) => key.id.to_string(),
        other => panic!("{other:?}"),
    };
    effects.iter().map(key).collect()
}

#[test]
fn files_of_prompts_take_so_much_of_the_disk_and_no_more() {
    let mut desk = Desk::default();
    let third = WRITTEN_LIMIT / 3;
    (0..5).for_each(|number| desk.restore(over(number, third)));
    assert_eq!(forgotten(&desk.forget_oldest(&scope())), ["00000", "00001"]);
    assert!(desk.forget_oldest(&scope()).is_empty());
    // What waits is as much again, and then no more is taken.
    for number in 1..=4 {
        prompt(&mut desk, &number.to_string(), None, 100 + number);
    }
    desk.prompts.values_mut().filter(|prompt| prompt.is_live()).for_each(|prompt| prompt.bytes = third);
    assert_eq!(desk.reserve(&key("one more")), Err(NoRoom::Full));
    assert!(desk.reserve(&Key { scope: "film".into(), id: "a".into() }).is_ok(), "another's are its own");
}

#[test]
fn what_is_hidden_is_out_of_history_and_the_oldest_are_forgotten() {
    let mut desk = Desk::default();
    (0..HISTORY_LIMIT + 2).for_each(|number| desk.restore(over(number, 1)));
    assert_eq!(forgotten(&desk.forget_oldest(&scope())), ["00000", "00001"]);
    assert_eq!(desk.number(&scope()), HISTORY_LIMIT as i64 + 2, "numbers go on where they stood");
    assert_eq!(desk.hide(&scope(), Some(&these(&["00005", "00000"]))), [key("00005")]);
    assert!(desk.find(&scope(), "00005").is_none());
    assert_eq!(desk.history(&scope()).len(), HISTORY_LIMIT - 1);
    assert_eq!(desk.hide(&scope(), None).len(), HISTORY_LIMIT - 1);
    assert!(desk.history(&scope()).is_empty());
}
