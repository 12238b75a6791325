//! The head in its file, and a receiver on this machine.

use std::sync::Mutex;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::{
    config::store::{StoreConfig, StoreUrl},
    store::{Event, What},
};

/// What a receiver got: the path, the token, and the content.
type Got = (String, Option<String>, Value);

/// A server that takes heads: what it got, and what it answers.
#[derive(Clone)]
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}/heads?of=us", listener.local_addr().unwrap()),
            got: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::NO_CONTENT)),
        };
        let served = receiver.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let one = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| one.clone().answer(request));
                    let connection = http1::Builder::new();
                    let _ = connection
                        .serve_connection(TokioIo::new(tcp), service)
                        .await;
                });
            }
        });
        receiver
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<http::Response<Full<bytes::Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        assert_eq!(head.method, "POST");
        assert_eq!(head.headers[CONTENT_TYPE], "application/json");
        let body = body.collect().await?.to_bytes();
        let token = head.headers.get(AUTHORIZATION);
        let token = token.map(|value| value.to_str().unwrap().to_owned());
        let body = serde_json::from_slice(&body).unwrap();
        let got = (head.uri.to_string(), token, body);
        self.got.lock().unwrap().push(got);
        let mut response = http::Response::new(Full::from("x".repeat(100_000)));
        *response.status_mut() = *self.status.lock().unwrap();
        Ok(response)
    }
}

/// A gateway's store and configuration in a folder.
struct Place {
    dir: TempDir,
    store: Store,
    audit: AuditConfig,
}

impl Place {
    async fn new(keys: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), "db").await;
        let audit: AuditConfig = toml::from_str(keys).unwrap();
        let at = |file: Option<PathBuf>| file.map(|file| dir.path().join(file));
        let audit = AuditConfig {
            head_file: at(audit.head_file),
            head_token_file: at(audit.head_token_file),
            ..audit
        };
        Self { dir, store, audit }
    }

    fn heads(&self) -> Heads {
        let path = self.dir.path().join("gateway.toml");
        let config =
            config::parse::<GatewayConfig>(&path, "policy = \"p\"\nnode = []", std::iter::empty());
        let post = Post::read(&config.unwrap(), &self.audit).unwrap();
        Heads::new(
            (self.store.clone(), "gateway one"),
            (&self.audit, post),
            (Clock::system(), Arc::default()),
        )
    }

    async fn add(&self, entries: usize) {
        add(&self.store, entries).await;
    }

    fn read(&self, name: &str) -> Head {
        let text = fs::read_to_string(self.dir.path().join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

async fn open(dir: &Path, name: &str) -> Store {
    let config = StoreConfig {
        url: StoreUrl::Sqlite(dir.join(name)),
        ..StoreConfig::default()
    };
    Store::open(&config).await.unwrap()
}

async fn add(store: &Store, entries: usize) {
    let event = || Event::new(Clock::system().now(), What::NodeAdded, "a");
    let events: Vec<_> = (0..entries).map(|_| event()).collect();
    store.append_audit(&events).await.unwrap();
}

const FILE: &str = "head_file = \"head.json\"";

#[tokio::test]
async fn the_head_is_in_its_file_whole() {
    let place = Place::new(FILE).await;
    let mut heads = place.heads();
    heads.tell().await;
    assert_eq!(place.read("head.json").seq, 0);
    for n in 1..3 {
        place.add(1).await;
        heads.tell().await;
        let head = place.read("head.json");
        assert_eq!(head, place.store.audit_head().await.unwrap());
        assert_eq!(head.seq, n);
    }
    assert_eq!(heads.counts.counts(), [(["file", "kept"], 3)]);
    assert!(!place.dir.path().join("head.json.other").exists());
}

/// Whoever cuts the log, or puts another in its place, does not get the head away that tells of it.
#[tokio::test]
async fn a_head_that_the_log_does_not_hold_any_more_is_not_written_over() {
    let place = Place::new(FILE).await;
    place.add(3).await;
    place.heads().tell().await;
    let kept = place.read("head.json");
    let file = place.dir.path().join("head.json");
    let good = fs::read(&file).unwrap();
    // Shorter, as long, and longer than the one that it replaces.
    for entries in [1, 3, 5] {
        let name = format!("other-{entries}");
        let other = open(place.dir.path(), &name).await;
        add(&other, entries).await;
        let mut heads = Heads {
            store: other.clone(),
            ..place.heads()
        };
        for _ in 0..2 {
            heads.tell().await;
        }
        assert_eq!(heads.counts.counts(), [(["file", "other_log"], 2)]);
        assert_eq!(fs::read(&file).unwrap(), good, "{entries}");
        let beside = place.read("head.json.other");
        assert_eq!(beside, other.audit_head().await.unwrap());
        let audited = other.verify_audit(Some(&kept.clone().into())).await;
        assert!(audited.unwrap().flaw.is_some());
    }
    // The log that it is of goes on with it.
    place.add(1).await;
    place.heads().tell().await;
    assert_eq!(place.read("head.json").seq, 4);
    // What is no head is not written over either.
    fs::write(&file, "notes").unwrap();
    place.heads().tell().await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "notes");
    assert_eq!(place.read("head.json.other").seq, 4);
}

/// What somebody does to a log of six entries, the third of which is in the file.
const DEEDS: [(&str, &[&str]); 6] = [
    (
        "a decoy by the kept number and hash behind the end",
        &[
            "DELETE FROM audit WHERE seq > 1",
            "UPDATE audit_head SET seq = 1, hash = (SELECT hash FROM audit WHERE seq = 1)",
            "INSERT INTO audit VALUES (3, 1, 'x', 'x', 'x', '{}', 'x', 'KEPT')",
        ],
    ),
    (
        "that decoy named as the last",
        &[
            "DELETE FROM audit WHERE seq > 1",
            "INSERT INTO audit VALUES (3, 1, 'x', 'x', 'x', '{}', 'x', 'KEPT')",
            "UPDATE audit_head SET seq = 3, hash = 'KEPT'",
        ],
    ),
    (
        "the entry changed, its hash as it was",
        &["UPDATE audit SET subject = 'b' WHERE seq = 3"],
    ),
    ("a gap behind it", &["DELETE FROM audit WHERE seq = 5"]),
    (
        "the head set back before it, all entries there",
        &["UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM audit WHERE seq = 2)"],
    ),
    ("the end cut off", &["DELETE FROM audit WHERE seq > 4"]),
];

#[tokio::test]
async fn an_entry_that_only_looks_like_the_kept_one_does_not_get_it_away() {
    for (deed, statements) in DEEDS {
        let place = Place::new(FILE).await;
        place.add(3).await;
        place.heads().tell().await;
        let kept = place.read("head.json");
        assert_eq!(kept.seq, 3);
        let file = place.dir.path().join("head.json");
        let good = fs::read(&file).unwrap();
        place.add(3).await;
        let statements = statements.iter().map(|it| it.replace("KEPT", &kept.hash));
        let statements: Vec<_> = statements.collect();
        let statements: Vec<_> = statements.iter().map(String::as_str).collect();
        place.store.tamper_with_audit(&statements).await;
        let mut heads = place.heads();
        heads.tell().await;
        let counts = heads.counts.counts();
        assert_eq!(counts, [(["file", "other_log"], 1)], "{deed}");
        assert_eq!(fs::read(&file).unwrap(), good, "{deed}");
    }
}

/// The chain goes on behind such a row, and so does the file.
#[tokio::test]
async fn a_row_that_something_else_wrote_keeps_no_head_from_its_file() {
    let place = Place::new(FILE).await;
    place.add(3).await;
    place.heads().tell().await;
    let foreign = "INSERT INTO audit VALUES (4, 1, 'x', 'x', 'x', '{}', 'x', 'x')";
    place.store.tamper_with_audit(&[foreign]).await;
    place.add(2).await;
    let mut heads = place.heads();
    heads.tell().await;
    assert_eq!(heads.counts.counts(), [(["file", "kept"], 1)]);
    assert_eq!(place.read("head.json").seq, 6);
}

#[tokio::test]
async fn the_head_is_posted_with_the_names_of_log_and_gateway() {
    let receiver = Receiver::start().await;
    let keys = format!(
        "head_url = \"{}\"\nhead_token_file = \"token\"",
        receiver.url
    );
    let place = Place::new(&keys).await;
    let token = place.dir.path().join("token");
    fs::write(&token, "first\n").unwrap();
    place.add(2).await;
    let mut heads = place.heads();
    heads.tell().await;
    fs::write(&token, "second\n").unwrap();
    heads.tell().await;
    let got = std::mem::take(&mut *receiver.got.lock().unwrap());
    let expected = place.store.audit_head().await.unwrap();
    let tokens = ["Bearer first", "Bearer second"];
    assert_eq!(got.len(), tokens.len());
    for ((path, sent, body), token) in got.iter().zip(tokens) {
        assert_eq!(
            (path.as_str(), sent.as_deref()),
            ("/heads?of=us", Some(token))
        );
        assert_eq!(
            serde_json::from_value::<Head>(body.clone()).unwrap(),
            expected
        );
        assert_eq!(body["gateway"], "gateway one");
        assert_eq!(body["log"], place.store.audit_name());
        assert!(body["at"].is_string());
    }
    assert_eq!(heads.counts.counts(), [(["url", "kept"], 2)]);
}

#[tokio::test]
async fn a_post_that_fails_is_counted_and_the_next_one_is_tried() {
    let receiver = Receiver::start().await;
    let keys = format!(
        "head_url = \"{}\"\nhead_token_file = \"token\"",
        receiver.url
    );
    let place = Place::new(&keys).await;
    let token = place.dir.path().join("token");
    fs::write(&token, "token").unwrap();
    let mut heads = place.heads();
    let statuses = [500, 302, 401, 200];
    for status in statuses {
        *receiver.status.lock().unwrap() = StatusCode::from_u16(status).unwrap();
        heads.tell().await;
    }
    // A token that cannot be sent is not left out.
    fs::write(&token, "two words").unwrap();
    heads.tell().await;
    assert_eq!(receiver.got.lock().unwrap().len(), statuses.len());
    let counts = heads.counts.counts();
    assert_eq!(counts, [(["url", "failed"], 4), (["url", "kept"], 1)]);
    // Nobody there.
    let nowhere = Place::new("head_url = \"http://127.0.0.1:1/\"").await;
    let mut heads = nowhere.heads();
    heads.tell().await;
    assert_eq!(heads.counts.counts(), [(["url", "failed"], 1)]);
}

#[tokio::test]
async fn a_token_that_is_not_there_keeps_a_gateway_from_starting() {
    let place = Place::new("head_url = \"http://127.0.0.1:1/\"\nhead_token_file = \"none\"").await;
    let path = place.dir.path().join("gateway.toml");
    let config =
        config::parse::<GatewayConfig>(&path, "policy = \"p\"\nnode = []", std::iter::empty());
    let error = Post::read(&config.unwrap(), &place.audit).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("store.audit.head_token_file"), "{error}");
}
