//! Requests that wait for a place with their engine.

use tokio::time::timeout;

use super::{
    BODY,
    harness::{FakeEngine, Opened, PATIENCE, Running, Sent},
};

const ANSWER: &str = r#"{"id":"c","object":"text_completion","created":1,"model":"m",
    "choices":[{"index":0,"text":"one","logprobs":null,"finish_reason":"stop"}],
    "usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

fn overloaded(reply: &Opened) -> (u16, String) {
    assert_eq!(reply.retry_after.as_deref(), Some("1"), "{reply:?}");
    reply.problem()
}

#[tokio::test]
async fn requests_beyond_the_engines_places_wait_in_turn_and_those_beyond_the_queue_do_not() {
    let mut engine = FakeEngine::start().await;
    let config = format!("{}max_in_flight = 1\nqueue = 1\n", engine.config());
    let node = Running::start(&config).await;
    let played = async {
        let mut first = engine.asked().await;
        node.until_queued(1, 1).await;
        let full = node.ask(Sent::default()).await;
        assert_eq!(overloaded(&full), (503, "overloaded".to_owned()));
        assert!(engine.idle(), "the second waits for its turn");
        first.reply(200, ANSWER).await;
        engine.asked().await.reply(200, ANSWER).await;
    };
    let second = async {
        node.until_queued(1, 0).await;
        node.ask(Sent::default()).await
    };
    let (first, second, ()) = tokio::join!(node.ask(Sent::default()), second, played);
    assert_eq!((first.status, second.status), (200, 200));
    node.until_idle().await;
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_overload_and_nothing_ran() {
    let mut engine = FakeEngine::start().await;
    let config = format!("{}max_in_flight = 1\nqueue_ms = 20\n", engine.config());
    let node = Running::start(&config).await;
    let played = async {
        let mut first = engine.asked().await;
        let late = node.ask(Sent::default()).await;
        assert_eq!(overloaded(&late), (503, "overloaded".to_owned()));
        assert!(engine.idle());
        first.reply(200, ANSWER).await;
    };
    let (first, ()) = tokio::join!(node.ask(Sent::default()), played);
    assert_eq!(first.status, 200);
    node.until_idle().await;
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_lets_nobody_wait() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&format!("{}max_in_flight = 1\n", engine.config())).await;
    let played = async {
        let mut first = engine.asked().await;
        node.until_queued(1, 1).await;
        node.shutdown.cancel();
        node.until_queued(1, 0).await;
        first.reply(200, ANSWER).await;
    };
    let second = async {
        node.until_queued(1, 0).await;
        node.ask(Sent::default()).await
    };
    let (first, second, ()) = tokio::join!(node.ask(Sent::default()), second, played);
    assert_eq!((first.status, second.status), (200, 503));
    assert_eq!(second.problem().1, "draining");
    assert!(engine.idle());
    timeout(PATIENCE, node.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_keeps_its_room_while_it_waits() {
    let mut engine = FakeEngine::start().await;
    let config = format!(
        "limits = {{ body_bytes = 4096, buffered_bytes = 12288 }}\n{}max_in_flight = 1\n",
        engine.config()
    );
    let node = Running::start(&config).await;
    let long = BODY.replace("canary", &"x".repeat(2000));
    let sent = || Sent {
        content: &long,
        ..Sent::default()
    };
    let played = async {
        let mut first = engine.asked().await;
        node.until_queued(1, 2).await;
        // The one that is asked and the two that wait hold all of the room.
        let (request, _) = node.seal(sent()).await;
        let (status, headers, _) = node.send(request).await;
        assert_eq!(
            (status.as_u16(), &headers["retry-after"]),
            (429, &"1".parse().unwrap())
        );
        first.reply(200, ANSWER).await;
        engine.asked().await.reply(200, ANSWER).await;
        engine.asked().await.reply(200, ANSWER).await;
    };
    let queued = async {
        node.until_queued(1, 0).await;
        tokio::join!(node.ask(sent()), node.ask(sent()))
    };
    let (first, (second, third), ()) = tokio::join!(node.ask(sent()), queued, played);
    assert_eq!((first.status, second.status, third.status), (200, 200, 200));
    node.until_idle().await;
}

#[tokio::test]
async fn an_engine_that_tells_how_much_it_does_at_once_gets_no_more() {
    let engine = FakeEngine::start().await;
    engine.say("/props", 200, r#"{"total_slots":3,"model_alias":"m"}"#);
    for (lines, places, queue) in [
        ("", 3, 12),
        ("queue = 5\n", 3, 5),
        ("max_in_flight = 7\n", 7, 28),
    ] {
        let node = Running::start(&format!("{}{lines}", engine.config())).await;
        let known = &node.state.models.engines()[0].places;
        assert_eq!((known.limit(), known.queue()), (places, queue), "{lines}");
    }
    engine.say("/props", 404, "{}");
    let node = Running::start(&engine.config()).await;
    assert_eq!(node.state.models.engines()[0].places.limit(), 2048);
}
