//! Faults between client, gateway, node and engine, and what a caller sees of them
//! (docs/architecture.md, "Faults, and the tests that hold them").

mod cancels;
mod cuts;
mod frozen;
mod nodes;
mod readers;
mod slices;
mod table;

use serde_json::Value;

use crate::harness::{
    Engine, Process, Setup,
    fault::FaultProxy,
    metrics::until_metric,
    setup::{EventStream, Files},
};

/// An admin listener on a port of the kernel's choice.
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";
/// Each exchange with a node has a connection of its own, in HTTP/1.1, so that positions on it are the
/// reply's.
const FRESH: &str = "[limits]\nidle_connections_per_node = 0\n";

/// The three ways that bytes go, each through a proxy.
struct Legs {
    client: FaultProxy,
    node: FaultProxy,
    engine: FaultProxy,
}

/// A set-up with `[admin]` and a proxy on every leg; more for the node's and the gateway's files.
async fn between(node: &str, gateway: &str) -> (Setup, Legs) {
    let (files, engine) = (Files::new(), Engine::start().await);
    let engine_leg = FaultProxy::before(&engine.address.to_string()).await;
    let mut reached = engine.clone();
    reached.address = engine_leg.address;
    let config = files.node("node-a", &reached, &format!("{ADMIN}{node}"));
    let node = Process::start("node", &config).await;
    let node_leg = FaultProxy::before(&node.url).await;
    let config = files.gateway(&[&node_leg.url()], &format!("{ADMIN}{gateway}"));
    let mut gateway = Process::start("gateway", &config).await;
    let client_leg = FaultProxy::before(&gateway.url).await;
    gateway.url = client_leg.url();
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    let legs = Legs {
        client: client_leg,
        node: node_leg,
        engine: engine_leg,
    };
    (setup, legs)
}

/// Waits until the gateway holds nothing of any request.
async fn gateway_holds_nothing(setup: &Setup) {
    for held in [
        "requests_in_flight",
        "bodies_held_bytes",
        "node_requests_in_flight",
        "retries_in_flight",
    ] {
        let name = format!("sealgate_gateway_{held}");
        until_metric(&setup.gateway.admin, &name, &[], 0.0).await;
    }
}

/// Waits until gateway, node and engine hold nothing of any request.
async fn nothing_is_held(setup: &Setup) {
    gateway_holds_nothing(setup).await;
    for held in [
        "requests_in_flight",
        "buffered_bytes",
        "engine_requests_in_flight",
    ] {
        let name = format!("sealgate_node_{held}");
        until_metric(&setup.node.admin, &name, &[], 0.0).await;
    }
    setup.engine.idle().await;
}

/// How a stream came out.
#[derive(Debug)]
struct Told {
    /// The texts of its events, joined.
    text: String,
    /// Whether `[DONE]` came, as the last event of an orderly end.
    done: bool,
    /// The code of the error event, the last one before the connection was aborted.
    error: Option<String>,
}

/// Reads a stream to its end. Every event is JSON or `[DONE]`; it ends with either `[DONE]` and in
/// order, or with one error event and an aborted connection: anything else fails the test.
async fn told(stream: EventStream, name: &str) -> Told {
    let (events, end) = stream.rest().await;
    let mut told = Told {
        text: String::new(),
        done: false,
        error: None,
    };
    for event in &events {
        assert!(
            !told.done && told.error.is_none(),
            "{name}: {event} after the end"
        );
        if event == "[DONE]" {
            told.done = true;
            continue;
        }
        let event: Value = serde_json::from_str(event).expect(name);
        if let Some(code) = event["error"]["code"].as_str() {
            told.error = Some(code.to_owned());
        } else if let Some(text) = event["choices"][0]["text"].as_str() {
            told.text += text;
        }
    }
    assert!(
        told.done != told.error.is_some(),
        "{name}: neither an end nor an error, or both: {events:?}"
    );
    assert_eq!(told.done, end.is_ok(), "{name}: {end:?}");
    told
}
