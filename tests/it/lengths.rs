//! What an eavesdropper between gateway and node learns of lengths, read off the bytes that passed; and
//! who chooses how much that is.

use attestation::Policy;
use reqwest::Response;
use sealgate::{
    client::{Channel, Client, Endpoint, Events, Reply as Sealed},
    seal::Padding,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::attested_gateway::OWN;
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
/// The final chunk of the smallest bucket.
const BUCKET: usize = 1 + 1024 + 16;
const TICKS: &str = "[padding]\ntick_ms = 20\n";

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
        self.streamed_by(KEY, text, tokens, Some(padding)).await
    }

    async fn streamed_by(
        &self,
        key: &str,
        text: &str,
        tokens: &[&str],
        padding: Option<&str>,
    ) -> Lengths {
        let feed = self.setup.engine.stream();
        let body = json!({"model": "tiny", "prompt": prompt(text), "stream": true});
        let asking = self.ask(COMPLETIONS, &body, key, padding);
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

/// Writes `line` above all tables of the gateway's configuration.
fn at_top(files: &Files, line: &str) {
    let config = files.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, format!("{line}\n{text}")).unwrap();
}

fn with_least(files: &Files, padding: &str) -> String {
    let policy = policy(&measurement());
    let least = format!("version = 1\nleast_padding = \"{padding}\"\n");
    let policy = policy.replace("version = 1\n", &least);
    files.write("policy.toml", &policy);
    policy
}

/// Whether a stream went in chunks of one length, a power of two of them.
fn is_paced(seen: &Lengths) -> bool {
    let (last, chunks) = seen.back.split_last().unwrap();
    (chunks.first(), *last) == (Some(&(NONCE + CHUNK)), LAST)
        && chunks[1..].iter().all(|len| *len == CHUNK)
        && seen.back.len().is_power_of_two()
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
    let recorded = Recorded::start(TICKS, "").await;
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
                assert_eq!(seen[0].back, [NONCE + BUCKET], "{path} {padding}");
            }
        }
    }
}

#[tokio::test]
async fn streams_of_as_many_tokens_are_of_one_length() {
    let recorded = Recorded::start(TICKS, "").await;
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
                assert!(is_paced(&one) && is_paced(&other), "{one:?} {other:?}");
            }
        }
    }
}

/// Bytes of the final chunk of a paced stream with a receipt that proves contents.
const LAST_WITH_RECEIPT: usize = 1 + 2048 + 16;

#[tokio::test]
async fn receipts_are_of_one_length_whatever_they_are_of() {
    let gateway = "[receipts]\nmode = \"required\"\ncontent = true\n";
    let recorded = Recorded::start(TICKS, gateway).await;
    let short = ["a", "b", "c", "d"];
    let long = ["elephant ", "\u{1F418}", " of another size", " and shape"];
    let of_usage = |text: &str, tokens: u64| {
        let mut answer = completion(text);
        let total = tokens + 1;
        answer["usage"] =
            json!({"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": total});
        answer
    };
    let body = json!({"model": "tiny", "prompt": prompt("x")});
    for padding in ["bucket", "paced"] {
        let one = recorded
            .whole(COMPLETIONS, &body, of_usage("a", 1), padding)
            .await;
        let other = of_usage("another size", 100_000);
        let other = recorded.whole(COMPLETIONS, &body, other, padding).await;
        assert_eq!(one.back, other.back, "{padding}");

        let one = recorded.streamed("a cat", &short, padding).await;
        let other = recorded.streamed("an elephant", &long, padding).await;
        for seen in [&one, &other] {
            let last = *seen.back.last().unwrap();
            match padding {
                "bucket" => assert_eq!(seen.back, one.back),
                _ => {
                    assert_eq!(last, LAST_WITH_RECEIPT, "{seen:?}");
                    assert!(seen.back.len().is_power_of_two(), "{seen:?}");
                }
            }
        }
    }
}

/// What a stream has used so far travels beside its events, from the 64th token on.
#[tokio::test]
async fn what_a_long_stream_has_used_does_not_tell_how_long_its_words_are() {
    let recorded = Recorded::start(TICKS, "").await;
    let mut seen = Vec::new();
    for word in ["a", "a quite long word"] {
        seen.push(recorded.streamed("a cat", &[word; 70], "bucket").await.back);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn streams_of_chats_are_of_one_length_too() {
    let recorded = Recorded::start(TICKS, "").await;
    let words = [["a", "b"], ["an elephant", " of quite another size"]];
    for padding in ["off", "bucket", "paced"] {
        let mut seen = Vec::new();
        for words in words {
            let feed = recorded.setup.engine.stream();
            let messages = json!([{"role": "user", "content": prompt(words[1])}]);
            let body = json!({"model": "tiny", "messages": messages, "stream": true});
            let asking = recorded.ask("/v1/chat/completions", &body, KEY, Some(padding));
            let (reply, ()) = tokio::join!(asking, feed.raw(said(words[0])));
            assert_eq!(reply.status(), 200, "{padding}");
            let mut events = EventStream::new(reply);
            until_said(&mut events, words[0]).await;
            feed.raw(said(words[1])).await;
            until_said(&mut events, words[1]).await;
            feed.raw("data: [DONE]\n\n").await;
            let (rest, end) = events.rest().await;
            end.unwrap();
            assert_eq!(rest.last().unwrap(), "[DONE]");
            seen.push(recorded.relay.last());
        }
        let alike = (seen[0].there == seen[1].there, seen[0].back == seen[1].back);
        match padding {
            "off" => assert_eq!(alike, (false, false)),
            "bucket" => assert_eq!(alike, (true, true), "{seen:?}"),
            _ => assert!(alike.0 && seen.iter().all(is_paced), "{seen:?}"),
        }
    }
}

/// A word of a chat as an engine says it.
fn said(word: &str) -> String {
    let choice = json!({"index": 0, "delta": {"content": word}, "finish_reason": null});
    let event = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
        "choices": [choice]});
    format!("data: {event}\n\n")
}

async fn until_said(events: &mut EventStream, word: &str) {
    loop {
        let event = events.next().await.unwrap().expect("the stream goes on");
        let event: Value = serde_json::from_str(&event).unwrap();
        if event["choices"][0]["delta"]["content"] == word {
            return;
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
    let padded = seen.back == [NONCE + BUCKET];
    let there = seen.there == [X_WING + BUCKET];
    assert_eq!(padded, there, "both ways alike: {seen:?}");
    padded
}

#[tokio::test]
async fn the_request_chooses_before_its_key_and_the_key_before_the_gateway() {
    let keys = ["off", "paced"].map(|it| (format!("sk-test-{it}"), it));
    let gateway = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    let recorded = Recorded::start_with(TICKS, gateway, |files| {
        let mut text = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
        for (key, padding) in &keys {
            let digest = hex::encode(Sha256::digest(key));
            text += &format!(
                "[[key]]\nname = \"{padding}\"\nsha256 = \"{digest}\"\npadding = \"{padding}\"\n"
            );
        }
        files.write("keys.toml", &text);
        at_top(files, "padding = \"bucket\"");
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
    for (key, asked, expected) in [
        (paced.as_str(), None, true),
        (KEY, None, false),
        (off, Some("paced"), true),
    ] {
        let seen = recorded.streamed_by(key, "x", &["a", "b"], asked).await;
        assert_eq!(is_paced(&seen), expected, "{key} {asked:?}: {seen:?}");
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
    let recorded = Recorded::start_with(TICKS, "", |files| {
        with_least(files, "bucket");
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
async fn streams_are_paced_where_the_gateway_or_the_policy_has_it_so() {
    let gateway_wide: fn(&Files) = |files| at_top(files, "padding = \"paced\"");
    let by_policy: fn(&Files) = |files| drop(with_least(files, "paced"));
    for (change, asked, expected) in [
        (gateway_wide, None, true),
        (gateway_wide, Some("bucket"), false),
        (by_policy, None, true),
        (by_policy, Some("off"), true),
    ] {
        let recorded = Recorded::start_with(TICKS, "", change).await;
        let seen = recorded.streamed_by(KEY, "x", &["a", "b"], asked).await;
        assert_eq!(is_paced(&seen), expected, "{asked:?}: {seen:?}");
    }
}

#[tokio::test]
async fn what_a_client_seals_for_himself_is_padded_as_he_or_his_policy_says() {
    let setup = Setup::start().await;
    let dir = setup.dir.path();
    let mut padded = 0;
    for (asked, (least, own, is_padded)) in [
        ("off", Padding::Off, false),
        ("bucket", Padding::Off, true),
        ("off", Padding::Bucket, true),
    ]
    .into_iter()
    .enumerate()
    {
        let text = policy(&measurement());
        let least = format!("version = 1\nleast_padding = \"{least}\"\n");
        let text = text.replace("version = 1\n", &least);
        let policy = Policy::from_toml(&text, &mut |name| std::fs::read(dir.join(name))).unwrap();
        let client = Client::at_node(&setup.node.url, policy).padding(own);
        let channel = client.build().unwrap().verify("tiny").await.unwrap();
        let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
        let _reply = channel.request(Endpoint::Completions, body).await.unwrap();
        setup.node.logged("outcome=\"complete\"", asked + 1).await;
        padded += usize::from(is_padded);
        let there = format!(" bytes_in={} ", X_WING + BUCKET);
        let back = format!(" bytes_out={} ", NONCE + BUCKET);
        for seen in [there, back] {
            let log = setup.node.log();
            assert_eq!(log.matches(&seen).count(), padded, "{seen} {least} {own}");
        }
    }
}

/// A channel through the relay to the gateway itself, for replies at ticks.
async fn paced_channel(setup: &Setup, relay: &Recorder) -> Channel {
    let dir = setup.dir.path();
    let text = format!("allow_attested_engine = true\n{}", policy(&measurement()));
    let policy = Policy::from_toml(&text, &mut |name| std::fs::read(dir.join(name))).unwrap();
    let client = Client::at_attested_gateway(&relay.url, policy).api_key(KEY);
    let client = client.padding(Padding::Paced).build().unwrap();
    client.verify("tiny").await.unwrap()
}

fn events_of(reply: Sealed) -> Events {
    match reply {
        Sealed::Stream(events) => events,
        Sealed::Whole(whole) => panic!("{whole:?}"),
    }
}

#[tokio::test]
async fn what_the_gateway_seals_itself_goes_at_ticks_in_pieces_of_one_length() {
    // Five seconds, in which both streams have long ended.
    let own = format!("{OWN}padding = {{ tick_ms = 20, least_chunks = 256 }}\n");
    let setup = Setup::with(TICKS, &own).await;
    let relay = Recorder::before(&setup.gateway.url).await;
    let channel = paced_channel(&setup, &relay).await;
    let mut seen = Vec::new();
    for (text, tokens) in [
        ("a cat", vec!["a", "b", "c"]),
        ("two elephants", vec!["elephant "; 90]),
    ] {
        let feed = setup.engine.stream();
        let body = json!({"model": "tiny", "prompt": prompt(text), "stream": true}).to_string();
        let asking = channel.request(Endpoint::Completions, body);
        let feeding = async {
            for token in &tokens {
                feed.text(token).await;
            }
            feed.done().await;
        };
        let (reply, ()) = tokio::join!(asking, feeding);
        let (mut events, mut said) = (events_of(reply.unwrap()), String::new());
        while let Some(event) = soon("an event", events.next()).await.unwrap() {
            let event: Value = event.json().unwrap();
            said += event["choices"][0]["text"].as_str().unwrap_or_default();
        }
        assert_eq!(said, tokens.concat());
        seen.push(relay.last());
    }
    assert!(is_paced(&seen[0]), "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn what_is_no_stream_of_the_gateways_own_is_of_its_bucket() {
    let own = format!("{OWN}padding = {{ tick_ms = 20 }}\n");
    let setup = Setup::with(TICKS, &own).await;
    let relay = Recorder::before(&setup.gateway.url).await;
    let channel = paced_channel(&setup, &relay).await;
    for (path, pair) in pairs() {
        let mut seen = Vec::new();
        for (body, answer) in pair {
            setup.engine.reply(Reply::Json(200, answer));
            let endpoint = Endpoint::of(path).unwrap();
            let reply = channel.request(endpoint, body.to_string()).await.unwrap();
            assert!(matches!(reply, Sealed::Whole(_)), "{path}");
            seen.push(relay.last());
        }
        assert_eq!(seen[0].back, [NONCE + BUCKET], "{path}");
        assert_eq!(seen[0], seen[1], "{path}");
    }
    let refusal = json!({"error": {"message": "no such thing", "type": "invalid_request_error"}});
    setup.engine.reply(Reply::Json(422, refusal));
    let body = json!({"model": "tiny", "prompt": prompt("x"), "stream": true}).to_string();
    let reply = channel.request(Endpoint::Completions, body).await.unwrap();
    assert!(
        matches!(&reply, Sealed::Whole(whole) if whole.status() == 422),
        "{reply:?}"
    );
    let lens = relay.last().back;
    let (last, chunks) = lens.split_last().unwrap();
    assert!([BUCKET, NONCE + BUCKET].contains(last), "{lens:?}");
    assert!(chunks.iter().skip(1).all(|len| *len == CHUNK), "{lens:?}");
}

#[tokio::test]
async fn a_refusal_after_fillers_is_retried_elsewhere() {
    let (files, busy, idle) = (Files::new(), Engine::start().await, Engine::start().await);
    let full = format!("max_in_flight = 1\nqueue_ms = 300\n{TICKS}");
    let first = Process::start("node", &files.node("node-a", &busy, &full)).await;
    let second = Process::start("node", &files.node("node-b", &idle, TICKS)).await;
    let relay = Recorder::before(&first.url).await;
    let gateway = Process::start("gateway", &files.gateway(&[&relay.url, &second.url], "")).await;
    busy.reply(Reply::Hang);
    let dir = files.dir.path().to_owned();
    let policy = Policy::from_toml(&policy(&measurement()), &mut |name| {
        std::fs::read(dir.join(name))
    });
    let client = Client::at_node(&first.url, policy.unwrap())
        .build()
        .unwrap();
    let held = tokio::spawn(async move {
        let channel = client.verify("tiny").await.unwrap();
        let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
        drop(channel.request(Endpoint::Completions, body).await);
    });
    busy.arrived(1).await;
    let setup = Setup {
        dir: files.dir,
        engine: idle,
        node: second,
        gateway,
        client: reqwest::Client::new(),
    };
    // Its log lies in the set-up's folder: it ends before that.
    let (recorded, _first) = (Recorded { setup, relay }, first);
    assert_eq!(recorded.setup.get("/v1/models").await.status(), 200);
    let body = json!({"model": "tiny", "prompt": prompt("x"), "stream": true});
    for _ in 0..32 {
        let reply = recorded.ask(COMPLETIONS, &body, KEY, Some("paced")).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["sealgate-node"], "node-b");
        let (events, end) = EventStream::new(reply).rest().await;
        end.unwrap();
        assert_eq!(events.last().unwrap(), "[DONE]");
        if let Some(refused) = recorded.relay.exchanges().pop() {
            let (last, fillers) = refused.back.split_last().unwrap();
            assert_eq!(*last, BUCKET, "{refused:?}");
            assert!(
                fillers.len() > 1 && fillers[0] == NONCE + CHUNK,
                "{refused:?}"
            );
            held.abort();
            return;
        }
    }
    panic!("nothing went to the node that is full");
}

#[tokio::test]
async fn a_paced_stream_that_its_engine_refuses_has_the_engines_status() {
    let recorded = Recorded::start(TICKS, "").await;
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
        assert!([BUCKET, NONCE + BUCKET].contains(last), "{lens:?}");
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
