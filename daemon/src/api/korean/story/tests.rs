//! Every variant is said in both languages. What stands in a sentence is given in capitals and digits, so that any
//! small Latin letter that is left over is an English word, but for the few that Korean texts keep.

use scenemesh_protocol::task::ModelName;

use super::*;
use crate::executor::policy::{Family, WhyDenied};

/// Words of the command line, of files and of ComfyUI that are the same in Korean.
const KEPT: [&str; 7] = ["hygiene = partial", "render", "drain", "show", "ComfyUI", "pool", "checkpoints"];

fn node() -> String {
    "BIRCH".into()
}

fn reasons() -> [RefusalReason; 12] {
    use RefusalReason as R;
    let all = [
        R::NotReady,
        R::MissingClass,
        R::MissingModel,
        R::TooLittleVram,
        R::NotAllowed,
        R::Busy,
        R::Stopping,
        R::DiskFull,
        R::BadGrant,
        R::Tombstone,
        R::Version,
        R::NotNow,
    ];
    // A reason that is added has to be added above.
    for reason in all {
        match reason {
            R::NotReady
            | R::MissingClass
            | R::MissingModel
            | R::TooLittleVram
            | R::NotAllowed
            | R::Busy
            | R::Stopping
            | R::DiskFull
            | R::BadGrant
            | R::Tombstone
            | R::Version
            | R::NotNow => {}
        }
    }
    all
}

fn classes() -> [FailureClass; 15] {
    use FailureClass as F;
    let all = [
        F::InvalidGraph,
        F::MissingModelOrClass,
        F::OutOfMemory,
        F::ComfyuiDied,
        F::Policy,
        F::Transfer,
        F::DiskFull,
        F::Timeout,
        F::OwnerReturned,
        F::Revoked,
        F::Cancelled,
        F::ResultDoesNotVerify,
        F::LeaseLost,
        F::Execution,
        F::Suspect,
    ];
    for class in all {
        match class {
            F::InvalidGraph
            | F::MissingModelOrClass
            | F::OutOfMemory
            | F::ComfyuiDied
            | F::Policy
            | F::Transfer
            | F::DiskFull
            | F::Timeout
            | F::OwnerReturned
            | F::Revoked
            | F::Cancelled
            | F::ResultDoesNotVerify
            | F::LeaseLost
            | F::Execution
            | F::Suspect => {}
        }
    }
    all
}

fn noes() -> Vec<No> {
    let detail = |detail: &str| No::Refused { reason: RefusalReason::TooLittleVram, detail: detail.into() };
    let mut all = vec![
        No::NoAnswer { why: "NodeId(7) is not connected".into() },
        No::Balks,
        No::FailedMany { tasks: 3 },
        No::Class { class: "K".into(), why: WhyDenied::Family(Family::Paths) },
        No::Class { class: "K".into(), why: WhyDenied::Unlisted },
        No::NotSealed { why: "it is no member of the pool any more".into() },
        detail("it has 8.0 GB of video memory, 24.0 GB needed"),
        detail("it takes no new work: it is being drained"),
        detail("ITS OWN WORDS"),
    ];
    all.extend(reasons().map(|reason| No::Refused { reason, detail: String::new() }));
    for no in &all {
        match no {
            No::Class { .. }
            | No::Refused { .. }
            | No::NoAnswer { .. }
            | No::Balks
            | No::FailedMany { .. }
            | No::NotSealed { .. } => {}
        }
    }
    all
}

fn why_nots() -> Vec<WhyNot> {
    let model = ModelName::new("checkpoints", "SDXL");
    let failure = Failure::new(FailureClass::Execution, "");
    let mut all = vec![
        WhyNot::OutOfReach("pool"),
        WhyNot::OutOfProject("pool"),
        WhyNot::NotOfProject,
        WhyNot::NoProject,
        WhyNot::NotConnected,
        WhyNot::LinkRefused("it is not a member".into()),
        WhyNot::DoesNotRender,
        WhyNot::NoAdvert,
        WhyNot::NoSlot,
        WhyNot::NotNow,
        WhyNot::NoInventory,
        WhyNot::LacksClasses { first: "K".into(), more: 0 },
        WhyNot::LacksModels { first: model, more: 3 },
        WhyNot::VramUnknown { need_mib: 1024 },
        WhyNot::TooLittleVram { need_mib: 4096, has_mib: 1024 },
        WhyNot::CcUnknown { need: 89 },
        WhyNot::CcTooLow { need: 89, has: 86 },
        WhyNot::PartialHygiene,
        WhyNot::NoneLeft,
        WhyNot::FailedThere { failure: Some(failure), returns: false },
        WhyNot::FailedThere { failure: None, returns: true },
    ];
    all.extend(noes().into_iter().map(WhyNot::SaidNo));
    for why in &all {
        match why {
            WhyNot::OutOfReach(_)
            | WhyNot::OutOfProject(_)
            | WhyNot::NotOfProject
            | WhyNot::NoProject
            | WhyNot::NotConnected
            | WhyNot::LinkRefused(_)
            | WhyNot::DoesNotRender
            | WhyNot::NoAdvert
            | WhyNot::NoSlot
            | WhyNot::NotNow
            | WhyNot::NoInventory
            | WhyNot::LacksClasses { .. }
            | WhyNot::LacksModels { .. }
            | WhyNot::VramUnknown { .. }
            | WhyNot::TooLittleVram { .. }
            | WhyNot::CcUnknown { .. }
            | WhyNot::CcTooLow { .. }
            | WhyNot::PartialHygiene
            | WhyNot::NoneLeft
            | WhyNot::FailedThere { .. }
            | WhyNot::SaidNo(_) => {}
        }
    }
    all
}

fn doings() -> [Doing; 5] {
    [
        Doing::FetchingInputs,
        Doing::QueuedInComfyui,
        Doing::Steps { graph_node: "3".into(), step: 4, max: 20 },
        Doing::Nodes { done: 1, of: 7 },
        Doing::Sealing,
    ]
}

fn failures() -> Vec<(String, Failure)> {
    classes().map(|class| (node(), Failure::new(class, "ITS OWN WORDS"))).to_vec()
}

fn whys() -> Vec<Why> {
    let held = |at| Why::Held { node: node(), at, silent_s: Some(9) };
    let ats = [
        Held::Granted,
        Held::Accepted,
        Held::Fetching,
        Held::FetchBroke { why: "NodeId(7) did not answer in time".into() },
        Held::Somehow,
    ];
    let places = [
        Place::Asked,
        Place::Waiting { position: 2, eta_ms: None },
        Place::Waiting { position: 2, eta_ms: Some(30_000) },
    ];
    let model = ModelName::new("checkpoints", "SDXL");
    let mut all = vec![
        Why::Waits,
        Why::NoNodes,
        Why::Outside { words: "this node was revoked by AMBER".into() },
        Why::BehindOthers,
        Why::InLine { places: places.map(|place| ("this machine".into(), place)).to_vec() },
        Why::Claimed { node: node() },
        Why::Done { node: node(), exec_ms: 1500 },
        Why::Failed { failures: failures() },
        Why::Cancelled,
        Why::Paused,
        Why::BuildsOn { on: 3, more: 0 },
        Why::BuildsOn { on: 3, more: 7 },
        Why::Skipped { on: 3, failed: true },
        Why::Skipped { on: 3, failed: false },
        Why::AllDone { tasks: 3 },
        Why::OfTask { index: 2, of: 3, why: Box::new(Why::Cancelled) },
    ];
    all.extend(why_nots().into_iter().map(|why| Why::Nobody {
        reasons: vec![(node(), why)],
        more: 2,
        elsewhere: Some((model.clone(), vec![node()])),
    }));
    all.extend(ats.into_iter().chain(doings().map(Held::At)).map(held));
    all
}

fn lines() -> Vec<Line> {
    let mut all = vec![
        Line::Queued,
        Line::QueuedAgain,
        Line::Offered { node: node() },
        Line::InLine { node: node(), position: 3 },
        Line::Claimed { node: node() },
        Line::NotSealed { node: node(), why: "its job is not known any more".into() },
        Line::Granted { node: node(), attempt: 2 },
        Line::BadSignature { node: node() },
        Line::Accepted { node: node() },
        Line::Silent { node: node() },
        Line::Lost { node: node(), silent_s: 20 },
        Line::Unheld { node: node() },
        Line::Back { node: node() },
        Line::Finished { node: node() },
        Line::FetchBroke { node: node(), why: "the connection was closed".into() },
        Line::Done { node: node(), files: 4 },
        Line::FailedForGood,
        Line::Cancelled,
        Line::Paused,
        Line::Resumed,
        Line::Suspect { node: node(), files: 2 },
        Line::NotWiped { node: node() },
        Line::KeptOn { node: node() },
        Line::NotKept { node: node(), why: "the node is stopping".into() },
        Line::KeptFor { node: node() },
        Line::TakenUp { node: node() },
        Line::GivenBack { node: node() },
        Line::InHand { node: node() },
    ];
    all.extend(noes().into_iter().flat_map(|no| {
        [
            Line::SaidNo { node: node(), no: no.clone() },
            Line::Rejected { node: node(), no: no.clone() },
            Line::NotTaken { node: node(), no },
        ]
    }));
    all.extend(doings().map(|doing| Line::Doing { node: node(), doing }));
    all.extend(failures().into_iter().map(|(node, failure)| Line::Failed { node, failure }));
    for line in &all {
        match line {
            Line::Queued
            | Line::QueuedAgain
            | Line::Offered { .. }
            | Line::InLine { .. }
            | Line::SaidNo { .. }
            | Line::Claimed { .. }
            | Line::NotSealed { .. }
            | Line::Granted { .. }
            | Line::BadSignature { .. }
            | Line::Accepted { .. }
            | Line::Rejected { .. }
            | Line::NotTaken { .. }
            | Line::Doing { .. }
            | Line::Silent { .. }
            | Line::Lost { .. }
            | Line::Unheld { .. }
            | Line::Back { .. }
            | Line::Finished { .. }
            | Line::FetchBroke { .. }
            | Line::Done { .. }
            | Line::Failed { .. }
            | Line::FailedForGood
            | Line::Cancelled
            | Line::Paused
            | Line::Resumed
            | Line::Suspect { .. }
            | Line::NotWiped { .. }
            | Line::KeptOn { .. }
            | Line::NotKept { .. }
            | Line::KeptFor { .. }
            | Line::TakenUp { .. }
            | Line::GivenBack { .. }
            | Line::InHand { .. } => {}
        }
    }
    all
}

fn is_korean(text: &str) {
    let hangul = |c: char| ('가'..='힣').contains(&c);
    assert!(text.contains(hangul), "no Hangul: {text}");
    let mut rest = text.replace("NodeId(7)", "");
    for kept in KEPT {
        rest = rest.replace(kept, "");
    }
    assert!(!rest.contains(|c: char| c.is_ascii_lowercase()), "English is left: {text}");
}

fn is_english(text: &str) {
    assert!(text.is_ascii() && !text.is_empty(), "not English: {text}");
}

#[test]
fn every_why_is_said_in_both_languages() {
    for told in whys() {
        is_korean(&why(&told));
        is_english(&told.to_string());
        assert!(!told.code().is_empty());
    }
}

#[test]
fn every_line_of_a_log_is_said_in_both_languages() {
    for told in lines() {
        is_korean(&line(&told));
        is_english(&told.to_string());
        assert!(!told.code().is_empty());
    }
}

#[test]
fn every_failure_is_said_in_both_languages() {
    for (_, told) in failures() {
        is_korean(&failure(&told));
        is_english(&told.to_string());
    }
    let failed = Failure::new(FailureClass::ComfyuiDied, "its ComfyUI did not become ready");
    assert_eq!(failure(&failed), "ComfyUI가 멈춤: ComfyUI가 준비되지 않음");
}
