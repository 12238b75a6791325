//! Requests that are sealed by somebody else, and only carried.

use std::{
    fs,
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Response, Version, header::CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    fake::{Broken, Carried, FakeBody, FakeNode, body, plain},
    fleet::{A, B, ONLY_M, keyed, lock, start},
    harness::{Got, PATIENCE, Running, read, read_raw},
};
use crate::{
    clock::Clock,
    seal::{KEYS_MEDIA_TYPE, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, encode_key_configs},
};

const CHAT: &str = "/v1/confidential/chat/completions";
const OHTTP: &str = "/v1/nodes/one/ohttp";
const EVENT: &str = "data: {\"ciphertext\":\"AA==\"}\n\n";

/// A request in the seed's format for a lock, with members put in place of its own.
fn sealed(lock: &Value, bent: Value) -> String {
    let mut request = json!({
        "ciphertext": "AAAA", "client_dh_public_key": BASE64_STANDARD.encode([1; 32]),
        "model_name": "m", "node_dh_public_key": lock["public_key"], "nonce": "AAAA",
        "num_compute_units": null, "plaintext_body_hash": "AAAA", "salt": "AAAA",
        "stack_small_id": lock["stack_small_id"], "stream": false,
    });
    for (name, value) in bent.as_object().unwrap() {
        request[name] = value.clone();
    }
    // Not as a serializer would write it: what is carried is not written anew.
    format!(" {request} ")
}

/// Replies with what came, but for its status and type.
async fn mirror(carried: Carried) -> Response<FakeBody> {
    let seen = json!({
        "method": carried.method.as_str(), "path": carried.path,
        "authorization": carried.headers.get("authorization").map(|it| it.to_str().unwrap()),
        "type": carried.headers.get("content-type").map(|it| it.to_str().unwrap()),
        "accept": carried.headers.get("accept").map(|it| it.to_str().unwrap()),
        "names": carried.headers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(&carried.body),
    });
    plain(203, "application/x-sealed", seen.to_string().into())
}

fn seen(got: &Got) -> Value {
    assert_eq!(got.status, 203, "{got:?}");
    assert_eq!(got.headers["content-type"], "application/x-sealed");
    assert_eq!(got.headers["sealgate-node"], "one");
    serde_json::from_slice(&got.body).unwrap()
}

/// A gateway with a credential for its one node.
async fn with_credential(node: &FakeNode) -> (tempfile::TempDir, Running) {
    let dir = keyed("");
    fs::write(dir.path().join("token"), "node-token\n").unwrap();
    let node = format!(
        "keys_file = \"keys.toml\"\n[[node]]\nurl = \"http://{}\"\ncredential_file = \"token\"\n",
        node.address
    );
    let gateway = Running::start_in(dir.path(), &[], &node, Clock::system()).await;
    gateway.until_ready().await;
    (dir, gateway)
}

#[tokio::test]
async fn what_is_sealed_in_the_seeds_format_is_carried_as_it_is() {
    let node = FakeNode::start("one").await;
    node.carry(mirror);
    let (_dir, gateway) = with_credential(&node).await;
    let known = &gateway.shared.nodes.all()[0];
    for path in [
        "/v1/confidential/completions",
        CHAT,
        "/v1/confidential/embeddings",
        "/v1/confidential/images/generations",
    ] {
        let lock = lock(&gateway, A).await;
        let body = sealed(&lock, json!({"stream": true}));
        let seen = seen(&gateway.post_as(A, path, body.clone()).await);
        assert_eq!(seen["path"], path);
        assert_eq!(seen["method"], "POST");
        assert_eq!(seen["body"], body);
        assert_eq!(seen["authorization"], "Bearer node-token");
        assert_eq!(seen["type"], "application/json");
        assert_eq!(seen["accept"], "text/event-stream");
        let names = seen["names"].as_array().unwrap();
        assert!(!names.contains(&json!("user-agent")), "{names:?}");
        assert_eq!(known.in_flight(), 0);
    }
    assert_eq!(gateway.shared.admission.in_flight(), 0);
}

#[tokio::test]
async fn a_lock_serves_only_what_it_was_taken_for_and_once() {
    let node = FakeNode::start("one").await;
    node.carry(mirror);
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let lock = lock(&gateway, A).await;
    let id = lock["stack_small_id"].as_u64().unwrap();
    let missing = (423, "lock_not_found");
    let cases = [
        ("another caller", B, json!({}), missing),
        ("a guess", A, json!({"stack_small_id": id ^ 1}), missing),
        ("no lock", A, json!({"stack_small_id": 0}), missing),
        ("another model", A, json!({"model_name": "org/n"}), missing),
        (
            "another key",
            A,
            json!({"node_dh_public_key": BASE64_STANDARD.encode([1; 32])}),
            missing,
        ),
        (
            "no key",
            A,
            json!({"node_dh_public_key": null}),
            (400, "invalid_request"),
        ),
        (
            "a model that is not the caller's",
            ONLY_M,
            json!({"model_name": "org/n"}),
            (403, "model_not_allowed"),
        ),
    ];
    for (name, key, bent, code) in cases {
        let got = gateway.post_as(key, CHAT, sealed(&lock, bent)).await;
        let (status, text) = got.code();
        assert_eq!((status, text.as_str()), code, "{name}");
        if status == 423 {
            let text = String::from_utf8_lossy(&got.body);
            assert!(text.contains("/v1/nodes/lock"), "{text}");
        }
    }
    assert_eq!(node.asked(), 0, "nothing was sent");
    seen(&gateway.post_as(A, CHAT, sealed(&lock, json!({}))).await);
    let again = gateway.post_as(A, CHAT, sealed(&lock, json!({}))).await;
    assert_eq!(again.code(), (423, "lock_not_found".to_owned()));
    assert_eq!(node.asked(), 1);
}

#[tokio::test]
async fn a_lock_ends_with_the_nodes_key() {
    let node = FakeNode::start("one").await;
    node.carry(mirror);
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let known = Arc::clone(&gateway.shared.nodes.all()[0]);
    let lock = lock(&gateway, A).await;
    let before = known.verified().unwrap();
    node.restart();
    known.want_appraisal();
    let is_new = known.until(|now| now.is_some_and(|now| now.statement != before.statement));
    timeout(PATIENCE, is_new).await.unwrap();
    let got = gateway.post_as(A, CHAT, sealed(&lock, json!({}))).await;
    assert_eq!(got.code(), (423, "lock_not_found".to_owned()));
    assert_eq!((node.asked(), known.in_flight()), (0, 0));
}

#[tokio::test]
async fn sealed_requests_are_carried_blindly() {
    let node = FakeNode::start("one").await;
    node.carry(mirror);
    let (_dir, gateway) = with_credential(&node).await;
    let keys = gateway.get_as(A, "/v1/nodes/one/ohttp-keys").await;
    assert_eq!((keys.status.as_u16(), node.asked()), (200, 0));
    assert_eq!(keys.headers["content-type"], KEYS_MEDIA_TYPE);
    assert_eq!(keys.headers["sealgate-node"], "one");
    let verified = gateway.shared.nodes.all()[0].verified().unwrap();
    let key = &verified.node.statement().keys()[0];
    let list = encode_key_configs([(key.key_id, &key.public_key)]);
    assert_eq!(keys.body, list, "its own, and none of a dialect");
    let begun = gateway
        .begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "\u{1}sealed")
        .await;
    let carried = seen(&read(begun).await);
    assert_eq!(carried["path"], "/.well-known/ohttp-gateway");
    assert_eq!(carried["body"], "\u{1}sealed");
    assert_eq!(carried["type"], REQUEST_MEDIA_TYPE);
    assert_eq!(
        carried["authorization"],
        Value::Null,
        "the caller's stays here"
    );

    let cases = [
        (
            A,
            OHTTP,
            "application/json",
            (415, "unsupported_media_type"),
        ),
        (
            A,
            "/v1/nodes/two/ohttp",
            REQUEST_MEDIA_TYPE,
            (404, "node_not_found"),
        ),
        (
            ONLY_M,
            OHTTP,
            REQUEST_MEDIA_TYPE,
            (403, "relay_not_allowed"),
        ),
        ("sk-x", OHTTP, REQUEST_MEDIA_TYPE, (401, "invalid_api_key")),
    ];
    let asked = node.asked();
    for (key, path, media_type, code) in cases {
        let got = read(gateway.begin_as(key, path, media_type, "x").await).await;
        let (status, text) = got.code();
        assert_eq!((status, text.as_str()), code, "{key} {path} {media_type}");
    }
    assert_eq!(node.asked(), asked);
}

/// What a node does in the middle of its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Clean,
    Broken,
    /// Fewer bytes than its `Content-Length` says, and the connection ends.
    Short,
    Silent,
}

fn scripted(end: End, media_type: &'static str) -> Response<FakeBody> {
    let (writer, body) = body();
    tokio::spawn(async move {
        let _ = writer.send(Ok(EVENT.into())).await;
        match end {
            End::Clean => {}
            End::Broken | End::Short => {
                // The first part has its own way out before the connection goes.
                sleep(Duration::from_millis(50)).await;
                let _ = writer.send(Err(Broken)).await;
            }
            End::Silent => writer.closed().await,
        }
    });
    let mut response = Response::builder().header("content-type", media_type);
    if end == End::Short {
        response = response.header(CONTENT_LENGTH, EVENT.len() + 1);
    }
    response.body(body).unwrap()
}

#[tokio::test]
async fn a_reply_that_breaks_off_never_looks_whole() {
    let node = FakeNode::start("one").await;
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "[timeouts]\nidle_ms = 300\n").await;
    for end in [End::Clean, End::Broken, End::Short, End::Silent] {
        for media_type in ["text/event-stream", "application/json", RESPONSE_MEDIA_TYPE] {
            node.carry(move |_| ready(scripted(end, media_type)));
            let begun = if media_type == RESPONSE_MEDIA_TYPE {
                gateway
                    .begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "sealed")
                    .await
            } else {
                let lock = lock(&gateway, A).await;
                let body = sealed(&lock, json!({}));
                gateway.begin_as(A, CHAT, "application/json", body).await
            };
            assert_eq!(begun.status(), 200, "{end:?} {media_type}");
            assert_eq!(begun.headers()["content-type"], media_type);
            let (text, aborted) = read_raw(begun.into_body()).await;
            assert_eq!(aborted, end != End::Clean, "{end:?} {media_type}");
            assert!(EVENT.as_bytes().starts_with(&text), "{end:?} {media_type}");
        }
    }
    assert_eq!(node.asked(), 12, "nothing was sent twice");
    assert_eq!(gateway.shared.admission.in_flight(), 0);
}

#[tokio::test]
async fn a_reply_that_shows_no_end_is_not_given_on() {
    let node = FakeNode::start("one").await;
    node.carry(|_| {
        let mut response = plain(200, RESPONSE_MEDIA_TYPE, "sealed".into());
        *response.version_mut() = Version::HTTP_10;
        ready(response)
    });
    let dir = keyed("");
    // In HTTP/2 every reply shows its end.
    let one_at_a_time = "[limits]\nidle_connections_per_node = 0\n";
    let gateway = start(&dir, &[&node], one_at_a_time).await;
    let got = read(gateway.begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "x").await).await;
    assert_eq!(got.code(), (502, "node_reply_invalid".to_owned()));
    assert_eq!(got.should_retry(), Some("false"));
}

#[tokio::test]
async fn what_a_node_says_to_the_gateway_is_not_said_to_the_caller() {
    let node = FakeNode::start("one").await;
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    for (status, code) in [
        (302, (502, "node_reply_invalid")),
        (401, (503, "no_node_available")),
    ] {
        node.carry(move |_| ready(plain(status, "text/plain", "no".into())));
        let got = read(gateway.begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "x").await).await;
        let (seen, text) = got.code();
        assert_eq!((seen, text.as_str()), code, "{status}");
    }
    for status in [400, 422, 429, 500, 503] {
        node.carry(move |_| ready(plain(status, "application/problem+json", "{}".into())));
        let got = read(gateway.begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "x").await).await;
        assert_eq!((got.status.as_u16(), &got.body[..]), (status, &b"{}"[..]));
        assert_eq!(got.headers["content-type"], "application/problem+json");
    }
}

/// A caller who seals for himself takes the keys from here: after the node was restarted they are
/// others, and the gateway learns it by the first refusal.
#[tokio::test]
async fn a_refusal_of_what_is_carried_has_the_node_attested_again() {
    let node = FakeNode::start("one").await;
    node.carry(|_| ready(plain(400, "application/problem+json", "{}".into())));
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let known = Arc::clone(&gateway.shared.nodes.all()[0]);
    let before = known.verified().unwrap();
    node.restart();
    let attested = node.attested();
    let is_new = || known.verified().unwrap().statement != before.statement;
    // Sealed to no key, to one that the statement never had, and to its own.
    for (content, expected) in [
        ("x", false),
        ("\x09\0\x20\0\x01\0\x02x", false),
        ("\x03\0\x20\0\x01\0\x02x", true),
    ] {
        let refused = read(
            gateway
                .begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, content)
                .await,
        )
        .await;
        assert_eq!(refused.status, 400);
        // Whoever asks for the keys now gets the new ones.
        assert_eq!(is_new(), expected, "{content:?}");
        assert_eq!(node.attested() > attested, expected, "{content:?}");
    }
    node.restart();
    let attested = node.attested();
    let content = "\x03\0\x20\0\x01\0\x02x";
    read(
        gateway
            .begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, content)
            .await,
    )
    .await;
    assert_eq!(
        node.attested(),
        attested,
        "one hint in a minute is followed"
    );
}

/// Replies with an event and then waits; says when nobody reads any more.
fn open_stream(left: Arc<Notify>) -> impl Fn(Carried) -> Ready<Response<FakeBody>> {
    move |_| {
        let ((writer, body), left) = (body(), Arc::clone(&left));
        tokio::spawn(async move {
            writer
                .send(Ok(Bytes::from_static(EVENT.as_bytes())))
                .await
                .unwrap();
            writer.closed().await;
            left.notify_one();
        });
        let response = Response::builder().header("content-type", RESPONSE_MEDIA_TYPE);
        ready(response.body(body).unwrap())
    }
}

#[tokio::test]
async fn a_caller_who_leaves_ends_the_nodes_work_and_holds_nothing() {
    let node = FakeNode::start("one").await;
    let left = Arc::new(Notify::new());
    node.carry(open_stream(Arc::clone(&left)));
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let known = &gateway.shared.nodes.all()[0];
    let begun = gateway.begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "x").await;
    let mut reply = begun.into_body();
    let first = timeout(PATIENCE, reply.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first.into_data().unwrap(), EVENT);
    let held = (gateway.shared.admission.in_flight(), known.in_flight());
    assert_eq!(held, (1, 1), "held until the last byte");
    drop(reply);
    timeout(PATIENCE, left.notified()).await.unwrap();
    let held = (gateway.shared.admission.in_flight(), known.in_flight());
    assert_eq!(held, (0, 0));
}

#[tokio::test]
async fn what_is_carried_ends_when_the_node_is_no_longer_verified() {
    let node = FakeNode::start("one").await;
    let left = Arc::new(Notify::new());
    node.carry(open_stream(Arc::clone(&left)));
    let dir = keyed("");
    let gateway = start(&dir, &[&node], "").await;
    let lock = lock(&gateway, A).await;
    let body = sealed(&lock, json!({"stream": true}));
    let begun = gateway.begin_as(A, CHAT, "application/json", body).await;
    let mut reply = begun.into_body();
    timeout(PATIENCE, reply.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    gateway.shared.halted.cancel();
    timeout(PATIENCE, left.notified()).await.unwrap();
    assert!(read_raw(reply).await.1, "aborted");
    let got = read(gateway.begin_as(A, OHTTP, REQUEST_MEDIA_TYPE, "x").await).await;
    assert_eq!(got.status.as_u16() / 100, 4, "{got:?}");
    assert_eq!(node.asked(), 1);
}
