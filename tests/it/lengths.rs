//! What an eavesdropper between gateway and node learns of lengths, read off the bytes that passed; and
//! who chooses how much that is.

use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Engine, KEY, Process, Reply, Setup,
    engine::completion,
    metrics::until_metric,
    process::sealgate,
    prompt,
    record::{Lengths, Recorder},
    setup::{EventStream, Files, error_of, measurement, policy},
    soon,
};

const COMPLETIONS: &str = "/v1/completions";
/// Bytes of a sealed chunk with 512 bytes: the length before it, and the tag.
const CHUNK: usize = 2 + 512 + 16;
/// The same of a final chunk, before which a zero stands.
const LAST: usize = 1 + 512 + 16;
/// What a request that is sealed with X-Wing begins with.
const X_WING: usize = 7 + 1120;
/// What a reply begins with.
const NONCE: usize = 32;

/// A set-up whose node is reached through the relay.
struct Recorded {
    setup: Setup,
    relay: Recorder,
}

impl Recorded {
    async fn start(node: &str, gateway: &str) -> Self {
        Self::start_with(node, gateway, |_| {}).await
    }

    async fn start_with(node: &str, gateway: &str, change: impl FnOnce(&Files)) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, node)).await;
        let relay = Recorder::before(&node.url).await;
        let config = files.gateway(&[&relay.url], gateway);
        change(&files);
        let gateway = Process::start("gateway", &config).await;
        let setup = Setup {
            dir: files.dir,
            engine,
            node,
            gateway,
            client: reqwest::Client::new(),
        };
        Self { setup, relay }
    }

    async fn ask(&self, path: &str, body: &Value, key: &str, padding: Option<&str>) -> Response {
        let url = format!("{}{path}", self.setup.gateway.url);
        let mut request = self.setup.client.post(url).bearer_auth(key).json(body);
        if let Some(padding) = padding {
            request = request.header("sealgate-padding", padding);
        }
        soon("a reply", request.send()).await.unwrap()
    }

    /// Asks, has the engine answer so, and gives what passed.
    async fn whole(&self, path: &str, body: &Value, answer: Value, padding: &str) -> Lengths {
        self.setup.engine.reply(Reply::Json(200, answer));
        let reply = self.ask(path, body, KEY, Some(padding)).await;
        assert_eq!(reply.status(), 200, "{path} {padding}");
        let _ = reply.bytes().await.unwrap();
        self.relay.last()
    }

    /// Asks for a stream of these tokens, each of which is read before the next is made.
    async fn streamed(&self, text: &str, tokens: &[&str], padding: &str) -> Lengths {
        let feed = self.setup.engine.stream();
        let body = json!({"model": "tiny", "prompt": prompt(text), "stream": true});
        let asking = self.ask(COMPLETIONS, &body, KEY, Some(padding));
        let (reply, ()) = tokio::join!(asking, feed.text(tokens[0]));
        let mut events = EventStream::new(reply);
        assert_eq!(events.text().await, tokens[0]);
        for token in &tokens[1..] {
            feed.text(token).await;
            assert_eq!(events.text().await, *token);
        }
        feed.done().await;
        let (rest, end) = events.rest().await;
        end.unwrap();
        assert_eq!(rest.last().unwrap(), "[DONE]");
        self.relay.last()
    }
}

fn embedded(numbers: &[f32]) -> Value {
    json!({"object": "list", "model": "./m", "data": [{"index": 0, "embedding": numbers}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4}})
}

fn chatted(text: &str) -> Value {
    json!({"id": "c", "object": "chat.completion", "created": 5, "model": "tiny",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
}

/// Two requests with their answers, of other lengths, by endpoint.
fn pairs() -> [(&'static str, [(Value, Value); 2]); 4] {
    let texts = ["a cat", "two elephants of quite another size, and a mouse"];
    let asked = |member: &str, value: Value| json!({"model": "tiny", member: value});
    let image = |text: &str| json!({"created": 5, "data": [{"b64_json": text}]});
    [
        (
            COMPLETIONS,
            texts.map(|it| (asked("prompt", prompt(it).into()), completion(it))),
        ),
        (
            "/v1/chat/completions",
            texts.map(|it| {
                let messages = json!([{"role": "user", "content": prompt(it)}]);
                (asked("messages", messages), chatted(it))
            }),
        ),
        (
            "/v1/embeddings",
            [(texts[0], vec![0.5]), (texts[1], vec![0.25; 30])]
                .map(|(it, numbers)| (asked("input", prompt(it).into()), embedded(&numbers))),
        ),
        (
            "/v1/images/generations",
            [(texts[0], "AAAA"), (texts[1], "AAAAAAAAAAAAAAAAAAAAAAAA")].map(|(it, file)| {
                let mut asked = asked("prompt", prompt(it).into());
                asked["response_format"] = "b64_json".into();
                (asked, image(file))
            }),
        ),
    ]
}

#[tokio::test]
async fn whole_exchanges_of_one_bucket_are_of_one_length() {
    let recorded = Recorded::start("[padding]\ntick_ms = 20\n", "").await;
    for padding in ["off", "bucket", "paced"] {
        for (path, pair) in pairs() {
            let mut seen = Vec::new();
            for (body, answer) in pair {
                seen.push(recorded.whole(path, &body, answer, padding).await);
            }
            let alike = (seen[0].there == seen[1].there, seen[0].back == seen[1].back);
            let hidden = padding != "off";
            assert_eq!(alike, (hidden, hidden), "{path} {padding}: {seen:?}");
            if hidden {
                assert_eq!(seen[0].back, [NONCE + 1 + 1024 + 16], "{path} {padding}");
            }
        }
    }
}

#[tokio::test]
async fn streams_of_as_many_tokens_are_of_one_length() {
    let recorded = Recorded::start("[padding]\ntick_ms = 20\n", "").await;
    let short = ["a", "b", "c", "d"];
    let long = ["elephant ", "\u{1F418}", " of another size", " and shape"];
    for padding in ["off", "bucket", "paced"] {
        let one = recorded.streamed("a cat", &short, padding).await;
        let other = recorded.streamed("an elephant", &long, padding).await;
        let requests_alike = one.there == other.there;
        match padding {
            "off" => {
                assert!(!requests_alike && one.back != other.back);
                assert_eq!(one.back.len(), other.back.len());
            }
            "bucket" => {
                assert!(requests_alike);
                assert_eq!(one.back, other.back);
                assert_eq!(one.back[..2], [NONCE + CHUNK, CHUNK]);
            }
            _ => {
                assert!(requests_alike);
                // How many there are is how long the engine took, and rounded.
                for seen in [one, other] {
                    let (last, chunks) = seen.back.split_last().unwrap();
                    assert_eq!((chunks[0], *last), (NONCE + CHUNK, LAST));
                    assert!(chunks[1..].iter().all(|len| *len == CHUNK), "{seen:?}");
                    assert!(seen.back.len().is_power_of_two(), "{}", seen.back.len());
                }
            }
        }
    }
}

/// Whether a unary exchange with a short prompt was padded.
async fn is_padded(recorded: &Recorded, key: &str, padding: Option<&str>) -> bool {
    let body = json!({"model": "tiny", "prompt": prompt("x")});
    let reply = recorded.ask(COMPLETIONS, &body, key, padding).await;
    assert_eq!(reply.status(), 200);
    let _ = reply.bytes().await.unwrap();
    let seen = recorded.relay.last();
    let padded = seen.back == [NONCE + 1 + 1024 + 16];
    let there = seen.there == [X_WING + 1 + 1024 + 16];
    assert_eq!(padded, there, "both ways alike: {seen:?}");
    padded
}

#[tokio::test]
async fn the_request_chooses_before_its_key_and_the_key_before_the_gateway() {
    let keys = ["off", "paced"].map(|it| (format!("sk-test-{it}"), it));
    let gateway = "padding = \"bucket\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let recorded = Recorded::start_with("[padding]\ntick_ms = 20\n", gateway, |files| {
        let mut text = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
        for (key, padding) in &keys {
            let digest = hex::encode(Sha256::digest(key));
            text += &format!(
                "[[key]]\nname = \"{padding}\"\nsha256 = \"{digest}\"\npadding = \"{padding}\"\n"
            );
        }
        files.write("keys.toml", &text);
        let config = files.dir.path().join("gateway.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let (padding, rest) = gateway.split_once('\n').unwrap();
        let text = text.replace(gateway, rest);
        std::fs::write(config, format!("{padding}\n{text}")).unwrap();
    })
    .await;
    let [(off, _), (paced, _)] = &keys;
    let cases = [
        (KEY, None, "bucket"),
        (KEY, Some("off"), "off"),
        (KEY, Some("paced"), "paced"),
        (off, None, "off"),
        (off, Some("bucket"), "bucket"),
        (paced, None, "paced"),
        (paced, Some("off"), "off"),
    ];
    for (number, (key, asked, expected)) in cases.into_iter().enumerate() {
        let padded = is_padded(&recorded, key, asked).await;
        assert_eq!(padded, expected != "off", "{number}");
        let of = |it: &(&str, Option<&str>, &str)| it.2 == expected;
        let times = cases[..=number].iter().filter(|it| of(it)).count();
        let name = "sealgate_gateway_requests_padded_total";
        let admin = &recorded.setup.gateway.admin;
        until_metric(admin, name, &[("padding", expected)], times as f64).await;
        let line = format!("padding={expected:?}");
        recorded.setup.gateway.logged(&line, times).await;
    }
    for unknown in ["", "Paced", "bucket, paced", "x"] {
        let body = json!({"model": "tiny", "prompt": prompt("x")});
        let reply = recorded.ask(COMPLETIONS, &body, KEY, Some(unknown)).await;
        let (status, error) = error_of(reply).await;
        assert_eq!(
            (status, &error["param"], &error["code"]),
            (400, &json!("sealgate-padding"), &json!("invalid_request"))
        );
        let message = error["message"].as_str().unwrap();
        let names = ["off", "bucket", "paced"];
        assert!(names.iter().all(|it| message.contains(it)), "{message}");
    }
}

#[tokio::test]
async fn nothing_goes_under_the_least_that_the_policy_has() {
    let recorded = Recorded::start_with("[padding]\ntick_ms = 20\n", "", |files| {
        let policy = policy(&measurement());
        let policy = policy.replace("version = 1\n", "version = 1\nleast_padding = \"bucket\"\n");
        files.write("policy.toml", &policy);
    })
    .await;
    for (asked, expected, times) in [
        ("off", "bucket", 1),
        ("bucket", "bucket", 2),
        ("paced", "paced", 1),
    ] {
        assert!(is_padded(&recorded, KEY, Some(asked)).await, "{asked}");
        let line = format!("padding={expected:?}");
        recorded.setup.gateway.logged(&line, times).await;
    }
    let tokens = ["a", "b"];
    let seen = recorded.streamed("x", &tokens, "off").await;
    assert_eq!(seen.back[..2], [NONCE + CHUNK, CHUNK]);
}

#[tokio::test]
async fn a_paced_stream_that_its_engine_refuses_has_the_engines_status_and_may_be_tried_again() {
    let recorded = Recorded::start("[padding]\ntick_ms = 20\n", "").await;
    let body = json!({"model": "tiny", "prompt": prompt("x"), "stream": true});
    let refusal = json!({"error": {"message": "no such thing", "type": "invalid_request_error"}});
    let cases = [
        (Reply::Json(422, refusal.clone()), 422, Value::Null),
        (Reply::Json(500, refusal), 502, json!("engine_error")),
        // The last: the node is let be for as long as it says.
        (
            Reply::Later(503, Some("7")),
            503,
            json!("no_node_available"),
        ),
    ];
    for (reply, status, code) in cases {
        recorded.setup.engine.reply(reply);
        let reply = recorded.ask(COMPLETIONS, &body, KEY, Some("paced")).await;
        let (seen, error) = error_of(reply).await;
        assert_eq!(seen, status, "{error}");
        assert!(code.is_null() || error["code"] == code, "{error}");
        let lens = recorded.relay.last().back;
        let (last, chunks) = lens.split_last().unwrap();
        assert!([LAST, NONCE + LAST].contains(last), "{lens:?}");
        assert!(chunks.iter().skip(1).all(|len| *len == CHUNK), "{lens:?}");
    }
}

#[tokio::test]
async fn a_key_is_made_with_a_padding() {
    let files = Files::new();
    let config = files.gateway(&["http://127.0.0.1:1"], "");
    let create = |padding: &'static str| {
        sealgate()
            .args(["keys", "create", "--name", padding, "--padding", padding])
            .arg("--config")
            .arg(&config)
            .output()
    };
    let made = soon("a key", create("paced")).await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let stored = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
    assert!(stored.contains("padding = \"paced\""), "{stored}");
    let refused = soon("a refusal", create("most")).await.unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("off"));
}

/// The events of a stream as bytes, as they came to the client.
async fn raw_events(setup: &Setup, asked: Value) -> String {
    let feed = setup.engine.stream();
    let mut body = json!({"model": "tiny", "prompt": prompt("x"), "stream": true});
    if !asked.is_null() {
        body["stream_options"] = json!({"include_obfuscation": asked});
    }
    let asking = setup.complete(body);
    let feeding = async {
        for token in ["a", "bb", "a long token with \"quotes\" and \u{1F418}"] {
            feed.text(token).await;
        }
        feed.done().await;
    };
    let (reply, ()) = tokio::join!(asking, feeding);
    assert_eq!(reply.status(), 200);
    let text = soon("the stream", reply.text()).await.unwrap();
    let sent = setup.engine.received().pop().unwrap();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["stream_options"], json!({"include_usage": true}));
    text
}

#[tokio::test]
async fn events_get_the_length_of_a_unit_where_it_is_asked_for_or_set() {
    for (gateway, unit, by_default) in [
        ("", 256, false),
        (
            "[streams]\nobfuscation = true\nobfuscation_unit_bytes = 100\n",
            100,
            true,
        ),
        (
            "[streams]\nobfuscation = true\ncoalesce_ms = 5\n",
            256,
            true,
        ),
    ] {
        let setup = Setup::with("", gateway).await;
        for (asked, expected) in [
            (json!(null), by_default),
            (json!(true), true),
            (json!(false), false),
        ] {
            let text = raw_events(&setup, asked).await;
            let events: Vec<_> = text.split_inclusive("\n\n").collect();
            let (done, events) = events.split_last().unwrap();
            assert_eq!(*done, "data: [DONE]\n\n");
            let events: Vec<_> = events.iter().filter(|it| !it.starts_with(':')).collect();
            for event in &events {
                let payload = event.strip_prefix("data: ").unwrap();
                let payload: Value = serde_json::from_str(payload).unwrap();
                let member = payload.get("obfuscation").and_then(Value::as_str);
                assert_eq!(member.is_some(), expected, "{gateway} {event}");
                assert!(
                    !expected || event.len().is_multiple_of(unit),
                    "{} {event}",
                    event.len()
                );
            }
            let texts: Vec<Value> = events
                .iter()
                .map(|it| serde_json::from_str(it.strip_prefix("data: ").unwrap()).unwrap())
                .collect();
            assert_eq!(texts[0]["choices"][0]["text"], "a");
            assert!(texts.len() >= 4, "{text}");
        }
    }
    let setup = Setup::start().await;
    let flaw = json!({"prompt": prompt("x"), "stream": true,
        "stream_options": {"include_obfuscation": "yes"}});
    let (status, error) = error_of(setup.complete(flaw).await).await;
    assert_eq!(status, 400);
    assert_eq!(error["param"], "stream_options.include_obfuscation");
}
