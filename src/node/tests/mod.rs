//! The node over loopback: really attested, really sealed, with an engine that a test plays.

use http::StatusCode;

use self::harness::{FakeEngine, Running, Sent};
use crate::seal::Padding;

mod cancel;
mod dialects;
mod evidence;
mod harness;
mod outside;
mod paced;
mod queue;
mod receipts;
mod refusals;
mod replies;
mod salts;
pub(crate) mod simulated;
mod watch;

/// A request that any engine of these tests serves.
const BODY: &str = r#"{"model":"m","prompt":"a canary of 7 words","max_tokens":4}"#;
/// The same, as a stream.
const STREAM_BODY: &str = r#"{"model":"m","prompt":"a canary of 7 words","stream":true}"#;

#[tokio::test]
async fn the_echo_engine_answers_whole_and_as_a_stream() {
    let node = Running::start("[[engine]]\nurl = \"builtin:echo\"\n").await;
    let model = node.attest().await.models()[0].clone();
    for padding in Padding::ALL {
        let body = BODY.replace("\"m\"", &format!("\"{model}\""));
        let reply = node
            .ask(Sent {
                content: &body,
                padding,
                ..Sent::default()
            })
            .await;
        assert_eq!(
            (reply.status, reply.content_type.as_deref()),
            (200, Some("application/json"))
        );
        let json: serde_json::Value = serde_json::from_slice(&reply.content).unwrap();
        assert!(
            json["choices"][0]["text"]
                .as_str()
                .unwrap()
                .contains("canary"),
            "{json}"
        );
        assert!(reply.trailers.usage.is_some());
        assert_eq!(reply.trailers.incomplete, None);

        let body = STREAM_BODY.replace("\"m\"", &format!("\"{model}\""));
        let reply = node
            .ask(Sent {
                content: &body,
                padding,
                ..Sent::default()
            })
            .await;
        assert_eq!(
            (reply.status, reply.content_type.as_deref()),
            (200, Some("text/event-stream"))
        );
        assert!(reply.content.ends_with(b"data: [DONE]\n\n"));
        assert!(reply.trailers.usage.is_some());
    }
}

#[tokio::test]
async fn health_and_readiness_follow_the_engine() {
    let mut engine = FakeEngine::start().await;
    engine.hide_models();
    let node = Running::start(&engine.asked_config()).await;
    assert_eq!(node.get("/health").await.0, StatusCode::OK);
    assert_eq!(node.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let attestation = format!("/v1/attestation?nonce={}", "0".repeat(64));
    assert_eq!(
        node.get(&attestation).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    engine.show_models();
    node.until_ready().await;
    assert_eq!(node.attest().await.models(), ["m"]);
}

#[tokio::test]
async fn http_2_serves_many_requests_on_one_connection() {
    let node = Running::start("[[engine]]\nurl = \"builtin:echo\"\n")
        .await
        .over_http_2();
    let bodies = [BODY, STREAM_BODY].map(|body| body.replace("\"m\"", "\"echo\""));
    let asks = bodies.iter().cycle().take(20).map(|content| {
        node.ask(Sent {
            content,
            ..Sent::default()
        })
    });
    for reply in futures_util::future::join_all(asks).await {
        assert_eq!((reply.status, reply.trailers.incomplete), (200, None));
        assert!(String::from_utf8_lossy(&reply.content).contains("canary"));
    }
}

#[tokio::test]
async fn no_word_of_a_prompt_or_an_answer_is_logged() {
    let lines = harness::Lines::default();
    // While there is one subscriber alone, what a thread without it logs first counts as unwanted
    // in every thread.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .with_ansi(false)
        .finish();
    // This test's runtime has one thread, so everything below logs to it.
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let error = r#"{"error":{"message":"canary answer"}}"#;
    for (status, content) in [
        (400, BODY),
        (500, BODY),
        (200, STREAM_BODY),
        (200, "canary"),
    ] {
        let sent = Sent {
            content,
            ..Sent::default()
        };
        let played = async {
            if content != "canary" {
                engine.asked().await.reply(status, error).await;
            }
        };
        tokio::join!(node.ask(sent), played);
    }
    let model = BODY.replace("\"m\"", "\"canary\"");
    node.ask(Sent {
        content: &model,
        ..Sent::default()
    })
    .await;
    let lines = lines.text();
    assert_eq!(
        lines.matches("outcome=\"invalid-request\"").count(),
        2,
        "{lines}"
    );
    assert_eq!(
        lines.matches("outcome=\"engine-failed\"").count(),
        2,
        "{lines}"
    );
    assert!(lines.contains("request_id="), "{lines}");
    assert!(!lines.contains("canary"), "{lines}");
}
