//! The dialects over loopback, with clients that know nothing of this project's code.

use std::time::Duration;

use attestation::Dialect;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, request::Builder};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::harness::{Asked, FakeEngine, PATIENCE, Running};
use crate::clock::Clock;

#[path = "../../../../tests/it/harness/dialects.rs"]
mod clients;
mod ehbp;
mod seed;

const BOTH: &str = "dialects = [\"ehbp\", \"seed\"]\n";
/// Of the token `token`.
const CREDENTIAL: &str =
    "credential_sha256 = \"3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0\"\n";

/// A reply as engines write it.
const REPLY: &str = r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"file",
    "choices":[{"index":0,"text":" yes","finish_reason":"stop","logprobs":null}],
    "usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}"#;

fn event(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"file\",\
         \"choices\":[{{\"index\":0,\"text\":\"{text}\",\"finish_reason\":null}}]}}\n\n"
    )
}

/// A node that speaks both, with more lines before the engine's table.
async fn node(engine: &FakeEngine, more: &str) -> Running {
    Running::start(&format!("{BOTH}{more}{}", engine.config())).await
}

/// The attested key of a dialect.
async fn key(node: &Running, dialect: Dialect) -> [u8; 32] {
    let now = Clock::system().now();
    let key = node.attest().await.dialect_key(dialect, now).unwrap();
    *key.at(now).unwrap()
}

fn post(node: &Running, path: &str) -> Builder {
    Request::post(node.url(path)).header("content-type", "application/json")
}

/// The error object of a reply, and its status.
fn error(status: StatusCode, body: &[u8]) -> (u16, String) {
    let json: Value = serde_json::from_slice(body).unwrap();
    let error = &json["error"];
    let members = error.as_object().unwrap();
    for member in ["message", "type", "param", "code"] {
        assert!(members.contains_key(member), "{json}");
    }
    (status.as_u16(), error["code"].as_str().unwrap().to_owned())
}

/// A reply whose body comes.
struct Coming {
    headers: HeaderMap,
    body: Incoming,
}

impl Coming {
    async fn of(node: &Running, request: Request<Full<Bytes>>) -> Self {
        let reply = timeout(PATIENCE, node.client.request(request)).await;
        let (head, body) = reply.unwrap().unwrap().into_parts();
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        assert!(!head.headers.contains_key("content-length"));
        Self {
            headers: head.headers,
            body,
        }
    }

    /// The next bytes; `None` at a clean end, `Some(Err)` where the connection was aborted.
    async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = timeout(PATIENCE, self.body.frame()).await.unwrap();
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }
}

/// The engine plays a stream, whole or broken off, after `asked` came.
async fn play(asked: &mut Asked, whole: bool) {
    asked.write(&event(" two")).await;
    if whole {
        asked.write("data: [DONE]\n\n").await;
    }
}
