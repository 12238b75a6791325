//! Callers that leave, in every phase, unary and streamed, over either protocol: the engine stops, and
//! everything that was held is given back.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use super::{between, gateway_holds_nothing, nothing_is_held};
use crate::harness::{
    KEY, Reply, Setup,
    engine::chunk,
    fault::{Door, Faults},
    metrics::{metric, page, parse, until_metric},
    prompt, soon,
};

const IN_FLIGHT: &str = "sealgate_gateway_requests_in_flight";

/// A client of one protocol.
struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Caller {
    fn new(setup: &Setup, http_2: bool) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        Self {
            client: builder.http2_only(http_2).build_http(),
            url: format!("{}/v1/completions", setup.gateway.url),
        }
    }

    /// Asks; dropping this, or the reply's body, is leaving.
    async fn ask(&self, stream: bool) -> Response<Incoming> {
        let body = json!({"model": "tiny", "prompt": prompt("x"), "stream": stream});
        let request = Request::post(&self.url)
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()));
        self.client.request(request.unwrap()).await.unwrap()
    }
}

/// Where the request is when its caller leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The engine works, and has said nothing.
    WaitsForHead,
    /// Something has come, and more will.
    Streams,
    /// More has come than the caller reads.
    BlockedOnWrite,
}

#[tokio::test]
async fn who_leaves_in_any_phase_takes_the_work_along_and_leaves_nothing() {
    let (setup, _legs) = between("", "").await;
    for http_2 in [false, true] {
        for (stream, phase) in [
            (false, Phase::WaitsForHead),
            (true, Phase::WaitsForHead),
            (true, Phase::Streams),
            (true, Phase::BlockedOnWrite),
        ] {
            let name = format!("HTTP/2 {http_2}, stream {stream}, {phase:?}");
            let caller = Caller::new(&setup, http_2);
            let asked = setup.engine.received().len() + 1;
            if phase == Phase::WaitsForHead {
                setup.engine.reply(Reply::Hang);
                tokio::select! {
                    _ = caller.ask(stream) => panic!("{name}: answered"),
                    () = setup.engine.arrived(asked) => {}
                }
                nothing_is_held(&setup).await;
                continue;
            }
            let feed = setup.engine.stream();
            let (mut reply, ()) = tokio::join!(caller.ask(true), feed.text("a"));
            soon(&name, reply.body_mut().frame())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                metric(&setup.gateway.admin, IN_FLIGHT, &[]).await,
                1.0,
                "{name}"
            );
            if phase == Phase::BlockedOnWrite {
                let event = format!("data: {}\n\n", chunk(&"x".repeat(65_536), Value::Null));
                let pausing = async {
                    loop {
                        feed.raw(event.clone()).await;
                    }
                };
                let quiet = std::time::Duration::from_millis(1500);
                assert!(tokio::time::timeout(quiet, pausing).await.is_err());
            }
            drop(reply);
            feed.abandoned().await;
            drop(feed);
            nothing_is_held(&setup).await;
        }
    }
    let cancelled = [("outcome", "cancelled")];
    until_metric(
        &setup.gateway.admin,
        "sealgate_gateway_requests_total",
        &cancelled,
        8.0,
    )
    .await;
}

#[tokio::test]
async fn who_leaves_while_no_node_is_verified_yet_leaves_nothing() {
    use crate::harness::{Engine, Process, fault::FaultProxy, setup::Files};
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, super::ADMIN)).await;
    let leg = FaultProxy::before(&node.url).await;
    leg.set(Faults::door(Door::Silent)).await;
    let more = format!("{}[timeouts]\nattest_ms = 600000\n", super::ADMIN);
    let gateway = Process::start("gateway", &files.gateway(&[&leg.url()], &more)).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    for http_2 in [false, true] {
        for stream in [false, true] {
            let caller = Caller::new(&setup, http_2);
            tokio::select! {
                _ = caller.ask(stream) => panic!("answered"),
                () = until_metric(&setup.gateway.admin, IN_FLIGHT, &[], 1.0) => {}
            }
            gateway_holds_nothing(&setup).await;
        }
    }
    leg.set(Faults::default()).await;
    assert_eq!(
        setup
            .complete(json!({"prompt": prompt("x")}))
            .await
            .status(),
        200
    );
    assert_eq!(
        setup.engine.received().len(),
        1,
        "the others never got there"
    );
}

/// More callers leave than there are places, some before anything happened: all places are free after,
/// and nothing was counted down twice.
#[tokio::test]
async fn many_that_leave_at_once_give_back_each_place_once() {
    let (setup, _legs) = between("", "[limits]\nin_flight = 16\n").await;
    for round in 0..4 {
        for _ in 0..16 {
            setup.engine.reply(Reply::Hang);
        }
        let before = setup.engine.received().len();
        let callers = (0..16).map(|n| {
            let body = json!({"model": "tiny", "prompt": prompt("x"), "stream": n % 2 == 0});
            tokio::spawn(setup.post(body.to_string()).send())
        });
        let callers: Vec<_> = callers.collect();
        setup.engine.arrived(before + 16).await;
        let shed = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(shed.status(), 429, "{round}: every place is taken");
        assert!(shed.headers().contains_key("retry-after"));
        for caller in callers {
            caller.abort();
        }
        nothing_is_held(&setup).await;
    }
    for admin in [&setup.gateway.admin, &setup.node.admin] {
        for sample in parse(&page(admin).await) {
            assert!(sample.value >= 0.0, "{sample:?}");
        }
    }
}
