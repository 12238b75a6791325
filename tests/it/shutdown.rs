//! Told to stop: not ready first, then no new work, then no work at all.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{KEY, Setup, engine::Feed, prompt, setup::EventStream, setup::error_of, soon};

/// A stream whose first part has come.
async fn begun(setup: &Setup) -> (Feed, EventStream) {
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    (feed, stream)
}

/// Waits until `/readyz` says no, over connections of their own.
async fn unready(setup: &Setup) -> String {
    let url = format!("{}/readyz", setup.gateway.url);
    let asking = async {
        loop {
            let reply = reqwest::get(&url).await.unwrap();
            if reply.status() == 503 {
                return reply.text().await.unwrap();
            }
        }
    };
    soon("it is not ready", asking).await
}

async fn connect(setup: &Setup) -> TcpStream {
    let address = setup.gateway.url.trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

const BODY: &str = r#"{"model":"tiny","prompt":"y"}"#;

#[tokio::test]
async fn work_is_taken_until_whoever_sends_it_can_have_noticed() {
    let mut setup = Setup::with("", "[timeouts]\nshutdown_delay_ms = 600000\n").await;
    let (feed, stream) = begun(&setup).await;
    setup.gateway.terminate().await;
    assert!(unready(&setup).await.contains("draining"));
    let reply = setup.complete(json!({"prompt": prompt("y")})).await;
    assert_eq!(reply.status(), 200);
    assert!(!reply.headers().contains_key("connection"));
    // A second signal does not wait, and the exit code tells.
    setup.gateway.terminate().await;
    let status = soon("it ends at once", setup.gateway.ended()).await;
    assert_eq!(status.code(), Some(130), "{status}");
    let (_, end) = stream.rest().await;
    assert!(end.is_err());
    feed.abandoned().await;
}

#[tokio::test]
async fn new_work_is_refused_and_its_connection_closed_while_streams_finish() {
    let mut setup = Setup::start().await;
    let (feed, mut stream) = begun(&setup).await;
    let mut idle = connect(&setup).await;
    let ask = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
    idle.write_all(ask).await.unwrap();
    idle.read_u8().await.unwrap();
    setup.gateway.terminate().await;
    unready(&setup).await;
    let mut rest = Vec::new();
    soon("the idle one closes", idle.read_to_end(&mut rest))
        .await
        .unwrap();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut late = connect(&setup).await;
    late.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    soon("a reply and the end", late.read_to_end(&mut reply))
        .await
        .unwrap();
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
    for said in ["connection: close", "retry-after: 5", "\"draining\""] {
        assert!(reply.contains(said), "{said} in {reply}");
    }
    feed.text("b").await;
    assert_eq!(stream.text().await, "b");
    feed.done().await;
    drop(feed);
    let (events, end) = stream.rest().await;
    end.unwrap();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let status = soon("it ends", setup.gateway.ended()).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn who_connects_by_http_2_late_is_answered_and_told_to_go() {
    let mut setup = Setup::start().await;
    let (feed, stream) = begun(&setup).await;
    setup.gateway.terminate().await;
    unready(&setup).await;
    // One that never asks holds up nothing.
    let _silent = connect(&setup).await;
    let io = TokioIo::new(connect(&setup).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("{}/v1/completions", setup.gateway.url))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Full::from(BODY));
    let reply = soon("a reply", sender.send_request(request.unwrap())).await;
    assert_eq!(reply.unwrap().status(), 503);
    // The sender lives on: it is the gateway that closes.
    soon("GOAWAY", connection).await.unwrap().unwrap();
    assert!(sender.is_closed());
    feed.done().await;
    drop(feed);
    let (_, end) = stream.rest().await;
    end.unwrap();
    let status = soon("it ends", setup.gateway.ended()).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_stream_that_outlasts_its_time_ends_with_an_error_event() {
    let mut setup = Setup::with("", "[timeouts]\ndrain_ms = 50\n").await;
    let (feed, stream) = begun(&setup).await;
    setup.gateway.terminate().await;
    let (events, end) = stream.rest().await;
    assert!(end.is_err());
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "upstream_truncated");
    soon("the gateway ends", setup.gateway.ended()).await;
    feed.abandoned().await;
}

#[tokio::test]
async fn an_interrupt_is_as_good_as_a_termination() {
    let mut setup = Setup::start().await;
    let (feed, stream) = begun(&setup).await;
    setup.gateway.signal("INT").await;
    unready(&setup).await;
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("y")})).await).await;
    assert_eq!((status, &error["code"]), (503, &json!("draining")));
    feed.done().await;
    drop(feed);
    stream.rest().await.1.unwrap();
    let status = soon("it ends", setup.gateway.ended()).await;
    assert!(status.success(), "{status}");
}
