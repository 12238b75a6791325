//! What is sealed to the gateway itself, and what nodes see of it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use attestation::Policy;
use http::Response;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use super::{
    fake::{self, FakeNode, MEASUREMENT, Writer},
    harness::{BODY, PATIENCE, Running, STREAM_BODY, read_raw},
};
use crate::{
    attester::evidence::SOFTWARE_MEASUREMENT,
    client::{AskError, Channel, Client, Endpoint, ExchangeError, Incomplete, Reply},
    clock::Clock,
    ids::RequestId,
    seal::{Padding, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, RequestHead, seal_request},
};

pub(super) const KEY: &str = "sk-0123456789";

/// A folder with a policy, a key, a node's credential and the files of the software root.
fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let folder = fake::folder().join("own");
        std::fs::create_dir_all(&folder).unwrap();
        let root = fake::root();
        let policy = std::fs::read_to_string(fake::folder().join("policy.toml")).unwrap();
        let digest = hex::encode(Sha256::digest(KEY));
        let keys = format!("[[key]]\nname = \"k\"\nsha256 = \"{digest}\"\n");
        for (name, text) in [
            ("ark.pem", root.ark_pem()),
            ("ask.pem", root.ask_pem()),
            ("vcek.pem", root.vcek_pem()),
            ("vcek.key", root.vcek_key_pem()),
            ("policy.toml", &policy),
            ("keys.toml", &keys),
            ("node.token", "node-secret"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        folder
    });
    made.clone()
}

/// The table of a gateway that has evidence of its own.
pub(super) fn own_table() -> String {
    let folder = folder();
    format!(
        "[attestation]\nnode_id = \"own\"\n\
         evidence = {{ source = \"software-root\", dir = \"{}\" }}\n",
        folder.display()
    )
}

/// A gateway before `node` that is sealed to, and a channel to it.
async fn start(node: &FakeNode) -> (Running, Channel) {
    start_padded(node, Padding::Bucket, "").await
}

/// The same, with replies padded so, and `more` in the gateway's own table.
pub(super) async fn start_padded(
    node: &FakeNode,
    padding: Padding,
    more: &str,
) -> (Running, Channel) {
    let folder = folder();
    let config = format!(
        "keys_file = \"keys.toml\"\n[[node]]\nurl = \"http://{}\"\n\
         credential_file = \"node.token\"\n{}{more}",
        node.address,
        own_table()
    );
    let running = Running::start_in(&folder, &[], &config, Clock::system()).await;
    running.until_ready().await;
    let text = std::fs::read_to_string(folder.join("policy.toml")).unwrap();
    let own = hex::encode(SOFTWARE_MEASUREMENT);
    let text = text.replace(&hex::encode(MEASUREMENT), &own);
    let text = format!("allow_attested_engine = true\n{text}");
    let policy = Policy::from_toml(&text, &mut |name| std::fs::read(folder.join(name)));
    let url = format!("http://{}", running.address);
    let client = Client::at_attested_gateway(&url, policy.unwrap()).api_key(KEY);
    let client = client.padding(padding).build().unwrap();
    let channel = client.verify("m").await.unwrap();
    (running, channel)
}

#[tokio::test]
async fn a_node_sees_the_gateways_credential_and_never_the_callers_key() {
    let node = FakeNode::start("one").await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let seeing = Arc::clone(&seen);
    node.play(move |asked| {
        let fields = asked.request.fields.iter();
        let fields = fields.map(|(name, value)| format!("{name}: {value}"));
        seeing.lock().unwrap().extend(fields);
        async move { asked.json(200, r#"{"answer":1}"#) }
    });
    let (_running, channel) = start(&node).await;
    let reply = channel.request(Endpoint::Completions, BODY).await.unwrap();
    let Reply::Whole(whole) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(
        (whole.status().as_u16(), whole.body()),
        (200, &bytes::Bytes::from_static(br#"{"answer":1}"#))
    );
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.contains(&"authorization: Bearer node-secret".to_owned()),
        "{seen:?}"
    );
    assert!(!seen.iter().any(|field| field.contains(KEY)), "{seen:?}");
    let pseudonym = Sha256::digest(format!("sealgate caller{KEY}"));
    let caller = format!("sealgate-caller: {}", hex::encode(&pseudonym[..16]));
    assert!(seen.contains(&caller), "{seen:?}");
}

#[tokio::test]
async fn a_nodes_stream_that_is_cut_is_told_under_the_seal() {
    let node = FakeNode::start("one").await;
    let event = b"data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n";
    let held: Arc<Mutex<Option<Writer>>> = Arc::default();
    let holding = Arc::clone(&held);
    node.play(move |asked| {
        let (mut sealer, writer, response) = asked.stream();
        let first = sealer.chunk(event).unwrap();
        writer.try_send(Ok(first)).unwrap();
        *holding.lock().unwrap() = Some(writer);
        async move { response }
    });
    let (_running, channel) = start(&node).await;
    let reply = channel.request(Endpoint::Completions, STREAM_BODY).await;
    let Reply::Stream(mut events) = reply.unwrap() else {
        panic!("a whole reply")
    };
    assert!(events.next().await.unwrap().is_some());
    let writer = held.lock().unwrap().take().unwrap();
    writer.try_send(Err(fake::Broken)).unwrap();
    let error = loop {
        match events.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it looks whole"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ExchangeError::Incomplete(Incomplete::EngineFailed)),
        "{error}"
    );
}

/// What a completion that is sealed to the gateway by hand gets, inside.
async fn post_sealed(running: &Running, channel: &Channel, body: &str) -> (u16, Value) {
    let now = Clock::system().now();
    let key = channel.node().sealing_key(now).unwrap();
    let (date, id) = (
        httpdate::fmt_http_date(now),
        RequestId::generate().to_string(),
    );
    let (statement, bearer) = (key.statement_digest().to_string(), format!("Bearer {KEY}"));
    let fields = [
        ("date", date.as_str()),
        ("sealgate-statement", &statement),
        ("sealgate-request-id", &id),
        ("authorization", &bearer),
    ];
    let head = RequestHead {
        path: "/v1/completions",
        fields: &fields,
    };
    let sealed = seal_request(&key, now, &head, body.as_bytes(), Padding::Bucket);
    let (sealed, mut opener) = sealed.unwrap();
    let path = "/.well-known/ohttp-gateway";
    let reply = running.begin_as("", path, REQUEST_MEDIA_TYPE, sealed).await;
    assert_eq!(reply.status(), 200);
    let (sealed, is_cut) = read_raw(reply.into_body()).await;
    assert!(!is_cut);
    opener.push(sealed.into()).unwrap();
    let last = opener.finish().unwrap();
    let json = serde_json::from_slice(&last.content).unwrap();
    (last.head.unwrap().status, json)
}

#[tokio::test]
async fn a_whole_reply_that_ends_in_its_middle_is_an_error_under_the_seal() {
    let node = FakeNode::start("one").await;
    let (running, channel) = start(&node).await;
    let cases = [
        ("cut", true, 2, "upstream_truncated"),
        ("as if it were whole", false, 2, "upstream_truncated"),
        ("but for its last byte", false, 1, "node_reply_invalid"),
    ];
    for (asked_before, (name, is_cut, part, expected)) in cases.into_iter().enumerate() {
        node.play(move |asked| {
            let content = format!(r#"{{"answer":"{}"}}"#, "x".repeat(50_000));
            let fields = [("content-type", "application/json")];
            let sealed = asked.sealer;
            let sealed = sealed.seal_whole(200, &fields, content.as_bytes(), &[], Padding::Off);
            let sealed = sealed.unwrap();
            let (writer, body) = fake::body();
            let half = sealed.slice(..(sealed.len() - 1) / part);
            writer.try_send(Ok(half)).unwrap();
            if is_cut {
                writer.try_send(Err(fake::Broken)).unwrap();
            }
            let response = Response::builder().header("content-type", RESPONSE_MEDIA_TYPE);
            async move { response.body(body).unwrap() }
        });
        let (status, said) = post_sealed(&running, &channel, BODY).await;
        let code = &said["error"]["code"];
        assert_eq!((status, code), (502, &json!(expected)), "{name}");
        assert_eq!(node.asked(), asked_before + 1, "{name}: it may have run");
    }
    let in_flight = async {
        while running.shared.admission.in_flight() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, in_flight).await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_contract_has_its_own_status_inside() {
    let node = FakeNode::start("one").await;
    node.play(|asked| async move { asked.problem(503, "overloaded") });
    let (_running, channel) = start(&node).await;
    let error = channel.request(Endpoint::Completions, BODY).await;
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            AskError::Exchange(ExchangeError::Engine { status: 503 })
        ),
        "{error}"
    );
}
