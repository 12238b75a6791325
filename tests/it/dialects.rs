//! The node as clients of the two dialects meet it, who know nothing of this project.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{
    CANARY, Engine, Process, Reply,
    dialects::{EhbpCall, SeedCall},
    prompt,
    setup::{EventStream, Files},
    soon,
};

/// A node that speaks both, without a gateway.
struct Node {
    engine: Engine,
    process: Process,
    client: reqwest::Client,
    /// The last to go: the log is in it.
    _files: Files,
}

impl Node {
    /// Its keys turn every second, and each opens ten minutes longer.
    async fn start() -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let config = files.write(
            "node-a.toml",
            &format!(
                "node_id = \"node-a\"\nlisten = \"127.0.0.1:0\"\ndialects = [\"ehbp\", \"seed\"]\n\
                 [evidence]\nsource = \"software-root\"\ndir = \"software-root\"\n\
                 [[engine]]\nurl = \"http://{}\"\n[keys]\nlife_s = 1\n",
                engine.address
            ),
        );
        Self {
            process: Process::start("node", &config).await,
            engine,
            client: reqwest::Client::new(),
            _files: files,
        }
    }

    /// The newest key of EHBP, once there is one that is not `old`.
    async fn key_config(&self, old: &[u8]) -> Vec<u8> {
        let url = format!("{}/.well-known/hpke-keys", self.process.url);
        let newer = async {
            loop {
                let reply = self.client.get(&url).send().await.unwrap();
                if reply.status() == 200 {
                    assert_eq!(reply.headers()["content-type"], "application/ohttp-keys");
                    let config = reply.bytes().await.unwrap();
                    if config != old {
                        return config.to_vec();
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("another key is published", newer).await
    }

    /// The newest key of the seed's format, as a gateway reads it from the statement, once there is
    /// one that is not `old`.
    async fn seed_key(&self, old: &[u8]) -> Vec<u8> {
        let url = format!(
            "{}/v1/attestation?nonce={}",
            self.process.url,
            "00".repeat(32)
        );
        let newer = async {
            loop {
                let answer: Value = self
                    .client
                    .get(&url)
                    .send()
                    .await
                    .unwrap()
                    .json()
                    .await
                    .unwrap();
                let statement = answer["statement"].as_str().unwrap();
                let statement = BASE64_STANDARD.decode(statement).unwrap();
                let statement: Value = serde_json::from_slice(&statement).unwrap();
                let keys = statement["keys"].as_array().unwrap();
                let key = keys.iter().find(|key| key["suite"] == "seed-x25519");
                let key =
                    key.map(|key| BASE64_STANDARD.decode(key["public_key"].as_str().unwrap()));
                if let Some(key) = key.map(Result::unwrap).filter(|key| key != old) {
                    return key;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("another key is published", newer).await
    }

    fn post(&self, path: &str, body: Vec<u8>) -> RequestBuilder {
        self.client
            .post(format!("{}{path}", self.process.url))
            .header("content-type", "application/json")
            .body(body)
    }

    /// Sends what is sealed in EHBP.
    async fn ehbp(&self, path: &str, call: &EhbpCall) -> Response {
        let request = self.post(path, call.body.clone());
        let request = request.header("ehbp-encapsulated-key", &call.enc);
        request.send().await.unwrap()
    }

    async fn seed(&self, path: &str, call: &SeedCall) -> Response {
        self.post(path, call.body()).send().await.unwrap()
    }
}

fn body(text: &str) -> Vec<u8> {
    let body = json!({"model": "tiny", "prompt": prompt(text), "max_tokens": 8});
    body.to_string().into_bytes()
}

fn stream_body(text: &str) -> Vec<u8> {
    let body = json!({"model": "tiny", "prompt": prompt(text), "stream": true});
    body.to_string().into_bytes()
}

async fn code(reply: Response) -> (u16, String) {
    let status = reply.status().as_u16();
    let text = reply.text().await.unwrap();
    assert!(!text.contains(CANARY), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    (
        status,
        json["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// What was sealed in a whole reply in EHBP.
async fn opened(call: &EhbpCall, reply: Response) -> Value {
    let nonce = reply.headers()["ehbp-response-nonce"]
        .to_str()
        .unwrap()
        .to_owned();
    let mut opener = call.opener(&nonce);
    let content = opener.push(&reply.bytes().await.unwrap());
    assert!(opener.is_between_frames());
    serde_json::from_slice(&content).unwrap()
}

#[tokio::test]
async fn a_client_of_ehbp_seals_for_itself() {
    let node = Node::start().await;
    let config = node.key_config(&[]).await;
    let path = "/v1/completions";

    let call = EhbpCall::new(&config, &body("once"), 8192);
    let reply = node.ehbp(path, &call).await;
    assert_eq!(reply.status(), 200);
    let json = opened(&call, reply).await;
    assert_eq!(json["choices"][0]["text"], prompt("once"));

    let again = node.ehbp(path, &call).await;
    assert_eq!(again.status(), 409);
    assert_eq!(opened(&call, again).await["error"]["code"], "replayed");

    // Another kind of request goes the same way.
    node.engine.reply(Reply::Json(
        200,
        json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "tiny",
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "hello"}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }),
    ));
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": prompt("hi")}]});
    let call = EhbpCall::new(&config, chat.to_string().as_bytes(), 8192);
    let json = opened(&call, node.ehbp("/v1/chat/completions", &call).await).await;
    assert_eq!(json["choices"][0]["message"]["content"], "hello");

    let mut cut = EhbpCall::new(&config, &body("cut"), 8192);
    cut.body.pop();
    let refused = (400, "invalid_encapsulation".to_owned());
    assert_eq!(code(node.ehbp(path, &cut).await).await, refused);
    let plain = node.post(path, body("plain")).send().await.unwrap();
    assert_eq!(code(plain).await, (400, "not_sealed".to_owned()));

    let wrong = EhbpCall::to_key(&[9; 32], &body("wrong"), 8192);
    let reply = node.ehbp(path, &wrong).await;
    assert_eq!(reply.status(), 422);
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    let problem: Value = reply.json().await.unwrap();
    assert_eq!(problem["type"], "urn:ietf:params:ehbp:error:key-config");

    let newer = node.key_config(&config).await;
    for (name, config) in [("old", &config), ("new", &newer)] {
        let call = EhbpCall::new(config, &body(name), 8192);
        let json = opened(&call, node.ehbp(path, &call).await).await;
        assert_eq!(json["choices"][0]["text"], prompt(name));
    }
    assert_eq!(
        node.engine.received().len(),
        4,
        "nothing that was refused ran"
    );
}

#[tokio::test]
async fn a_stream_in_ehbp_comes_as_it_is_made_and_never_ends_well_if_it_broke() {
    let node = Node::start().await;
    let config = node.key_config(&[]).await;
    for whole in [true, false] {
        let feed = node.engine.stream();
        let call = EhbpCall::new(&config, &stream_body("go"), 8192);
        feed.text("one").await;
        let mut reply = node.ehbp("/v1/completions", &call).await;
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        let nonce = reply.headers()["ehbp-response-nonce"]
            .to_str()
            .unwrap()
            .to_owned();
        let mut opener = call.opener(&nonce);
        let first = soon("a piece", reply.chunk()).await.unwrap().unwrap();
        let mut text = String::from_utf8(opener.push(&first)).unwrap();
        assert!(text.contains("one"), "before the engine says more: {text}");
        if whole {
            feed.done().await;
        } else {
            feed.cut().await;
        }
        let ended = loop {
            match soon("the rest", reply.chunk()).await {
                Ok(Some(bytes)) => text += std::str::from_utf8(&opener.push(&bytes)).unwrap(),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert!(opener.is_between_frames());
        assert_eq!(
            (ended, text.ends_with("data: [DONE]\n\n")),
            (whole, whole),
            "{text}"
        );
        assert_eq!(text.contains("{\"error\":"), !whole, "{text}");
    }
}

#[tokio::test]
async fn a_client_of_the_seed_seals_for_itself() {
    let node = Node::start().await;
    let key = node.seed_key(&[]).await;
    let path = "/v1/confidential/completions";

    let call = SeedCall::new(&key, "tiny", Some(false), &body("once"));
    let reply = node.seed(path, &call).await;
    assert_eq!(reply.status(), 200);
    let message: Value = reply.json().await.unwrap();
    assert_eq!(call.open(&message)["choices"][0]["text"], prompt("once"));
    assert_eq!(message["usage"]["total_tokens"], 5);
    let again = node.seed(path, &call).await;
    assert_eq!(code(again).await, (409, "replayed".to_owned()));

    // What has no tokens to count in clear has no `usage` either.
    let image = json!({"created": 1, "data": [{"b64_json": "aGVsbG8="}]});
    node.engine.reply(Reply::Json(200, image));
    let asked = json!({"model": "tiny", "prompt": prompt("a hat"), "size": "64x64",
        "response_format": "b64_json"});
    let call = SeedCall::new(&key, "tiny", None, asked.to_string().as_bytes());
    let reply = node
        .seed("/v1/confidential/images/generations", &call)
        .await;
    assert_eq!(reply.status(), 200);
    let message: Value = reply.json().await.unwrap();
    assert_eq!(call.open(&message)["data"][0]["b64_json"], "aGVsbG8=");
    assert_eq!(message.get("usage"), None);

    let wrong = SeedCall::new(&[9; 32], "tiny", None, &body("wrong"));
    let refused = (400, "unknown_key".to_owned());
    assert_eq!(code(node.seed(path, &wrong).await).await, refused);
    let mut cut = SeedCall::new(&key, "tiny", None, &body("cut")).body();
    cut.pop();
    let cut = node.post(path, cut).send().await.unwrap();
    assert_eq!(code(cut).await, (400, "invalid_request".to_owned()));
    let other = SeedCall::new(&key, "other", None, &body("other"));
    let refused = (400, "invalid_request".to_owned());
    assert_eq!(code(node.seed(path, &other).await).await, refused);

    let newer = node.seed_key(&key).await;
    for (name, key) in [("old", &key), ("new", &newer)] {
        let call = SeedCall::new(key, "tiny", None, &body(name));
        let message: Value = node.seed(path, &call).await.json().await.unwrap();
        assert_eq!(call.open(&message)["choices"][0]["text"], prompt(name));
    }
    assert_eq!(
        node.engine.received().len(),
        4,
        "nothing that was refused ran"
    );
}

#[tokio::test]
async fn a_stream_of_the_seed_is_sealed_event_by_event() {
    let node = Node::start().await;
    let key = node.seed_key(&[]).await;
    for whole in [true, false] {
        let feed = node.engine.stream();
        let call = SeedCall::new(&key, "tiny", Some(true), &stream_body("go"));
        feed.text("one").await;
        let reply = node.seed("/v1/confidential/completions", &call).await;
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        let mut events = EventStream::new(reply);
        let first = soon("an event", events.next()).await.unwrap().unwrap();
        let first = call.open(&serde_json::from_str(&first).unwrap());
        assert_eq!(first["choices"][0]["text"], "one");
        if whole {
            feed.done().await;
        } else {
            feed.cut().await;
        }
        let (rest, end) = soon("the rest", events.rest()).await;
        assert_eq!(end.is_ok(), whole);
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        if whole {
            assert_eq!(call.open(&last)["choices"][0]["finish_reason"], "stop");
        } else {
            assert_eq!(last["error"]["code"], "engine_error");
        }
    }
}

/// An engine quotes the prompt; in this dialect its words would travel in clear.
#[tokio::test]
async fn an_engines_words_do_not_travel_in_clear() {
    let node = Node::start().await;
    let key = node.seed_key(&[]).await;
    for (status, expected) in [
        (400, (400, "invalid_request")),
        (500, (502, "engine_error")),
    ] {
        let words = json!({"error": {"message": prompt("is bad"), "type": "x"}});
        node.engine.reply(Reply::Json(status, words));
        let call = SeedCall::new(&key, "tiny", None, &body("bad"));
        let reply = node.seed("/v1/confidential/completions", &call).await;
        let (status, code) = code(reply).await;
        assert_eq!((status, code.as_str()), expected);
    }
}
