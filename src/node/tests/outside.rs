//! What is refused in clear.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use attestation::EvidenceItem;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::harness::{FakeEngine, PATIENCE, Running, Sent};
use crate::{
    attester::{
        answer::MAX_ATTESTATIONS,
        evidence::{CpuSource, EvidenceError, Question},
    },
    seal::{KEYS_MEDIA_TYPE, REQUEST_MEDIA_TYPE},
};

const OHTTP: &str = "/.well-known/ohttp-gateway";

#[tokio::test]
async fn unknown_resources_and_methods_are_problems() {
    let engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let cases = [
        (Method::GET, "/", StatusCode::NOT_FOUND, ""),
        (Method::POST, "/v1/completions", StatusCode::NOT_FOUND, ""),
        (
            Method::DELETE,
            OHTTP,
            StatusCode::METHOD_NOT_ALLOWED,
            "GET, POST",
        ),
        (
            Method::POST,
            "/v1/attestation",
            StatusCode::METHOD_NOT_ALLOWED,
            "GET",
        ),
        (
            Method::POST,
            "/health",
            StatusCode::METHOD_NOT_ALLOWED,
            "GET, HEAD",
        ),
    ];
    for (method, path, status, allow) in cases {
        let request = Request::builder().method(method).uri(node.url(path));
        let (seen, headers, body) = node.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(seen, status, "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            headers
                .get(header::ALLOW)
                .map_or("", |v| v.to_str().unwrap()),
            allow
        );
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["status"], status.as_u16());
    }
}

#[tokio::test]
async fn a_nonce_is_64_lower_case_hex_digits_given_once() {
    let engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let good = "0a".repeat(32);
    for query in [
        String::new(),
        "?nonce=".to_owned(),
        format!("?nonce={}", good.to_uppercase()),
        format!("?nonce={}", &good[2..]),
        format!("?nonce={good}&nonce={good}"),
        format!("?other={good}"),
    ] {
        let (status, ..) = node.get(&format!("/v1/attestation{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(
        node.get(&format!("/v1/attestation?nonce={good}")).await.0,
        StatusCode::OK
    );
}

/// Hardware that works until it is let go.
struct Slow {
    source: Arc<dyn CpuSource>,
    running: Arc<AtomicUsize>,
    free: Arc<(Mutex<bool>, Condvar)>,
}

impl CpuSource for Slow {
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError> {
        self.running.fetch_add(1, Ordering::Relaxed);
        let (free, told) = &*self.free;
        let wait = |free: &mut bool| !*free;
        drop(told.wait_timeout_while(free.lock().unwrap(), PATIENCE, wait));
        self.source.evidence(question)
    }
}

#[tokio::test]
async fn an_asker_that_leaves_gives_up_no_place_while_the_hardware_works() {
    let engine = FakeEngine::start().await;
    let (running, free) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let slow = |source| -> Arc<dyn CpuSource> {
        Arc::new(Slow {
            source,
            running: Arc::clone(&running),
            free: Arc::clone(&free),
        })
    };
    let node = Running::start_with(&engine.config(), slow).await;
    let path = format!("/v1/attestation?nonce={}", "0a".repeat(32));
    for n in 1..=MAX_ATTESTATIONS {
        let mut asker = TcpStream::connect(node.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        asker.write_all(head.as_bytes()).await.unwrap();
        let begun = async {
            while running.load(Ordering::Relaxed) < n {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, begun).await.unwrap();
    }
    let (status, ..) = node.get(&path).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let (is_free, told): &(Mutex<bool>, Condvar) = &free;
    *is_free.lock().unwrap() = true;
    told.notify_all();
    let again = async { while node.get(&path).await.0 != StatusCode::OK {} };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn the_published_keys_are_those_of_the_statement() {
    let engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let (status, headers, body) = node.get(OHTTP).await;
    assert_eq!(
        (status, &headers[header::CONTENT_TYPE].as_bytes()),
        (StatusCode::OK, &KEYS_MEDIA_TYPE.as_bytes())
    );
    let verified = node.attest().await;
    let [x_wing, x25519] = verified.statement().keys() else {
        panic!("a key of each suite")
    };
    assert_eq!(body[2..5], [x_wing.key_id, 0x64, 0x7a]);
    assert_eq!(body[5..1221], *x_wing.public_key.as_bytes());
    assert_eq!(body[1229..1232], [x25519.key_id, 0, 0x20]);
    assert_eq!(body[1232..1264], *x25519.public_key.as_bytes());
}

#[tokio::test]
async fn what_is_no_encapsulated_request_is_refused_before_it_is_opened() {
    let mut engine = FakeEngine::start().await;
    let limits = "limits = { body_bytes = 1024 }\n";
    let node = Running::start(&format!("{limits}{}", engine.config())).await;
    let post = |body: Bytes, name: header::HeaderName, value: &str| {
        let mut request = node.encapsulated(body);
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let other = post(Bytes::new(), header::CONTENT_TYPE, "message/ohttp-req");
    let coded = post(Bytes::new(), header::CONTENT_ENCODING, "gzip");
    let expecting = post(Bytes::new(), header::EXPECT, "100-continue");
    let large = node.encapsulated(vec![0; 1 << 20].into());
    let empty = node.encapsulated(Bytes::new());
    let long = "x".repeat(4096);
    let too_long = node
        .seal(Sent {
            content: &long,
            ..Sent::default()
        })
        .await
        .0;
    let cases = [
        ("another media type", other, 415),
        ("a content coding", coded, 415),
        ("an expectation", expecting, 417),
        ("a large body", large, 413),
        ("a large content", too_long, 413),
        ("nothing", empty, 400),
    ];
    for (name, request, status) in cases {
        assert_eq!(node.send(request).await.0.as_u16(), status, "{name}");
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn what_does_not_open_is_told_apart_only_by_key_or_form() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let long = "x".repeat(40_000);
    let (request, _) = node
        .seal(Sent {
            content: &long,
            ..Sent::default()
        })
        .await;
    let sealed = http_body_util::BodyExt::collect(request.into_body())
        .await
        .unwrap()
        .to_bytes();
    let flipped = |at: usize| {
        let mut bytes = sealed.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let end = sealed.len();
    let cases = [
        ("another key id", flipped(0), "ohttp-key"),
        ("another suite", flipped(6), "ohttp-key"),
        ("another encapsulated key", flipped(20), "ohttp-key"),
        ("a changed first chunk", flipped(2_000), "ohttp-key"),
        ("a changed later chunk", flipped(20_000), "about:blank"),
        ("a changed final chunk", flipped(end - 1), "about:blank"),
        ("a cut", sealed.slice(..end - 1), "about:blank"),
        (
            "a cut after the first chunk",
            sealed.slice(..20_000),
            "about:blank",
        ),
    ];
    for (name, bytes, kind) in cases {
        let (status, _, body) = node.send(node.encapsulated(bytes)).await;
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
        assert!(
            json["type"].as_str().unwrap().ends_with(kind),
            "{name}: {json}"
        );
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let engine = FakeEngine::start().await;
    let rate = "limits = { min_body_bytes_per_s = 0 }\n";
    let timeouts = format!("timeouts = {{ body_idle_ms = 50 }}\n{rate}");
    let node = Running::start(&format!("{timeouts}{}", engine.config())).await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = format!(
        "POST {OHTTP} HTTP/1.1\r\nhost: a\r\ncontent-type: {REQUEST_MEDIA_TYPE}\r\n\
         content-length: 100\r\n\r\nx"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    assert!(
        reply.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&reply)
    );
}

#[tokio::test]
async fn more_requests_than_there_are_places_or_room_are_refused() {
    let mut engine = FakeEngine::start().await;
    let limits = "limits = { requests = 1, buffered_bytes = 32768 }\n";
    let node = Running::start(&format!("{limits}{}", engine.config())).await;
    let long = "x".repeat(60_000);
    let (request, _) = node
        .seal(Sent {
            content: &long,
            ..Sent::default()
        })
        .await;
    assert_eq!(
        node.send(request).await.0,
        StatusCode::TOO_MANY_REQUESTS,
        "no room"
    );

    let (first, _) = node.seal(Sent::default()).await;
    let (second, _) = node.seal(Sent::default()).await;
    let refused = async {
        let mut asked = engine.asked().await;
        let (status, headers, _) = node.send(second).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "no place");
        assert_eq!(headers[header::RETRY_AFTER], "1");
        asked.reply(400, "{}").await;
    };
    let ((status, ..), ()) = tokio::join!(node.send(first), refused);
    assert_eq!(status, StatusCode::OK);
}
