//! Replies that are no stream, and what stands beside them.

use std::sync::{Arc, Mutex};

use http_body_util::Full;

use super::{
    fake::FakeNode,
    harness::{BODY, Running},
};

#[tokio::test]
async fn bodies_go_both_ways_byte_for_byte() {
    let node = FakeNode::start("one").await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    node.play(move |asked| {
        let fields = ["content-type", "accept", "sealgate-model", "authorization"];
        kept.lock().unwrap().push((
            asked.request.path.clone(),
            asked.request.content.clone(),
            fields.map(|name| asked.field(name)),
            asked.field("sealgate-request-id"),
        ));
        async { asked.json(200, "{\"a\": [1,2] ,\n\"b\":\"\u{1f600}\"}\n") }
    });
    let gateway = Running::start(&[&node], "").await;
    let got = gateway.post(BODY).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.body, "{\"a\": [1,2] ,\n\"b\":\"\u{1f600}\"}\n");
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.headers["sealgate-node"], "one");
    let attestation = got.headers["sealgate-attestation"].to_str().unwrap();
    assert!(
        attestation.starts_with("sev-snp; root=\"software root\"; age="),
        "{attestation}"
    );
    let seen = seen.lock().unwrap();
    let (path, content, [content_type, accept, model, authorization], id) = &seen[0];
    assert_eq!(
        (path.as_str(), &content[..]),
        ("/v1/completions", BODY.as_bytes())
    );
    assert_eq!(content_type.as_deref(), Some("application/json"));
    assert_eq!(accept.as_deref(), Some("application/json"));
    assert_eq!((model, authorization), (&None, &None));
    assert_eq!(
        id.as_deref(),
        Some(got.headers["x-request-id"].to_str().unwrap())
    );
}

#[tokio::test]
async fn a_large_body_and_a_large_reply_pass() {
    let node = FakeNode::start("one").await;
    let large = "x".repeat(3 << 20);
    let reply = format!("{{\"text\":\"{large}\"}}");
    let expected = reply.clone();
    node.play(move |asked| {
        let len = asked.request.content.len();
        assert!(len > 3 << 20);
        let reply = reply.clone();
        async move { asked.json(200, &reply) }
    });
    let gateway = Running::start(&[&node], "").await;
    let got = gateway
        .post(format!("{{\"model\":\"m\",\"prompt\":\"{large}\"}}"))
        .await;
    assert_eq!(got.status, 200);
    assert_eq!(got.headers["content-length"], expected.len().to_string());
    assert!(got.body == expected);
}

#[tokio::test]
async fn an_engines_own_refusal_is_the_callers_to_see() {
    let node = FakeNode::start("one").await;
    let refusal = r#"{"error":{"message":"too long","type":"t","param":null,"code":null}}"#;
    node.play(move |asked| async move { asked.json(422, refusal) });
    let gateway = Running::start(&[&node], "").await;
    let got = gateway.post(BODY).await;
    assert_eq!(
        (got.status.as_u16(), &got.body[..]),
        (422, refusal.as_bytes())
    );
    let stream = gateway.post(super::harness::STREAM_BODY).await;
    assert_eq!(
        (stream.status.as_u16(), &stream.body[..]),
        (422, refusal.as_bytes())
    );
}

#[tokio::test]
async fn models_are_those_that_verified_nodes_serve() {
    let node = FakeNode::start("one").await;
    node.play(|asked| {
        let model = asked.field("sealgate-model");
        async move { asked.json(200, &format!("{{\"model\":{model:?}}}")) }
    });
    let rest = "[models]\nother = \"m\"\nnobodys = \"x\"\n";
    let gateway = Running::start(&[&node], rest).await;
    let list: serde_json::Value =
        serde_json::from_slice(&gateway.get("/v1/models").await.body).unwrap();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].clone())
        .collect();
    assert_eq!(ids, ["m", "org/n", "other"]);
    for (path, id) in [
        ("m", "m"),
        ("org/n", "org/n"),
        ("org%2Fn", "org/n"),
        ("other/", "other"),
    ] {
        let got = gateway.get(&format!("/v1/models/{path}")).await;
        let model: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(
            (got.status.as_u16(), model["id"].as_str()),
            (200, Some(id)),
            "{path}"
        );
    }
    assert_eq!(
        gateway.get("/v1/models/x").await.code(),
        (404, "model_not_found".to_owned())
    );
    let got = gateway.post(BODY.replace("\"m\"", "\"other\"")).await;
    assert_eq!(got.body, r#"{"model":Some("m")}"#);
    let got = gateway.post(BODY.replace("\"m\"", "\"nobodys\"")).await;
    assert_eq!(got.code(), (503, "no_attested_node".to_owned()));
}

#[tokio::test]
async fn probes_and_other_methods_are_answered() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    assert_eq!(gateway.get("/health").await.body, r#"{"message":"ok"}"#);
    let head = gateway
        .request("HEAD", "/v1/models")
        .body(Full::default())
        .unwrap();
    let head = gateway.send(head).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let options = gateway
        .request("OPTIONS", "/v1/completions/")
        .body(Full::default())
        .unwrap();
    let options = gateway.send(options).await;
    assert_eq!(options.status, 204);
    assert_eq!(options.headers["allow"], "POST, OPTIONS");
}
