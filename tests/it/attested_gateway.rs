//! A gateway with evidence of its own: verified as a node is, sealed to as a node is, and no way
//! around its seal.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sealgate::client::{
    AskError, Channel, Client, ClientBuilder, Events, ExchangeError, Incomplete, Policy, Problem,
    Reply, VerifyError, Whole,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    harness::{
        CANARY, Engine, KEY, Process, Setup,
        process::sealgate,
        prompt,
        setup::{Files, measurement, policy},
        soon,
        tls::{Authority, Middle},
    },
    node::{Inner, Opened, date, seal},
};

/// The gateway's table.
pub(crate) const OWN: &str = "[attestation]\nnode_id = \"gateway-a\"\n\
    evidence = { source = \"software-root\", dir = \"software-root\" }\n";
pub(crate) const OHTTP: &str = "/.well-known/ohttp-gateway";

fn parsed(files: &std::path::Path, text: &str) -> Policy {
    Policy::from_toml(text, &mut |name| std::fs::read(files.join(name))).unwrap()
}

/// A policy that accepts a gateway, too.
fn allowing() -> String {
    format!("allow_attested_engine = true\n{}", policy(&measurement()))
}

fn at(setup: &Setup) -> ClientBuilder {
    let policy = parsed(setup.dir.path(), &allowing());
    Client::at_attested_gateway(&setup.gateway.url, policy).api_key(KEY)
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

pub(crate) fn request(text: &str, stream: bool) -> Value {
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

/// The gateway's statement, from its answer.
pub(crate) async fn statement(gateway: &str) -> (String, Value) {
    let url = format!("{gateway}/v1/attestation?nonce={}", "00".repeat(32));
    let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let bytes = BASE64_STANDARD.decode(answer["statement"].as_str().unwrap());
    let bytes = bytes.unwrap();
    let digest = hex::encode(Sha256::digest(&bytes));
    (digest, serde_json::from_slice(&bytes).unwrap())
}

/// Sends what was sealed, and opens the reply.
pub(crate) async fn post(setup: &Setup, inner: &Inner) -> Opened {
    let (sealed, open) = sealed(setup, inner).await;
    open(&send(setup, sealed).await).await
}

pub(crate) async fn sealed(
    setup: &Setup,
    inner: &Inner,
) -> (Vec<u8>, impl AsyncFn(&[u8]) -> Opened + use<>) {
    let configs = reqwest::get(format!("{}{OHTTP}", setup.gateway.url)).await;
    let configs = configs.unwrap();
    assert_eq!(configs.headers()["content-type"], "application/ohttp-keys");
    seal(&configs.bytes().await.unwrap(), inner).await
}

pub(crate) async fn send(setup: &Setup, sealed: Vec<u8>) -> Vec<u8> {
    let reply = setup
        .client
        .post(format!("{}{OHTTP}", setup.gateway.url))
        .header("content-type", "message/ohttp-chunked-req")
        .body(sealed)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "message/ohttp-chunked-res");
    assert!(!reply.headers().contains_key("x-request-id"));
    reply.bytes().await.unwrap().to_vec()
}

pub(crate) fn with_key(mut inner: Inner, authorization: &'static str) -> Inner {
    inner.more.push(("authorization", authorization));
    inner
}

pub(crate) fn bearer() -> &'static str {
    Box::leak(format!("Bearer {KEY}").into_boxed_str())
}

#[tokio::test]
async fn a_client_seals_to_the_gateway_and_it_to_a_node_in_either_suite() {
    for suite in ["x-wing", "x25519"] {
        let own = format!("{OWN}keys = {{ suites = [\"{suite}\"] }}\n");
        let setup = Setup::with("", &own).await;
        let channel = verified(at(&setup)).await;
        assert_eq!(channel.node().node_id(), "gateway-a");
        assert_eq!(channel.node().root().as_str(), "software root");
        assert_eq!(channel.node().models(), ["tiny"]);
        let reply = channel.completions(&request("whole", false)).await;
        let reply = whole(reply.unwrap());
        assert_eq!(
            (reply.status().as_u16(), reply.usage().unwrap().total_tokens),
            (200, 5)
        );
        let body: Value = reply.json().unwrap();
        assert_eq!(body["choices"][0]["text"], prompt("whole"));

        let sent = request("one word after another", true);
        let mut events = stream(channel.completions(&sent).await.unwrap());
        let (text, end) = text_of(&mut events).await;
        end.unwrap();
        assert_eq!(text, prompt("one word after another"));
        assert_eq!(events.finish().unwrap().usage().unwrap().total_tokens, 5);

        let embeddings = json!({"object": "list", "model": "tiny", "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, 2.0]}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3}});
        setup
            .engine
            .reply(crate::harness::Reply::Json(200, embeddings));
        let asked = json!({"model": "tiny", "input": prompt("x")});
        let reply = whole(channel.embeddings(&asked).await.unwrap());
        let body: Value = reply.json().unwrap();
        assert_eq!(body["data"][0]["embedding"], json!([0.5, 2.0]));

        let log = setup.gateway.log();
        assert!(log.contains("sealed=true"), "{log}");
        assert!(log.contains("key=\"tests\""), "{log}");
        for log in [log, setup.node.log()] {
            assert!(!log.contains(CANARY) && !log.contains(KEY), "{log}");
        }
    }
}

#[tokio::test]
async fn who_allows_no_gateway_seals_nothing_to_it() {
    let setup = Setup::with("", OWN).await;
    let remote = format!("allow_remote_engine = true\n{}", policy(&measurement()));
    for text in [policy(&measurement()), remote] {
        let policy = parsed(setup.dir.path(), &text);
        let builder = Client::at_attested_gateway(&setup.gateway.url, policy).api_key(KEY);
        let refused = builder.build().unwrap().verify("tiny").await.unwrap_err();
        let VerifyError::Refused(refusal) = &refused else {
            panic!("{refused}");
        };
        assert_eq!(refusal.check, "engine");
        assert!(
            refused.to_string().contains("allow_attested_engine"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn without_the_table_there_is_nothing_to_seal_to() {
    let setup = Setup::start().await;
    for path in ["/v1/attestation?nonce=00", OHTTP] {
        let reply = setup.get(path).await;
        assert_eq!(reply.status(), 404, "{path}");
    }
    let url = format!("{}{OHTTP}", setup.gateway.url);
    let reply = setup.client.post(url).body("x").send().await.unwrap();
    assert_eq!(reply.status(), 404);
}

#[tokio::test]
async fn the_evidence_is_asked_for_as_a_nodes_and_the_statement_says_where_prompts_go() {
    let setup = Setup::with("", OWN).await;
    let url = format!("{}/v1/attestation", setup.gateway.url);
    for query in ["", "?nonce=00", "?nonce=xyz&more=1"] {
        let reply = reqwest::get(format!("{url}{query}")).await.unwrap();
        assert_eq!(reply.status(), 400, "{query}");
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
    }
    let reply = reqwest::get(format!("{url}?nonce={}", "0a".repeat(32))).await;
    let reply = reply.unwrap();
    assert_eq!(reply.headers()["cache-control"], "no-store");
    let answer = reply.text().await.unwrap();
    let (digest, said) = statement(&setup.gateway.url).await;
    assert_eq!(
        (&said["engine"], &said["node_id"]),
        (&json!("attested"), &json!("gateway-a"))
    );
    assert_eq!(said["models"], json!(["tiny"]));
    assert_eq!(said["software"]["name"], "sealgate");
    assert_eq!(
        statement(&setup.gateway.url).await.0,
        digest,
        "nothing changed"
    );

    // The command line judges it, offline.
    let write = |name: &str, text: &str| {
        let path = setup.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let file = write("answer.json", &answer);
    let pinned = format!(
        "config_sha256 = [\"{}\"]\n{}",
        said["config_sha256"].as_str().unwrap(),
        allowing()
    );
    let cases = [(allowing(), 0), (pinned, 0), (policy(&measurement()), 1)];
    for (at, (text, code)) in cases.into_iter().enumerate() {
        let policy = write(&format!("client-{at}.toml"), &text);
        let output = sealgate()
            .arg("verify")
            .arg(&file)
            .arg("--policy")
            .arg(&policy)
            .args(["--nonce", &"0a".repeat(32)])
            .output()
            .await
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{shown}");
    }
}

#[tokio::test]
async fn what_is_not_let_in_is_told_under_the_seal_and_asks_nobody() {
    let setup = Setup::with("", OWN).await;
    let (digest, _) = statement(&setup.gateway.url).await;
    let body = json!({"model": "tiny", "prompt": prompt("x")});
    let good = || with_key(Inner::new(&digest, &body), bearer());
    let bent = |bend: fn(&mut Inner)| {
        let mut inner = good();
        bend(&mut inner);
        inner
    };
    let problem = |code: &str| format!("urn:sealgate:problem:{code}");
    let date_type = "https://iana.org/assignments/http-problem-types#date".to_owned();
    let cases = [
        (
            "no key",
            Inner::new(&digest, &body),
            401,
            problem("credential"),
        ),
        (
            "another key",
            with_key(Inner::new(&digest, &body), "Bearer sk-other"),
            401,
            problem("credential"),
        ),
        (
            "a key twice",
            with_key(good(), "Bearer sk-other"),
            400,
            problem("malformed"),
        ),
        ("an old date", bent(|i| i.date = date(-600)), 400, date_type),
        (
            "a receipt, which it does not sign",
            bent(|i| i.more.push(("sealgate-receipt", "usage"))),
            400,
            problem("malformed"),
        ),
        (
            "another statement",
            bent(|i| i.statement = "00".repeat(32)),
            409,
            problem("statement"),
        ),
        (
            "another path",
            bent(|i| i.path = "/v1/models"),
            404,
            problem("path"),
        ),
        (
            "a padding that is none",
            bent(|i| i.more[0].1 = "Paced"),
            400,
            problem("malformed"),
        ),
    ];
    for (name, inner, status, kind) in cases {
        let opened = post(&setup, &inner).await;
        assert_eq!(opened.media_type, "application/problem+json", "{name}");
        assert_eq!(
            (opened.status, &opened.json()["type"]),
            (status, &json!(kind)),
            "{name}"
        );
    }
    assert!(setup.engine.received().is_empty());
    // From here on errors are the contract's.
    let other = json!({"model": "other", "prompt": "x"});
    let cases = [
        (other, 404, "model_not_found"),
        (json!({"model": "tiny"}), 400, "invalid_request"),
    ];
    for (body, status, code) in cases {
        let opened = post(&setup, &with_key(Inner::new(&digest, &body), bearer())).await;
        assert_eq!(opened.media_type, "application/json", "{code}");
        let error = &opened.json()["error"];
        assert_eq!(
            (opened.status, &error["code"]),
            (status, &json!(code)),
            "{error}"
        );
    }
    assert!(setup.engine.received().is_empty());
}

#[tokio::test]
async fn a_published_client_is_answered_once() {
    let setup = Setup::with("", OWN).await;
    let (digest, _) = statement(&setup.gateway.url).await;
    let body = json!({"model": "tiny", "prompt": prompt("hello")});
    let inner = with_key(Inner::new(&digest, &body), bearer());
    let (request, open) = sealed(&setup, &inner).await;
    let opened = open(&send(&setup, request.clone()).await).await;
    assert_eq!(
        (opened.status, opened.media_type.as_str()),
        (200, "application/json")
    );
    assert_eq!(opened.json()["choices"][0]["text"], prompt("hello"));
    let copy = open(&send(&setup, request).await).await;
    assert_eq!(
        (copy.status, &copy.json()["type"]),
        (409, &json!("urn:sealgate:problem:replayed"))
    );
    assert_eq!(setup.engine.received().len(), 1);
    // Its id is the one that the sender gave it.
    let log = setup.gateway.log();
    assert!(
        log.contains("request_id=0123456789abcdef0123456789abcdef"),
        "{log}"
    );
    // What does not open is refused outside, as by a node.
    let reply = setup
        .client
        .post(format!("{}{OHTTP}", setup.gateway.url))
        .header("content-type", "message/ohttp-chunked-req")
        .body(vec![0; 100])
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 400);
    let outside: Value = reply.json().await.unwrap();
    assert_eq!(
        outside["type"],
        "https://iana.org/assignments/http-problem-types#ohttp-key"
    );
}

#[tokio::test]
async fn a_stream_that_the_node_did_not_end_is_never_whole() {
    let mut setup = Setup::with("", OWN).await;
    let channel = verified(at(&setup)).await;
    let feed = setup.engine.stream();
    let asked = request("x", true);
    let asking = channel.completions(&asked);
    let (reply, ()) = tokio::join!(asking, feed.text("a"));
    let mut events = stream(reply.unwrap());
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first.json::<Value>().unwrap()["choices"][0]["text"], "a");
    setup.node.kill().await;
    let (text, end) = text_of(&mut events).await;
    assert_eq!(text, "");
    let error = end.unwrap_err();
    assert!(
        matches!(error, ExchangeError::Incomplete(Incomplete::EngineFailed)),
        "{error}"
    );
    assert!(events.finish().is_err());
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_engine() {
    let setup = Setup::with("", OWN).await;
    let channel = verified(at(&setup)).await;
    let feed = setup.engine.stream();
    let asked = request("x", true);
    let (reply, ()) = tokio::join!(channel.completions(&asked), feed.text("a"));
    let mut events = stream(reply.unwrap());
    events.next().await.unwrap().unwrap();
    drop(events);
    drop(channel);
    feed.abandoned().await;
    setup.engine.idle().await;
}

#[tokio::test]
async fn the_callers_key_goes_no_further() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let config = files.node("node-a", &engine, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let digest = hex::encode(Sha256::digest("node-secret"));
    std::fs::write(&config, format!("credential_sha256 = \"{digest}\"\n{text}")).unwrap();
    let node = Process::start("node", &config).await;
    files.write("node.token", "node-secret");
    let more = format!("credential_file = \"node.token\"\n{OWN}");
    let config = files.gateway(&[&node.url], &more);
    let gateway = Process::start("gateway", &config).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    // The node lets in who has its own token, and nobody else.
    let channel = verified(at(&setup)).await;
    let reply = channel.completions(&request("x", false)).await.unwrap();
    assert_eq!(whole(reply).status(), 200);
    let stranger = verified(at(&setup).api_key("node-secret")).await;
    let refused = stranger
        .completions(&request("y", false))
        .await
        .unwrap_err();
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
    let received = setup.engine.received();
    assert_eq!(received.len(), 1);
    for bytes in received {
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY));
    }
}

#[tokio::test]
async fn the_evidence_binds_the_certificate_and_follows_it() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(), authority.issue());
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    files.write("gateway.pem", &first.certificate);
    files.write("gateway.key", &first.key);
    let tls = "[tls]\ncertificate_file = \"gateway.pem\"\nkey_file = \"gateway.key\"\n";
    let config = files.gateway(&[&node.url], &format!("{tls}{OWN}"));
    let gateway = Process::start("gateway", &config).await;
    let client = |url: &str| {
        let policy = parsed(files.dir.path(), &allowing());
        let client = Client::at_attested_gateway(url, policy).api_key(KEY);
        client.roots_pem(authority.pem.as_bytes()).build().unwrap()
    };
    let channel = client(&gateway.url).verify("tiny").await.unwrap();
    let unasked = client(&gateway.url).verify("tiny").await.unwrap();
    let pin = channel.node().tls_spki_sha256().copied().unwrap();
    let reply = channel.completions(&request("x", false)).await.unwrap();
    assert_eq!(whole(reply).status(), 200);

    // Somebody between with a certificate of the same authority gets nothing that is sealed.
    let address = gateway.url.trim_start_matches("https://").to_owned();
    let middle = Middle::start(address, &authority.issue(), authority.trusted(None)).await;
    let fooled = client(&middle.url).verify("tiny").await.unwrap();
    let error = fooled.completions(&request("y", false)).await.unwrap_err();
    assert!(
        !error.may_have_run() && error.wants_verification(),
        "{error}"
    );
    let heard = middle.heard.lock().unwrap().clone();
    assert!(!String::from_utf8_lossy(&heard).contains(OHTTP));
    assert_eq!(engine.received().len(), 1);

    files.write("gateway.pem", &second.certificate);
    files.write("gateway.key", &second.key);
    gateway.signal("HUP").await;
    gateway.logged("tls in force", 1).await;
    // Nothing is sealed over a new connection to a key that the evidence did not name.
    let error = unasked.completions(&request("z", false)).await.unwrap_err();
    assert!(
        !error.may_have_run() && error.wants_verification(),
        "{error}"
    );
    assert_eq!(engine.received().len(), 1);
    let channel = client(&gateway.url).verify("tiny").await.unwrap();
    assert_ne!(channel.node().tls_spki_sha256(), Some(&pin));
    let reply = channel.completions(&request("z", false)).await.unwrap();
    assert_eq!(whole(reply).status(), 200);
}

#[tokio::test]
async fn another_policy_is_agreed_to_anew() {
    let setup = Setup::with("", OWN).await;
    let channel = verified(at(&setup)).await;
    let (_, before) = statement(&setup.gateway.url).await;
    let file = setup.dir.path().join("policy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("allow_remote_engine = true\n{text}")).unwrap();
    setup.gateway.signal("HUP").await;
    let said = "policy in force";
    setup.gateway.logged(said, 1).await;
    let refused = channel.completions(&request("x", false)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            AskError::Exchange(ExchangeError::Problem {
                problem: Problem::Statement,
                ..
            })
        ),
        "{refused}"
    );
    assert!(refused.wants_verification() && !refused.may_have_run());
    assert!(setup.engine.received().is_empty());
    let (_, after) = statement(&setup.gateway.url).await;
    assert_ne!(after["config_sha256"], before["config_sha256"]);
    assert_eq!(
        after["engine"], "remote",
        "it claims no more than its policy asks"
    );
}

#[tokio::test]
async fn a_gateway_that_leaves_takes_no_more() {
    let mut setup = Setup::with("", OWN).await;
    let channel = verified(at(&setup)).await;
    let feed = setup.engine.stream();
    let asked = request("x", true);
    let (reply, ()) = tokio::join!(channel.completions(&asked), feed.text("a"));
    let mut events = stream(reply.unwrap());
    events.next().await.unwrap().unwrap();
    let (digest, _) = statement(&setup.gateway.url).await;
    let late = with_key(Inner::new(&digest, &request("y", false)), bearer());
    let (late, _) = sealed(&setup, &late).await;
    setup.gateway.terminate().await;
    setup.gateway.logged("draining", 1).await;
    let url = format!("{}{OHTTP}", setup.gateway.url);
    let refused = async {
        reqwest::Client::new()
            .post(url)
            .header("content-type", "message/ohttp-chunked-req")
            .body(late)
            .send()
            .await
    };
    let refused = soon("an answer", refused).await.unwrap();
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "5")
    );
    let attest = format!(
        "{}/v1/attestation?nonce={}",
        setup.gateway.url,
        "00".repeat(32)
    );
    assert_eq!(reqwest::get(attest).await.unwrap().status(), 503);
    feed.done().await;
    drop(feed);
    let (_, end) = text_of(&mut events).await;
    end.unwrap();
    let status = soon("it ends", setup.gateway.ended()).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn keys_turn_and_what_was_sealed_before_is_still_opened() {
    let own = format!("{OWN}keys = {{ life_s = 2 }}\n");
    let setup = Setup::with("", &own).await;
    let (first, _) = statement(&setup.gateway.url).await;
    let body = request("x", false);
    let inner = with_key(Inner::new(&first, &body), bearer());
    let (request, open) = sealed(&setup, &inner).await;
    let turned = async {
        while statement(&setup.gateway.url).await.0 == first {
            tokio::task::yield_now().await;
        }
    };
    soon("other keys", turned).await;
    let opened = open(&send(&setup, request).await).await;
    assert_eq!(opened.status, 200);
}
