//! A graph that may not run is refused when its envelope is opened, and nothing of it is fetched.

use super::*;

/// An allowed class with a name that climbs, and a file that would have to be fetched; `padding` makes it large.
fn hostile(padding: usize) -> String {
    let padding = "a".repeat(padding);
    format!(
        r#"{{"1":{{"class_type":"LoadImage","inputs":{{"image":"face.png","note":"../../keys","padding":"{padding}"}}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_graph_is_refused_before_its_inputs_are_fetched() {
    let (asks, renders) = (House::new(0), House::new(1));
    renders.permits.add_permits(10);
    let roster = pool(&[&asks, &renders]);
    let (here, there) = (asks.start(Some(&roster)).await, renders.start(Some(&roster)).await);
    here.knows(renders.id(), &there).await;
    there.knows(asks.id(), &here).await;
    // A large one travels as a blob of its own, which is opened before anything else is asked for.
    for padding in [0, 600_000] {
        let input = here.sealed_input("face.png", b"canary of the input").await;
        let root = input.root;
        let job = with_input(input, &hostile(padding), 1, Reach::Pool);
        let job = here.scheduler.submit(job).await.unwrap();
        let refused = |view: &JobView| {
            let failures = view.tasks.iter().flat_map(|task| &task.failures);
            failures.into_iter().any(|(_, failure)| {
                failure.to_string()
                    == "refused by policy: node 1 (LoadImage), input note: it climbs out of its folder (..)"
            })
        };
        here.until(job, refused).await;
        assert!(there.store.blobs.manifest(root).await.is_err(), "no input came over");
        here.scheduler.cancel(crate::scheduler::Id::Job(job).into()).await;
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn partner_nodes_and_credentials_are_not_even_queued() {
    let house = House::new(0);
    let here = house.start(None).await;
    let partner = r#"{"1":{"class_type":"OpenAIChatNode","inputs":{"prompt":"hello"}}}"#;
    let refused = here.scheduler.submit(spec(partner, 1, Reach::Machine)).await.unwrap_err();
    assert!(
        matches!(&refused, SubmitError::Partner { node, class } if node == "1" && class == "OpenAIChatNode")
    );
    let token = r#"{"1":{"class_type":"KSampler","inputs":{"seed":1,"auth_token_comfy_org":"hush"}}}"#;
    let refused = here.scheduler.submit(spec(token, 1, Reach::Machine)).await.unwrap_err();
    assert!(
        matches!(&refused, SubmitError::Token { .. }) && !refused.to_string().contains("hush"),
        "{refused}"
    );
    here.stop().await;
}
