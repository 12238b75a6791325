//! Nodes' connections that break or lie at any byte: a beginning of the truth, then an error.

use serde_json::{Value, json};

use super::{FRESH, Told, between, nothing_is_held, told};
use crate::harness::{
    Setup,
    fault::{Faults, Leg, Stop},
    prompt,
    setup::{EventStream, error_of},
};

/// An answer with characters of up to four bytes; the engine gives it word by word.
fn truth() -> String {
    prompt(&"wörd 🦀日本 ".repeat(24))
}

fn request() -> Value {
    json!({"prompt": truth(), "stream": true})
}

/// A set-up where `FRESH` holds, and the bytes that a node's whole reply has on its connection.
async fn measured() -> (Setup, super::Legs, usize) {
    let (setup, legs) = between("", FRESH).await;
    // Many pieces: each is sealed by itself, and given on before the next has come.
    legs.engine.set(Faults::back(Leg::sliced(400))).await;
    let stream = EventStream::new(setup.complete(request()).await);
    assert!(told(stream, "whole").await.done);
    let before = legs.node.bytes_back();
    let stream = EventStream::new(setup.complete(request()).await);
    let all = told(stream, "whole").await;
    assert_eq!((all.text, all.done), (truth(), true));
    let length = legs.node.bytes_back() - before;
    assert!(length > 2000, "{length} bytes");
    (setup, legs, length)
}

/// What a caller is told under a fault, which must be the truth up to some point.
async fn beginning(setup: &Setup, name: &str) -> Option<Told> {
    let reply = setup.complete(request()).await;
    if reply.status() != 200 {
        assert_eq!(reply.headers()["x-should-retry"], "false", "{name}: it ran");
        let (status, error) = error_of(reply).await;
        assert_eq!(status, 502, "{name}: {error}");
        return None;
    }
    let told = told(EventStream::new(reply), name).await;
    assert!(truth().starts_with(&told.text), "{name}: {told:?}");
    assert!(
        !told.done || told.text == truth(),
        "{name}: an end too soon"
    );
    Some(told)
}

#[tokio::test]
async fn a_reply_that_is_cut_at_any_byte_is_a_beginning_and_an_error_and_never_asked_for_again() {
    let (setup, legs, length) = measured().await;
    let mut asked = setup.engine.received().len();
    let mut partial = 0;
    for at in (1..length).step_by(97) {
        for stop in [Stop::Fin, Stop::Reset] {
            let name = format!("{stop:?} at byte {at} of {length}");
            legs.node.set(Faults::back(Leg::stopped(at, stop))).await;
            match beginning(&setup, &name).await {
                // How an answer is cut into pieces differs, and so does its length, a little.
                Some(told) if told.done => assert!(at > length / 2, "{name}: not noticed"),
                Some(told) => {
                    assert_eq!(told.error.as_deref(), Some("upstream_truncated"), "{name}");
                    partial += usize::from(!told.text.is_empty());
                }
                None => {}
            }
            asked += 1;
            assert_eq!(setup.engine.received().len(), asked, "{name}: once");
        }
    }
    // How many is a matter of what came in one read with the cut.
    assert!(partial > 0, "none had a beginning");
    nothing_is_held(&setup).await;
    legs.node.set(Faults::default()).await;
    let stream = EventStream::new(setup.complete(request()).await);
    assert!(told(stream, "whole again").await.done);
}

#[tokio::test]
async fn a_byte_that_is_spoiled_anywhere_gives_nothing_that_is_not_true() {
    let (setup, legs, length) = measured().await;
    let (mut refused, mut broken) = (0, 0);
    for at in (0..length).step_by(61) {
        let name = format!("byte {at} of {length}");
        legs.node.set(Faults::back(Leg::flipped(at))).await;
        match beginning(&setup, &name).await {
            None => refused += 1,
            Some(told) if told.error.is_some() => broken += 1,
            // A byte of a header field that nobody reads, or beyond the end.
            Some(_) => assert!(at < 400 || at > length / 2, "{name}: not noticed"),
        }
    }
    // Which of the two is a matter of how much came in one read.
    assert!(
        refused > 0 && broken > 0 && refused + broken > length / 61 / 2,
        "{refused} {broken}"
    );
    nothing_is_held(&setup).await;
}

#[tokio::test]
async fn a_request_that_is_cut_or_spoiled_on_its_way_runs_once_or_not_at_all() {
    let (setup, legs, _) = measured().await;
    let before = legs.node.bytes_forth();
    assert_eq!(setup.complete(request()).await.status(), 200);
    let length = legs.node.bytes_forth() - before;
    let mut asked = setup.engine.received().len();
    for at in (0..length).step_by(89) {
        for leg in [Leg::stopped(at, Stop::Reset), Leg::flipped(at)] {
            let name = format!("{leg:?} of {length}");
            let faults = Faults {
                forth: leg,
                ..Faults::default()
            };
            legs.node.set(faults).await;
            let reply = setup.complete(request()).await;
            let now = setup.engine.received().len();
            assert!(now <= asked + 1, "{name}");
            if reply.status() == 200 {
                assert!(told(EventStream::new(reply), &name).await.done, "{name}");
            } else {
                let (status, error) = error_of(reply).await;
                assert!([502, 503].contains(&status), "{name}: {error}");
                assert_eq!(now, asked, "{name}: it ran, and nothing came of it");
            }
            asked = now;
        }
    }
    nothing_is_held(&setup).await;
}

/// What the caller's own connection loses is nobody's to repair, and costs nobody else anything.
#[tokio::test]
async fn a_callers_connection_that_breaks_at_any_byte_holds_nothing() {
    let (setup, legs, _) = measured().await;
    for at in (0..2000).step_by(191) {
        for leg in [
            Faults::back(Leg::stopped(at, Stop::Reset)),
            Faults {
                forth: Leg::stopped(at, Stop::Fin),
                ..Faults::default()
            },
        ] {
            legs.client.set(leg).await;
            // Connections of their own: positions count from a connection's first byte.
            let client = reqwest::Client::new();
            let url = format!("{}/v1/completions", legs.client.url());
            let body = json!({"model": "tiny", "prompt": truth(), "stream": true});
            let asked = client
                .post(url)
                .bearer_auth(crate::harness::KEY)
                .json(&body);
            if let Ok(reply) = asked.send().await {
                let _ = reply.bytes().await;
            }
        }
    }
    legs.client.set(Faults::default()).await;
    nothing_is_held(&setup).await;
    assert_eq!(setup.complete(request()).await.status(), 200);
}
