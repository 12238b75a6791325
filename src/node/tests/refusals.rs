//! What is refused under the seal, in the order of docs/wire.md.

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{
    BODY,
    harness::{FakeEngine, Running, Sent},
};
use crate::{clock::Clock, config::node::CredentialDigest};

fn http_date(offset_s: i64) -> String {
    let offset = std::time::Duration::from_secs(offset_s.unsigned_abs());
    let now = Clock::system().now();
    httpdate::fmt_http_date(if offset_s < 0 {
        now - offset
    } else {
        now + offset
    })
}

#[tokio::test]
async fn a_request_that_is_not_let_in_reaches_no_engine() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let (early, late) = (http_date(-130), http_date(130));
    let other = "0".repeat(64);
    let path = Sent {
        path: "/v1/completions/",
        ..Sent::default()
    };
    assert_eq!(node.ask(path).await.problem(), (404, "path".to_owned()));
    let cases = [
        ("no date", ("date", ""), (400, "malformed")),
        ("no HTTP date", ("date", "now"), (400, "malformed")),
        (
            "no statement",
            ("sealgate-statement", ""),
            (400, "malformed"),
        ),
        ("no id", ("sealgate-request-id", ""), (400, "malformed")),
        (
            "another id",
            ("sealgate-request-id", "AB"),
            (400, "malformed"),
        ),
        (
            "another padding",
            ("sealgate-padding", "some"),
            (400, "malformed"),
        ),
        (
            "another receipt",
            ("sealgate-receipt", "all"),
            (400, "malformed"),
        ),
        ("an old date", ("date", early.as_str()), (400, "date")),
        ("a coming date", ("date", late.as_str()), (400, "date")),
        (
            "another statement",
            ("sealgate-statement", other.as_str()),
            (409, "statement"),
        ),
    ];
    for (name, field, (status, kind)) in cases {
        let fields = [field];
        let reply = node
            .ask(Sent {
                fields: &fields,
                ..Sent::default()
            })
            .await;
        assert_eq!(reply.problem(), (status, kind.to_owned()), "{name}");
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn a_copy_of_a_request_that_was_refused_is_refused_as_a_copy() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let (request, opener) = node
        .seal(Sent {
            path: "/other",
            ..Sent::default()
        })
        .await;
    let sealed = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(node.send(node.encapsulated(sealed.clone())).await.0, 200);
    let copy = node.begin_with(node.encapsulated(sealed), opener).await;
    assert_eq!(copy.finish().await.problem(), (409, "replayed".to_owned()));
    assert!(engine.idle());
}

#[tokio::test]
async fn a_copy_of_a_request_that_runs_is_refused() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let (request, opener) = node.seal(Sent::default()).await;
    let sealed = request.into_body().collect().await.unwrap().to_bytes();
    let original = node.send(node.encapsulated(sealed.clone()));
    let copied = async {
        let mut asked = engine.asked().await;
        let copy = node.begin_with(node.encapsulated(sealed), opener).await;
        assert_eq!(copy.finish().await.problem(), (409, "replayed".to_owned()));
        asked.reply(400, "{}").await;
    };
    let ((status, ..), ()) = tokio::join!(original, copied);
    assert_eq!(status, 200);
    assert!(engine.idle());
}

#[tokio::test]
async fn a_node_with_a_credential_asks_for_it() {
    let mut engine = FakeEngine::start().await;
    let digest = hex::encode(CredentialDigest::of(b"token").as_bytes());
    let node = Running::start(&format!(
        "credential_sha256 = \"{digest}\"\n{}",
        engine.config()
    ))
    .await;
    let content = "no JSON, so that a request that is let in asks no engine";
    for (authorization, status) in [
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic token", 401),
        ("Bearer  token", 401),
        ("Bearer token", 400),
        ("bearer token", 400),
    ] {
        let fields = [("authorization", authorization)];
        let reply = node
            .ask(Sent {
                fields: &fields,
                content,
                ..Sent::default()
            })
            .await;
        assert_eq!(reply.status, status, "{authorization}");
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn what_the_contract_refuses_is_the_callers_to_see() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&format!("{}ignores = [\"echo\"]\n", engine.config())).await;
    let cases = [
        ("no JSON", "{".to_owned(), 400, "invalid_json"),
        (
            "no prompt",
            BODY.replace("prompt", "promp"),
            400,
            "invalid_request",
        ),
        (
            "another model",
            BODY.replace("\"m\"", "\"other\""),
            404,
            "model_not_found",
        ),
        (
            "a member that the engine ignores",
            BODY.replace('}', ",\"echo\":true}"),
            400,
            "invalid_request",
        ),
    ];
    for (name, content, status, code) in cases {
        let reply = node
            .ask(Sent {
                content: &content,
                ..Sent::default()
            })
            .await;
        assert_eq!(
            (reply.status, reply.content_type.as_deref()),
            (status, Some("application/json"))
        );
        let json: Value = serde_json::from_slice(&reply.content).unwrap();
        assert_eq!(json["error"]["code"], code, "{name}: {json}");
        assert!(!json.to_string().contains("canary"), "{name}");
    }
    assert!(engine.idle());
}
