//! Receipts, from the node that signs to whoever verifies one without a network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestation::bundle::{BundleItem, BundleKey, ItemKind, MANIFEST, Manifest, SIGNATURE};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Engine, KEY, Process, Reply, Setup,
    engine::completion,
    process::sealgate,
    prompt,
    setup::{Files, error_of, measurement, policy},
    soon,
};

/// Files that are judged by another policy, and at another time.
mod judged;

const OTHER_KEY: &str = "sk-test-another";
const REQUIRED: &str = "[archive]\ndir = \"archive\"\nrequired = true\n\
    [receipts]\nmode = \"required\"\ncontent = true\n";

async fn start(node: &str, gateway: &str) -> Setup {
    let (files, engine) = (Files::new(), Engine::start().await);
    let mut keys = fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
    let digest = hex::encode(Sha256::digest(OTHER_KEY));
    keys += &format!("[[key]]\nname = \"another\"\nsha256 = \"{digest}\"\n");
    files.write("keys.toml", &keys);
    let node = Process::start("node", &files.node("node-a", &engine, node)).await;
    let gateway = Process::start("gateway", &files.gateway(&[&node.url], gateway)).await;
    Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    }
}

fn id_of(reply: &Response) -> String {
    assert_eq!(reply.headers()["sealgate-receipt"], "yes");
    reply.headers()["x-request-id"].to_str().unwrap().to_owned()
}

async fn get_as(setup: &Setup, key: &str, path: &str) -> Response {
    let url = format!("{}{path}", setup.gateway.url);
    let asking = setup.client.get(url).bearer_auth(key).send();
    soon(path, asking).await.unwrap()
}

/// The receipt of a request, once it is kept.
async fn receipt_of(setup: &Setup, id: &str) -> Value {
    let path = format!("/v1/receipts/{id}");
    let looking = async {
        loop {
            let reply = get_as(setup, KEY, &path).await;
            if reply.status() == 200 {
                return reply.json().await.unwrap();
            }
        }
    };
    soon("the receipt is kept", looking).await
}

/// What was sent and what was got of one exchange, and its receipt with all that it rests on.
struct Exchange {
    sent: Vec<u8>,
    got: Vec<u8>,
    bundle: Vec<u8>,
}

impl Exchange {
    async fn of(setup: &Setup, sent: String) -> Self {
        let reply = setup.post(sent.clone()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let id = id_of(&reply);
        let got = reply.bytes().await.unwrap().to_vec();
        receipt_of(setup, &id).await;
        let bundle = get_as(setup, KEY, &format!("/v1/receipts/{id}?bundle=1")).await;
        assert_eq!(bundle.status(), 200);
        assert_eq!(bundle.headers()["content-type"], "application/json");
        Self {
            sent: sent.into_bytes(),
            got,
            bundle: bundle.bytes().await.unwrap().to_vec(),
        }
    }

    async fn whole(setup: &Setup, text: &str) -> Self {
        setup.engine.reply(Reply::Json(200, completion(text)));
        let body = json!({"model": "tiny", "prompt": prompt(text)});
        Self::of(setup, body.to_string()).await
    }

    async fn streamed(setup: &Setup, text: &str) -> Self {
        let feed = setup.engine.stream();
        let body = json!({"model": "tiny", "prompt": prompt(text), "stream": true});
        let fed = async {
            feed.text(text).await;
            feed.text(" more").await;
            feed.done().await;
        };
        tokio::join!(Self::of(setup, body.to_string()), fed).0
    }
}

/// An empty directory, and the program in it.
struct Empty(tempfile::TempDir);

impl Empty {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    async fn verify(&self, args: &[&str]) -> Output {
        let mut command = sealgate();
        command.current_dir(self.0.path());
        command.args(["receipt", "verify"]).args(args);
        soon("receipt verify", command.output()).await.unwrap()
    }
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout[..], &output.stderr[..]];
    String::from_utf8(parts.concat()).unwrap()
}

#[tokio::test]
async fn a_receipt_is_for_the_key_that_made_the_request() {
    let setup = start("", "[receipts]\nmode = \"on\"\n").await;
    setup.engine.reply(Reply::Json(200, completion("x")));
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    let id = id_of(&reply);
    let receipt = receipt_of(&setup, &id).await;
    assert_eq!(receipt["request_id"], id);
    assert_eq!(receipt["node"], "node-a");
    assert_eq!(receipt["salts"], Value::Null);
    assert_eq!(receipt["receipt"].as_str().unwrap().split('.').count(), 3);
    let path = format!("/v1/receipts/{id}");
    let (status, error) = error_of(get_as(&setup, OTHER_KEY, &path).await).await;
    assert_eq!((status, &error["code"]), (404, &json!("receipt_not_found")));
    let (status, _) = error_of(get_as(&setup, "sk-nobody", &path).await).await;
    assert_eq!(status, 401);
    let bundle = get_as(&setup, KEY, &format!("{path}?bundle=1")).await;
    let (status, error) = error_of(bundle).await;
    assert_eq!(
        (status, &error["code"]),
        (404, &json!("evidence_not_archived"))
    );
    let log = setup.gateway.log() + &setup.node.log();
    assert!(!log.contains(receipt["receipt"].as_str().unwrap()));
}

#[tokio::test]
async fn a_receipt_with_all_that_it_rests_on_is_verified_in_an_empty_directory() {
    let setup = start("", REQUIRED).await;
    for exchange in [
        Exchange::whole(&setup, "a cat").await,
        Exchange::streamed(&setup, "an elephant").await,
    ] {
        let empty = Empty::new();
        empty.write("receipt.json", &exchange.bundle);
        empty.write("sent", &exchange.sent);
        empty.write("got", &exchange.got);
        empty.write("another", b"another text");
        let proved = &["receipt.json", "--request", "sent", "--response", "got"];
        let output = empty.verify(proved).await;
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert!(shown.contains("no hardware stands behind it"), "{shown}");
        assert!(shown.contains("the gateway's word"), "{shown}");
        assert!(shown.contains("it is the one"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");

        let swapped = &["receipt.json", "--request", "got", "--response", "sent"];
        for args in [
            &["receipt.json", "--request", "another"][..],
            &["receipt.json", "--response", "another"],
            swapped,
        ] {
            let output = empty.verify(args).await;
            assert_eq!(output.status.code(), Some(1), "{args:?} {}", text(&output));
            assert!(text(&output).contains("another text"), "{args:?}");
        }
        for args in [
            &["absent"][..],
            &["sent"],
            &["receipt.json", "--request", "absent"],
        ] {
            let output = empty.verify(args).await;
            assert_eq!(output.status.code(), Some(2), "{args:?} {}", text(&output));
        }
        let json = empty.verify(&["receipt.json", "--json"]).await;
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["accepted"], true, "{json}");
        assert_eq!(json["policy_in_file"], true, "{json}");
        assert_eq!(json["receipt"]["proves_contents"], true, "{json}");
        assert_eq!(json["receipt"]["model"], "tiny", "{json}");
    }
}

/// A policy that names a file outside of its folder, and a bundle.
#[tokio::test]
async fn a_receipts_file_has_what_its_policy_names_and_the_bundle() {
    let (key, _) = BundleKey::generate().unwrap();
    let signer = hex::encode(key.public_key());
    let signer = format!("version = 1\nbundle_signers = [\"{signer}\"]\n");
    let (files, engine) = (Files::new(), Engine::start().await);
    let policy = policy(&measurement()).replace("version = 1\n", &signer);
    let outside = format!("{}/software-root/ark.pem", files.dir.path().display());
    files.write(
        "policy.toml",
        &policy.replace("software-root/ark.pem", &outside),
    );
    sign_bundle(&files.dir.path().join("bundle"), &key);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let config = files.gateway(&[&node.url], REQUIRED);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("bundle = \"bundle\"\n{text}")).unwrap();
    let gateway = Process::start("gateway", &config).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    let exchange = Exchange::whole(&setup, "a cat").await;
    drop(setup);
    let empty = Empty::new();
    empty.write("receipt.json", &exchange.bundle);
    let output = empty.verify(&["receipt.json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", self::text(&output));
    let file: Value = serde_json::from_slice(&exchange.bundle).unwrap();
    let content = &file["content"];
    assert_eq!(content["policy"]["files"][0]["name"], outside);
    assert_eq!(content["bundle"]["files"][0]["name"], "rim.xml");
    assert!(content["bundle_sha256"].is_string());
    // Another signer's bundle is none to this policy.
    let other = BundleKey::generate().unwrap().0.public_key();
    let mut changed = content.clone();
    let text = changed["policy"]["text"].as_str().unwrap();
    let text = text.replace(&hex::encode(key.public_key()), &hex::encode(other));
    changed["policy"]["text"] = json!(text);
    let changed = resigned(&exchange, &changed);
    is_refused(&empty, "another signer", &changed).await;
}

/// Signs a bundle with one file into a folder.
fn sign_bundle(folder: &Path, key: &BundleKey) {
    let file = b"what people read";
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("rim.xml"), file).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the processes under test live now"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let manifest = Manifest {
        created: now,
        valid_until: now + Duration::from_secs(3600),
        items: vec![BundleItem {
            path: "rim.xml".to_owned(),
            kind: ItemKind::GpuRim,
            sha256: Sha256::digest(file).into(),
            source: "a test".to_owned(),
            fetched_at: now,
            valid_until: now + Duration::from_secs(3600),
        }],
    };
    let manifest = manifest.to_json().unwrap();
    fs::write(folder.join(SIGNATURE), key.sign(&manifest)).unwrap();
    fs::write(folder.join(MANIFEST), &manifest).unwrap();
}

/// Verifies a file in which something was changed: never accepted.
async fn is_refused(empty: &Empty, name: &str, bytes: &[u8]) {
    empty.write("changed.json", bytes);
    let output = empty.verify(&["changed.json"]).await;
    let code = output.status.code();
    assert!(
        matches!(code, Some(1 | 2)),
        "{name}: {code:?} {}",
        text(&output)
    );
}

#[tokio::test]
async fn no_byte_of_a_receipts_file_can_be_another() {
    let setup = start("", REQUIRED).await;
    let exchange = Exchange::whole(&setup, "a cat").await;
    let empty = Empty::new();
    let bundle = &exchange.bundle;
    let step = bundle.len() / 64;
    assert!(step > 0);
    for at in (0..bundle.len()).step_by(step).chain([bundle.len() - 1]) {
        let mut changed = bundle.clone();
        changed[at] ^= 1;
        is_refused(&empty, &format!("byte {at}"), &changed).await;
    }
    is_refused(&empty, "a line feed", &[&bundle[..], b"\n"].concat()).await;
    is_refused(&empty, "cut", &bundle[..bundle.len() - 1]).await;
}

/// What somebody changes who puts the right digest over it.
#[tokio::test]
async fn what_a_receipt_rests_on_cannot_be_exchanged() {
    let setup = start("", REQUIRED).await;
    let one = Exchange::whole(&setup, "a cat").await;
    let other = Exchange::streamed(&setup, "an elephant").await;
    let content = |exchange: &Exchange| -> Value {
        let file: Value = serde_json::from_slice(&exchange.bundle).unwrap();
        file["content"].clone()
    };
    let (one_content, other_content) = (content(&one), content(&other));
    assert_ne!(one_content["receipt"], other_content["receipt"]);
    let empty = Empty::new();
    // Unchanged, it is taken: what follows is refused for its change alone.
    empty.write("same.json", &resigned(&one, &one_content));
    let output = empty.verify(&["same.json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let changes: [(&str, Value); 10] = [
        ("receipt", other_content["receipt"].clone()),
        ("request_id", other_content["request_id"].clone()),
        ("salts", Value::Null),
        ("node", json!("node-b")),
        ("nonce", json!("00".repeat(32))),
        ("evidence_sha256", json!("00".repeat(32))),
        ("policy_sha256", json!("00".repeat(32))),
        ("bundle_sha256", json!("00".repeat(32))),
        ("asked_at", json!("2100-01-01T00:00:00Z")),
        ("appraised_at", json!("2100-01-01T00:00:00Z")),
    ];
    for (member, value) in changes {
        let mut changed = one_content.clone();
        assert_ne!(changed[member], value, "{member}");
        changed[member] = value;
        is_refused(&empty, member, &resigned(&one, &changed)).await;
    }
    // Another's salts prove nothing, though nothing else shows that they are another's.
    let mut changed = one_content.clone();
    changed["salts"] = other_content["salts"].clone();
    empty.write("changed.json", &resigned(&one, &changed));
    empty.write("sent", &one.sent);
    let output = empty.verify(&["changed.json", "--request", "sent"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

/// The file of an exchange with other values in its content, members in their order, and the digest of
/// that.
fn resigned(exchange: &Exchange, content: &Value) -> Vec<u8> {
    let mut text = String::from_utf8(exchange.bundle.clone()).unwrap();
    let file: Value = serde_json::from_slice(&exchange.bundle).unwrap();
    let mut members: Vec<_> = content.as_object().unwrap().clone().into_iter().collect();
    members.push(("text".to_owned(), content["policy"]["text"].clone()));
    for (member, value) in members {
        let before = match member.as_str() {
            "text" => &file["content"]["policy"]["text"],
            _ => &file["content"][&member],
        };
        // Objects stand in another order in the text.
        if *before != value && !value.is_object() {
            let (old, new) = (
                format!("\"{member}\":{before}"),
                format!("\"{member}\":{value}"),
            );
            assert_eq!(text.matches(&old).count(), 1, "{member}");
            text = text.replace(&old, &new);
        }
    }
    let begin = text.find("\"content\":").unwrap() + "\"content\":".len();
    let end = text.rfind(",\"sha256\":").unwrap();
    let digest = hex::encode(Sha256::digest(&text[begin..end]));
    let old = file["sha256"].as_str().unwrap();
    let at = text.rfind(old).unwrap();
    text.replace_range(at..at + old.len(), &digest);
    text.into_bytes()
}

#[tokio::test]
async fn a_stream_that_broke_has_the_receipt_of_what_it_was() {
    let setup = start("", REQUIRED).await;
    let feed = setup.engine.stream();
    let body = json!({"model": "tiny", "prompt": prompt("x"), "stream": true}).to_string();
    let (reply, ()) = tokio::join!(setup.post(body.clone()).send(), async {
        feed.text("one").await;
        feed.cut().await;
    });
    let mut reply = reply.unwrap();
    let id = id_of(&reply);
    let mut got = Vec::new();
    while let Ok(Some(bytes)) = reply.chunk().await {
        got.extend_from_slice(&bytes);
    }
    let got = String::from_utf8(got).unwrap();
    assert!(
        got.contains("engine_error") && !got.contains("[DONE]"),
        "{got}"
    );
    receipt_of(&setup, &id).await;
    let bundle = get_as(&setup, KEY, &format!("/v1/receipts/{id}?bundle=1")).await;
    let empty = Empty::new();
    empty.write("receipt.json", &bundle.bytes().await.unwrap());
    // What the node sealed is what stands before the gateway's own event.
    let (sealed, _) = got.split_once("data: {\"error\"").unwrap();
    empty.write("got", sealed.as_bytes());
    empty.write("sent", body.as_bytes());
    let args = &["receipt.json", "--request", "sent", "--response", "got"];
    let output = empty.verify(args).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[tokio::test]
async fn the_archive_that_a_bundle_needs_may_have_let_it_go() {
    let setup = start("", REQUIRED).await;
    setup.engine.reply(Reply::Json(200, completion("x")));
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    let id = id_of(&reply);
    receipt_of(&setup, &id).await;
    let evidence: &Path = &setup.dir.path().join("archive/evidence");
    fs::remove_dir_all(evidence).unwrap();
    let bundle = get_as(&setup, KEY, &format!("/v1/receipts/{id}?bundle=1")).await;
    let (status, error) = error_of(bundle).await;
    assert_eq!(
        (status, &error["code"]),
        (404, &json!("evidence_not_archived"))
    );
}

#[tokio::test]
async fn a_receipts_file_needs_room_as_bodies_do() {
    let small = format!("{REQUIRED}[limits]\nbodies_bytes = 4096\nbody_bytes = 4096\n");
    let setup = start("", &small).await;
    setup.engine.reply(Reply::Json(200, completion("x")));
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    let id = id_of(&reply);
    receipt_of(&setup, &id).await;
    let bundle = get_as(&setup, KEY, &format!("/v1/receipts/{id}?bundle=1")).await;
    let (status, error) = error_of(bundle).await;
    assert_eq!((status, &error["code"]), (429, &json!("overloaded")));
}
