//! Tells the head of the audit log to a file and to a URL, every so often and when the gateway stops.
//!
//! A file whose head the log does not hold any more is not written over: the log was cut, or is another one, and
//! that head is what tells. The present one is written beside it then.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{
    Request,
    header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    clock::Clock,
    config::{
        self, ConfigError, Loaded,
        gateway::{GatewayConfig, millis},
        store::{AuditConfig, HeadUrl},
    },
    gateway::files::{read_proxy, read_roots},
    sealer::{Channel, Credential, Route, to_name},
    store::{Head, Held, Store, report},
    telemetry::metrics::Tally,
};

/// How long the store may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a post may take, from the connection to the status; what else is answered is not read.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// What a head is written to where its file holds one of another log.
const BESIDE: &str = "other";

/// Where the head is told.
#[derive(Debug)]
pub(in crate::gateway) struct Heads {
    store: Store,
    clock: Clock,
    every: Duration,
    gateway: Arc<str>,
    file: Option<PathBuf>,
    post: Option<Post>,
    counts: Arc<Tally<2>>,
    /// What came of the last time: the same is not said again.
    last: [&'static str; 2],
}

/// A server that takes heads.
#[derive(Debug)]
pub(in crate::gateway) struct Post {
    url: HeadUrl,
    channel: Arc<Channel>,
    token_file: Option<PathBuf>,
}

/// Why a head is not where it is to be.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error("{}", config::in_words(.0))]
    File(#[from] io::Error),
    #[error("{0}")]
    Store(String),
    /// Not written over: what is there says more.
    #[error(
        "{0}: the present head is written beside it, to a name that ends with .{BESIDE}. Verify the log by it \
         (sealgate audit verify --head-file); if it is known why, move it away"
    )]
    Other(&'static str),
    #[error("{0}")]
    Post(String),
    #[error("answered {0}")]
    Status(http::StatusCode),
    #[error("no answer in {} s", POST_TIMEOUT.as_secs())]
    Timeout,
}

impl NotKept {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Other(_) => "other_log",
            Self::File(_) | Self::Store(_) | Self::Post(_) | Self::Status(_) | Self::Timeout => {
                "failed"
            }
        }
    }
}

impl Post {
    /// The server of the configuration, if it names one; `audit` is with the files where they are.
    ///
    /// # Errors
    /// [`ConfigError`] names what cannot be used.
    pub(in crate::gateway) fn read(
        config: &Loaded<GatewayConfig>,
        audit: &AuditConfig,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(url) = audit.head_url.clone() else {
            return Ok(None);
        };
        let roots = read_roots(
            config,
            audit.head_ca_file.as_ref(),
            "store.audit.head_ca_file",
        )?;
        let invalid = |error: String| config.invalid("store.audit.head_url", error);
        let tls = to_name(&roots, None).map_err(|e| invalid(e.to_string()))?;
        let proxy = read_proxy(config)?;
        let proxy = proxy.filter(|proxy| !proxy.passes_by(url.server(), None));
        let route = Route {
            proxy: proxy.as_ref(),
            ..Route::default()
        };
        let within = millis(config.value.timeouts.connect_ms);
        let channel = Channel::new(url.server(), route, tls, within, 0);
        let channel = channel.map_err(|e| invalid(e.to_string()))?;
        if let Some(file) = &audit.head_token_file {
            let read = read_token(file);
            read.map_err(|e| config.invalid("store.audit.head_token_file", e))?;
        }
        Ok(Some(Self {
            url,
            channel: Arc::new(channel),
            token_file: audit.head_token_file.clone(),
        }))
    }

    async fn send(&self, text: String) -> Result<(), NotKept> {
        let mut request = Request::post(self.url.path())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("sealgate/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = self.token_file.clone() {
            // Each time, for it may be another one by now.
            let token = spawn_blocking(move || read_token(&file)).await;
            let token =
                token.map_err(|_| NotKept::Post("reading the token panicked".to_owned()))?;
            let value = token.map_err(NotKept::Post)?.to_header();
            request = request.header(AUTHORIZATION, value.map_err(posting)?);
        }
        let request = request.body(Full::from(text)).map_err(posting)?;
        // A connection of its own: another one may be gone by the next time.
        let sending = timeout(POST_TIMEOUT, self.channel.send_afresh(request));
        let response = sending.await.map_err(|_| NotKept::Timeout)?;
        let status = response.map_err(posting)?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(NotKept::Status(status)),
        }
    }
}

fn posting(error: impl std::fmt::Display) -> NotKept {
    NotKept::Post(error.to_string())
}

fn read_token(file: &Path) -> Result<Credential, String> {
    let text = config::read_secret(file).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    Credential::from_file_text(text).map_err(|error| format!("{}: {error}", file.display()))
}

impl Heads {
    /// The head of `store`, told by `gateway`.
    pub(in crate::gateway) fn new(
        (store, gateway): (Store, &str),
        (config, post): (&AuditConfig, Option<Post>),
        (clock, counts): (Clock, Arc<Tally<2>>),
    ) -> Self {
        Self {
            store,
            clock,
            every: config.head_every(),
            gateway: gateway.into(),
            file: config.head_file.clone(),
            post,
            counts,
            last: [""; 2],
        }
    }

    /// Tells it every so often; never ends.
    pub(in crate::gateway) async fn keep(&mut self) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell().await;
        }
    }

    /// Tells it once.
    pub(in crate::gateway) async fn tell(&mut self) {
        if let Some(file) = self.file.clone() {
            let kept = self.write(file.clone()).await;
            self.take_in(0, "file", &file.display().to_string(), kept);
        }
        if let Some(post) = &self.post {
            let kept = match self.head().await {
                Ok(head) => post.send(self.text(&head)).await,
                Err(error) => Err(error),
            };
            let url = post.url.to_string();
            self.take_in(1, "url", &url, kept);
        }
    }

    fn take_in(&mut self, at: usize, to: &'static str, name: &str, kept: Result<(), NotKept>) {
        let outcome = kept.as_ref().map_or_else(NotKept::outcome, |()| "kept");
        self.counts.inc([to, outcome]);
        let Some(last) = self.last.get_mut(at) else {
            return;
        };
        let is_another = std::mem::replace(last, outcome) != outcome;
        // Said once for as long as it stays so.
        if let (Err(error), true) = (&kept, is_another) {
            tracing::error!(to = name, %error, "the head of the audit log is not kept");
        }
    }

    async fn head(&self) -> Result<Head, NotKept> {
        in_time(self.store.audit_head()).await
    }

    fn text(&self, head: &Head) -> String {
        let log = self.store.audit_name();
        let said = report::head(head, self.clock.now(), &log, &self.gateway);
        format!("{said}\n")
    }

    async fn write(&self, file: PathBuf) -> Result<(), NotKept> {
        // In this order: what the file says was the log's before what the log says now.
        let path = file.clone();
        let before = blocking(move || read(&path)).await?;
        let other = match before {
            Before::Nothing => None,
            Before::Head(head) => match in_time(self.store.audit_holds(&head)).await? {
                Held::Yes => None,
                Held::No => Some(
                    "the log does not hold the head that is in the file: it was cut, or is another one",
                ),
                Held::Pruned => {
                    Some("the head that is in the file is older than what is kept of the log")
                }
            },
            Before::Else => Some("what is in the file is no head of a log"),
        };
        let text = self.text(&self.head().await?);
        let to = match other {
            Some(_) => beside(&file),
            None => file,
        };
        blocking(move || replace(&to, text.as_bytes())).await?;
        other.map_or(Ok(()), |why| Err(NotKept::Other(why)))
    }
}

async fn in_time<T>(
    asking: impl Future<Output = Result<T, crate::store::StoreError>>,
) -> Result<T, NotKept> {
    match timeout(READ_TIMEOUT, asking).await {
        Ok(answer) => answer.map_err(|error| NotKept::Store(error.to_string())),
        Err(_) => Err(NotKept::Store("the store takes too long".to_owned())),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NotKept> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}

/// What lies where a head is to be written.
enum Before {
    Nothing,
    Head(Head),
    Else,
}

fn read(file: &Path) -> io::Result<Before> {
    match config::read_text(file) {
        Ok(text) => Ok(serde_json::from_str(&text).map_or(Before::Else, Before::Head)),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Before::Nothing)
        }
        Err(ConfigError::Read { source, .. }) if source.kind() != io::ErrorKind::InvalidData => {
            Err(source)
        }
        Err(_) => Ok(Before::Else),
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(BESIDE);
    name.into()
}

/// Writes a whole file in place of another, so that nobody reads half of it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    // It is no secret, and somebody else is to carry it away.
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
