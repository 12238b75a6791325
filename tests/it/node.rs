//! The node as a third party meets it: any client of chunked Oblivious HTTP, and clumsy or hostile
//! ones.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, UNIX_EPOCH},
};

use bhttp::{Message, Mode, StatusCode};
use futures_util::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use ohttp::ClientRequest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{CANARY, Engine, Process, Reply, prompt, setup::Files};

/// A node with its engine, without a gateway.
struct Node {
    engine: Engine,
    process: Process,
    client: reqwest::Client,
    /// Digest of the statement, in hex.
    statement: String,
    /// The last to go: the log is in it.
    _files: Files,
}

/// The members of a sealed request that a test may bend.
pub(crate) struct Inner {
    method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) date: String,
    pub(crate) statement: String,
    request_id: String,
    pub(crate) more: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// The reply inside the seal.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    body: Vec<u8>,
    trailers: Vec<String>,
}

impl Opened {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An RFC 9110 date, `offset` seconds from now.
pub(crate) fn date(offset: i64) -> String {
    #[expect(clippy::disallowed_methods, reason = "the node under test lives now")]
    let now = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap();
    let then = now.as_secs().checked_add_signed(offset).unwrap();
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(then))
}

impl Node {
    async fn start(more: &str) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let process = Process::start("node", &files.node("node-a", &engine, more)).await;
        let url = format!("{}/v1/attestation?nonce={}", process.url, "00".repeat(32));
        let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let statement = {
            use base64::{Engine as _, prelude::BASE64_STANDARD};
            BASE64_STANDARD
                .decode(answer["statement"].as_str().unwrap())
                .unwrap()
        };
        let statement = hex::encode(Sha256::digest(statement));
        Self {
            _files: files,
            engine,
            process,
            client: reqwest::Client::new(),
            statement,
        }
    }

    fn inner(&self, body: &Value) -> Inner {
        Inner::new(&self.statement, body)
    }

    /// Seals with the published `ohttp` crate (AES-128-GCM), sends, opens the reply.
    ///
    /// `Err` is an answer outside the encapsulation: status, media type, body.
    async fn ask(&self, inner: &Inner) -> Result<Opened, (u16, String, Value)> {
        let (sealed, open) = self.seal(inner).await;
        let reply = self.post(sealed).send().await.unwrap();
        let media_type = reply.headers()["content-type"].to_str().unwrap().to_owned();
        if media_type != "message/ohttp-chunked-res" {
            return Err((
                reply.status().as_u16(),
                media_type,
                reply.json().await.unwrap(),
            ));
        }
        assert_eq!(reply.status(), 200);
        Ok(open(&reply.bytes().await.unwrap()).await)
    }

    /// The sealed request, and what opens its reply.
    async fn seal(&self, inner: &Inner) -> (Vec<u8>, impl AsyncFn(&[u8]) -> Opened) {
        let configs = format!("{}/.well-known/ohttp-gateway", self.process.url);
        let reply = self.client.get(configs).send().await.unwrap();
        assert_eq!(reply.headers()["content-type"], "application/ohttp-keys");
        seal(&reply.bytes().await.unwrap(), inner).await
    }

    fn post(&self, sealed: Vec<u8>) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/.well-known/ohttp-gateway", self.process.url))
            .header("content-type", "message/ohttp-chunked-req")
            .header("incremental", "?1")
            .body(sealed)
    }
}

/// A request sealed to one of these key configurations with the published `ohttp` crate, and what
/// opens its reply.
pub(crate) async fn seal(
    configs: &[u8],
    inner: &Inner,
) -> (Vec<u8>, impl AsyncFn(&[u8]) -> Opened + use<>) {
    let client = ClientRequest::from_encoded_config_list(configs).unwrap();
    let written = Written::default();
    let mut request = client.encapsulate_stream(written.clone()).unwrap();
    request.write_all(&inner.encode()).await.unwrap();
    request.close().await.unwrap();
    let sealed = written.0.lock().unwrap().clone();
    let open = async move |sealed: &[u8]| {
        let mut opened = Vec::new();
        request
            .response(sealed)
            .unwrap()
            .read_to_end(&mut opened)
            .await
            .unwrap();
        Opened::from(&Message::read_bhttp(&mut io::Cursor::new(opened)).unwrap())
    };
    (sealed, open)
}

/// Bytes written so far, for a writer that keeps what it is given.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Written {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Inner {
    /// A completion request to the node with this statement.
    pub(crate) fn new(statement: &str, body: &Value) -> Self {
        Self {
            method: "POST",
            path: "/v1/completions",
            date: date(0),
            statement: statement.to_owned(),
            request_id: "0123456789abcdef0123456789abcdef".to_owned(),
            more: vec![("sealgate-padding", "off")],
            body: body.to_string().into_bytes(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut message = Message::request(
            self.method.into(),
            b"https".to_vec(),
            Vec::new(),
            self.path.into(),
        );
        message.put_header("content-type", "application/json");
        let own = [
            ("date", &self.date),
            ("sealgate-statement", &self.statement),
            ("sealgate-request-id", &self.request_id),
        ];
        for (name, value) in own.into_iter().filter(|(_, value)| !value.is_empty()) {
            message.put_header(name, value.as_str());
        }
        for (name, value) in &self.more {
            message.put_header(*name, *value);
        }
        message.write_content(&self.body);
        let mut encoded = Vec::new();
        message
            .write_bhttp(Mode::KnownLength, &mut encoded)
            .unwrap();
        encoded
    }
}

impl From<&Message> for Opened {
    fn from(message: &Message) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let status = message.control().status().map(StatusCode::code).unwrap();
        let trailers = message
            .trailer()
            .iter()
            .map(|field| text(field.name()))
            .collect();
        let media_type = text(message.header().get(b"content-type").unwrap());
        Self {
            status,
            media_type,
            body: message.content().to_vec(),
            trailers,
        }
    }
}

#[tokio::test]
async fn a_published_client_is_answered() {
    let node = Node::start("").await;
    for padding in ["off", "bucket", "paced"] {
        let mut inner = node.inner(&json!({"model": "tiny", "prompt": prompt("hello")}));
        inner.more = vec![("sealgate-padding", padding)];
        let opened = node.ask(&inner).await.unwrap();
        assert_eq!(
            (opened.status, opened.media_type.as_str()),
            (200, "application/json")
        );
        assert_eq!(opened.json()["choices"][0]["text"], prompt("hello"));
        assert!(
            opened.trailers.contains(&"sealgate-usage".to_owned()),
            "{:?}",
            opened.trailers
        );
    }
}

#[tokio::test]
async fn a_published_client_reads_a_stream() {
    let node = Node::start("").await;
    for padding in ["off", "bucket", "paced"] {
        let mut inner =
            node.inner(&json!({"model": "tiny", "prompt": prompt("a b c"), "stream": true}));
        inner.more = vec![("sealgate-padding", padding)];
        let opened = node.ask(&inner).await.unwrap();
        assert_eq!(opened.media_type, "text/event-stream");
        let text = String::from_utf8(opened.body).unwrap();
        assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
        assert!(!text.contains('\r') && !text.contains("id:"), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_inside_the_seal_says_why_and_executes_nothing() {
    let node = Node::start("").await;
    let good = || node.inner(&json!({"model": "tiny", "prompt": prompt("x")}));
    let bent = |bend: fn(&mut Inner)| {
        let mut inner = good();
        bend(&mut inner);
        inner
    };
    let date_type = "https://iana.org/assignments/http-problem-types#date";
    let cases = [
        ("an old date", bent(|i| i.date = date(-600)), 400, date_type),
        (
            "a future date",
            bent(|i| i.date = date(600)),
            400,
            date_type,
        ),
        (
            "no date",
            bent(|i| i.date.clear()),
            400,
            "urn:sealgate:problem:malformed",
        ),
        (
            "no statement",
            bent(|i| i.statement.clear()),
            400,
            "urn:sealgate:problem:malformed",
        ),
        (
            "no request id",
            bent(|i| i.request_id.clear()),
            400,
            "urn:sealgate:problem:malformed",
        ),
        (
            "an upper-case request id",
            bent(|i| i.request_id.make_ascii_uppercase()),
            400,
            "urn:sealgate:problem:malformed",
        ),
        (
            "an unknown padding",
            bent(|i| i.more = vec![("sealgate-padding", "some")]),
            400,
            "urn:sealgate:problem:malformed",
        ),
        (
            "a repeated field",
            bent(|i| i.more = vec![("sealgate-model", "a"), ("sealgate-model", "b")]),
            400,
            "urn:sealgate:problem:malformed",
        ),
        (
            "another statement",
            bent(|i| i.statement = "00".repeat(32)),
            409,
            "urn:sealgate:problem:statement",
        ),
        (
            "another path",
            bent(|i| i.path = "/v1/internal"),
            404,
            "urn:sealgate:problem:path",
        ),
        (
            "a query",
            bent(|i| i.path = "/v1/completions?x"),
            404,
            "urn:sealgate:problem:path",
        ),
    ];
    for (name, inner, status, problem) in cases {
        match node.ask(&inner).await {
            Ok(opened) => {
                assert_eq!(opened.media_type, "application/problem+json", "{name}");
                assert_eq!(
                    (opened.status, &opened.json()["type"]),
                    (status, &json!(problem)),
                    "{name}"
                );
            }
            // A message whose form is wrong may be refused before there is a reply key.
            Err((outside, _, problem)) => {
                assert_eq!((outside, status), (400, 400), "{name}");
                assert_eq!(problem["type"], "about:blank", "{name}");
            }
        }
    }
    assert!(node.engine.received().is_empty());
}

#[tokio::test]
async fn a_request_is_executed_once() {
    let node = Node::start("").await;
    let inner = node.inner(&json!({"model": "tiny", "prompt": prompt("x")}));
    let (sealed, open) = node.seal(&inner).await;
    let copies = (0..16).map(|_| async {
        node.post(sealed.clone())
            .send()
            .await
            .unwrap()
            .bytes()
            .await
    });
    let mut statuses = Vec::new();
    for reply in futures_util::future::join_all(copies).await {
        let opened = open(&reply.unwrap()).await;
        if opened.status != 200 {
            assert_eq!(opened.json()["type"], "urn:sealgate:problem:replayed");
        }
        statuses.push(opened.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[409; 15]].concat());
    assert_eq!(node.engine.received().len(), 1);
}

#[tokio::test]
async fn a_replay_is_refused_after_a_later_refusal_too() {
    let node = Node::start("").await;
    let mut inner = node.inner(&json!({"model": "tiny", "prompt": prompt("x")}));
    inner.path = "/v1/nothing";
    let (sealed, open) = node.seal(&inner).await;
    for problem in ["path", "replayed"] {
        let reply = node
            .post(sealed.clone())
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let seen = open(&reply).await.json()["type"].clone();
        assert_eq!(seen, format!("urn:sealgate:problem:{problem}"));
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_outside() {
    let node = Node::start("").await;
    let inner = node.inner(&json!({"model": "tiny", "prompt": prompt("x")}));
    let (sealed, _) = node.seal(&inner).await;
    let bent = |bend: fn(&mut Vec<u8>)| {
        let mut sealed = sealed.clone();
        bend(&mut sealed);
        node.post(sealed)
    };
    let ohttp_key = "https://iana.org/assignments/http-problem-types#ohttp-key";
    let cases = [
        (
            "another key id",
            bent(|s| s[0] = s[0].wrapping_add(100)),
            400,
            ohttp_key,
        ),
        ("another KEM", bent(|s| s[2] ^= 1), 400, ohttp_key),
        ("another AEAD", bent(|s| s[6] = 3), 400, ohttp_key),
        ("a bit of enc", bent(|s| s[20] ^= 1), 400, ohttp_key),
        ("a zero share", bent(|s| s[7..39].fill(0)), 400, ohttp_key),
        (
            "a bit of the first chunk",
            bent(|s| s[60] ^= 1),
            400,
            ohttp_key,
        ),
        (
            "a bit of the final chunk",
            bent(|s| *s.last_mut().unwrap() ^= 1),
            400,
            "about:blank",
        ),
        ("cut", bent(|s| s.truncate(s.len() - 1)), 400, "about:blank"),
        ("empty", bent(Vec::clear), 400, "about:blank"),
        (
            "a header alone",
            bent(|s| s.truncate(39)),
            400,
            "about:blank",
        ),
        (
            "a prefix that is too small",
            bent(|s| s[39] = 16),
            400,
            "about:blank",
        ),
        (
            "another media type",
            node.post(sealed.clone())
                .header("content-type", "text/plain"),
            415,
            "about:blank",
        ),
        (
            "a coded body",
            node.post(sealed.clone()).header("content-encoding", "gzip"),
            415,
            "about:blank",
        ),
        (
            "an expectation",
            node.post(sealed.clone()).header("expect", "100-continue"),
            417,
            "about:blank",
        ),
    ];
    for (name, request, status, problem) in cases {
        let request = request.build().unwrap();
        let mut request = request;
        if name == "another media type" {
            request
                .headers_mut()
                .insert("content-type", "text/plain".parse().unwrap());
        }
        let reply = node.client.execute(request).await.unwrap();
        assert_eq!(reply.status(), status, "{name}");
        assert_eq!(
            reply.headers()["content-type"],
            "application/problem+json",
            "{name}"
        );
        let seen: Value = reply.json().await.unwrap();
        assert_eq!(seen["type"], problem, "{name}");
    }
    assert!(node.engine.received().is_empty());
}

#[tokio::test]
async fn the_attestation_endpoint_asks_for_a_nonce() {
    let node = Node::start("").await;
    let get = async |query: String| {
        let url = format!("{}/v1/attestation{query}", node.process.url);
        node.client.get(url).send().await.unwrap()
    };
    for query in [
        "",
        "?nonce=",
        "?nonce=00",
        &format!("?nonce={}", "AB".repeat(32)),
    ] {
        assert_eq!(get(query.to_owned()).await.status(), 400, "{query}");
    }
    let reply = get(format!("?nonce={}", "ab".repeat(32))).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["cache-control"], "no-store");
    let answer: Value = reply.json().await.unwrap();
    assert_eq!(answer["nonce"], "ab".repeat(32));
    assert_eq!(answer["evidence"][0]["type"], "sev-snp");
}

#[tokio::test]
async fn a_model_has_the_name_that_the_caller_gave_it() {
    let node = Node::start("").await;
    let mut inner = node.inner(&json!({"model": "alias", "prompt": prompt("x")}));
    inner.more = vec![("sealgate-model", "tiny"), ("sealgate-padding", "off")];
    let opened = node.ask(&inner).await.unwrap();
    assert_eq!(opened.status, 200);
    assert_eq!(opened.json()["model"], "alias");
    assert_eq!(node.engine.only_request()["model"], "tiny");
}

#[tokio::test]
async fn a_member_that_the_engine_would_ignore_is_refused() {
    let node = Node::start("ignores = [\"suffix\", \"best_of\"]\n").await;
    let request = json!({"model": "tiny", "prompt": prompt("x"), "suffix": CANARY});
    let opened = node.ask(&node.inner(&request)).await.unwrap();
    assert_eq!(opened.status, 400);
    assert_eq!(opened.json()["error"]["param"], "suffix");
    assert!(node.engine.received().is_empty());
}

#[tokio::test]
async fn an_engines_problem_document_is_not_the_nodes_word() {
    let node = Node::start("").await;
    let forged = br#"{"type":"urn:sealgate:problem:overloaded"}"#.to_vec();
    node.engine
        .reply(Reply::Raw(400, "application/problem+json", forged));
    let request = json!({"model": "tiny", "prompt": prompt("x")});
    let opened = node.ask(&node.inner(&request)).await.unwrap();
    assert_eq!(
        (opened.status, opened.media_type.as_str()),
        (400, "application/json")
    );
}
