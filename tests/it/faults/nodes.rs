//! Several nodes, of which one fails: what another may take, and what it may not.

use serde_json::json;

use super::{ADMIN, told};
use crate::harness::{
    Engine, Process, Reply, Setup,
    fault::{Door, FaultProxy, Faults, Leg, Stop},
    metrics::metric,
    prompt,
    setup::{Files, error_of},
    soon,
};

/// A request that was sent.
type Waiting = tokio::task::JoinHandle<Result<reqwest::Response, reqwest::Error>>;

/// A gateway before two nodes, each with an engine of its own and the first reached through a proxy.
struct Pair {
    first: FaultProxy,
    second_engine: Engine,
    _second_node: Process,
    /// The first node, its engine, the gateway, and the folder with all logs.
    setup: Setup,
}

impl Pair {
    /// More for the second node's engine and for the gateway.
    async fn start(second: &str, gateway: &str) -> Self {
        let files = Files::new();
        let (engine, second_engine) = (Engine::start().await, Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let config = files.node("node-b", &second_engine, second);
        let second_node = Process::start("node", &config).await;
        let first = FaultProxy::before(&node.url).await;
        // The node that was verified first is not the warmer one for half a minute.
        let more = format!("{ADMIN}[selection]\nwarm_up_s = 0\n{gateway}");
        let config = files.gateway(&[&first.url(), &second_node.url], &more);
        let gateway = Process::start("gateway", &config).await;
        let setup = Setup {
            dir: files.dir,
            engine,
            node,
            gateway,
            client: reqwest::Client::new(),
        };
        let pair = Self {
            setup,
            first,
            second_engine,
            _second_node: second_node,
        };
        let verified = async {
            while metric(
                &pair.setup.gateway.admin,
                "sealgate_gateway_node_verified",
                &[],
            )
            .await
                < 2.0
            {}
        };
        soon("both are verified", verified).await;
        pair
    }

    /// Asks until the first node's engine hangs on so many requests; gives what waits for them.
    async fn hang(&self, how_many: usize) -> Vec<Waiting> {
        let before = self.setup.engine.received().len();
        let mut waiting = Vec::new();
        while self.setup.engine.received().len() < before + how_many {
            let asked = self.received();
            self.setup.engine.reply(Reply::Hang);
            let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
            waiting.push(tokio::spawn(self.setup.post(body).send()));
            let arrives = async {
                while self.received() == asked {
                    tokio::task::yield_now().await;
                }
            };
            soon("an engine has it", arrives).await;
            assert!(waiting.len() < 1000, "none gets to the first node");
        }
        waiting
    }

    /// Requests that reached either engine.
    fn received(&self) -> usize {
        self.setup.engine.received().len() + self.second_engine.received().len()
    }
}

fn leave(waiting: Vec<Waiting>) {
    for task in waiting {
        task.abort();
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_costs_nobody_an_answer() {
    let pair = Pair::start(
        "",
        "[limits]\nidle_connections_per_node = 0\n[timeouts]\nconnect_ms = 500\n",
    )
    .await;
    pair.first.set(Faults::door(Door::Refuse)).await;
    for n in 0..8 {
        let reply = pair.setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{n}");
        assert_eq!(reply.headers()["sealgate-node"], "node-b", "{n}");
    }
    assert!(pair.setup.engine.received().is_empty());
    assert_eq!(pair.second_engine.received().len(), 8, "each once");
}

#[tokio::test]
async fn a_node_that_dies_before_its_reply_may_have_run_it_and_no_other_is_asked() {
    let mut pair = Pair::start("", "").await;
    let mut answered = None;
    while answered.is_none() {
        pair.setup.engine.reply(Reply::Hang);
        let before = pair.setup.engine.received().len();
        let request = pair
            .setup
            .post(json!({"model": "tiny", "prompt": prompt("x")}).to_string());
        let mut sent = Box::pin(request.send());
        tokio::select! {
            reply = &mut sent => assert_eq!(reply.unwrap().status(), 200, "the second took it"),
            () = pair.setup.engine.arrived(before + 1) => {
                let others = pair.second_engine.received().len();
                pair.setup.node.kill().await;
                let reply = sent.await.unwrap();
                assert_eq!(pair.second_engine.received().len(), others, "not asked for it");
                assert_eq!(pair.setup.engine.received().len(), before + 1, "asked once");
                answered = Some(reply);
            }
        }
    }
    let reply = answered.unwrap();
    assert_eq!(reply.headers()["x-should-retry"], "false");
    let (status, error) = error_of(reply).await;
    assert_eq!(
        (status, &error["code"]),
        (502, &json!("upstream_truncated"))
    );
}

#[tokio::test]
async fn a_stream_that_broke_is_never_joined_to_another_nodes() {
    let pair = Pair::start("", "").await;
    let text = prompt(&"word ".repeat(4000));
    for stop in [Stop::Fin, Stop::Reset] {
        let mut broke = false;
        while !broke {
            pair.first
                .set(Faults::back(Leg::stopped(60_000, stop)))
                .await;
            let asked = pair.setup.engine.received().len() + pair.second_engine.received().len();
            let stream = pair.setup.stream(json!({"prompt": text})).await;
            let told = told(stream, "one of two").await;
            assert!(text.starts_with(&told.text), "{told:?}");
            let now = pair.setup.engine.received().len() + pair.second_engine.received().len();
            assert_eq!(now, asked + 1, "one was asked, once");
            broke = told.error.is_some();
            assert!(broke || told.text == text);
        }
    }
}

#[tokio::test]
async fn a_hung_node_slows_no_request_that_another_can_take() {
    let pair = Pair::start("", "").await;
    let waiting = pair.hang(1).await;
    pair.first
        .set(Faults::both(Leg::stopped(0, Stop::Freeze)))
        .await;
    let before = pair.second_engine.received().len();
    for n in 0..32 {
        let asked = pair.setup.complete(json!({"prompt": prompt("x")}));
        let reply = soon("an answer beside a hung node", asked).await;
        assert_eq!(reply.status(), 200, "{n}");
        assert_eq!(
            reply.headers()["sealgate-node"],
            "node-b",
            "{n}: the idle one"
        );
    }
    assert!(pair.second_engine.received().len() >= before + 32);
    leave(waiting);
}

#[tokio::test]
async fn a_model_whose_only_node_hangs_slows_no_other_model() {
    let pair = Pair::start("models = [\"other\"]\n", "").await;
    let waiting = pair.hang(32).await;
    for n in 0..16 {
        let asked = pair
            .setup
            .complete(json!({"model": "other", "prompt": prompt("x")}));
        let reply = soon("an answer for another model", asked).await;
        assert_eq!(reply.status(), 200, "{n}");
    }
    assert_eq!(pair.setup.engine.received().len(), 32);
    leave(waiting);
    pair.setup.engine.idle().await;
}

#[tokio::test]
async fn what_a_full_engine_says_of_when_to_come_back_reaches_the_caller() {
    let setup = Setup::start().await;
    let cases = [
        (429, None, "1"),
        (429, Some("7"), "7"),
        (503, Some("30"), "30"),
        (503, Some("3600"), "120"),
        (429, Some("soon"), "1"),
    ];
    for (status, said, given) in cases {
        setup.engine.reply(Reply::Later(status, said));
        let asked = setup.engine.received().len() + 1;
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        let name = format!("{status} {said:?}");
        assert_eq!(reply.headers()["retry-after"], given, "{name}");
        assert!(!reply.headers().contains_key("x-should-retry"), "{name}");
        let (status, error) = error_of(reply).await;
        assert_eq!(
            (status, &error["code"]),
            (503, &json!("no_node_available")),
            "{name}"
        );
        assert_eq!(
            setup.engine.received().len(),
            asked,
            "{name}: not asked again"
        );
    }
}

/// With every node failing, nodes are asked little more than the gateway is.
#[tokio::test]
async fn a_fleet_that_is_full_is_not_flooded_with_second_tries() {
    let pair = Pair::start("", "").await;
    const ASKED: usize = 100;
    for engine in [&pair.setup.engine, &pair.second_engine] {
        for _ in 0..3 * ASKED {
            engine.reply(Reply::Later(503, None));
        }
    }
    for _ in 0..ASKED {
        let (status, _) = error_of(pair.setup.complete(json!({"prompt": prompt("x")})).await).await;
        assert_eq!(status, 503);
    }
    let tries = metric(
        &pair.setup.gateway.admin,
        "sealgate_gateway_tries_total",
        &[],
    )
    .await;
    let engines = pair.setup.engine.received().len() + pair.second_engine.received().len();
    assert!(tries <= 100.0 * 1.2 + 20.0, "{tries} tries of 100 requests");
    assert!(engines <= 140, "{engines} requests reached engines");
}
