//! Bodies that come slowly: what ends them, and what they hold until then.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::attested_gateway::{OHTTP, OWN};
use crate::harness::{KEY, Setup, metrics::until_metric, prompt, soon};

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";
/// No body keeps up with that, and none may fall behind.
const AT_ONCE: &str = "[limits]\nmin_body_bytes_per_s = 4294967295\n[timeouts]\nslow_body_ms = 1\n";

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// A connection on which a request with so long a body has begun, and one byte of it.
pub(crate) async fn begun(url: &str, path: &str, media_type: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n\
         content-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// All that comes on the connection until the other side closes it, as head and body.
async fn rest(mut stream: TcpStream) -> (String, Value) {
    let mut reply = Vec::new();
    let reading = soon("the connection closes", stream.read_to_end(&mut reply));
    reading.await.unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").expect(&reply);
    (head.to_owned(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_body_below_the_least_rate_is_refused_and_its_connection_closes() {
    let (of_node, of_gateway) = (format!("{ADMIN}{AT_ONCE}"), format!("{ADMIN}{AT_ONCE}"));
    let setup = Setup::with(&of_node, &of_gateway).await;
    for path in [
        "/v1/completions",
        "/v1/confidential/completions",
        "/v1/nodes/lock",
    ] {
        let stream = begun(&setup.gateway.url, path, "application/json", 4096).await;
        let (head, body) = rest(stream).await;
        assert!(head.starts_with("HTTP/1.1 408"), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert_eq!(body["error"]["code"], "request_timeout");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("too slowly"), "{message}");
    }
    let path = "/.well-known/ohttp-gateway";
    let stream = begun(&setup.node.url, path, "message/ohttp-chunked-req", 4096).await;
    let (head, body) = rest(stream).await;
    assert!(head.starts_with("HTTP/1.1 408"), "{head}");
    assert_eq!(body["status"], 408);
    for (process, role) in [(&setup.node, "node"), (&setup.gateway, "gateway")] {
        let name = format!("sealgate_{role}_requests_in_flight");
        until_metric(&process.admin, &name, &[], 0.0).await;
    }
    assert_eq!(setup.engine.received().len(), 0);
}

#[tokio::test]
async fn a_sealed_body_below_the_least_rate_gives_back_the_one_place_of_its_sender() {
    // A quarter of the places is for who is not known yet: one.
    let limits = AT_ONCE.replace("[limits]\n", "[limits]\nin_flight = 4\n");
    let setup = Setup::with("", &format!("{ADMIN}{limits}{OWN}")).await;
    for _ in 0..2 {
        let media_type = "message/ohttp-chunked-req";
        let stream = begun(&setup.gateway.url, OHTTP, media_type, 4096).await;
        let (head, body) = rest(stream).await;
        assert!(head.starts_with("HTTP/1.1 408"), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/problem+json"),
            "{head}"
        );
        assert_eq!(body["status"], 408);
        let held = "sealgate_gateway_bodies_held_bytes";
        until_metric(&setup.gateway.admin, held, &[], 0.0).await;
    }
    assert_eq!(setup.engine.received().len(), 0);
}

/// Whom a request is sealed to stands in its first seven bytes.
#[tokio::test]
async fn what_is_sealed_to_nobody_here_is_refused_though_the_rest_never_comes() {
    let setup = Setup::with("", OWN).await;
    for url in [&setup.node.url, &setup.gateway.url] {
        let mut stream = begun(url, OHTTP, "message/ohttp-chunked-req", 4096).await;
        stream.write_all(b"\xff\xff\0\x01\0\x02").await.unwrap();
        let (head, body) = rest(stream).await;
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        assert!(
            body["type"].as_str().unwrap().ends_with("#ohttp-key"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_slow_body_holds_its_place_in_the_gateway_and_what_it_has_sent() {
    let limits = format!("{ADMIN}[limits]\nbodies_bytes = 8388608\n");
    let setup = Setup::with(ADMIN, &limits).await;
    let admin = &setup.gateway.admin;
    let (url, path) = (&setup.gateway.url, "/v1/completions");
    let slow = begun(url, path, "application/json", 8 << 20).await;
    until_metric(admin, "sealgate_gateway_requests_in_flight", &[], 1.0).await;
    // Beside one that could fill the room for all.
    let text = prompt(&"x".repeat(1 << 20));
    let reply = setup.complete(json!({ "prompt": text })).await;
    assert_eq!(reply.status(), 200);
    drop(reply.bytes().await);
    until_metric(admin, "sealgate_gateway_bodies_held_bytes", &[], 1024.0).await;
    until_metric(admin, "sealgate_gateway_node_requests_in_flight", &[], 0.0).await;
    let node = &setup.node.admin;
    until_metric(node, "sealgate_node_requests_in_flight", &[], 0.0).await;
    drop(slow);
    until_metric(admin, "sealgate_gateway_requests_in_flight", &[], 0.0).await;
}

type Body = BoxBody<Bytes, Infallible>;

fn whole(body: String) -> Body {
    BodyExt::boxed(http_body_util::Full::from(body))
}

/// One byte, and then nothing.
fn stuck() -> Body {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
    BodyExt::boxed(StreamBody::new(first.chain(stream::pending())))
}

/// A connection in HTTP/2.
async fn connected(url: &str) -> (http2::SendRequest<Body>, JoinHandle<()>) {
    let stream = TcpStream::connect(address(url)).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(async move { drop(connection.await) });
    (sender, connection)
}

async fn post(
    sender: &http2::SendRequest<Body>,
    url: &str,
    body: Body,
) -> Result<Response<Incoming>, hyper::Error> {
    let request = Request::post(format!("{url}/v1/completions"))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    sender.clone().send_request(request).await
}

#[tokio::test]
async fn a_slow_stream_holds_up_no_other_on_its_connection() {
    let setup = Setup::with("", ADMIN).await;
    let url = setup.gateway.url.clone();
    let (sender, connection) = connected(&url).await;
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let (sender, url) = (sender.clone(), url.clone());
            tokio::spawn(async move { post(&sender, &url, stuck()).await })
        })
        .collect();
    let name = "sealgate_gateway_requests_in_flight";
    until_metric(&setup.gateway.admin, name, &[], 8.0).await;
    // Together several times what may be under way on a connection.
    for _ in 0..4 {
        let text = prompt(&"x".repeat(1 << 20));
        let body = json!({"model": "tiny", "prompt": text}).to_string();
        let reply = soon("a reply", post(&sender, &url, whole(body))).await;
        let reply = reply.unwrap();
        assert_eq!(reply.status(), 200);
        reply.into_body().collect().await.unwrap();
    }
    assert!(slow.iter().all(|slow| !slow.is_finished()));
    connection.abort();
    until_metric(&setup.gateway.admin, name, &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_below_the_least_rate_ends_alone() {
    let setup = Setup::with("", AT_ONCE).await;
    let url = setup.gateway.url.clone();
    let (sender, _connection) = connected(&url).await;
    for _ in 0..2 {
        let reply = soon("a reply", post(&sender, &url, stuck())).await.unwrap();
        assert_eq!(reply.status(), 408);
        assert!(!reply.headers().contains_key("connection"));
        let models = Request::get(format!("{url}/v1/models"))
            .header("authorization", format!("Bearer {KEY}"))
            .body(whole(String::new()))
            .unwrap();
        let models = soon("a list", sender.clone().send_request(models)).await;
        assert_eq!(models.unwrap().status(), 200, "the connection is as before");
    }
}

#[tokio::test]
async fn without_a_least_rate_a_body_has_its_whole_time() {
    let off = "[limits]\nmin_body_bytes_per_s = 0\n[timeouts]\nslow_body_ms = 1\n";
    let setup = Setup::with("", &format!("{ADMIN}{off}")).await;
    let mut slow = TcpStream::connect(address(&setup.gateway.url))
        .await
        .unwrap();
    let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let name = "sealgate_gateway_requests_in_flight";
    until_metric(&setup.gateway.admin, name, &[], 1.0).await;
    for byte in body.bytes() {
        slow.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut reply = String::new();
    soon("a reply", slow.read_to_string(&mut reply))
        .await
        .unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}
