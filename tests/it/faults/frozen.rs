//! Connections over which nothing comes any more, and which nobody closes.

use serde_json::json;

use super::{between, gateway_holds_nothing, nothing_is_held, told};
use crate::harness::{
    Reply,
    fault::{Door, Faults, Leg, Stop},
    prompt,
    setup::error_of,
    soon,
};

/// Nothing passes either way from now on.
fn frozen() -> Faults {
    Faults::both(Leg::stopped(0, Stop::Freeze))
}

#[tokio::test]
async fn a_stream_whose_node_is_gone_without_a_word_ends_as_idle_and_is_given_back() {
    let (setup, legs) = between("", "[timeouts]\nidle_ms = 500\n").await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    legs.node.set(frozen()).await;
    let told = told(stream, "frozen").await;
    assert_eq!(told.error.as_deref(), Some("idle_timeout"));
    gateway_holds_nothing(&setup).await;
    // When the network is back, the node learns that nobody waits.
    legs.node.set(Faults::default()).await;
    feed.abandoned().await;
    drop(feed);
    nothing_is_held(&setup).await;
}

#[tokio::test]
async fn a_node_that_is_gone_without_a_word_before_its_reply_times_out() {
    let (setup, legs) = between("", "[timeouts]\nfirst_byte_ms = 500\n").await;
    for stream in [false, true] {
        setup.engine.reply(Reply::Hang);
        let asked = setup.engine.received().len() + 1;
        let request = json!({"prompt": prompt("x"), "stream": stream});
        let (reply, ()) = tokio::join!(setup.complete(request), async {
            setup.engine.arrived(asked).await;
            legs.node.set(frozen()).await;
        });
        assert_eq!(reply.headers()["x-should-retry"], "false");
        let (status, error) = error_of(reply).await;
        assert_eq!(
            (status, &error["code"]),
            (504, &json!("first_byte_timeout"))
        );
        gateway_holds_nothing(&setup).await;
        legs.node.set(Faults::default()).await;
        nothing_is_held(&setup).await;
    }
}

#[tokio::test]
async fn an_engine_that_is_gone_without_a_word_is_told_apart_from_its_node() {
    let (setup, legs) = between("[timeouts]\nengine_idle_ms = 500\n", "").await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    legs.engine.set(frozen()).await;
    let told = told(stream, "frozen").await;
    assert_eq!(told.error.as_deref(), Some("idle_timeout"));
    legs.engine.set(Faults::default()).await;
    feed.abandoned().await;
    drop(feed);
    nothing_is_held(&setup).await;
}

#[tokio::test]
async fn a_node_that_takes_connections_and_never_answers_is_not_verified_until_it_does() {
    use crate::harness::{Engine, Process, Setup, fault::FaultProxy, setup::Files};
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let leg = FaultProxy::before(&node.url).await;
    leg.set(Faults::door(Door::Silent)).await;
    let config = files.gateway(&[&leg.url()], "[timeouts]\nattest_ms = 300\n");
    let gateway = Process::start("gateway", &config).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert!(reply.headers().contains_key("retry-after"));
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_attested_node")));
    assert!(setup.engine.received().is_empty());
    leg.set(Faults::default()).await;
    let answered = async {
        while setup
            .complete(json!({"prompt": prompt("x")}))
            .await
            .status()
            != 200
        {}
    };
    soon("the node is verified", answered).await;
}

/// The kernel looks after a connection on which nothing comes, and closes it within 20 seconds of its
/// peer's silence: read from its own table, since waiting for that would take as long.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_asks_after_a_node_that_is_silent() {
    let (setup, legs) = between("", "").await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let port = format!("0100007F:{:04X}", legs.node.address.port());
    let watched = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let open = table.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let to_node = fields[2] == port && fields[3] == "01";
            to_node.then(|| fields[5].to_owned())
        });
        let timers: Vec<String> = open.collect();
        // Timer 2 is keep-alive; then the time until it fires, in hundredths of a second.
        !timers.is_empty()
            && timers.iter().all(|timer| {
                let (kind, due) = timer.split_once(':').unwrap();
                kind == "02" && u32::from_str_radix(due, 16).unwrap() <= 1000
            })
    };
    // While something is unacknowledged another timer stands there.
    soon("keep-alive", async {
        while !watched() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    feed.done().await;
    drop(feed);
    assert!(told(stream, "it goes on").await.done);
}
