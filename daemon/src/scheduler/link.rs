//! The conversation as the two machines have it: which action is which question, whom a question that comes in
//! is for, and what an answer means to whoever asked. The same for a peer across the network and for the other
//! machine of this node.

use scenemesh_protocol::ids::{ClaimId, JobId, NodeId, ReservationId, TaskId};
use scenemesh_protocol::lease::{Cancel, Probe};
use scenemesh_protocol::messages::{Decline, Declined, Request, Response};

use super::conversation::{Answer, AttemptKey, NoAnswer, Ticket};
use super::{renderer, requester};

/// A question to somebody, and what it was about.
#[derive(Clone, Debug)]
pub struct Question {
    pub to: NodeId,
    pub request: Request,
    pub about: About,
}

/// An action, sorted: a question to somebody, or something else to do.
#[derive(Clone, Debug)]
pub enum Sorted<A> {
    Asks(Box<Question>),
    Does(A),
}

/// What must be remembered of a question to understand its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Offer {
        node: NodeId,
        reservation: ReservationId,
    },
    Grant {
        task: TaskId,
        attempt: u32,
    },
    Cancel {
        task: TaskId,
        attempt: u32,
    },
    Probe {
        task: TaskId,
        attempt: u32,
    },
    Ack,
    Claim {
        claim: ClaimId,
    },
    Progress {
        key: AttemptKey,
    },
    Finished {
        key: AttemptKey,
    },
    Keep {
        job: JobId,
    },
    TakeBack {
        job: JobId,
    },
    KeepNews {
        job: JobId,
    },
    Release {
        job: JobId,
    },
    /// A result brought to a node that is not its attempt's requester.
    Delivery {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
}

/// An input, and whose it is.
#[derive(Debug)]
pub enum Inbound {
    Requester(requester::Input),
    Renderer(renderer::Input),
}

/// The question in a requester's action, if it is one.
pub fn sort_for_requester(action: requester::Action) -> Sorted<requester::Action> {
    use requester::Action as A;
    let (to, request, about) = match action {
        A::Offer { node, offer } => {
            let about = About::Offer { node, reservation: offer.reservation };
            (node, Request::from(offer), about)
        }
        A::Grant { node, task, attempt, grant } => {
            (node, Request::from((*grant).clone()), About::Grant { task, attempt })
        }
        A::Cancel { node, task, attempt } => {
            (node, Request::from(Cancel { task, attempt }), About::Cancel { task, attempt })
        }
        A::Probe { node, task, attempt } => {
            (node, Request::from(Probe { task, attempt }), About::Probe { task, attempt })
        }
        A::Ack { node, ack } => (node, Request::from(ack), About::Ack),
        A::TakeBack { node, ask } => (node, Request::from(ask), About::TakeBack { job: ask.job }),
        A::KeepNews { node, news } => {
            let job = news.job;
            (node, Request::from(news), About::KeepNews { job })
        }
        A::Release { node, ask } => (node, Request::from(ask), About::Release { job: ask.job }),
        other => return Sorted::Does(other),
    };
    Sorted::Asks(Box::new(Question { to, request, about }))
}

/// The question in a renderer's action, if it is one.
pub fn sort_for_renderer(action: renderer::Action) -> Sorted<renderer::Action> {
    use renderer::Action as A;
    let (to, request, about) = match action {
        A::Claim { node, claim } => {
            let about = About::Claim { claim: claim.claim };
            (node, Request::from(claim), about)
        }
        A::Progress { key, progress } => (key.from, Request::from(*progress), About::Progress { key }),
        A::Finished { key, finished } => (key.from, Request::from(*finished), About::Finished { key }),
        other => return Sorted::Does(other),
    };
    Sorted::Asks(Box::new(Question { to, request, about }))
}

/// Whom a question is for. Some are asked of both sides; `ours` tells whether our requester is the one that is meant:
/// [`requester::Requester::is_asked`].
///
/// # Errors
/// When the verb is not the scheduler's.
pub fn route(
    from: NodeId,
    request: Request,
    ticket: Ticket,
    ours: impl FnOnce(&Request) -> bool,
) -> Result<Inbound, Declined> {
    use renderer::Input as Render;
    use requester::Input as Ask;
    if ours(&request) {
        match request {
            Request::Probe(probe) => {
                return Ok(Inbound::Requester(Ask::Probed { node: from, probe, ticket }));
            }
            Request::Cancel(cancel) => {
                return Ok(Inbound::Requester(Ask::CancelAsked { node: from, cancel, ticket }));
            }
            Request::Ack(ack) => return Ok(Inbound::Requester(Ask::Acked { node: from, ack, ticket })),
            _ => {}
        }
    }
    Ok(match request {
        Request::Offer(offer) => Inbound::Renderer(Render::Offered { from, offer, ticket }),
        Request::Grant(grant) => Inbound::Renderer(Render::Granted { from, grant: Box::new(grant), ticket }),
        Request::Cancel(cancel) => Inbound::Renderer(Render::CancelAsked { from, cancel, ticket }),
        Request::Ack(ack) => Inbound::Renderer(Render::Acked { from, ack, ticket }),
        Request::Probe(probe) => Inbound::Renderer(Render::Probed { from, probe, ticket }),
        Request::Claim(claim) => Inbound::Requester(Ask::Claimed { node: from, claim, ticket }),
        Request::Progress(progress) => {
            Inbound::Requester(Ask::Progressed { node: from, progress: Box::new(progress), ticket })
        }
        Request::Finished(finished) => {
            Inbound::Requester(Ask::Finished { node: from, finished: Box::new(finished), ticket })
        }
        Request::Keep(keep) => {
            Inbound::Requester(Ask::KeepAsked { node: from, keep: Box::new(keep), ticket })
        }
        Request::KeepNews(news) => Inbound::Requester(Ask::NewsTold { node: from, news, ticket }),
        Request::TakeBack(ask) => Inbound::Requester(Ask::TakeBackAsked { node: from, ask, ticket }),
        Request::Release(ask) => Inbound::Requester(Ask::Released { node: from, ask, ticket }),
        other => {
            let detail = format!("{} is not for the scheduler", other.name());
            return Err(Declined { why: Decline::Unsupported, detail });
        }
    })
}

/// What an answer means; `None` where nobody waits for one.
pub fn understand(about: About, answer: Answer<Response>) -> Option<Inbound> {
    use renderer::Input as Render;
    use requester::Input as Ask;

    macro_rules! expect {
        ($variant:ident) => {
            match answer {
                Ok(Response::$variant(body)) => Ok(body),
                other => Err(unusable(other)),
            }
        };
    }

    Some(match about {
        About::Offer { node, reservation } => {
            Inbound::Requester(Ask::OfferAnswered { node, reservation, answer: expect!(Offer) })
        }
        About::Grant { task, attempt } => {
            Inbound::Requester(Ask::GrantAnswered { task, attempt, answer: expect!(Grant) })
        }
        About::Cancel { task, attempt } => {
            Inbound::Requester(Ask::CancelAnswered { task, attempt, answer: expect!(Attempt) })
        }
        About::Probe { task, attempt } => {
            Inbound::Requester(Ask::ProbeAnswered { task, attempt, answer: expect!(Attempt) })
        }
        About::Ack => return None,
        About::Claim { claim } => Inbound::Renderer(Render::ClaimAnswered { claim, answer: expect!(Claim) }),
        About::Progress { key } => {
            Inbound::Renderer(Render::ProgressAnswered { key, answer: expect!(Verdict) })
        }
        About::Keep { job } => Inbound::Requester(Ask::KeepAnswered { job, answer: expect!(Keep) }),
        About::TakeBack { job } => Inbound::Requester(Ask::TakenBack { job, answer: expect!(TakeBack) }),
        About::KeepNews { job } => {
            Inbound::Requester(Ask::NewsAnswered { job, answer: expect!(Done).map(|_| ()) })
        }
        About::Release { job } => {
            Inbound::Requester(Ask::ReleaseAnswered { job, answer: expect!(Done).map(|_| ()) })
        }
        About::Delivery { node, task, attempt } => {
            let answer = expect!(Finished);
            Inbound::Requester(Ask::DeliveryAnswered { node, task, attempt, answer })
        }
        About::Finished { key } => {
            Inbound::Renderer(Render::FinishedAnswered { key, answer: expect!(Finished) })
        }
    })
}

fn unusable(answer: Answer<Response>) -> NoAnswer {
    match answer {
        Err(why) => why,
        Ok(Response::Declined(declined)) => NoAnswer(format!("declined: {}", declined.detail)),
        Ok(other) => NoAnswer(format!("answered with {}", other.name())),
    }
}
