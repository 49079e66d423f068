//! What a caller may see and touch of a job: one's own, or everybody's with the role `operate`.

use axum::Extension;
use scenemesh_protocol::api::{ErrorCode, Role};
use scenemesh_protocol::ids::JobId;

use super::guard::Caller;
use super::trouble::Trouble;
use super::{Node, jobs};
use crate::messages::Message;
use crate::scheduler;

/// The caller, as handlers take it.
pub(super) type Who = Extension<Caller>;

impl Caller {
    /// Whether what a job of this person is about may be shown to the caller.
    pub(super) fn sees(&self, person: &str) -> bool {
        self.role >= Role::Operate || (self.role >= Role::Submit && *self.person == *person)
    }
}

/// Lets a caller through to its own job, or to any with `operate`.
pub(super) async fn own(node: &Node, caller: &Caller, job: JobId) -> Result<scheduler::JobView, Trouble> {
    let view = node.ports.scheduler.show(job).await.ok_or_else(|| jobs::no_such(&job.short()))?;
    if caller.sees(&view.person) {
        return Ok(view);
    }
    let message = Message::SomebodysJob { job: job.short() };
    Err(Trouble::new(ErrorCode::NotAllowed, &message).hint(&Message::HintOperate))
}
