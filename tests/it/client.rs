//! The library's client against real processes: it seals for itself, and believes nobody on the way.

use std::sync::{Arc, Mutex};

use attestation::Policy;
use sealgate::client::{
    AskError, Channel, Client, ClientBuilder, Endpoint, Events, ExchangeError, Problem, Reply,
    Unfinished, VerifyError, Whole,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    CANARY, Engine, KEY, Process, Setup,
    mitm::{self, OnTheWay},
    prompt,
    setup::{Files, measurement, policy},
    soon,
};

/// The policy in `text`, which names files of this set-up.
fn parsed(files: &std::path::Path, text: &str) -> Policy {
    Policy::from_toml(text, &mut |name| std::fs::read(files.join(name))).unwrap()
}

fn own_policy(setup: &Setup) -> Policy {
    parsed(setup.dir.path(), &policy(&measurement()))
}

fn at_gateway(setup: &Setup) -> ClientBuilder {
    Client::at_gateway(&setup.gateway.url, own_policy(setup)).api_key(KEY)
}

async fn verified(builder: ClientBuilder) -> Channel {
    builder.build().unwrap().verify("tiny").await.unwrap()
}

fn whole(reply: Reply) -> Whole {
    match reply {
        Reply::Whole(whole) => whole,
        Reply::Stream(events) => panic!("a stream: {events:?}"),
    }
}

fn stream(reply: Reply) -> Events {
    match reply {
        Reply::Stream(events) => events,
        Reply::Whole(whole) => panic!("a whole reply: {whole:?}"),
    }
}

fn request(text: &str, stream: bool) -> Value {
    json!({"model": "tiny", "prompt": prompt(text), "stream": stream})
}

/// The text of all events, and how the stream ended.
async fn text_of(events: &mut Events) -> (String, Result<(), ExchangeError>) {
    let mut text = String::new();
    loop {
        match events.next().await {
            Ok(Some(event)) => {
                let event: Value = event.json().unwrap();
                text += event["choices"][0]["text"].as_str().unwrap_or_default();
            }
            Ok(None) => return (text, Ok(())),
            Err(error) => return (text, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_client_seals_past_the_gateway_and_straight_to_the_node() {
    let setup = Setup::start().await;
    let direct = Client::at_node(&setup.node.url, own_policy(&setup));
    let named = at_gateway(&setup).node_id("node-a");
    for (name, builder) in [
        ("through the gateway", at_gateway(&setup)),
        ("to one node", named),
        ("straight", direct),
    ] {
        let channel = verified(builder).await;
        assert_eq!(channel.node().node_id(), "node-a", "{name}");
        assert_eq!(channel.node().root().as_str(), "software root", "{name}");
        assert!(!channel.has_ended(), "{name}");
        for _ in 0..2 {
            let reply = channel.completions(&request("whole", false)).await.unwrap();
            let reply = whole(reply);
            assert_eq!(reply.status(), 200, "{name}");
            assert_eq!(reply.usage().unwrap().total_tokens, 5, "{name}");
            let body: Value = reply.json().unwrap();
            assert_eq!(body["choices"][0]["text"], prompt("whole"), "{name}");
        }
        let sent = request("one word after another", true);
        let mut events = stream(channel.completions(&sent).await.unwrap());
        let (text, end) = text_of(&mut events).await;
        end.unwrap();
        assert_eq!(text, prompt("one word after another"), "{name}");
        let complete = events.finish().unwrap();
        assert_eq!(complete.usage().unwrap().total_tokens, 5, "{name}");
    }
    let log = setup.gateway.log();
    assert!(log.contains("/v1/nodes/{id}/ohttp"), "{log}");
}

#[tokio::test]
async fn a_node_that_wants_a_credential_finds_it_under_the_seal() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let config = files.node("node-a", &engine, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let digest = hex::encode(Sha256::digest("node-secret"));
    std::fs::write(&config, format!("credential_sha256 = \"{digest}\"\n{text}")).unwrap();
    let node = Process::start("node", &config).await;
    let client = || Client::at_node(&node.url, parsed(files.dir.path(), &policy(&measurement())));
    let channel = verified(client()).await;
    let refused = channel.completions(&request("x", false)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            AskError::Exchange(ExchangeError::Problem {
                problem: Problem::Credential,
                ..
            })
        ),
        "{refused}"
    );
    assert!(!refused.may_have_run());
    assert!(engine.received().is_empty());
    let channel = verified(client().credential("node-secret")).await;
    let reply = channel.completions(&request("x", false)).await.unwrap();
    assert_eq!(whole(reply).status(), 200);
}

#[tokio::test]
async fn what_the_policy_refuses_is_never_sealed_to() {
    let setup = Setup::start().await;
    let another = || parsed(setup.dir.path(), &policy(&"00".repeat(48)));
    let clients = [
        Client::at_gateway(&setup.gateway.url, another()).api_key(KEY),
        Client::at_node(&setup.node.url, another()),
    ];
    for builder in clients {
        let refused = builder.build().unwrap().verify("tiny").await.unwrap_err();
        let VerifyError::Refused(refusal) = &refused else {
            panic!("{refused}");
        };
        assert!(refusal.check.contains("measurement"), "{refused}");
    }
    assert!(setup.engine.received().is_empty());
    assert!(!setup.gateway.log().contains("/v1/nodes/{id}/ohttp"));
}

#[tokio::test]
async fn who_is_not_there_or_not_let_in_is_told_so() {
    let setup = Setup::start().await;
    let verify = async |builder: ClientBuilder, model: &str| {
        let client = builder.build().unwrap();
        client.verify(model).await.unwrap_err()
    };
    let error = verify(at_gateway(&setup), "other").await;
    assert!(matches!(error, VerifyError::NoNode), "{error}");
    let error = verify(at_gateway(&setup).node_id("node-a"), "other").await;
    assert!(matches!(error, VerifyError::ModelNotServed), "{error}");
    let error = verify(at_gateway(&setup).node_id("node-b"), "tiny").await;
    assert!(
        matches!(error, VerifyError::Status(status) if status == 404),
        "{error}"
    );
    let error = verify(at_gateway(&setup).api_key("sk-other"), "tiny").await;
    assert!(
        matches!(error, VerifyError::Status(status) if status == 401),
        "{error}"
    );
    let direct = Client::at_node(&setup.node.url, own_policy(&setup)).node_id("node-b");
    let error = verify(direct, "tiny").await;
    assert!(matches!(error, VerifyError::OtherNode), "{error}");

    let channel = verified(at_gateway(&setup)).await;
    let ask = async |body: Value| channel.completions(&body).await.unwrap_err();
    let error = ask(json!({"model": "other", "prompt": "x"})).await;
    assert!(matches!(error, AskError::ModelNotServed), "{error}");
    let error = ask(json!({"model": "tiny"})).await;
    assert!(matches!(error, AskError::Request(_)), "{error}");
    let long = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(16 << 20));
    let error = channel
        .request(Endpoint::Completions, long)
        .await
        .unwrap_err();
    assert!(matches!(error, AskError::TooLong { .. }), "{error}");
    assert!(setup.engine.received().is_empty());
}

/// A client whose way to the node leads over a hostile relay.
async fn relayed(
    alter: impl Fn(&mut OnTheWay) + Send + Sync + 'static,
) -> (Files, Engine, Process, Client) {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let relay = mitm::start(&node.url, alter).await;
    let policy = parsed(files.dir.path(), &policy(&measurement()));
    let client = Client::at_node(&relay, policy).build().unwrap();
    (files, engine, node, client)
}

fn with_answer(reply: &mut OnTheWay, alter: impl FnOnce(&mut Value)) {
    let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
    alter(&mut answer);
    reply.body = answer.to_string().into_bytes();
}

fn with_statement(reply: &mut OnTheWay, alter: impl FnOnce(&mut Value)) {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    with_answer(reply, |answer| {
        let text = answer["statement"].as_str().unwrap();
        let statement = BASE64_STANDARD.decode(text).unwrap();
        let mut statement: Value = serde_json::from_slice(&statement).unwrap();
        alter(&mut statement);
        answer["statement"] = json!(BASE64_STANDARD.encode(statement.to_string()));
    });
}

#[tokio::test]
async fn evidence_that_a_relay_changed_or_kept_verifies_nothing() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    type Alteration = fn(&mut OnTheWay, &[u8]);
    let cases: [(&str, Alteration); 6] = [
        ("a key of his own", |reply, _| {
            with_statement(reply, |statement| {
                statement["keys"][1]["public_key"] = json!(BASE64_STANDARD.encode([9; 32]));
            });
        }),
        ("without the better key", |reply, _| {
            with_statement(reply, |statement| {
                let keys = statement["keys"].as_array_mut().unwrap();
                assert_eq!(keys.remove(0)["suite"], "x-wing");
            });
        }),
        ("a bit of the report", |reply, _| {
            with_answer(reply, |answer| {
                let report = &mut answer["evidence"][0]["report"];
                let mut bytes = BASE64_STANDARD.decode(report.as_str().unwrap()).unwrap();
                bytes[0x90] ^= 1;
                *report = json!(BASE64_STANDARD.encode(bytes));
            });
        }),
        ("an answer that he kept", |reply, kept| {
            reply.body = kept.to_vec();
        }),
        ("the same under the new nonce", |reply, kept| {
            let nonce = reply.path.split_once('=').unwrap().1.to_owned();
            reply.body = kept.to_vec();
            with_answer(reply, |answer| answer["nonce"] = json!(nonce));
        }),
        ("without an end", |reply, _| {
            reply.body = vec![b' '; 2 << 20]
        }),
    ];
    let kept: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let altering: Arc<Mutex<Option<Alteration>>> = Arc::default();
    let (old, alteration) = (Arc::clone(&kept), Arc::clone(&altering));
    let (_files, engine, _node, client) = relayed(move |reply| {
        assert!(
            reply.path.starts_with("/v1/attestation"),
            "a prompt left: {}",
            reply.path
        );
        let mut old = old.lock().unwrap();
        let old = old.get_or_insert_with(|| reply.body.clone());
        if let Some(alter) = *alteration.lock().unwrap() {
            alter(reply, old);
        }
    })
    .await;
    assert!(client.verify("tiny").await.is_ok(), "the path itself works");
    for (name, alter) in cases {
        *altering.lock().unwrap() = Some(alter);
        assert!(client.verify("tiny").await.is_err(), "{name}");
    }
    assert!(engine.received().is_empty());
}

#[tokio::test]
async fn a_reply_that_a_relay_cut_or_changed_is_an_error() {
    type Alteration = fn(&mut OnTheWay);
    let cases: [(&str, Alteration); 5] = [
        ("cut in the middle", |reply| {
            reply.body.truncate(reply.body.len() / 2);
        }),
        ("the final chunk left out", |reply| {
            let mut chunks = reply.chunks();
            chunks.pop();
            reply.body = chunks.concat();
        }),
        ("two chunks exchanged", |reply| {
            let mut chunks = reply.chunks();
            chunks.swap(2, 3);
            reply.body = chunks.concat();
        }),
        ("a bit of the end", |reply| {
            *reply.body.last_mut().unwrap() ^= 1
        }),
        ("a forged plain reply", |reply| {
            reply.media_type = "application/json".to_owned();
            reply.body = b"{\"choices\":[]}".to_vec();
        }),
    ];
    let altering: Arc<Mutex<Option<Alteration>>> = Arc::default();
    let alteration = Arc::clone(&altering);
    let (_files, engine, _node, client) = relayed(move |reply| {
        if let Some(alter) = alteration.lock().unwrap().filter(|_| reply.is_sealed()) {
            alter(reply);
        }
    })
    .await;
    let channel = client.verify("tiny").await.unwrap();
    let text = "word ".repeat(20_000);
    for (name, alter) in cases {
        *altering.lock().unwrap() = Some(alter);
        let error = channel
            .completions(&request(&text, false))
            .await
            .unwrap_err();
        assert!(error.may_have_run(), "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{name}");
        let Ok(reply) = channel.completions(&request(&text, true)).await else {
            continue;
        };
        let mut events = stream(reply);
        let (given, end) = text_of(&mut events).await;
        assert!(end.is_err(), "{name}");
        assert!(prompt(&text).starts_with(&given), "{name}: no beginning");
        assert_eq!(events.finish(), Err(Unfinished), "{name}");
    }
    assert_eq!(engine.received().len(), 10, "nothing is tried twice");
}

#[tokio::test]
async fn a_stream_that_is_dropped_stops_the_engine() {
    let setup = Setup::start().await;
    let channel = verified(at_gateway(&setup)).await;
    let feed = setup.engine.stream();
    let sent = request("x", true);
    let (reply, ()) = tokio::join!(channel.completions(&sent), feed.text("a"));
    let mut events = stream(reply.unwrap());
    let event: Value = events.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(event["choices"][0]["text"], "a");
    assert_eq!(events.finish(), Err(Unfinished));
    feed.abandoned().await;
}

#[tokio::test]
async fn silence_has_an_end() {
    let setup = Setup::start().await;
    let short = std::time::Duration::from_millis(50);
    let channel = verified(at_gateway(&setup).first_byte_timeout(short)).await;
    setup.engine.reply(crate::harness::Reply::Hang);
    let error = channel.completions(&request("x", false)).await.unwrap_err();
    let is_timeout = matches!(error, AskError::Exchange(ExchangeError::FirstByteTimeout));
    assert!(is_timeout && error.may_have_run(), "{error}");

    let channel = verified(at_gateway(&setup).idle_timeout(short)).await;
    let feed = setup.engine.stream();
    let sent = request("x", true);
    let (reply, ()) = tokio::join!(channel.completions(&sent), feed.text("a"));
    let mut events = stream(reply.unwrap());
    let (text, end) = soon("the stream ends", text_of(&mut events)).await;
    assert!("a".starts_with(&text), "{text}");
    assert!(matches!(end, Err(ExchangeError::IdleTimeout)), "{end:?}");
    assert_eq!(events.finish(), Err(Unfinished));
}

#[tokio::test]
async fn a_channel_whose_node_restarted_says_that_it_must_be_verified_again() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let config = files.node("node-a", &engine, "");
    let mut node = Process::start("node", &config).await;
    let address = node.url.strip_prefix("http://").unwrap().to_owned();
    let policy = parsed(files.dir.path(), &policy(&measurement()));
    let client = Client::at_node(&node.url, policy).build().unwrap();
    let channel = client.verify("tiny").await.unwrap();
    assert_eq!(
        whole(channel.completions(&request("x", false)).await.unwrap()).status(),
        200
    );
    node.kill().await;
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:0", &address)).unwrap();
    let _node = Process::start("node", &config).await;
    let error = channel.completions(&request("y", false)).await.unwrap_err();
    assert!(error.wants_verification(), "{error}");
    assert_eq!(engine.received().len(), 1);
    let channel = client.verify("tiny").await.unwrap();
    let reply = channel.completions(&request("y", false)).await.unwrap();
    assert_eq!(whole(reply).status(), 200);
}

#[tokio::test]
async fn a_channel_whose_appraisal_has_ended_refuses_to_seal() {
    let setup = Setup::start().await;
    let text = policy(&measurement()).replace("max_age_s = 3600", "max_age_s = 1");
    let policy = parsed(setup.dir.path(), &text);
    let channel = verified(Client::at_node(&setup.node.url, policy)).await;
    let ends = async {
        while !channel.has_ended() {
            tokio::task::yield_now().await;
        }
    };
    soon("the appraisal ends", ends).await;
    let error = channel.completions(&request("x", false)).await.unwrap_err();
    assert!(
        matches!(error, AskError::Exchange(ExchangeError::Ineligible(_))),
        "{error}"
    );
    assert!(error.wants_verification() && !error.may_have_run());
    assert!(setup.engine.received().is_empty());
}
