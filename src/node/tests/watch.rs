//! Engines that die, come back, and say how busy they are.

use super::harness::{FakeEngine, Running, Sent};
use crate::{
    node::metrics::Scrape,
    telemetry::metrics::{Exposition, Format},
};

/// The engine's table, with short rests between questions.
fn watched(engine: &FakeEngine) -> String {
    format!("{}watch_ms = 20\n", engine.config())
}

async fn until_well(node: &Running, well: bool) {
    node.until("the engine stands so", |state| {
        state.models.engines()[0].health.is_well() == well
    })
    .await;
}

async fn until_told(node: &Running, waiting: Option<u64>) {
    node.until("the engine says so", |state| {
        state.models.engines()[0].health.load().waiting == waiting
    })
    .await;
}

#[tokio::test]
async fn a_dead_engine_gets_no_request_and_a_node_without_another_is_not_ready() {
    let mut engine = FakeEngine::start().await;
    let cases = [
        ("it says so", "/health", 200, 503),
        (
            "nothing at /health, and its models fail",
            "/v1/models",
            200,
            500,
        ),
    ];
    for (name, path, good, bad) in cases {
        engine.say(path, good, r#"{"data":[]}"#);
        let node = Running::start(&watched(&engine)).await;
        until_well(&node, true).await;
        assert_eq!(node.get("/readyz").await.0, 200, "{name}");
        engine.say(path, bad, "{}");
        until_well(&node, false).await;
        let (status, _, said) = node.get("/readyz").await;
        assert_eq!(
            (status.as_u16(), &said[..]),
            (503, br#"{"status":"no engine answers"}"#.as_slice())
        );
        let refused = node.ask(Sent::default()).await;
        assert_eq!(
            refused.problem(),
            (503, "engine-unreachable".to_owned()),
            "{name}"
        );
        assert!(engine.idle(), "{name}");

        engine.say(path, good, r#"{"data":[]}"#);
        until_well(&node, true).await;
        assert_eq!(node.get("/readyz").await.0, 200, "{name}");
        let played = async { engine.asked().await.reply(400, "{}").await };
        let (answered, ()) = tokio::join!(node.ask(Sent::default()), played);
        assert_eq!(answered.status, 400, "{name}");
        node.until_idle().await;
        engine.say("/health", 404, "{}");
    }
}

#[tokio::test]
async fn one_dead_engine_of_two_leaves_the_node_ready() {
    let (dead, alive) = (FakeEngine::start().await, FakeEngine::start().await);
    dead.say("/health", 200, "{}");
    let node = Running::start(&format!("{}{}", watched(&dead), watched(&alive))).await;
    until_well(&node, true).await;
    dead.say("/health", 500, "{}");
    until_well(&node, false).await;
    assert_eq!(node.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn an_engine_that_was_never_well_is_tried_all_the_same() {
    let mut engine = FakeEngine::start().await;
    engine.say("/health", 503, "{}");
    let node = Running::start(&watched(&engine)).await;
    node.until("its health was asked for often", |state| {
        let counts = state.models.engines()[0].counts.failures.counts();
        counts
            .iter()
            .any(|([class], count)| *class == "health" && *count > 3)
    })
    .await;
    assert_eq!(node.get("/readyz").await.0, 200);
    let played = async { engine.asked().await.reply(400, "{}").await };
    let (answered, ()) = tokio::join!(node.ask(Sent::default()), played);
    assert_eq!(answered.status, 400);
}

#[tokio::test]
async fn an_engine_that_may_not_be_watched_is_not_asked() {
    let engine = FakeEngine::start().await;
    let node = Running::start(&format!("{}watch = false\n", watched(&engine))).await;
    assert!(node.state.models.engines()[0].watch.is_none());
    assert_eq!(node.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn an_engine_in_which_too_many_wait_gets_no_more() {
    let mut engine = FakeEngine::start().await;
    let told = |waiting: u32| {
        format!(
            "vllm:num_requests_running{{engine=\"0\"}} 7.0\n\
             vllm:num_requests_waiting{{engine=\"0\"}} {waiting}.0\n\
             vllm:kv_cache_usage_perc{{engine=\"0\"}} 0.5\n"
        )
    };
    engine.say("/metrics", 200, &told(3));
    let node = Running::start(&format!("{}queue = 2\n", watched(&engine))).await;
    until_told(&node, Some(3)).await;
    let refused = node.ask(Sent::default()).await;
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
    assert!(engine.idle());

    let page = Exposition::new("sealgate_node", Scrape(node.state.clone()));
    let page = page.render(Format::Prometheus).unwrap();
    let labels = format!("{{engine=\"0\",address=\"{}\"}}", engine.address);
    for (name, number) in [
        ("healthy", "1"),
        ("told_requests_running", "7"),
        ("told_requests_waiting", "3"),
        ("told_kv_cache_ratio", "0.5"),
    ] {
        let line = format!("sealgate_node_engine_{name}{labels} {number}");
        assert!(page.lines().any(|it| it == line), "{line}\n{page}");
    }

    engine.say("/metrics", 200, &told(2));
    until_told(&node, Some(2)).await;
    let played = async { engine.asked().await.reply(400, "{}").await };
    assert_eq!(
        tokio::join!(node.ask(Sent::default()), played).0.status,
        400
    );
    // What cannot be read says nothing.
    engine.say("/metrics", 200, "<html>");
    until_told(&node, None).await;
}
