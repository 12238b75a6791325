//! X-Wing end to end: what is sealed with it, who can require it, and that nobody gets less.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Response;
use sealgate::client::{AskError, Client, Policy, Reply, VerifyError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Engine, KEY, Process, Setup,
    metrics::until_metric,
    process::sealgate,
    prompt,
    setup::{Files, error_of, measurement, policy},
    soon,
};
use crate::node::{Inner, seal};

/// The node's table of a node without X-Wing.
const X25519_ONLY: &str = "[keys]\nsuites = [\"x25519\"]\n";
/// What a request sealed with each suite begins with, after its key id.
const X_WING: [u8; 6] = [0x64, 0x7a, 0, 1, 0, 2];
const X25519: [u8; 6] = [0, 0x20, 0, 1, 0, 2];

/// A set-up, and the first bytes of all that is sealed to its node.
async fn overheard(node: &str) -> (Setup, Arc<Mutex<Vec<Vec<u8>>>>) {
    let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    let setup = Setup::with_mitm_before(node, move |reply| {
        if reply.path == "/.well-known/ohttp-gateway" {
            hearing.lock().unwrap().push(reply.sent[..7].to_vec());
        }
    })
    .await;
    (setup, heard)
}

#[tokio::test]
async fn a_node_gets_what_it_offers_and_x_wing_before_x25519() {
    for (more, header, suites) in [
        ("", X_WING, json!(["x-wing", "x25519"])),
        ("[keys]\nsuites = [\"x-wing\"]\n", X_WING, json!(["x-wing"])),
        (X25519_ONLY, X25519, json!(["x25519"])),
    ] {
        let (setup, heard) = overheard(more).await;
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{more}");
        let events = setup.engine.stream();
        let stream = setup.stream(json!({"prompt": prompt("y")}));
        let (mut stream, ()) = tokio::join!(stream, async {
            events.text("one").await;
            events.done().await;
        });
        assert_eq!(stream.text().await, "one");
        assert!(stream.rest().await.1.is_ok());
        let headers: Vec<_> = heard
            .lock()
            .unwrap()
            .iter()
            .map(|it| it[1..].to_vec())
            .collect();
        assert_eq!(headers, [header; 2], "{more}");

        let list: Value = setup.get("/v1/nodes").await.json().await.unwrap();
        assert_eq!(list["data"][0]["suites"], suites);
        let suite = suites[0].as_str().unwrap();
        let line = format!("suite={suite:?}");
        soon(&line, setup.gateway.logged(&line, 2)).await;
    }
}

#[tokio::test]
async fn what_is_sealed_is_counted_by_its_suite() {
    let setup = Setup::with("", "[admin]\nlisten = \"127.0.0.1:0\"\n").await;
    setup
        .complete(json!({"prompt": prompt("x")}))
        .await
        .bytes()
        .await
        .unwrap();
    let name = "sealgate_gateway_requests_sealed_total";
    until_metric(&setup.gateway.admin, name, &[("suite", "x-wing")], 1.0).await;
}

/// Two nodes, one of them with X-Wing, and a key that requires it.
struct Mixed {
    /// The one without.
    _other: Process,
    other_engine: Engine,
    /// The key that requires it.
    key: String,
    /// The folder with the logs is in it: the last to go.
    setup: Setup,
}

impl Mixed {
    async fn start(with_x_wing: &str) -> Self {
        let (files, engine, other_engine) =
            (Files::new(), Engine::start().await, Engine::start().await);
        let dialects = "dialects = [\"seed\"]\n";
        let node = |name: &str, engine: &Engine, more: &str| {
            let path = files.node(name, engine, more);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{dialects}{text}")).unwrap();
            path
        };
        let other = Process::start("node", &node("node-b", &other_engine, X25519_ONLY)).await;
        let node = Process::start("node", &node("node-a", &engine, with_x_wing)).await;
        let config = files.gateway(&[&node.url, &other.url], "");
        let created = sealgate()
            .args([
                "keys",
                "create",
                "--json",
                "--require-pq",
                "--name",
                "careful",
                "--config",
            ])
            .arg(&config)
            .output();
        let created = soon("a key", created).await.unwrap();
        let key: Value = serde_json::from_slice(&created.stdout).unwrap();
        let stored = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
        assert!(stored.contains("require_pq = true"), "{stored}");
        let gateway = Process::start("gateway", &config).await;
        Self {
            setup: Setup {
                dir: files.dir,
                engine,
                node,
                gateway,
                client: reqwest::Client::new(),
            },
            _other: other,
            other_engine,
            key: key["key"].as_str().unwrap().to_owned(),
        }
    }

    async fn post_as(&self, key: &str, path: &str, media_type: &str, body: Vec<u8>) -> Response {
        let url = format!("{}{path}", self.setup.gateway.url);
        let request = self.setup.client.post(url).bearer_auth(key);
        let request = request.header("content-type", media_type).body(body);
        request.send().await.unwrap()
    }

    async fn complete_as(&self, key: &str) -> Response {
        let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
        let path = "/v1/completions";
        self.post_as(key, path, "application/json", body.into())
            .await
    }

    async fn configs_of(&self, key: &str, node: &str) -> Response {
        let url = format!("{}/v1/nodes/{node}/ohttp-keys", self.setup.gateway.url);
        self.setup
            .client
            .get(url)
            .bearer_auth(key)
            .send()
            .await
            .unwrap()
    }
}

/// The key id, the KEM and the length of each configuration.
fn configs(mut list: &[u8]) -> Vec<(u8, u16, usize)> {
    let mut configs = Vec::new();
    while let Some((len, rest)) = list.split_first_chunk() {
        let (config, after) = rest.split_at(u16::from_be_bytes(*len).into());
        configs.push((
            config[0],
            u16::from_be_bytes([config[1], config[2]]),
            config.len(),
        ));
        list = after;
    }
    configs
}

#[tokio::test]
async fn a_key_that_requires_it_is_sealed_for_with_x_wing_alone() {
    let mixed = Mixed::start("").await;
    for _ in 0..8 {
        let reply = mixed.complete_as(&mixed.key).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["sealgate-node"], "node-a");
    }
    assert!(mixed.other_engine.received().is_empty());
    while mixed.other_engine.received().is_empty() {
        assert_eq!(
            mixed.complete_as(KEY).await.status(),
            200,
            "others go anywhere"
        );
    }

    let both = mixed.configs_of(KEY, "node-a").await;
    assert_eq!(both.headers()["content-type"], "application/ohttp-keys");
    assert_eq!(both.headers()["sealgate-node"], "node-a");
    let both = configs(&both.bytes().await.unwrap());
    let own = reqwest::get(format!(
        "{}/.well-known/ohttp-gateway",
        mixed.setup.node.url
    ));
    let own = configs(&own.await.unwrap().bytes().await.unwrap());
    assert_eq!(both, own, "the node says the same");
    let shapes: Vec<_> = both.iter().map(|(_, kem, len)| (*kem, *len)).collect();
    assert_eq!(shapes, [(0x647a, 1225), (0x0020, 45)]);
    let one = mixed.configs_of(&mixed.key, "node-a").await;
    assert_eq!(configs(&one.bytes().await.unwrap()), both[..1]);
    let (status, error) = error_of(mixed.configs_of(&mixed.key, "node-b").await).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_attested_node")));
}

/// Not even where the caller seals for himself: what can be seen of the seal is looked at.
#[tokio::test]
async fn a_key_that_requires_it_carries_nothing_less() {
    let mixed = Mixed::start("").await;
    let list = mixed.configs_of(KEY, "node-a").await.bytes().await.unwrap();
    let inner = Inner::new(
        &"00".repeat(32),
        &json!({"model": "tiny", "prompt": prompt("x")}),
    );
    // The published client knows no suite of X-Wing with AES-256-GCM.
    let (classical, _) = seal(&list, &inner).await;
    let mut pretended = classical.clone();
    pretended[1..7].copy_from_slice(&X_WING);
    let path = "/v1/nodes/node-a/ohttp";
    let media_type = "message/ohttp-chunked-req";
    for short in [&classical[..], &classical[..3], &[]] {
        let reply = mixed
            .post_as(&mixed.key, path, media_type, short.to_vec())
            .await;
        let (status, error) = error_of(reply).await;
        assert_eq!((status, &error["code"]), (403, &json!("relay_not_allowed")));
        assert!(
            error["message"].as_str().unwrap().contains("x-wing"),
            "{error}"
        );
    }
    let reply = mixed.post_as(&mixed.key, path, media_type, pretended).await;
    assert_eq!(
        reply.status(),
        400,
        "the node opens nothing with a key of another KEM"
    );
    let problem: Value = reply.json().await.unwrap();
    let expected = "https://iana.org/assignments/http-problem-types#ohttp-key";
    assert_eq!(problem["type"], expected);

    let lock = json!({"model": "tiny"}).to_string();
    let reply = mixed
        .post_as(
            &mixed.key,
            "/v1/nodes/lock",
            "application/json",
            lock.into(),
        )
        .await;
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (403, &json!("dialect_forbidden")));
    assert!(
        error["message"].as_str().unwrap().contains("post-quantum"),
        "{error}"
    );
    let sealed = json!({
        "ciphertext": "AAAA", "client_dh_public_key": BASE64_STANDARD.encode([1; 32]),
        "model_name": "tiny", "node_dh_public_key": BASE64_STANDARD.encode([9; 32]),
        "nonce": "AAAA", "plaintext_body_hash": "AAAA", "salt": "AAAA", "stack_small_id": 1,
    });
    let path = "/v1/confidential/completions";
    let sealed = sealed.to_string().into();
    let reply = mixed
        .post_as(&mixed.key, path, "application/json", sealed)
        .await;
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (403, &json!("dialect_forbidden")));
}

#[tokio::test]
async fn where_no_node_has_it_the_refusal_says_so() {
    let mixed = Mixed::start(X25519_ONLY).await;
    let reply = mixed.complete_as(&mixed.key).await;
    assert!(reply.headers().contains_key("retry-after"));
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_attested_node")));
    assert!(
        error["message"].as_str().unwrap().contains("x-wing"),
        "{error}"
    );
    assert_eq!(mixed.complete_as(KEY).await.status(), 200);
}

fn with_require_pq() -> String {
    policy(&measurement()).replace("version = 1\n", "version = 1\nrequire_pq = true\n")
}

#[tokio::test]
async fn a_policy_that_requires_it_refuses_a_node_without() {
    for (more, status) in [("", 200), (X25519_ONLY, 503)] {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, more)).await;
        files.write("policy.toml", &with_require_pq());
        let config = files.gateway(&[&node.url], "");
        let setup = Setup {
            gateway: Process::start("gateway", &config).await,
            dir: files.dir,
            engine,
            node,
            client: reqwest::Client::new(),
        };
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), status, "{more}");
        assert_eq!(setup.engine.received().is_empty(), status == 503);
        let list = setup.get("/v1/nodes/node-a/ohttp-keys").await;
        if status == 200 {
            let kems: Vec<_> = configs(&list.bytes().await.unwrap())
                .iter()
                .map(|it| it.1)
                .collect();
            assert_eq!(kems, [0x647a], "X25519's key is not given out");
            // Nor carried, although the node itself tells of its key.
            let own = reqwest::get(format!("{}/.well-known/ohttp-gateway", setup.node.url));
            let own = own.await.unwrap().bytes().await.unwrap();
            let inner = Inner::new(&"00".repeat(32), &json!({"model": "tiny", "prompt": "x"}));
            let (classical, _) = seal(&own, &inner).await;
            let url = format!("{}/v1/nodes/node-a/ohttp", setup.gateway.url);
            let carried = setup.client.post(url).bearer_auth(KEY).body(classical);
            let carried = carried.header("content-type", "message/ohttp-chunked-req");
            let (status, error) = error_of(carried.send().await.unwrap()).await;
            assert_eq!((status, &error["code"]), (403, &json!("relay_not_allowed")));
        } else {
            assert_eq!(list.status(), 404);
            setup.gateway.logged("suites", 1).await;
        }
    }
}

#[tokio::test]
async fn a_client_can_require_it_and_takes_it_where_it_is() {
    let mixed = Mixed::start("").await;
    let files = mixed.setup.dir.path();
    let parsed =
        |text: &str| Policy::from_toml(text, &mut |name| std::fs::read(files.join(name))).unwrap();
    let at = |node: &str| {
        Client::at_gateway(&mixed.setup.gateway.url, parsed(&policy(&measurement())))
            .api_key(&mixed.key)
            .node_id(node)
    };
    // The gateway lets this key seal with X-Wing alone, so that an answer shows what was used.
    let channel = at("node-a").build().unwrap().verify("tiny").await.unwrap();
    let reply = channel
        .completions(&json!({"model": "tiny", "prompt": prompt("x")}))
        .await;
    assert!(matches!(reply, Ok(Reply::Whole(_))), "{reply:?}");
    let channel = at("node-b").build().unwrap().verify("tiny").await.unwrap();
    let refused = channel
        .completions(&json!({"model": "tiny", "prompt": prompt("x")}))
        .await;
    assert!(matches!(refused, Err(AskError::Exchange(_))), "{refused:?}");

    let strict = at("node-a").require_pq().build().unwrap();
    let reply = strict.verify("tiny").await.unwrap();
    let reply = reply
        .completions(&json!({"model": "tiny", "prompt": prompt("x")}))
        .await;
    assert!(matches!(reply, Ok(Reply::Whole(_))), "{reply:?}");
    let refused = at("node-b")
        .require_pq()
        .build()
        .unwrap()
        .verify("tiny")
        .await;
    assert!(
        matches!(refused, Err(VerifyError::NotPostQuantum)),
        "{refused:?}"
    );
    assert!(mixed.other_engine.received().is_empty());

    // Of all nodes, the one that has it is found.
    let url = &mixed.setup.gateway.url;
    let any = Client::at_gateway(url, parsed(&policy(&measurement()))).api_key(KEY);
    let any = any.require_pq().build().unwrap();
    for _ in 0..4 {
        let channel = any.verify("tiny").await.unwrap();
        assert_eq!(channel.node().node_id(), "node-a");
    }
}

/// The evidence vouches for the list: its digest is over the statement, whose keys are these.
#[tokio::test]
async fn the_list_of_keys_is_under_the_attested_digest() {
    let setup = Setup::start().await;
    let url = format!(
        "{}/v1/attestation?nonce={}",
        setup.node.url,
        "00".repeat(32)
    );
    let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let statement = BASE64_STANDARD
        .decode(answer["statement"].as_str().unwrap())
        .unwrap();
    let list: Value = setup.get("/v1/nodes").await.json().await.unwrap();
    let digest = hex::encode(Sha256::digest(&statement));
    assert_eq!(list["data"][0]["statement"], digest);
    let statement: Value = serde_json::from_slice(&statement).unwrap();
    let keys = statement["keys"].as_array().unwrap();
    let suites: Vec<_> = keys
        .iter()
        .map(|key| key["suite"].as_str().unwrap())
        .collect();
    assert_eq!(suites, ["x-wing", "x25519"]);
    let key = BASE64_STANDARD.decode(keys[0]["public_key"].as_str().unwrap());
    assert_eq!(key.unwrap().len(), 1216);
}
