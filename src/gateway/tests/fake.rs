//! A node whose replies a test plays: real evidence of a software root, a real seal.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use attestation::{
    Answer, Dialect, Nonce, binding,
    software_root::{SoftwareRoot, SoftwareSigner},
    statement::{ClaimedKey, Draft, EngineLocation, Software, Suite},
};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION},
};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, unix_seconds},
    listener::{Limits, serve_connections},
    seal::{
        Kem, NodeSecret, OpenedRequest, OpeningKeys, Padding, RESPONSE_MEDIA_TYPE, ReceiptKey,
        ReplySealer, RequestOpener, StreamSealer,
    },
};

/// Who is named so says that its engines are attested nodes.
pub(crate) const A_GATEWAY: &str = "a-gateway";
pub(crate) const MEASUREMENT: [u8; 48] = [7; 48];
const KEY_PROBLEM: &str = r#"{"type":"https://iana.org/assignments/http-problem-types#ohttp-key"}"#;

type Playing = Pin<Box<dyn Future<Output = Response<FakeBody>> + Send>>;
type Script = Arc<dyn Fn(Asked) -> Playing + Send + Sync>;

/// A request that the fake node opened.
pub(super) struct Asked {
    pub(super) request: OpenedRequest,
    pub(super) sealer: ReplySealer,
}

/// A request that the fake node got as somebody else made it.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

type Carrying = Arc<dyn Fn(Carried) -> Playing + Send + Sync>;

/// A body that a test writes.
pub(super) struct FakeBody(mpsc::Receiver<Result<Bytes, Broken>>);

/// Breaks the connection.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
pub(super) struct Broken;

impl Body for FakeBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0
            .poll_recv(cx)
            .map(|item| item.map(|item| item.map(Frame::data)))
    }
}

/// The other end of a [`FakeBody`].
pub(super) type Writer = mpsc::Sender<Result<Bytes, Broken>>;

pub(super) fn body() -> (Writer, FakeBody) {
    let (writer, reader) = mpsc::channel(64);
    (writer, FakeBody(reader))
}

pub(super) fn plain(status: u16, media_type: &str, content: Bytes) -> Response<FakeBody> {
    let (writer, body) = body();
    writer.try_send(Ok(content)).unwrap();
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, media_type)
        .body(body)
        .unwrap()
}

impl Asked {
    pub(super) fn field(&self, name: &str) -> Option<String> {
        self.request.fields.get(name).map(str::to_owned)
    }

    /// A whole reply.
    pub(super) fn whole(
        self,
        status: u16,
        fields: &[(&str, &str)],
        content: &str,
        trailers: &[(&str, &str)],
    ) -> Response<FakeBody> {
        let content = content.as_bytes();
        let sealed = self
            .sealer
            .seal_whole(status, fields, content, trailers, Padding::Bucket);
        plain(200, RESPONSE_MEDIA_TYPE, sealed.unwrap())
    }

    pub(super) fn json(self, status: u16, content: &str) -> Response<FakeBody> {
        self.whole(
            status,
            &[("content-type", "application/json")],
            content,
            &[],
        )
    }

    pub(super) fn problem(self, status: u16, kind: &str) -> Response<FakeBody> {
        let content = format!(r#"{{"type":"urn:sealgate:problem:{kind}"}}"#);
        self.whole(
            status,
            &[("content-type", "application/problem+json")],
            &content,
            &[],
        )
    }

    /// An event stream whose chunks the test writes.
    pub(super) fn stream(self) -> (StreamSealer, Writer, Response<FakeBody>) {
        self.stream_with(&[])
    }

    /// The same with more fields in its head.
    pub(super) fn stream_with(
        self,
        more: &[(&str, &str)],
    ) -> (StreamSealer, Writer, Response<FakeBody>) {
        let fields = [&[("content-type", "text/event-stream")], more].concat();
        let sealer = self.sealer.into_stream(200, &fields, Padding::Off).unwrap();
        let (writer, body) = body();
        let response = Response::builder()
            .header(CONTENT_TYPE, RESPONSE_MEDIA_TYPE)
            .body(body);
        (sealer, writer, response.unwrap())
    }
}

/// Whose keys a machine holds that answers in another's place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    New,
    /// Those of the one before.
    Same,
    /// A new one, and the one before's beside it.
    Rotated,
}

/// What every fake node signs receipts with.
pub(super) fn receipt_key() -> ReceiptKey {
    ReceiptKey::from_seed(&[9; 32]).unwrap()
}

struct Identity {
    keys: OpeningKeys,
    claimed: Vec<ClaimedKey>,
    seed_key: [u8; 32],
    statement: Vec<u8>,
}

impl Identity {
    fn new(name: &str, tls_spki_sha256: Option<[u8; 32]>) -> Self {
        Self::of(Suite::X25519, name, tls_spki_sha256)
    }

    /// One with a key of one suite alone.
    fn of(suite: Suite, name: &str, tls_spki_sha256: Option<[u8; 32]>) -> Self {
        let mut own = (
            OpeningKeys::new(),
            vec![claimed(200, Dialect::Seed.suite()).1],
        );
        generate_key_of(suite, 3, &mut own);
        Self::with(own, name, tls_spki_sha256)
    }

    fn after(&self, name: &str, keys: Keys, tls_spki_sha256: Option<[u8; 32]>) -> Self {
        let mut own = (self.keys.clone(), self.claimed.clone());
        match keys {
            Keys::New => return Self::new(name, tls_spki_sha256),
            Keys::Same => {}
            Keys::Rotated => generate_key(4, &mut own),
        }
        Self::with(own, name, tls_spki_sha256)
    }

    fn with(
        (keys, claimed): (OpeningKeys, Vec<ClaimedKey>),
        name: &str,
        tls_spki_sha256: Option<[u8; 32]>,
    ) -> Self {
        let draft = Draft {
            node_id: name.to_owned(),
            keys: claimed.clone(),
            receipt_key: receipt_key().public_key().unwrap(),
            tls_spki_sha256,
            models: vec!["m".to_owned(), "org/n".to_owned()],
            engine: match name {
                A_GATEWAY => EngineLocation::Attested,
                _ => EngineLocation::Local,
            },
            config_sha256: [8; 32],
            software: Software {
                name: "fake".to_owned(),
                version: "1".to_owned(),
                commit: String::new(),
            },
        };
        let seed_key = *claimed.last().unwrap().public_key.x25519().unwrap();
        Self {
            keys,
            claimed,
            seed_key,
            statement: draft.to_json().unwrap(),
        }
    }
}

/// Puts a fresh key before the others.
fn generate_key(key_id: u8, own: &mut (OpeningKeys, Vec<ClaimedKey>)) {
    generate_key_of(Suite::X25519, key_id, own);
}

fn generate_key_of(suite: Suite, key_id: u8, (keys, all): &mut (OpeningKeys, Vec<ClaimedKey>)) {
    let (secret, key) = claimed(key_id, suite);
    all.insert(0, key);
    keys.insert(key_id, secret);
}

fn claimed(key_id: u8, suite: Suite) -> (NodeSecret, ClaimedKey) {
    let kem = if suite == Suite::XWing {
        Kem::XWing
    } else {
        Kem::X25519
    };
    let secret = NodeSecret::generate(kem).unwrap();
    let now = unix_seconds(Clock::system().now());
    let key = ClaimedKey {
        key_id,
        suite,
        public_key: secret.public_key(),
        not_before: now - 60,
        not_after: now + 3600,
    };
    (secret, key)
}

/// The node.
pub(crate) struct FakeNode {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    name: String,
    tls_spki_sha256: Option<[u8; 32]>,
    identity: Mutex<Arc<Identity>>,
    script: Mutex<Script>,
    /// In place of it, for requests as they come.
    carrying: Mutex<Option<Carrying>>,
    /// Where requests for evidence are sent on to.
    redirect: Mutex<Option<String>>,
    lies: Mutex<bool>,
    /// Whether evidence is given, or held back for now.
    gives: watch::Sender<bool>,
    attested: watch::Sender<usize>,
    asked: AtomicUsize,
    ready: AtomicU16,
    /// Of all that came, as they were before they were encoded for their protocol.
    heads: Mutex<Vec<u8>>,
}

impl FakeNode {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_pinned(name, None).await
    }

    /// A node whose statement names the certificate of its connections.
    pub(crate) async fn start_pinned(name: &str, tls_spki_sha256: Option<[u8; 32]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            identity: Mutex::new(Arc::new(Identity::new(name, tls_spki_sha256))),
            tls_spki_sha256,
            script: Mutex::new(Arc::new(|asked| {
                Box::pin(async move { asked.json(200, r#"{"object":"text_completion"}"#) })
            })),
            carrying: Mutex::default(),
            redirect: Mutex::default(),
            lies: Mutex::new(false),
            gives: watch::Sender::new(true),
            attested: watch::Sender::new(0),
            asked: AtomicUsize::new(0),
            ready: AtomicU16::new(200),
            heads: Mutex::default(),
        });
        let service = {
            let shared = Arc::clone(&shared);
            service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            })
        };
        let patience = Duration::from_secs(60);
        let limits = Limits {
            connections: 1024,
            head_timeout: patience,
            idle_timeout: patience,
            write_timeout: patience,
            shutdown_timeout: Duration::ZERO,
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve_connections(listener, service, limits, stop.clone()));
        Self {
            address,
            shared,
            stop,
        }
    }

    /// Plays `script` for every request from now on.
    pub(super) fn play<F, P>(&self, script: F)
    where
        F: Fn(Asked) -> P + Send + Sync + 'static,
        P: Future<Output = Response<FakeBody>> + Send + 'static,
    {
        *self.shared.script.lock().unwrap() = Arc::new(move |asked| Box::pin(script(asked)));
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<u8> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Plays `script` for every request as it comes, sealed or not, from now on.
    pub(super) fn carry<F, P>(&self, script: F)
    where
        F: Fn(Carried) -> P + Send + Sync + 'static,
        P: Future<Output = Response<FakeBody>> + Send + 'static,
    {
        let script: Carrying = Arc::new(move |carried| Box::pin(script(carried)));
        *self.shared.carrying.lock().unwrap() = Some(script);
    }

    /// Sends whoever asks for evidence on to `url` from now on.
    pub(super) fn redirect(&self, url: String) {
        *self.shared.redirect.lock().unwrap() = Some(url);
    }

    /// The public key of the seed's format.
    pub(super) fn seed_key(&self) -> [u8; 32] {
        self.shared.identity.lock().unwrap().seed_key
    }

    /// New keys and a new statement, as after a restart.
    pub(crate) fn restart(&self) {
        *self.shared.identity.lock().unwrap() = Arc::new(Identity::new(
            &self.shared.name,
            self.shared.tls_spki_sha256,
        ));
    }

    /// The same with a key of one suite alone.
    pub(super) fn restart_with(&self, suite: Suite) {
        *self.shared.identity.lock().unwrap() = Arc::new(Identity::of(
            suite,
            &self.shared.name,
            self.shared.tls_spki_sha256,
        ));
    }

    /// Another machine answers at this address.
    pub(crate) fn replace(&self, name: &str, keys: Keys) {
        let mut identity = self.shared.identity.lock().unwrap();
        let next = identity.after(name, keys, self.shared.tls_spki_sha256);
        *identity = Arc::new(next);
    }

    /// Gives evidence for another statement from now on.
    pub(super) fn lie(&self) {
        *self.shared.lies.lock().unwrap() = true;
    }

    /// Holds evidence back until it is to be given again.
    pub(crate) fn give(&self, gives: bool) {
        self.shared.gives.send_replace(gives);
    }

    pub(crate) fn attested(&self) -> usize {
        *self.shared.attested.borrow()
    }

    /// Waits until it was asked for evidence so often.
    pub(crate) async fn until_attested(&self, times: usize) {
        let mut attested = self.shared.attested.subscribe();
        attested.wait_for(|asked| *asked >= times).await.unwrap();
    }

    /// What it says from now on when it is asked whether it is ready.
    pub(crate) fn be_ready(&self, status: u16) {
        self.shared.ready.store(status, Ordering::Relaxed);
    }

    /// Requests that arrived, opened or not.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn keep_head(&self, request: &Request<Incoming>) {
        let mut heads = self.heads.lock().unwrap();
        let line = format!("{} {}\n", request.method(), request.uri());
        heads.extend_from_slice(line.as_bytes());
        for (name, value) in request.headers() {
            let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"];
            heads.extend(parts.concat());
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<FakeBody> {
        let identity = Arc::clone(&self.identity.lock().unwrap());
        self.keep_head(&request);
        if request.uri().path() == "/v1/attestation" {
            self.attested.send_modify(|asked| *asked += 1);
            let mut gives = self.gives.subscribe();
            gives.wait_for(|gives| *gives).await.unwrap();
            let redirect = self.redirect.lock().unwrap().clone();
            if let Some(url) = redirect {
                let mut response = plain(302, "text/plain", Bytes::new());
                let url = format!("{url}{}", path_of(request.uri()));
                response
                    .headers_mut()
                    .insert(LOCATION, url.parse().unwrap());
                return response;
            }
            let nonce = request
                .uri()
                .query()
                .unwrap()
                .strip_prefix("nonce=")
                .unwrap();
            let answer = self.evidence(&identity, nonce.parse().unwrap());
            return plain(200, "application/json", answer.into());
        }
        if request.uri().path() == "/readyz" {
            let status = self.ready.load(Ordering::Relaxed);
            return plain(status, "application/json", Bytes::new());
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let carrying = self.carrying.lock().unwrap().clone();
        if let Some(script) = carrying {
            let (head, body) = request.into_parts();
            let carried = Carried {
                method: head.method,
                path: path_of(&head.uri),
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            };
            return script(carried).await;
        }
        assert_eq!(path_of(request.uri()), "/.well-known/ohttp-gateway");
        assert_eq!(request.headers()["incremental"], "?1");
        assert_eq!(request.headers()["cache-control"], "no-store");
        assert!(!request.headers().contains_key("authorization"));
        let sealed = request.into_body().collect().await.unwrap().to_bytes();
        let mut opener = RequestOpener::new(Default::default());
        let opened = opener
            .push(&identity.keys, sealed)
            .and_then(|()| opener.finish());
        let Ok((request, sealer)) = opened else {
            return plain(400, "application/problem+json", KEY_PROBLEM.into());
        };
        let script = Arc::clone(&self.script.lock().unwrap());
        script(Asked { request, sealer }).await
    }

    fn evidence(&self, identity: &Identity, nonce: Nonce) -> Vec<u8> {
        let statement = &identity.statement;
        let mut digest = attestation::StatementDigest::of(statement);
        if *self.lies.lock().unwrap() {
            digest = attestation::StatementDigest::of(b"another");
        }
        let report_data = binding::report_data(&digest, &nonce, &[]);
        let item = signer().evidence(report_data, MEASUREMENT).unwrap();
        let answer = Answer {
            statement: statement.clone(),
            nonce,
            evidence: vec![item],
        };
        answer.to_json().unwrap()
    }
}

/// Path and query, whatever protocol they came in.
fn path_of(uri: &Uri) -> String {
    uri.path_and_query().unwrap().to_string()
}

pub(super) fn root() -> &'static SoftwareRoot {
    static ROOT: OnceLock<SoftwareRoot> = OnceLock::new();
    ROOT.get_or_init(|| SoftwareRoot::generate(Clock::system().now()).unwrap())
}

fn signer() -> SoftwareSigner {
    let root = root();
    SoftwareSigner::from_pem(root.vcek_key_pem(), root.vcek_pem(), root.ask_pem()).unwrap()
}

/// A folder with a policy that names the software root of this process.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let name = format!("sealgate-gateway-test-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ark.pem"), root().ark_pem()).unwrap();
        let policy = format!(
            "version = 1\n[sev_snp]\nsoftware_roots = [\"ark.pem\"]\nproducts = [\"genoa\"]\n\
             measurements = [\"{}\"]\n[sev_snp.minimum_tcb.genoa]\n\
             bootloader = 0\ntee = 0\nsnp = 0\nmicrocode = 0\n",
            hex::encode(MEASUREMENT)
        );
        std::fs::write(folder.join("policy.toml"), policy).unwrap();
        folder
    })
}

/// A problem of status 503 outside the seal.
pub(super) fn outside() -> Response<FakeBody> {
    let mut response = plain(
        503,
        "application/problem+json",
        r#"{"type":"about:blank"}"#.into(),
    );
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
