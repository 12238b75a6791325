//! The list of nodes, what they showed, and locks on them.

use std::{collections::HashSet, fs};

use attestation::{Answer, Policy, verify};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{
    fake::{FakeNode, folder},
    harness::{Got, Running},
};
use crate::clock::{Clock, unix_seconds};

/// The keys of [`keyed`]: two for every model, one for a single one.
pub(super) const A: &str = "sk-a";
pub(super) const B: &str = "sk-b";
pub(super) const ONLY_M: &str = "sk-m";

/// A folder with the policy, to which `more` is added, and a file of keys.
pub(super) fn keyed(more: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let policy = fs::read_to_string(folder().join("policy.toml")).unwrap();
    let policy = policy.replacen("version = 1\n", &format!("version = 1\n{more}"), 1);
    fs::write(dir.path().join("policy.toml"), policy).unwrap();
    fs::copy(folder().join("ark.pem"), dir.path().join("ark.pem")).unwrap();
    let key = |name: &str, key: &str, models: &str| {
        let digest = hex::encode(Sha256::digest(key));
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{models}")
    };
    let keys = [
        key("a", A, ""),
        key("b", B, ""),
        key("m", ONLY_M, "models = [\"m\", \"other\"]\n"),
    ];
    fs::write(dir.path().join("keys.toml"), keys.concat()).unwrap();
    dir
}

/// A gateway before nodes, whose callers are those of [`keyed`].
pub(super) async fn start(dir: &TempDir, nodes: &[&FakeNode], rest: &str) -> Running {
    let urls: Vec<_> = nodes
        .iter()
        .map(|node| format!("http://{}", node.address))
        .collect();
    let rest = format!("keys_file = \"keys.toml\"\n{rest}");
    let gateway = Running::start_in(dir.path(), &urls, &rest, Clock::system()).await;
    gateway.until_ready().await;
    gateway.shared.nodes.settled(super::harness::PATIENCE).await;
    gateway
}

fn json_of(got: &Got) -> Value {
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.headers["content-type"], "application/json");
    serde_json::from_slice(&got.body).unwrap()
}

/// A lock of this caller's on a node for `m`: its reply.
pub(super) async fn lock(gateway: &Running, key: &str) -> Value {
    json_of(
        &gateway
            .post_as(key, "/v1/nodes/lock", r#"{"model":"m"}"#)
            .await,
    )
}

#[tokio::test]
async fn nodes_are_listed_with_what_the_caller_may_use() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let down = FakeNode::start("down").await;
    down.lie();
    let dir = keyed("");
    let gateway = start(&dir, &[&two, &one, &down], "").await;
    let list = json_of(&gateway.get_as(A, "/v1/nodes").await);
    let data = list["data"].as_array().unwrap();
    assert_eq!(list["object"], "list");
    assert_eq!(data.len(), 2, "{list}");
    let now = unix_seconds(Clock::system().now());
    for (node, id) in data.iter().zip(["one", "two"]) {
        assert_eq!(node["id"], id);
        assert_eq!(node["object"], "node");
        assert_eq!(node["origin"], "configured");
        assert_eq!(node["root"], "software root");
        assert_eq!(node["models"], json!(["m", "org/n"]));
        assert_eq!(node["statement"].as_str().unwrap().len(), 64);
        let at = |name: &str| node[name].as_u64().unwrap();
        assert!(at("verified_at") <= now && now < at("expires_at"), "{node}");
        let digest = Sha256::digest(id);
        let small = u64::from_be_bytes(digest[..8].try_into().unwrap()) >> 11;
        assert_eq!(at("node_small_id"), small);
    }
    let held = json_of(&gateway.get_as(ONLY_M, "/v1/nodes").await);
    assert_eq!(held["data"][0]["models"], json!(["m"]));
    let nobody = gateway.get_as("sk-x", "/v1/nodes").await;
    assert_eq!(nobody.code(), (401, "invalid_api_key".to_owned()));
}

#[tokio::test]
async fn what_a_node_showed_can_be_judged_by_anybody() {
    let node = FakeNode::start("one").await;
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let text = fs::read_to_string(dir.path().join("policy.toml")).unwrap();
    let policy = Policy::from_toml(&text, &mut |name| fs::read(dir.path().join(name))).unwrap();
    let judge = |got: &Got, nonce: &str| {
        let answer = Answer::from_json(&got.body).unwrap();
        let (bundle, now) = (<_>::default(), Clock::system().now());
        verify(&answer, &policy, &bundle, &nonce.parse().unwrap(), now)
            .map(|it| it.node_id().to_owned())
    };
    let last = gateway.get_as(A, "/v1/nodes/one/attestation").await;
    let nonce = json_of(&last)["nonce"].as_str().unwrap().to_owned();
    assert_eq!(judge(&last, &nonce).unwrap(), "one");
    let attested = node.attested();
    let own = "ab".repeat(32);
    let path = format!("/v1/nodes/one/attestation?nonce={own}");
    let fresh = gateway.get_as(A, &path).await;
    assert_eq!(judge(&fresh, &own).unwrap(), "one");
    assert!(judge(&fresh, &nonce).is_err(), "another question");
    assert_eq!(node.attested(), attested + 1, "the node itself was asked");

    for (path, code) in [
        ("/v1/nodes/two/attestation", (404, "node_not_found")),
        ("/v1/nodes/%ff/attestation", (404, "node_not_found")),
        (
            "/v1/nodes/one/attestation?nonce=ab",
            (400, "invalid_request"),
        ),
    ] {
        let (status, text) = gateway.get_as(A, path).await.code();
        assert_eq!((status, text.as_str()), code, "{path}");
    }
}

#[tokio::test]
async fn few_ask_a_node_for_evidence_at_once() {
    let node = FakeNode::start("one").await;
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let attested = node.attested();
    node.give(false);
    let path = format!("/v1/nodes/one/attestation?nonce={}", "ab".repeat(32));
    let asking = futures_util::future::join_all((0..8).map(|_| gateway.get_as(A, &path)));
    let meanwhile = async {
        node.until_attested(attested + 8).await;
        let refused = gateway.get_as(B, &path).await;
        assert_eq!(refused.code(), (429, "overloaded".to_owned()));
        node.give(true);
    };
    let (answers, ()) = tokio::join!(asking, meanwhile);
    assert!(answers.iter().all(|got| got.status == 200), "{answers:?}");
    assert_eq!(gateway.get_as(B, &path).await.status, 200);
}

#[tokio::test]
async fn a_lock_names_a_node_and_its_verified_key() {
    let node = FakeNode::start("one").await;
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "[models]\nother = \"m\"\n").await;
    let known = &gateway.shared.nodes.all()[0];
    let mut ids = HashSet::new();
    for count in 1..=3 {
        let lock = lock(&gateway, A).await;
        let key = lock["public_key"].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(key).unwrap(), node.seed_key());
        assert_eq!(lock["stack_entry_digest"], Value::Null);
        assert_eq!(lock.as_object().unwrap().len(), 4, "{lock}");
        let list = json_of(&gateway.get_as(A, "/v1/nodes").await);
        assert_eq!(lock["node_small_id"], list["data"][0]["node_small_id"]);
        let id = lock["stack_small_id"].as_u64().unwrap();
        assert!(id > 0 && id < 1 << 53 && ids.insert(id), "{id}");
        assert_eq!(known.in_flight(), count, "a lock holds a place");
    }
    assert_eq!(node.asked(), 0);
    let cases = [
        (A, r#"{"model":"unknown"}"#, (404, "model_not_found")),
        (A, r#"{"model":"other"}"#, (404, "model_not_found")),
        (ONLY_M, r#"{"model":"org/n"}"#, (403, "model_not_allowed")),
        (A, r#"{"model":"m","timeout":61}"#, (400, "invalid_request")),
        (A, r#"{"model":"m","timeout":0}"#, (400, "invalid_request")),
        (
            A,
            r#"{"model":"m","max_num_tokens":1048577}"#,
            (400, "invalid_request"),
        ),
        (A, r#"{"model":"m""#, (400, "invalid_json")),
        ("sk-x", r#"{"model":"m"}"#, (401, "invalid_api_key")),
    ];
    for (key, body, code) in cases {
        let (status, text) = gateway.post_as(key, "/v1/nodes/lock", body).await.code();
        assert_eq!((status, text.as_str()), code, "{body}");
    }
    assert_eq!(known.in_flight(), 3, "what was refused holds nothing");
    let locked = gateway.get_as(A, "/v1/nodes/lock").await;
    assert_eq!(locked.code(), (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn locks_are_bounded_and_forbidden_by_policy() {
    let node = FakeNode::start("one").await;
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "[locks]\nper_key = 2\ntotal = 3\n").await;
    lock(&gateway, A).await;
    lock(&gateway, A).await;
    let body = r#"{"model":"m"}"#;
    let refused = gateway.post_as(A, "/v1/nodes/lock", body).await;
    assert_eq!(refused.code(), (429, "too_many_locks".to_owned()));
    assert!(refused.headers.contains_key("retry-after"));
    lock(&gateway, B).await;
    let refused = gateway.post_as(ONLY_M, "/v1/nodes/lock", body).await;
    assert_eq!(refused.code(), (429, "too_many_locks".to_owned()));

    let dir = keyed("forbid_dialects = [\"seed\"]\n");
    let gateway = start(&dir, &[&node], "").await;
    let refused = gateway.post_as(A, "/v1/nodes/lock", body).await;
    assert_eq!(refused.code(), (403, "dialect_forbidden".to_owned()));
}

#[tokio::test]
async fn nodes_may_not_announce_themselves_unless_the_configuration_says_so() {
    let (node, other) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let body = json!({"data": {"public_address": format!("http://{}", other.address)}});
    let got = gateway.post_as(A, "/v1/nodes", body.to_string()).await;
    assert_eq!(got.code(), (403, "announcement_not_allowed".to_owned()));
    assert_eq!(other.attested(), 0);
}
