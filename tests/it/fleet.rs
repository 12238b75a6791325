//! Nodes as the gateway's callers meet them: listed, audited, announced, and sealed to past the
//! gateway.

use serde_json::{Value, json};

use crate::{
    harness::{
        Engine, KEY, Process, Setup,
        process::sealgate,
        prompt,
        setup::{Files, error_of},
        soon,
    },
    node::{Inner, seal},
};

async fn json_of(reply: reqwest::Response) -> Value {
    assert_eq!(reply.status(), 200);
    reply.json().await.unwrap()
}

/// What `sealgate verify` says of an answer: its exit code and its output.
async fn verify(setup: &Setup, answer: &[u8], nonce: &str) -> (Option<i32>, String) {
    let path = |name: &str| setup.dir.path().join(name);
    std::fs::write(path("answer.json"), answer).unwrap();
    let output = sealgate()
        .arg("verify")
        .arg(path("answer.json"))
        .arg("--policy")
        .arg(path("policy.toml"))
        .args(["--nonce", nonce])
        .output();
    let output = soon("verify", output).await.unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[tokio::test]
async fn an_auditor_needs_to_believe_the_gateway_nothing() {
    let setup = Setup::start().await;
    let list = json_of(setup.get("/v1/nodes").await).await;
    let node = &list["data"][0];
    assert_eq!(node["id"], "node-a");
    assert_eq!(node["root"], "software root");
    assert_eq!(node["models"], json!(["tiny"]));
    assert_eq!(node["origin"], "configured");

    let last = setup.get("/v1/nodes/node-a/attestation").await;
    let last = last.bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&last).unwrap();
    let nonce = answer["nonce"].as_str().unwrap();
    let (code, shown) = verify(&setup, &last, nonce).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("software root"), "{shown}");

    let own = "5c".repeat(32);
    let fresh = setup
        .get(&format!("/v1/nodes/node-a/attestation?nonce={own}"))
        .await;
    let fresh = fresh.bytes().await.unwrap();
    let (code, shown) = verify(&setup, &fresh, &own).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains(node["statement"].as_str().unwrap()),
        "{shown}"
    );
    let (code, shown) = verify(&setup, &last, &own).await;
    assert_eq!(code, Some(1), "an old answer to a new question: {shown}");
}

#[tokio::test]
async fn a_published_client_seals_past_the_gateway() {
    let setup = Setup::start().await;
    let list = json_of(setup.get("/v1/nodes").await).await;
    let statement = list["data"][0]["statement"].as_str().unwrap();
    let reply = setup.get("/v1/nodes/node-a/ohttp-keys").await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "application/ohttp-keys");
    let configs = reply.bytes().await.unwrap();

    let inner = Inner::new(
        statement,
        &json!({"model": "tiny", "prompt": prompt("past it")}),
    );
    let (sealed, open) = seal(&configs, &inner).await;
    let url = format!("{}/v1/nodes/node-a/ohttp", setup.gateway.url);
    let post = |sealed: Vec<u8>, key: &str| {
        let request = setup.client.post(&url).bearer_auth(key);
        request
            .header("content-type", "message/ohttp-chunked-req")
            .body(sealed)
            .send()
    };
    let reply = post(sealed.clone(), KEY).await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "message/ohttp-chunked-res");
    assert_eq!(reply.headers()["sealgate-node"], "node-a");
    let opened = open(&reply.bytes().await.unwrap()).await;
    assert_eq!(opened.status, 200);
    assert_eq!(opened.json()["choices"][0]["text"], prompt("past it"));

    let (status, error) = error_of(post(sealed.clone(), "sk-other").await.unwrap()).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (401, Some("invalid_api_key"))
    );
    let again = open(&post(sealed, KEY).await.unwrap().bytes().await.unwrap()).await;
    assert_eq!(again.json()["type"], "urn:sealgate:problem:replayed");
    assert_eq!(setup.engine.received().len(), 1);
    let log = setup.gateway.log();
    assert!(
        log.contains("/v1/nodes/{id}/ohttp"),
        "a line for each request"
    );
}

#[tokio::test]
async fn a_node_announces_itself_to_a_running_gateway() {
    let more = "[announce]\nallow = [\"127.0.0.1\"]\nallow_http = true\nallow_private = true\n";
    let setup = Setup::with("", more).await;
    let (files, engine) = (Files::new(), Engine::start().await);
    let second = Process::start("node", &files.node("node-b", &engine, "")).await;
    let announce = |address: &str| {
        let body = json!({"data": {"node_small_id": 1, "public_address": address, "country": "DE"},
            "signature": "AA=="});
        let url = format!("{}/v1/nodes", setup.gateway.url);
        setup.client.post(url).bearer_auth(KEY).json(&body).send()
    };
    let joined = json_of(announce(&second.url).await.unwrap()).await;
    assert_eq!(joined, json!({"message": "Success"}));
    let list = json_of(setup.get("/v1/nodes").await).await;
    let ids = list["data"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|node| (&node["id"], &node["origin"])).collect();
    assert!(
        ids.contains(&(&json!("node-b"), &json!("announced"))),
        "{ids:?}"
    );
    // What listens there is no node.
    let (status, error) = error_of(announce(&setup.gateway.url).await.unwrap()).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (422, Some("evidence_refused"))
    );
}
