//! A stream is whole or an error: never a short answer that looks complete.

use serde_json::{Value, json};

use crate::harness::{Reply, Setup, engine, prompt, setup::error_of};

/// Asserts that a stream ended as a failure that every SDK sees.
fn assert_failed(events: &[String], end: Result<(), reqwest::Error>, code: &str, name: &str) {
    assert!(end.is_err(), "{name}: the connection is aborted");
    assert!(
        !events.iter().any(|event| event.starts_with("[DONE]")),
        "{name}: no [DONE]"
    );
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], code, "{name}: {last}");
}

#[tokio::test]
async fn an_engine_that_dies_in_a_stream_ends_it_as_an_error() {
    let setup = Setup::start().await;
    for name in ["cut", "ends without [DONE]", "an error event"] {
        let feed = setup.engine.stream();
        let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
            feed.text("true ").await;
        });
        assert_eq!(stream.text().await, "true ", "{name}");
        match name {
            "cut" => feed.cut().await,
            "an error event" => {
                feed.raw("data: {\"error\":{\"message\":\"no\",\"code\":500}}\n\n")
                    .await
            }
            _ => {}
        }
        drop(feed);
        let (events, end) = stream.rest().await;
        assert_failed(&events, end, "engine_error", name);
        assert_eq!(events.len(), 1, "{name}: exactly one event");
    }
}

#[tokio::test]
async fn an_engine_that_dies_before_its_first_byte_is_an_error_reply() {
    let setup = Setup::start().await;
    let cases = [
        ("500", Reply::Json(500, json!({"error": {"message": "x"}}))),
        (
            "no JSON",
            Reply::Raw(200, "application/json", b"oops".to_vec()),
        ),
        (
            "cut JSON",
            Reply::Raw(200, "application/json", b"{\"id\":".to_vec()),
        ),
        ("HTML", Reply::Raw(502, "text/html", b"<html>".to_vec())),
    ];
    for (name, reply) in cases {
        setup.engine.reply(reply);
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(
            reply.headers()["x-should-retry"],
            "false",
            "{name}: it may have run"
        );
        let (status, error) = error_of(reply).await;
        assert_eq!(
            (status, &error["code"]),
            (502, &json!("engine_error")),
            "{name}"
        );
    }
    assert_eq!(setup.engine.received().len(), 4, "none was tried twice");
}

#[tokio::test]
async fn an_engine_that_says_it_is_full_did_not_run() {
    let setup = Setup::start().await;
    setup
        .engine
        .reply(Reply::Json(429, json!({"error": {"message": "full"}})));
    setup
        .engine
        .reply(Reply::Json(503, json!({"error": {"message": "full"}})));
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert!(reply.headers().contains_key("retry-after"));
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_node_available")));
}

#[tokio::test]
async fn an_engine_that_falls_silent_is_idle() {
    let setup = Setup::with("[timeouts]\nengine_idle_ms = 1000\n", "").await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let (events, end) = stream.rest().await;
    assert_failed(&events, end, "idle_timeout", "idle at the node");
    feed.abandoned().await;
}

#[tokio::test]
async fn a_node_that_falls_silent_is_idle_too() {
    let setup = Setup::with("", "[timeouts]\nidle_ms = 1000\n").await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let (events, end) = stream.rest().await;
    assert_failed(&events, end, "idle_timeout", "idle at the gateway");
    feed.abandoned().await;
}

#[tokio::test]
async fn an_engine_that_never_begins_times_out() {
    let setup = Setup::with("", "[timeouts]\nfirst_byte_ms = 50\n").await;
    for stream in [false, true] {
        setup.engine.reply(Reply::Hang);
        let reply = setup
            .complete(json!({"prompt": prompt("x"), "stream": stream}))
            .await;
        let (status, error) = error_of(reply).await;
        assert_eq!(
            (status, &error["code"]),
            (504, &json!("first_byte_timeout")),
            "{stream}"
        );
    }
    setup.engine.idle().await;
}

#[tokio::test]
async fn a_reader_that_stops_pauses_its_engine() {
    let setup = Setup::start().await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let event = format!(
        "data: {}\n\n",
        engine::chunk(&"x".repeat(65_536), Value::Null)
    );
    // The client reads nothing: after what the sockets and buffers on the way hold, the engine waits.
    let mut sent = 0;
    let paused = async {
        loop {
            feed.raw(event.clone()).await;
            sent += 1;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(2), paused).await;
    assert!(waited.is_err());
    assert!(sent < 1024, "{sent} events of 64 KiB went somewhere");
    let reader = async {
        for _ in 0..sent {
            assert_eq!(stream.text().await.len(), 65_536);
        }
    };
    reader.await;
}
