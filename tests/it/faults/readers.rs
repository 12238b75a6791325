//! Readers and writers that are slow, and readers that stop.

use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};

use super::{between, nothing_is_held, told};
use crate::harness::{
    Setup,
    engine::chunk,
    fault::{Faults, Leg, Stop},
    metrics::metric,
    prompt, soon,
};

/// A stream has no total time: one that goes on outlasts every deadline there is.
#[tokio::test]
async fn a_stream_that_goes_on_slowly_outlasts_every_deadline() {
    let node = "[timeouts]\nengine_first_byte_ms = 500\nengine_idle_ms = 2000\nbody_ms = 500\n\
                head_ms = 1000\n";
    let gateway = "[timeouts]\nfirst_byte_ms = 500\ntotal_first_byte_ms = 500\nidle_ms = 2000\n\
                   body_ms = 500\nhead_ms = 1000\nwrite_ms = 1000\n";
    let setup = Setup::with(node, gateway).await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("0").await;
    });
    assert_eq!(stream.text().await, "0");
    for n in 1..=10 {
        // The pause is what is tested, and waits for nothing.
        sleep(Duration::from_millis(300)).await;
        feed.text(&n.to_string()).await;
        assert_eq!(stream.text().await, n.to_string());
    }
    feed.done().await;
    drop(feed);
    assert!(told(stream, "slow").await.done);
}

#[tokio::test]
async fn a_stream_over_slow_and_sliced_legs_is_whole() {
    let (setup, legs) = between("", "[timeouts]\nfirst_byte_ms = 2000\nidle_ms = 2000\n").await;
    let slow = Leg {
        delay: Duration::from_millis(10),
        ..Leg::sliced(333)
    };
    for leg in [&legs.client, &legs.node, &legs.engine] {
        leg.set(Faults::both(slow)).await;
    }
    let text = prompt(&"wörd 🦀 ".repeat(40));
    let told = told(setup.stream(json!({"prompt": text})).await, "slow").await;
    assert_eq!((told.text, told.done), (text, true));
}

/// Callers that read nothing: their engines are paused, what waits for them lies in the kernel's
/// buffers, and the gateway holds little of it.
#[tokio::test]
async fn readers_that_stop_cost_the_gateway_little_memory() {
    let (setup, legs) = between("", "").await;
    const READERS: usize = 2;
    const QUIET: Duration = Duration::from_millis(250);
    let resident =
        async || metric(&setup.gateway.admin, "process_resident_memory_bytes", &[]).await;
    let (mut streams, mut feeds) = (Vec::new(), Vec::new());
    for _ in 0..READERS {
        let feed = setup.engine.stream();
        let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
            feed.text("a").await;
        });
        assert_eq!(stream.text().await, "a");
        streams.push(stream);
        feeds.push(feed);
    }
    let before = resident().await;
    legs.client
        .set(Faults::back(Leg::stopped(0, Stop::Freeze)))
        .await;
    let event = format!("data: {}\n\n", chunk(&"x".repeat(65_536), Value::Null));
    let mut sent = [0; READERS];
    let paused = async {
        loop {
            let passed = legs.engine.bytes_back();
            let mut quiet = true;
            for (feed, sent) in feeds.iter().zip(&mut sent) {
                // What the engine may write is bounded by the buffers between.
                while timeout(QUIET, feed.raw(event.clone())).await.is_ok() {
                    (*sent, quiet) = (*sent + 1, false);
                    assert!(*sent < 1024, "{sent} events of 64 KiB went somewhere");
                }
            }
            if quiet && legs.engine.bytes_back() == passed {
                return;
            }
        }
    };
    soon("every engine is paused", paused).await;
    // The allocator keeps some twenty MiB, however many they are.
    let grown = resident().await - before;
    assert!(
        grown < 40.0 * 1024.0 * 1024.0,
        "{grown} bytes for {READERS} readers"
    );
    legs.client.set(Faults::default()).await;
    for (mut stream, sent) in streams.into_iter().zip(sent) {
        for _ in 0..sent {
            assert_eq!(stream.text().await.len(), 65_536);
        }
    }
    drop(feeds);
    nothing_is_held(&setup).await;
}
