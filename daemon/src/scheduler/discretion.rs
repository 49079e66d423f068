//! PURE: what a node of another studio is told. "Available" or "not now", and of a failed task what its own graph did;
//! never why this machine has no time, what else lies on it, or who works at it.
//!
//! Every answer about a task that goes to another studio passes here, in one place; between machines of one studio
//! the whole sentences travel.

use scenemesh_protocol::lease::{GrantReply, OfferReply, Refusal, RefusalReason};
use scenemesh_protocol::messages::{Decline, Declined, Response};
use scenemesh_protocol::task::{Failure, FailureClass};

/// Longest message of a failed graph node that is passed on, in bytes.
const MESSAGE: usize = 300;

/// An answer as another studio gets it.
pub(super) fn response(response: Response) -> Response {
    match response {
        Response::Offer(OfferReply::Refused(why)) => Response::Offer(OfferReply::Refused(refusal(why))),
        Response::Offer(OfferReply::Waiting { position, .. }) => {
            // How long it takes tells what runs here.
            Response::Offer(OfferReply::Waiting { position, eta_ms: None })
        }
        Response::Grant(GrantReply::Rejected { refusal: why, failure: failed }) => {
            let failed = failed.map(failure);
            let mut why = refusal(why);
            if let Some(failed) = &failed {
                why.detail.clone_from(&failed.detail);
            }
            Response::Grant(GrantReply::Rejected { refusal: why, failure: failed })
        }
        Response::Declined(declined) => Response::Declined(decline(declined)),
        other => other,
    }
}

fn decline(declined: Declined) -> Declined {
    match declined.why {
        Decline::Busy | Decline::Stopping => Declined { why: Decline::Busy, detail: "not now".into() },
        Decline::NoHello | Decline::NotAllowed | Decline::Unsupported => declined,
    }
}

fn refusal(refusal: Refusal) -> Refusal {
    let (reason, detail) = match refusal.reason {
        RefusalReason::NotReady
        | RefusalReason::Stopping
        | RefusalReason::DiskFull
        | RefusalReason::NotNow => (RefusalReason::NotNow, "not now".to_owned()),
        RefusalReason::Busy => (RefusalReason::Busy, "not now".to_owned()),
        // What was asked for, and not what there is instead.
        RefusalReason::MissingClass => (refusal.reason, "it lacks a node class of the task".to_owned()),
        RefusalReason::MissingModel => (refusal.reason, "it does not share a model of the task".to_owned()),
        RefusalReason::TooLittleVram => (refusal.reason, "its GPU is too small for the task".to_owned()),
        // About the sender's own grant and rights.
        RefusalReason::NotAllowed
        | RefusalReason::BadGrant
        | RefusalReason::Tombstone
        | RefusalReason::Version => (refusal.reason, refusal.detail),
    };
    Refusal { reason, detail }
}

/// A failure as another studio gets it, before it is signed.
pub(super) fn failure(failure: Failure) -> Failure {
    let place = place(&failure.detail);
    let at = |words: &str| place.map_or_else(|| words.to_owned(), |place| format!("{place}: {words}"));
    let detail = match failure.class {
        // Said by this node's own policy and checks, about the task alone.
        FailureClass::Policy | FailureClass::Cancelled | FailureClass::Revoked => failure.detail.clone(),
        FailureClass::InvalidGraph | FailureClass::Execution => {
            let said = place.map_or(failure.detail.as_str(), |place| {
                failure.detail[place.len()..].trim_start_matches(": ")
            });
            let silent = "it failed, and what ComfyUI said names things of that machine";
            if is_plain(said) { failure.detail.clone() } else { at(kind(said).unwrap_or(silent)) }
        }
        FailureClass::MissingModelOrClass => at("a model or a node class of the task is not shared there"),
        FailureClass::OutOfMemory => at("not enough video memory"),
        FailureClass::ComfyuiDied => "its ComfyUI went away".to_owned(),
        FailureClass::Transfer => "inputs or results could not be moved".to_owned(),
        FailureClass::DiskFull => "it has no room for the task".to_owned(),
        FailureClass::Timeout => "it took longer than it may".to_owned(),
        FailureClass::OwnerReturned => "not now".to_owned(),
        FailureClass::ResultDoesNotVerify | FailureClass::LeaseLost | FailureClass::Suspect => String::new(),
    };
    Failure { class: failure.class, detail }
}

/// `node 3 (KSampler)` or `node 3 (KSampler), input x` at the beginning: parts of the task's own graph.
fn place(detail: &str) -> Option<&str> {
    let end = detail.starts_with("node ").then(|| detail.find("): ").map(|at| at + 1))?;
    let end = end.or_else(|| detail.starts_with("node ").then(|| detail.find(": "))?)?;
    Some(&detail[..end])
}

/// The type of an exception, such as `RuntimeError`, at the beginning of what was said.
fn kind(said: &str) -> Option<&str> {
    let kind = said.split(": ").next()?;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    (kind.len() < said.len() && kind.len() <= 60 && !kind.is_empty() && kind.chars().all(word))
        .then_some(kind)
}

/// Numbers, shapes and words. Whatever can carry a path, an address, a name in quotes or a list of what else is there
/// is not.
fn is_plain(said: &str) -> bool {
    const TELLING: [char; 13] = ['/', '\\', '~', '@', '[', ']', '{', '}', '\'', '"', '`', '‘', '“'];
    said.len() <= MESSAGE && !said.contains(TELLING) && !said.contains("one of") && !said.contains("not in")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(class: FailureClass, detail: &str) -> String {
        failure(Failure::new(class, detail)).detail
    }

    #[test]
    fn of_its_own_machine_a_renderer_says_not_now() {
        for reason in [RefusalReason::NotReady, RefusalReason::Stopping, RefusalReason::DiskFull] {
            let whole = Refusal { reason, detail: "kim drained it until 18:00".into() };
            let told = response(Response::Offer(OfferReply::Refused(whole)));
            let same = Refusal { reason: RefusalReason::NotNow, detail: "not now".into() };
            assert_eq!(told, Response::Offer(OfferReply::Refused(same)));
        }
        let busy = Declined { why: Decline::Stopping, detail: "the disk of kim's machine is full".into() };
        let told = response(Response::Declined(busy));
        assert_eq!(told, Response::Declined(Declined { why: Decline::Busy, detail: "not now".into() }));
        let waiting = OfferReply::Waiting { position: 2, eta_ms: Some(90_000) };
        let told = response(Response::Offer(waiting));
        assert_eq!(told, Response::Offer(OfferReply::Waiting { position: 2, eta_ms: None }));
    }

    #[test]
    fn what_the_task_itself_did_wrong_is_told() {
        let shapes = "node 3 (KSampler): RuntimeError: mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)";
        assert_eq!(told(FailureClass::Execution, shapes), shapes);
        let policy = "the policy there does not allow the class RunPython";
        assert_eq!(told(FailureClass::Policy, policy), policy);
    }

    #[test]
    fn what_lies_on_the_machine_is_not() {
        use FailureClass as F;
        for (class, whole) in [
            (F::Execution, "node 1 (LoadImage): OSError: cannot read /home/kim/secret/shot_1.exr"),
            (F::Execution, r"node 1 (LoadImage): OSError: cannot read C:\Users\kim\secret.exr"),
            (F::Execution, "node 1 (X): ValueError: 'secret.png' is truncated"),
            (
                F::InvalidGraph,
                "node 4 (LoraLoader), input lora_name: x is not one of secret.safetensors, more",
            ),
            (
                F::InvalidGraph,
                "node 1 (LoadImage), input image: Value not in list: image: x not in (secret.png)",
            ),
            (
                F::MissingModelOrClass,
                "node 4 (LoraLoader), input lora_name: x is not one of secret.safetensors",
            ),
            (F::OutOfMemory, "node 3 (KSampler): torch.OutOfMemoryError: Process 77 of kim has 9 GiB in use"),
            (F::ComfyuiDied, "http://127.0.0.1:8188 answers no more: /home/kim/secret"),
            (F::Transfer, "a result cannot be stored: /home/kim/.local/share/scenemesh/blobs/secret"),
            (F::DiskFull, "/home/kim has 12 bytes left of secret"),
            (F::Timeout, "it ran 12 h, kim allows 1 h"),
            (F::OwnerReturned, "kim came back"),
        ] {
            let said = told(class, whole);
            for part in ["kim", "secret", "8188", "home", "Users"] {
                assert!(!said.contains(part), "{class:?}: {said}");
            }
            assert!(!said.is_empty(), "{class:?}");
        }
        let kept = told(F::Execution, "node 1 (LoadImage): OSError: cannot read /home/kim/secret.exr");
        assert_eq!(kept, "node 1 (LoadImage): OSError");
        let rejected = GrantReply::Rejected {
            refusal: Refusal { reason: RefusalReason::MissingModel, detail: "lacks secret".into() },
            failure: Some(Failure::new(F::MissingModelOrClass, "x is not one of secret.safetensors")),
        };
        let Response::Grant(GrantReply::Rejected { refusal, failure }) = response(Response::Grant(rejected))
        else {
            panic!("another answer");
        };
        assert!(!refusal.detail.contains("secret") && !failure.unwrap().detail.contains("secret"));
    }
}
