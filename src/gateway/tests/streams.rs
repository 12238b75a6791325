//! Event streams, whole and broken, and callers that leave.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    fake::{Asked, Broken, FakeBody, FakeNode},
    harness::{BODY, PATIENCE, Running, STREAM_BODY, read_stream},
};

const EVENT: &str = "data: {\"a\":1}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// What a fake node writes, one chunk each.
#[derive(Clone, Copy)]
enum Step {
    Chunk(&'static str),
    Wait(u64),
    Flipped(&'static str),
    Break,
    End(&'static str),
    Incomplete(&'static str),
}

async fn played(asked: Asked, steps: &'static [Step]) -> http::Response<FakeBody> {
    let (mut sealer, writer, response) = asked.stream();
    tokio::spawn(async move {
        let give = async |bytes: Bytes| {
            let _ = writer.send(Ok(bytes)).await;
        };
        for step in steps {
            match step {
                Step::Chunk(text) => give(sealer.chunk(text.as_bytes()).unwrap()).await,
                Step::Wait(ms) => sleep(Duration::from_millis(*ms)).await,
                Step::Flipped(text) => {
                    let mut bytes = sealer.chunk(text.as_bytes()).unwrap().to_vec();
                    *bytes.last_mut().unwrap() ^= 1;
                    give(bytes.into()).await;
                }
                Step::Break => {
                    let _ = writer.send(Err(Broken)).await;
                    return;
                }
                Step::End(text) => {
                    let usage = r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#;
                    let trailers = [("sealgate-usage", usage)];
                    give(sealer.finish(text.as_bytes(), &trailers).unwrap()).await;
                    return;
                }
                Step::Incomplete(why) => {
                    let trailers = [("sealgate-incomplete", *why)];
                    give(sealer.finish(b"", &trailers).unwrap()).await;
                    return;
                }
            }
        }
        writer.closed().await;
    });
    response
}

#[tokio::test]
async fn a_stream_is_given_on_or_fails_and_nothing_between() {
    use Step::{Break, Chunk, End, Flipped, Incomplete, Wait};
    let node = FakeNode::start("one").await;
    let rest = "[timeouts]\nidle_ms = 400\nsign_of_life_ms = 150\n";
    let gateway = Running::start(&[&node], rest).await;
    let cases: [(&str, &'static [Step], &str, Option<&str>); 13] = [
        ("whole", &[Chunk(EVENT), Chunk(EVENT), End(DONE)], "2", None),
        (
            "whole in one chunk",
            &[End("data: {\"a\":1}\n\ndata: [DONE]\n\n")],
            "1",
            None,
        ),
        (
            "head first",
            &[Chunk(""), Wait(50), Chunk(EVENT), End(DONE)],
            "1",
            None,
        ),
        (
            "with comments",
            &[Chunk(":\n"), Chunk(EVENT), Chunk(":  \n"), End(DONE)],
            "1",
            None,
        ),
        (
            "signs of life",
            &[Chunk(EVENT), Wait(250), End(DONE)],
            "1+",
            None,
        ),
        (
            "a flipped bit",
            &[Chunk(EVENT), Flipped(EVENT)],
            "1",
            Some("node_reply_invalid"),
        ),
        (
            "broken",
            &[Chunk(EVENT), Wait(50), Break],
            "1",
            Some("upstream_truncated"),
        ),
        ("silent", &[Chunk(EVENT)], "1+", Some("idle_timeout")),
        (
            "failed",
            &[Chunk(EVENT), Incomplete("engine-failed")],
            "1",
            Some("engine_error"),
        ),
        (
            "no end event",
            &[Chunk(EVENT), End(EVENT)],
            "1",
            Some("node_reply_invalid"),
        ),
        (
            "end event too soon",
            &[Chunk(EVENT), Chunk(DONE), End("")],
            "1",
            Some("node_reply_invalid"),
        ),
        (
            "half an event",
            &[Chunk(EVENT), Chunk("data: {}\n"), Wait(50), Break],
            "1",
            Some("upstream_truncated"),
        ),
        (
            "another line",
            &[Chunk(EVENT), Chunk("id: 1\n\n"), End(DONE)],
            "1",
            Some("node_reply_invalid"),
        ),
    ];
    for (name, steps, events, code) in cases {
        node.play(move |asked| played(asked, steps));
        let (text, aborted) = read_stream(gateway.begin(STREAM_BODY).await).await;
        let quiet = text.replace(": waiting\n\n", "");
        assert_eq!(quiet != text, events.ends_with('+'), "{name}: {text}");
        let count: usize = events.trim_end_matches('+').parse().unwrap();
        let rest = quiet.strip_prefix(&EVENT.repeat(count)).expect(name);
        match code {
            None => assert_eq!((rest, aborted), (DONE, false), "{name}"),
            Some(code) => {
                let json = rest
                    .strip_prefix("data: ")
                    .expect(name)
                    .strip_suffix("\n\n")
                    .expect(name);
                let error: serde_json::Value = serde_json::from_str(json).expect(name);
                assert_eq!(error["error"]["code"], code, "{name}");
                assert!(aborted, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn events_that_come_soon_after_another_leave_in_one_piece_and_none_is_kept_for_ever() {
    use Step::{Break, Chunk, End, Wait};
    let node = FakeNode::start("one").await;
    let rest = "[streams]\ncoalesce_ms = 1000\n[timeouts]\nsign_of_life_ms = 60000\n";
    let gateway = Running::start(&[&node], rest).await;
    let cases: [(&'static [Step], String); 2] = [
        (
            &[Chunk(EVENT), Wait(20), Chunk(EVENT), Wait(20), End(DONE)],
            format!("{EVENT}{EVENT}{DONE}"),
        ),
        // Nothing ends it: the first waits as long as it may.
        (&[Chunk(EVENT), Wait(1), Chunk(EVENT)], EVENT.repeat(2)),
    ];
    for (steps, expected) in cases {
        node.play(move |asked| played(asked, steps));
        let mut response = gateway.begin(STREAM_BODY).await;
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), expected);
    }
    node.play(|asked| played(asked, &[Chunk(EVENT), Wait(20), Break]));
    let (text, aborted) = read_stream(gateway.begin(STREAM_BODY).await).await;
    assert!(text.starts_with(EVENT) && aborted, "{text}");
    assert!(text.contains("upstream_truncated"), "{text}");
}

#[tokio::test]
async fn what_levels_events_leaves_the_error_of_a_broken_stream_as_it_is() {
    use Step::{Break, Chunk, Wait};
    let node = FakeNode::start("one").await;
    let mut errors = Vec::new();
    for rest in ["", "[streams]\nobfuscation = true\n"] {
        let gateway = Running::start(&[&node], rest).await;
        node.play(|asked| played(asked, &[Chunk(EVENT), Wait(20), Break]));
        let (text, aborted) = read_stream(gateway.begin(STREAM_BODY).await).await;
        assert!(aborted, "{text}");
        let (event, error) = text.split_once("\n\n").unwrap();
        assert_eq!(event.len() + 2 == 256, !rest.is_empty(), "{event}");
        errors.push(error.to_owned());
    }
    assert_eq!(errors[0], errors[1]);
}

#[tokio::test]
async fn a_stream_where_none_was_asked_for_is_refused_and_the_reverse() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    node.play(|asked| played(asked, &[Step::End(DONE)]));
    assert_eq!(
        gateway.post(BODY).await.code(),
        (502, "node_reply_invalid".to_owned())
    );
    node.play(|asked| async { asked.json(200, "{}") });
    assert_eq!(
        gateway.post(STREAM_BODY).await.code(),
        (502, "node_reply_invalid".to_owned())
    );
}

/// Tells when it is dropped.
struct Guard(Arc<Notify>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed_by_the_node_in_every_phase() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    for (name, steps) in [
        ("before the reply", None),
        ("in the stream", Some(&[Step::Chunk(EVENT)])),
    ] {
        let (begun, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, goes) = (Arc::clone(&begun), Arc::clone(&gone));
        node.play(move |asked| {
            let guard = Guard(Arc::clone(&goes));
            begins.notify_one();
            async move {
                let Some(steps) = steps else {
                    let _guard = guard;
                    return std::future::pending().await;
                };
                let (mut sealer, writer, response) = asked.stream();
                tokio::spawn(async move {
                    for step in steps {
                        let Step::Chunk(text) = step else { continue };
                        writer
                            .send(Ok(sealer.chunk(text.as_bytes()).unwrap()))
                            .await
                            .unwrap();
                    }
                    writer.closed().await;
                    drop(guard);
                });
                response
            }
        });
        let leaving = async {
            let mut response = gateway.begin(STREAM_BODY).await;
            let _ = response.body_mut().frame().await;
            sleep(Duration::from_millis(50)).await;
        };
        let patience = if steps.is_some() {
            PATIENCE
        } else {
            Duration::from_millis(200)
        };
        let _ = timeout(patience, leaving).await;
        timeout(PATIENCE, begun.notified()).await.expect(name);
        let left = Instant::now();
        timeout(PATIENCE, gone.notified()).await.expect(name);
        assert!(
            left.elapsed() < Duration::from_secs(1),
            "{name}: {:?}",
            left.elapsed()
        );
    }
}

#[tokio::test]
async fn shutting_down_lets_streams_end_and_then_ends_them() {
    let node = FakeNode::start("one").await;
    node.play(|asked| played(asked, &[Step::Chunk(EVENT)]));
    let gateway = Running::start(&[&node], "[timeouts]\ndrain_ms = 300\n").await;
    let response = gateway.begin(STREAM_BODY).await;
    gateway.shutdown.cancel();
    let (text, aborted) = read_stream(response).await;
    assert!(text.starts_with(EVENT) && aborted, "{text}");
    assert!(
        text.contains("upstream_truncated") && !text.contains("[DONE]"),
        "{text}"
    );
    timeout(PATIENCE, gateway.served).await.unwrap().unwrap();
}

// More than one thread: what runs here is slow without optimization, and the drain is timed.
#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_a_stream_whose_node_is_always_ahead() {
    let node = FakeNode::start("one").await;
    let ended = Arc::new(Notify::new());
    let ends = Arc::clone(&ended);
    node.play(move |asked| {
        let (mut sealer, writer, response) = asked.stream();
        let ends = Arc::clone(&ends);
        tokio::spawn(async move {
            let event = EVENT.replace('1', &"1".repeat(12 * 1024));
            let mut next = || sealer.chunk(event.as_bytes()).unwrap();
            while writer.send(Ok(next())).await.is_ok() {}
            ends.notify_one();
        });
        std::future::ready(response)
    });
    let gateway = Running::start(&[&node], "[timeouts]\ndrain_ms = 100\n").await;
    let mut response = gateway.begin(STREAM_BODY).await;
    gateway.shutdown.cancel();
    let told = Instant::now();
    let reading = async {
        while let Some(Ok(_)) = response.body_mut().frame().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = async {
        ended.notified().await;
        told.elapsed()
    };
    let ((), elapsed) = tokio::join!(reading, ended);
    assert!(
        elapsed < Duration::from_millis(1900),
        "{elapsed:?}: the listener cut it"
    );
    timeout(PATIENCE, gateway.served).await.unwrap().unwrap();
}
