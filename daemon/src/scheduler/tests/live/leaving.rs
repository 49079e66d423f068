//! A machine whose GPU is wanted back, and one that is drained, over real links.

use super::*;
use crate::scheduler::DrainWish;
use crate::scheduler::giving::{Known, SlotBack};
use crate::scheduler::lend::{Hand, Owner};
use scenemesh_protocol::task::FailureClass;

#[tokio::test(flavor = "multi_thread")]
async fn a_word_sends_the_task_elsewhere_and_another_brings_the_next() {
    let (asks, first, second) = (House::new(0), House::new(1), House::new(1));
    let roster = pool(&[&asks, &first, &second]);
    let here = asks.start(Some(&roster)).await;
    let (one, two) = (first.start(Some(&roster)).await, second.start(Some(&roster)).await);
    here.knows(first.id(), &one).await;
    here.knows(second.id(), &two).await;
    let job = here.scheduler.submit(spec(&sampler("long"), 1, Reach::Pool)).await.unwrap();
    let running = |view: &JobView| view.tasks[0].progress.is_some();
    let at = here.until(job, running).await.tasks[0].node;
    let (holder, other, name) =
        if at == Some(first.id()) { (&one, &second, "machine 2") } else { (&two, &first, "machine 1") };
    holder.lending.say(Hand::BackNow, None).await.unwrap();
    let shown = holder.scheduler.giving().await;
    assert!(matches!(shown.owner, Owner::Back { .. }), "whoever said it is told how it goes: {shown:?}");
    other.permits.add_permits(1);
    let view = here.done(job).await;
    assert_eq!((view.tasks[0].node_name.as_str(), view.tasks[0].attempts), (name, 2));
    // Of another studio it hears no more than that.
    let (_, failure) = &view.tasks[0].failures[0];
    assert_eq!((failure.class, failure.detail.as_str()), (FailureClass::OwnerReturned, "not now"));
    let given = async {
        loop {
            if let Some(last) = holder.scheduler.giving().await.last {
                return last;
            }
            tokio::task::yield_now().await;
        }
    };
    let last = tokio::time::timeout(SOON, given).await.unwrap();
    let SlotBack::Done(report) = &last.slots[0].1 else { panic!("{last:?}") };
    assert!(matches!(report.known(), Known::Unverified { .. }), "a brush has no memory to tell of");
    here.stop().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_ends_once_its_results_are_taken() {
    let (asks, renders) = (House::new(0), House::new(1));
    let roster = pool(&[&asks, &renders]);
    let (here, there) = (asks.start(Some(&roster)).await, renders.start(Some(&roster)).await);
    here.knows(renders.id(), &there).await;
    let job = here.scheduler.submit(spec(&sampler("long"), 2, Reach::Pool)).await.unwrap();
    here.until(job, |view| view.tasks.iter().any(|task| task.progress.is_some())).await;
    let load = there.scheduler.drain(DrainWish { draining: true, exit: true, within: None }).await;
    assert!(load.draining && load.exits && load.running == 1, "{load:?}");
    assert!(!there.exit.is_cancelled());
    renders.permits.add_permits(2);
    tokio::time::timeout(SOON, there.exit.cancelled()).await.unwrap();
    let view = here.scheduler.show(job).await.unwrap();
    let done = view.tasks.iter().filter(|task| task.state == scheduler::TaskPhase::Done).count();
    assert_eq!(done, 1, "what ran was finished and taken, the next was not begun: {view:#?}");
    here.stop().await;
    there.stop().await;
}
