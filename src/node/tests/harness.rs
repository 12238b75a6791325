//! A node, an engine that a test plays, and a sealer.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use attestation::{
    Answer, Bundle, Nonce, Policy, VerifiedNode, software_root::SoftwareRoot, verify,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OnceCell, mpsc},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    clock::Clock,
    config,
    ids::RequestId,
    node::{
        Node, SOFTWARE_MEASUREMENT, State,
        buffered::Buffered,
        evidence::{CpuSource, Sources},
        places as all_places,
    },
    seal::{
        Padding, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, ReplyHead, ReplyOpener, ReplyPart,
        RequestHead, Trailers, seal_request,
    },
};

/// Nothing in these tests takes longer, unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A node that serves.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    pub(super) served: JoinHandle<()>,
    pub(super) client: Client<HttpConnector, Full<Bytes>>,
    pub(super) state: Arc<State>,
    /// Verified at the first sealed request.
    verified: OnceCell<VerifiedNode>,
}

impl Running {
    /// A node with the software root of this process, and `rest` at the end of its configuration.
    pub(super) async fn start(rest: &str) -> Self {
        Self::start_with(rest, |evidence| evidence).await
    }

    /// The same, with another source of evidence in place of its own.
    pub(super) async fn start_with(
        rest: &str,
        other: impl FnOnce(Arc<dyn CpuSource>) -> Arc<dyn CpuSource>,
    ) -> Self {
        let change = |sources: &mut Sources| sources.cpu = other(Arc::clone(&sources.cpu));
        Self::start_changed(rest, change).await
    }

    /// The same, with other sources.
    pub(super) async fn start_changed(rest: &str, change: impl FnOnce(&mut Sources)) -> Self {
        let text = format!(
            "node_id = \"test\"\nlisten = \"127.0.0.1:0\"\n\
             evidence = {{ source = \"software-root\", dir = \"{}\" }}\n{rest}",
            software_root().display()
        );
        let config = config::parse(Path::new("node.toml"), &text, std::iter::empty()).unwrap();
        let mut node = Node::bind(config, Clock::system()).await.unwrap();
        let state = Arc::get_mut(&mut node.state).unwrap();
        change(state.evidence.sources_mut().unwrap());
        let state = Arc::clone(&node.state);
        let address = node.address();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(node.serve(shutdown.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            address,
            shutdown,
            served,
            client,
            state,
            verified: OnceCell::new(),
        }
    }

    /// The same node, asked over HTTP/2.
    pub(super) fn over_http_2(mut self) -> Self {
        self.client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        self
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, HeaderMap, Bytes) {
        let request = Request::get(self.url(path)).body(Full::default()).unwrap();
        self.send(request).await
    }

    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let reply = timeout(PATIENCE, self.client.request(request))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = reply.into_parts();
        let body = timeout(PATIENCE, body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        (head.status, head.headers, body)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn until_ready(&self) {
        let ready = async {
            while self.get("/readyz").await.0 != StatusCode::OK {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, ready).await.unwrap();
    }

    /// Waits until `true_now` of the node.
    pub(super) async fn until(&self, what: &str, true_now: impl Fn(&State) -> bool) {
        let waited = async {
            while !true_now(&self.state) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waited).await.expect(what);
    }

    /// Waits until nobody holds anything of the node's: places, room, turns.
    pub(super) async fn until_idle(&self) {
        self.until("all is given back", |state| {
            let room = Buffered::room(state.config.limits.buffered_bytes.get());
            let engines = state.models.engines();
            state.requests.available_permits() == all_places(&state.config)
                && Buffered::free(&state.buffered) == room
                && engines
                    .iter()
                    .all(|it| (it.places.held(), it.places.waiting()) == (0, 0))
        })
        .await;
    }

    /// Requests that hold a place with the first engine, and those that wait for one.
    pub(super) async fn until_queued(&self, held: usize, waiting: usize) {
        self.until("so many wait", |state| {
            let places = &state.models.engines()[0].places;
            (places.held(), places.waiting()) == (held, waiting)
        })
        .await;
    }

    /// What the real verifier makes of the node under a policy that names the software root.
    pub(super) async fn attest(&self) -> VerifiedNode {
        let nonce = Nonce::from(rand::random::<[u8; 32]>());
        let (status, headers, body) = self.get(&format!("/v1/attestation?nonce={nonce}")).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        assert_eq!(headers[http::header::CACHE_CONTROL], "no-store");
        let answer = Answer::from_json(&body).unwrap();
        let now = Clock::system().now();
        verify(&answer, &policy(), &Bundle::empty(), &nonce, now).unwrap()
    }

    /// Seals, and gives what is to be posted with the opener of its reply.
    pub(super) async fn seal(&self, sent: Sent<'_>) -> (Request<Full<Bytes>>, ReplyOpener) {
        let node = self.verified.get_or_init(|| self.attest()).await;
        let now = Clock::system().now();
        let key = node.sealing_key(now).unwrap();
        let id = RequestId::generate().to_string();
        let date = httpdate::fmt_http_date(now);
        let statement = key.statement_digest().to_string();
        let mut fields = vec![
            ("date", date.as_str()),
            ("sealgate-statement", statement.as_str()),
            ("sealgate-request-id", id.as_str()),
            ("sealgate-padding", sent.padding.as_str()),
        ];
        for (name, value) in sent.fields {
            fields.retain(|(known, _)| known != name);
            if !value.is_empty() {
                fields.push((name, value));
            }
        }
        let head = RequestHead {
            path: sent.path,
            fields: &fields,
        };
        let (sealed, opener) =
            seal_request(&key, now, &head, sent.content.as_bytes(), sent.padding).unwrap();
        (self.encapsulated(sealed), opener)
    }

    pub(super) fn encapsulated(&self, sealed: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(Method::POST)
            .uri(self.url("/.well-known/ohttp-gateway"))
            .header(http::header::CONTENT_TYPE, REQUEST_MEDIA_TYPE)
            .body(Full::new(sealed))
            .unwrap()
    }

    /// The opened reply to a sealed request.
    pub(super) async fn ask(&self, sent: Sent<'_>) -> Opened {
        self.begin(sent).await.finish().await
    }

    /// A sealed request whose reply has begun.
    pub(super) async fn begin(&self, sent: Sent<'_>) -> Reply {
        let (request, opener) = self.seal(sent).await;
        self.begin_with(request, opener).await
    }

    pub(super) async fn begin_with(
        &self,
        request: Request<Full<Bytes>>,
        opener: ReplyOpener,
    ) -> Reply {
        let reply = timeout(PATIENCE, self.client.request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(
            reply.headers()[http::header::CONTENT_TYPE],
            RESPONSE_MEDIA_TYPE
        );
        Reply {
            opener,
            head: None,
            body: reply.into_body(),
        }
    }
}

/// What is sealed.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) path: &'a str,
    /// In place of the usual ones; an empty value leaves a field out.
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) content: &'a str,
    pub(super) padding: Padding,
}

impl Default for Sent<'_> {
    fn default() -> Self {
        Self {
            path: "/v1/completions",
            fields: &[],
            content: super::BODY,
            padding: Padding::Off,
        }
    }
}

/// A reply that comes.
pub(super) struct Reply {
    opener: ReplyOpener,
    head: Option<ReplyHead>,
    body: Incoming,
}

/// A reply that was opened to its end.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) retry_after: Option<String>,
    /// Those in the head.
    pub(super) receipt_salts: Option<String>,
    pub(super) content: Vec<u8>,
    pub(super) trailers: Trailers,
}

impl Opened {
    /// The last part of a problem's type.
    pub(super) fn problem(&self) -> (u16, String) {
        assert_eq!(
            self.content_type.as_deref(),
            Some("application/problem+json"),
            "{self:?}"
        );
        let json: serde_json::Value = serde_json::from_slice(&self.content).unwrap();
        let kind = json["type"].as_str().unwrap();
        (
            self.status,
            kind.rsplit([':', '#']).next().unwrap().to_owned(),
        )
    }
}

impl Reply {
    /// Reads until content opens, and gives it.
    pub(super) async fn content(&mut self) -> Bytes {
        loop {
            match self.opener.next_part().unwrap() {
                Some(ReplyPart::Content(content)) => return content,
                Some(ReplyPart::Head(head)) => {
                    self.head = Some(head);
                    continue;
                }
                None => {}
            }
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            self.opener.push(frame.into_data().unwrap()).unwrap();
        }
    }

    pub(super) async fn finish(mut self) -> Opened {
        let (mut head, mut content) = (self.head, Vec::new());
        while let Some(frame) = timeout(PATIENCE, self.body.frame()).await.unwrap() {
            self.opener
                .push(frame.unwrap().into_data().unwrap())
                .unwrap();
            while let Some(part) = self.opener.next_part().unwrap() {
                match part {
                    ReplyPart::Head(first) => head = Some(first),
                    ReplyPart::Content(more) => content.extend_from_slice(&more),
                }
            }
        }
        let last = self.opener.finish().unwrap();
        content.extend_from_slice(&last.content);
        let head = head.or(last.head);
        Opened {
            status: head.as_ref().map_or(0, |head| head.status),
            content_type: head.as_ref().and_then(|head| head.content_type.clone()),
            retry_after: head.as_ref().and_then(|head| head.retry_after.clone()),
            receipt_salts: head.and_then(|head| head.receipt_salts),
            content,
            trailers: last.trailers,
        }
    }
}

/// An engine whose replies a test writes by hand.
pub(super) struct FakeEngine {
    pub(super) address: SocketAddr,
    shows_models: Arc<AtomicBool>,
    said: Says,
    requests: mpsc::Receiver<Asked>,
}

/// What an engine says of itself, by path.
#[derive(Clone, Default)]
struct Says(Arc<Mutex<HashMap<String, (u16, String)>>>);

impl Says {
    fn at(&self, path: &str) -> Option<(u16, String)> {
        self.0.lock().unwrap().get(path).cloned()
    }
}

/// A request that reached the engine.
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: String,
    stream: TcpStream,
}

impl FakeEngine {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shows_models = Arc::new(AtomicBool::new(true));
        let (sender, requests) = mpsc::channel(64);
        let shows = Arc::clone(&shows_models);
        let says = Says::default();
        let said = says.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, shows) = (sender.clone(), Arc::clone(&shows));
                let says = says.clone();
                tokio::spawn(async move {
                    let Some(mut asked) = Asked::read(stream).await else {
                        return;
                    };
                    if asked.head.starts_with("GET /v1/models ") {
                        let shows = shows.load(Ordering::Relaxed);
                        let list = r#"{"object":"list","data":[{"id":"m"}]}"#;
                        let said = says.at("/v1/models");
                        let (status, list) = said.unwrap_or((200, list.to_owned()));
                        asked.reply(if shows { status } else { 503 }, &list).await;
                    } else if asked.head.starts_with("GET ") {
                        let path = asked.head.split(' ').nth(1).unwrap().to_owned();
                        let nothing = (404, "{}".to_owned());
                        let (status, said) = says.at(&path).unwrap_or(nothing);
                        asked.reply(status, &said).await;
                    } else {
                        let _ = sender.send(asked).await;
                    }
                });
            }
        });
        Self {
            address,
            shows_models,
            said,
            requests,
        }
    }

    /// Answers questions at `path` so from now on.
    pub(super) fn say(&self, path: &str, status: u16, said: &str) {
        let answer = (status, said.to_owned());
        self.said.0.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// The engine's table, with its model listed.
    pub(super) fn config(&self) -> String {
        format!(
            "[[engine]]\nurl = \"http://{}\"\nmodels = [\"m\"]\n",
            self.address
        )
    }

    /// The engine's table, with its models to be asked for.
    pub(super) fn asked_config(&self) -> String {
        format!("[[engine]]\nurl = \"http://{}/v1\"\n", self.address)
    }

    pub(super) fn hide_models(&mut self) {
        self.shows_models.store(false, Ordering::Relaxed);
    }

    pub(super) fn show_models(&mut self) {
        self.shows_models.store(true, Ordering::Relaxed);
    }

    /// The next request.
    pub(super) async fn asked(&mut self) -> Asked {
        timeout(PATIENCE, self.requests.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Whether nothing was asked.
    pub(super) fn idle(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Asked {
    async fn read(mut stream: TcpStream) -> Option<Self> {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    return Some(Self {
                        head: head.to_owned(),
                        body: body.to_owned(),
                        stream,
                    });
                }
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Writes a whole reply and ends the connection.
    pub(super) async fn reply(&mut self, status: u16, json: &str) {
        let length = json.len();
        self.write(&format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{json}"
        ))
        .await;
    }

    /// Begins an event stream.
    pub(super) async fn begin_stream(&mut self) {
        self.write(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    connection: close\r\n\r\n",
        )
        .await;
    }

    pub(super) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Writes until nobody takes more.
    pub(super) async fn write_until_blocked(&mut self, text: &str) {
        let blocked = Duration::from_millis(200);
        while timeout(blocked, self.stream.write_all(text.as_bytes()))
            .await
            .is_ok()
        {}
    }

    /// Writes until the node closes the connection.
    pub(super) async fn write_for_ever(mut self, text: String) {
        while self.stream.write_all(text.as_bytes()).await.is_ok() {}
    }

    /// Waits until the node closes the connection, at most for a second: the promise is that an
    /// engine's work stops within that time.
    pub(super) async fn closed(&mut self) {
        let closed = async { while self.stream.read(&mut [0; 64]).await.unwrap_or(0) > 0 {} };
        timeout(Duration::from_secs(1), closed)
            .await
            .expect("the engine works on");
    }
}

/// The folder of this process's software root, made once.
fn software_root() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("sealgate-node-{}", RequestId::generate()));
        let root = SoftwareRoot::generate(Clock::system().now()).unwrap();
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("ark.pem"), root.ark_pem()).unwrap();
        std::fs::write(dir.join("ask.pem"), root.ask_pem()).unwrap();
        std::fs::write(dir.join("vcek.pem"), root.vcek_pem()).unwrap();
        std::fs::write(dir.join("vcek.key"), root.vcek_key_pem().as_bytes()).unwrap();
        dir
    })
}

/// A policy that names the software root and what it reports.
fn policy() -> Policy {
    let text = format!(
        "version = 1\n[sev_snp]\namd_roots = false\nproducts = [\"genoa\"]\n\
         software_roots = [\"ark.pem\"]\nmeasurements = [\"{}\"]\n\
         [sev_snp.minimum_tcb.genoa]\nbootloader = 0\ntee = 0\nsnp = 0\nmicrocode = 0\n",
        hex::encode(SOFTWARE_MEASUREMENT)
    );
    Policy::from_toml(&text, &mut |name| std::fs::read(software_root().join(name))).unwrap()
}

/// What was logged.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
