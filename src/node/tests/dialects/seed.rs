use serde_json::json;

use super::{clients::SeedCall, *};
use crate::node::tests::{BODY, STREAM_BODY};

const PATH: &str = "/v1/confidential/completions";

fn request(node: &Running, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    post(node, path).body(Full::new(body.into())).unwrap()
}

async fn ask(node: &Running, call: &SeedCall) -> (StatusCode, HeaderMap, Bytes) {
    node.send(request(node, PATH, call.body())).await
}

async fn call(node: &Running, content: &str) -> SeedCall {
    let key = key(node, Dialect::Seed).await;
    SeedCall::new(&key, "m", None, content.as_bytes())
}

#[tokio::test]
async fn a_request_is_opened_and_its_answer_sealed() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let call = call(&node, BODY).await;
    let played = async {
        let mut asked = engine.asked().await;
        asked.reply(200, REPLY).await;
        asked
    };
    let ((status, headers, body), asked) = tokio::join!(ask(&node, &call), played);
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert!(asked.head.starts_with("POST /v1/completions ") && asked.body.contains("canary"));
    let message: Value = serde_json::from_slice(&body).unwrap();
    let members: Vec<_> = message.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["ciphertext", "nonce", "response_hash", "signature", "usage"]
    );
    let opened = call.open(&message);
    assert_eq!(opened["choices"][0]["text"], " yes");
    assert_eq!(opened["usage"], message["usage"]);
    assert_eq!(message["usage"]["total_tokens"], 8);
}

#[tokio::test]
async fn every_event_of_a_stream_is_sealed_by_itself() {
    for (whole, name) in [(true, "whole"), (false, "broken")] {
        let mut engine = FakeEngine::start().await;
        let node = node(&engine, "").await;
        let key = key(&node, Dialect::Seed).await;
        let body = STREAM_BODY.replace('}', ",\"stream_options\":{\"include_usage\":true}}");
        let call = SeedCall::new(&key, "m", Some(true), body.as_bytes());
        let (mut coming, mut asked) = {
            let played = async {
                let mut asked = engine.asked().await;
                asked.begin_stream().await;
                asked.write(&event(" one")).await;
                asked
            };
            tokio::join!(Coming::of(&node, request(&node, PATH, call.body())), played)
        };
        let mut text = String::from_utf8(coming.next().await.unwrap().unwrap().into()).unwrap();
        assert!(
            text.ends_with("}\n\n"),
            "whole events, as they come: {text}"
        );
        play(&mut asked, whole).await;
        drop(asked);
        let mut aborted = false;
        while let Some(bytes) = coming.next().await {
            match bytes {
                Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Err(_) => {
                    aborted = true;
                    break;
                }
            }
        }
        assert_eq!(aborted, !whole, "{name}");
        assert!(
            !text.contains("[DONE]") && !text.contains(" one") && !text.contains("\n:"),
            "{text}"
        );
        let events = text.split_terminator("\n\n").map(|event| {
            serde_json::from_str::<Value>(event.strip_prefix("data: ").unwrap()).unwrap()
        });
        let (errors, messages): (Vec<_>, Vec<_>) =
            events.partition(|event| event.get("error").is_some());
        assert_eq!(errors.len(), usize::from(!whole), "{name}");
        let opened: Vec<_> = messages.iter().map(|message| call.open(message)).collect();
        assert_eq!(opened[0]["choices"][0]["text"], " one");
        assert_eq!(opened[1]["choices"][0]["text"], " two");
        let nonces: std::collections::HashSet<_> = messages
            .iter()
            .map(|message| message["nonce"].to_string())
            .collect();
        assert_eq!(nonces.len(), messages.len(), "a nonce for each");
        for (message, opened) in messages.iter().zip(&opened) {
            assert_eq!(message.get("usage").is_some(), opened["usage"].is_object());
        }
        if whole {
            let last = opened.last().unwrap();
            assert_eq!(
                last["choices"],
                json!([]),
                "the usage that was asked for: {last}"
            );
        }
    }
}

/// After opening, errors stand in clear: nothing that was sealed, and no word of an engine, who
/// quotes prompts.
#[tokio::test]
async fn what_goes_wrong_after_opening_says_nothing_of_what_was_sealed() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let wrong = r#"{"error":{"message":"bad: canary","type":"invalid_request_error"}}"#;
    let cases: [(&str, Option<u16>, u16, &str); 7] = [
        ("{\"canary\"", None, 400, "invalid_json"),
        (
            r#"{"model":"m","prompt":"x","canary":1,"canary":2}"#,
            None,
            400,
            "duplicate_member",
        ),
        (
            r#"{"model":"m","prompt":"x","max_tokens":"canary"}"#,
            None,
            400,
            "invalid_request",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"canary"}]}"#,
            None,
            400,
            "invalid_request",
        ),
        (BODY, Some(400), 400, "invalid_request"),
        (BODY, Some(500), 502, "engine_error"),
        (BODY, Some(503), 503, "overloaded"),
    ];
    for (content, engine_status, expected, code) in cases {
        let call = call(&node, content).await;
        let played = async {
            if let Some(status) = engine_status {
                engine.asked().await.reply(status, wrong).await;
            }
        };
        let ((status, _, body), ()) = tokio::join!(ask(&node, &call), played);
        assert_eq!(
            error(status, &body),
            (expected, code.to_owned()),
            "{content}"
        );
        assert!(
            !String::from_utf8_lossy(&body).contains("canary"),
            "{body:?}"
        );
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn what_stands_outside_must_be_what_was_sealed() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let key = key(&node, Dialect::Seed).await;
    let cases = [
        ("another model", "other", None, BODY),
        ("a stream outside", "m", Some(true), BODY),
        ("a stream inside", "m", Some(false), STREAM_BODY),
        ("a stream inside, nothing outside", "m", None, STREAM_BODY),
    ];
    for (name, model, stream, content) in cases {
        let call = SeedCall::new(&key, model, stream, content.as_bytes());
        let (status, _, body) = ask(&node, &call).await;
        assert_eq!(
            error(status, &body),
            (400, "invalid_request".to_owned()),
            "{name}"
        );
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn what_does_not_open_is_refused() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let ehbp = key(&node, Dialect::Ehbp).await;
    let to = |key: &[u8]| SeedCall::new(key, "m", None, BODY.as_bytes()).body();
    let mut tampered = call(&node, BODY).await;
    tampered.request["salt"] = json!("AAAAAAAAAAAAAAAAAAAAAA==");
    let mut hashed = call(&node, BODY).await;
    let zeros = format!("{}=", "A".repeat(43));
    hashed.request["plaintext_body_hash"] = json!(zeros);
    let cases = [
        ("plaintext", BODY.as_bytes().to_vec(), "invalid_request"),
        ("another key", to(&[9; 32]), "unknown_key"),
        ("the other dialect's key", to(&ehbp), "unknown_key"),
        ("another salt", tampered.body(), "invalid_request"),
        ("another hash", hashed.body(), "invalid_request"),
    ];
    for (name, body, code) in cases {
        let (status, _, body) = node.send(request(&node, PATH, body)).await;
        assert_eq!(error(status, &body), (400, code.to_owned()), "{name}");
    }
    let (status, ..) = node.get(PATH).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let silent = Running::start(&engine.config()).await;
    let (status, ..) = silent.send(request(&silent, PATH, to(&[9; 32]))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(engine.idle());
}

/// A copy is one also under another path, and with the client's key written otherwise.
#[tokio::test]
async fn a_second_use_is_refused() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let mut call = call(&node, BODY).await;
    let played = async { engine.asked().await.reply(200, REPLY).await };
    let ((status, ..), ()) = tokio::join!(ask(&node, &call), played);
    assert_eq!(status, StatusCode::OK);
    let chat = request(&node, "/v1/confidential/chat/completions", call.body());
    for copy in [request(&node, PATH, call.body()), chat] {
        let (status, _, body) = node.send(copy).await;
        assert_eq!(error(status, &body), (409, "replayed".to_owned()));
    }
    // The top bit of an X25519 key means nothing.
    let text = call.request["client_dh_public_key"].as_str().unwrap();
    let mut key = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
    key[31] ^= 0x80;
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, key);
    call.request["client_dh_public_key"] = json!(text);
    let (status, _, body) = ask(&node, &call).await;
    assert_eq!(error(status, &body), (409, "replayed".to_owned()));
    assert!(engine.idle());
}

#[tokio::test]
async fn the_credential_is_asked_for_outside_the_seal() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, CREDENTIAL).await;
    for (value, expected) in [("Bearer other", 401), ("Bearer token", 200)] {
        let call = call(&node, BODY).await;
        let (mut head, body) = request(&node, PATH, call.body()).into_parts();
        head.headers.insert("authorization", value.parse().unwrap());
        let played = async {
            if expected == 200 {
                engine.asked().await.reply(200, REPLY).await;
            }
        };
        let ((status, ..), ()) = tokio::join!(node.send(Request::from_parts(head, body)), played);
        assert_eq!(status.as_u16(), expected, "{value}");
    }
    assert!(engine.idle());
}
