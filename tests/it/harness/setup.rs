//! A whole set-up in a temporary folder: software root, policy, keys, node, gateway, engine.

use std::{fs, path::PathBuf, sync::OnceLock, time::SystemTime};

use attestation::software_root::SoftwareRoot;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{Engine, KEY, Process};

/// What the nodes of the tests claim to have been measured as.
pub(crate) fn measurement() -> String {
    hex::encode(sealgate::node::SOFTWARE_MEASUREMENT)
}

/// The software root of this run; making one takes seconds.
pub(crate) fn software_root() -> &'static SoftwareRoot {
    static ROOT: OnceLock<SoftwareRoot> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "the processes under test live now"
    )]
    ROOT.get_or_init(|| SoftwareRoot::generate(SystemTime::now()).unwrap())
}

/// Gateway, node and engine, running.
pub(crate) struct Setup {
    /// The fake engine.
    pub(crate) engine: Engine,
    /// The node's process.
    pub(crate) node: Process,
    /// The gateway's process.
    pub(crate) gateway: Process,
    /// A client that keeps its connections.
    pub(crate) client: reqwest::Client,
    /// The folder with the files, the logs among them: the last to go.
    pub(crate) dir: TempDir,
}

/// The files of a set-up, before its processes start.
pub(crate) struct Files {
    /// The folder.
    pub(crate) dir: TempDir,
}

impl Files {
    /// Writes what all tests have in common: the software root, the policy, the keys.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("software-root")).unwrap();
        let files = Self { dir };
        let root = software_root();
        files.write("software-root/ark.pem", root.ark_pem());
        files.write("software-root/ask.pem", root.ask_pem());
        files.write("software-root/vcek.pem", root.vcek_pem());
        files.write("software-root/vcek.key", root.vcek_key_pem());
        files.write("policy.toml", &policy(&measurement()));
        let digest = hex::encode(Sha256::digest(KEY));
        files.write(
            "keys.toml",
            &format!("[[key]]\nname = \"tests\"\nsha256 = \"{digest}\"\n"),
        );
        files
    }

    /// Writes one file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes the node's configuration; `more` is appended.
    pub(crate) fn node(&self, name: &str, engine: &Engine, more: &str) -> PathBuf {
        let address = engine.address;
        self.write(
            &format!("{name}.toml"),
            &format!(
                "node_id = \"{name}\"\nlisten = \"127.0.0.1:0\"\n\
                 [evidence]\nsource = \"software-root\"\ndir = \"software-root\"\n\
                 [[engine]]\nurl = \"http://{address}\"\n{more}"
            ),
        )
    }

    /// Writes the gateway's configuration for nodes at `urls`; `more` is appended.
    pub(crate) fn gateway(&self, urls: &[&str], more: &str) -> PathBuf {
        let nodes: String = urls
            .iter()
            .map(|url| format!("[[node]]\nurl = \"{url}\"\n"))
            .collect();
        self.write(
            "gateway.toml",
            &format!(
                "listen = \"127.0.0.1:0\"\nauth = \"keys\"\nkeys_file = \"keys.toml\"\n\
                 policy = \"policy.toml\"\n{nodes}{more}"
            ),
        )
    }
}

/// A policy that accepts this run's software root and one measurement.
pub(crate) fn policy(measurement: &str) -> String {
    format!(
        "version = 1\nappraisal_max_age_s = 3600\n[sev_snp]\namd_roots = false\n\
         software_roots = [\"software-root/ark.pem\"]\nproducts = [\"genoa\"]\n\
         measurements = [\"{measurement}\"]\nvmpl = 0\n\
         [sev_snp.minimum_tcb.genoa]\nbootloader = 10\ntee = 0\nsnp = 23\nmicrocode = 84\n"
    )
}

impl Setup {
    /// A set-up as a user would have it.
    pub(crate) async fn start() -> Self {
        Self::with("", "").await
    }

    /// The same with text appended to the node's and the gateway's configuration.
    pub(crate) async fn with(node: &str, gateway: &str) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, node)).await;
        let config = files.gateway(&[&node.url], gateway);
        Self::finish(files, engine, node, &config).await
    }

    /// The same with a hostile proxy between gateway and node.
    pub(crate) async fn with_mitm(
        alter: impl Fn(&mut super::mitm::OnTheWay) + Send + Sync + 'static,
    ) -> Self {
        Self::with_mitm_before("", alter).await
    }

    /// The same with text appended to the node's configuration.
    pub(crate) async fn with_mitm_before(
        node: &str,
        alter: impl Fn(&mut super::mitm::OnTheWay) + Send + Sync + 'static,
    ) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, node)).await;
        let proxy = super::mitm::start(&node.url, alter).await;
        let config = files.gateway(&[&proxy], "");
        Self::finish(files, engine, node, &config).await
    }

    async fn finish(files: Files, engine: Engine, node: Process, config: &std::path::Path) -> Self {
        let gateway = Process::start("gateway", config).await;
        Self {
            dir: files.dir,
            engine,
            node,
            gateway,
            client: reqwest::Client::new(),
        }
    }

    /// `POST /v1/completions` with the key.
    pub(crate) fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client
            .post(format!("{}/v1/completions", self.gateway.url))
            .bearer_auth(KEY)
            .header("content-type", "application/json")
            .body(body)
    }

    /// `GET path` with the key.
    pub(crate) async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.gateway.url);
        self.client.get(url).bearer_auth(KEY).send().await.unwrap()
    }

    /// Asks for a completion with `members` beside the model.
    pub(crate) async fn complete(&self, mut members: Value) -> Response {
        members
            .as_object_mut()
            .unwrap()
            .entry("model")
            .or_insert_with(|| json!("tiny"));
        self.post(members.to_string()).send().await.unwrap()
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, mut members: Value) -> EventStream {
        members["stream"] = json!(true);
        let reply = self.complete(members).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        EventStream::new(reply)
    }
}

/// The events of a streamed reply, as a client reads them.
pub(crate) struct EventStream {
    reply: Response,
    pending: Vec<u8>,
}

impl EventStream {
    /// The events of `reply`.
    pub(crate) fn new(reply: Response) -> Self {
        Self {
            reply,
            pending: Vec::new(),
        }
    }

    /// The next event's data, `Ok(None)` at a clean end, `Err` where the connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, reqwest::Error> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.pending.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                let event = event.trim_end();
                match event.strip_prefix("data: ") {
                    Some(data) => return Ok(Some(data.to_owned())),
                    None => assert!(
                        event.starts_with(':'),
                        "neither data nor comment: {event:?}"
                    ),
                }
            } else {
                match self.reply.chunk().await? {
                    Some(bytes) => self.pending.extend_from_slice(&bytes),
                    None => {
                        assert!(self.pending.is_empty(), "half an event at the end");
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The next event's text of its first choice.
    pub(crate) async fn text(&mut self) -> String {
        let data = self.next().await.unwrap().expect("the stream ended");
        let event: Value = serde_json::from_str(&data).unwrap();
        event["choices"][0]["text"]
            .as_str()
            .expect(&data)
            .to_owned()
    }

    /// All further events, and how the stream ended.
    pub(crate) async fn rest(mut self) -> (Vec<String>, Result<(), reqwest::Error>) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return (events, Ok(())),
                Err(error) => return (events, Err(error)),
            }
        }
    }
}

/// The error object of a reply, with its status.
pub(crate) async fn error_of(reply: Response) -> (u16, Value) {
    let status = reply.status().as_u16();
    assert_eq!(
        reply.headers()["content-type"],
        "application/json",
        "{status}"
    );
    assert!(reply.headers().contains_key("x-request-id"), "{status}");
    let body: Value = reply.json().await.unwrap();
    let error = body["error"].clone();
    for member in ["message", "type", "param", "code"] {
        assert!(error.get(member).is_some(), "{member} in {body}");
    }
    (status, error)
}
