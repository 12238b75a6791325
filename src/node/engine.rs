//! Asks one engine over HTTP.
//!
//! Dropping the future or the reply's body closes the connection, which is how an engine learns
//! that nobody waits for its answer any more.

use std::{
    io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::GaiResolver},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{answer::EVENT_STREAM, health::Health, places::Places};
use crate::{
    config::{
        self, ConfigError, Loaded,
        node::{CacheSalting, EngineConfig, MAX_IN_FLIGHT, NodeConfig},
    },
    net::Connector,
    openai::models::{engine_models, has_owner},
    telemetry::metrics::{Histogram, Tally},
};

/// The usual engines close a connection that was idle for 5 s, and a request that is lost on one that
/// is closing cannot be sent again. Much shorter, since both sides count late on a busy machine; a
/// fresh connection on this machine costs next to nothing.
const POOL_IDLE: Duration = Duration::from_secs(1);
/// Most idle connections to one engine.
const POOL_SIZE: usize = 1024;
/// Who owns the models of vLLM, as it says.
const VLLM: &str = "vllm";
/// Most bytes that an engine says of itself in one answer.
const MAX_SAID: usize = 1024 * 1024;
/// Longest time for an engine to say something of itself.
const SAYING_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an engine gave no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EngineError {
    /// No byte of the request was written.
    #[error("the engine cannot be reached")]
    Unreachable,
    /// The request was sent; the engine may have worked on it.
    #[error("the engine failed after the request was sent")]
    Failed,
    /// The request was sent; no reply began in time.
    #[error("the engine did not begin its reply in time")]
    FirstByteTimeout,
    /// The engine's list of models cannot be read.
    #[error("the engine's list of models is unusable")]
    Models,
}

impl EngineError {
    /// What metrics call it.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::FirstByteTimeout => "first-byte-timeout",
            Self::Models => "models",
        }
    }
}

/// What is counted of an engine.
#[derive(Debug, Default)]
pub(super) struct EngineCounts {
    pub(super) failures: Tally<1>,
    pub(super) first_byte: Histogram,
}

impl EngineCounts {
    /// Counts a failure.
    pub(super) fn failed(&self, class: &'static str) {
        self.failures.inc([class]);
    }

    /// Counts a reply that began after `time`.
    pub(super) fn began(&self, time: Duration) {
        self.first_byte.observe(time);
    }
}

/// Why an engine cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineSetupError {
    /// A file that the engine's table names is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The roots are no PEM certificates.
    #[error("{}: PEM certificates expected", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("TLS towards the engine: {0}")]
    Tls(#[from] rustls::Error),
    /// The echo engine cannot listen.
    #[error("the echo engine: {0}")]
    Echo(io::Error),
}

/// One engine and the connections to it.
#[derive(Debug)]
pub(super) struct Engine {
    base: Uri,
    client: Client<HttpsConnector<Connector<GaiResolver>>, Full<Bytes>>,
    authorization: Option<HeaderValue>,
    first_byte: Duration,
    pub(super) places: Places,
    /// The configuration does not say how many places there are.
    asks_for_places: bool,
    salting: CacheSalting,
    /// With [`CacheSalting::Auto`]: it has not said that it is other than vLLM.
    may_salt: AtomicBool,
    pub(super) health: Arc<Health>,
    /// Rest between two questions for its health, if it may be asked.
    pub(super) watch: Option<Duration>,
    pub(super) counts: Arc<EngineCounts>,
    /// The models that the configuration lists.
    pub(super) configured_models: Option<Vec<String>>,
    /// Members that the engine would ignore without a word.
    pub(super) ignores: Vec<String>,
}

impl Engine {
    /// An engine at `base`.
    ///
    /// # Errors
    /// [`EngineSetupError`] if a file it needs is unusable.
    pub(super) fn new(
        base: Uri,
        config: &EngineConfig,
        node: &Loaded<NodeConfig>,
    ) -> Result<Self, EngineSetupError> {
        let timeouts = &node.value.timeouts;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeouts.engine_connect_ms.duration()));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(config, node)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector::new(http));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .build(https);
        let max_in_flight = config
            .max_in_flight
            .map_or(MAX_IN_FLIGHT, NonZeroUsize::get);
        let patience = config.queue_ms.duration();
        Ok(Self {
            base,
            client,
            authorization: authorization(config, node)?,
            first_byte: timeouts.engine_first_byte_ms.duration(),
            places: Places::new(max_in_flight, config.queue, patience),
            asks_for_places: config.max_in_flight.is_none(),
            salting: config.cache_salt,
            may_salt: AtomicBool::new(true),
            health: Arc::default(),
            watch: config.watch.then(|| config.watch_ms.duration()),
            counts: Arc::default(),
            configured_models: config.models.clone(),
            ignores: config.ignores.clone(),
        })
    }

    /// It says that more requests wait in it than may wait for it here: others ask it, too.
    pub(super) fn is_overloaded(&self) -> bool {
        let [most, own] = [self.places.queue(), self.places.held()]
            .map(|count| u64::try_from(count).unwrap_or(u64::MAX));
        // Some of those that wait are this node's, and have their places.
        let waiting = self.health.load().waiting;
        waiting.is_some_and(|waiting| waiting.saturating_sub(own) > most)
    }

    /// Its host and port.
    pub(super) fn address(&self) -> &str {
        let authority = self.base.authority();
        authority.map_or("", |it| it.as_str().rsplit('@').next().unwrap_or_default())
    }

    /// Sends one request and waits for the head of the reply.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] only where nothing was sent.
    pub(super) async fn post(
        &self,
        path: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, EngineError> {
        let mut request = self
            .request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept);
        if accept == EVENT_STREAM {
            // llama.cpp closes after a stream without a word: what is sent after it on the same
            // connection is lost, and cannot be sent again.
            request = request.header(header::CONNECTION, "close");
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|_| EngineError::Unreachable)?;
        match timeout(self.first_byte, self.client.request(request)).await {
            Ok(reply) => reply.map_err(|error| sending_error(&error)),
            Err(_) => Err(EngineError::FirstByteTimeout),
        }
    }

    /// The models that the engine says it serves.
    ///
    /// # Errors
    /// [`EngineError`] if it does not say in time, or not in the usual form.
    pub(super) async fn list_models(&self) -> Result<Vec<String>, EngineError> {
        match self.get("/v1/models", MAX_SAID).await? {
            (StatusCode::OK, body) => {
                let models = engine_models(&body).map_err(|_| EngineError::Models)?;
                // A list of nothing tells nothing of the engine: until it does, requests are salted.
                if !models.is_empty() {
                    let is_vllm = has_owner(&body, VLLM);
                    self.may_salt.store(is_vllm, Ordering::Relaxed);
                }
                Ok(models)
            }
            _ => Err(EngineError::Models),
        }
    }

    /// Whether its prefix cache is told who asks.
    pub(super) fn is_salted(&self) -> bool {
        match self.salting {
            CacheSalting::On => true,
            CacheSalting::Off => false,
            CacheSalting::Auto => self.may_salt.load(Ordering::Relaxed),
        }
    }

    /// Asks for what the configuration leaves to the engine, its models aside. One that cannot be
    /// asked now leaves all as it is.
    pub(super) async fn learn(&self) {
        let kind = async {
            if self.configured_models.is_some() && self.salting == CacheSalting::Auto {
                // Its list says whose engine it is, even where its models are configured.
                let _ = self.list_models().await;
            }
        };
        join(kind, self.learn_places()).await;
    }

    async fn learn_places(&self) {
        if !self.asks_for_places {
            return;
        }
        let places = match self.get("/props", MAX_SAID).await {
            Ok((StatusCode::OK, body)) => slots(&body),
            Ok((status, _)) if status.is_client_error() => None,
            Ok(_) | Err(_) => return,
        };
        let places = places.unwrap_or(MAX_IN_FLIGHT);
        if places != self.places.limit() {
            tracing::info!(engine = self.address(), places, "places with the engine");
            self.places.resize(places);
        }
    }

    /// What the engine answers to a question about itself, whatever its status.
    ///
    /// # Errors
    /// [`EngineError`] if it does not say, not in time, or more than `max` bytes.
    pub(super) async fn get(
        &self,
        path: &str,
        max: usize,
    ) -> Result<(StatusCode, Bytes), EngineError> {
        let request = self
            .request(Method::GET, path)
            .body(Full::default())
            .map_err(|_| EngineError::Unreachable)?;
        let asked = async {
            let reply = self.client.request(request).await;
            let reply = reply.map_err(|error| sending_error(&error))?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), max).collect().await;
            let body = body.map_err(|_| EngineError::Failed)?;
            Ok((status, body.to_bytes()))
        };
        timeout(SAYING_TIMEOUT, asked)
            .await
            .unwrap_or(Err(EngineError::FirstByteTimeout))
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let base = self.base.to_string();
        let uri = format!("{}{path}", base.trim_end_matches('/'));
        let request = Request::builder().method(method).uri(uri);
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }
}

/// Requests that llama.cpp works on at once, by what it says of its properties.
fn slots(properties: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Properties {
        total_slots: NonZeroUsize,
    }
    let said: Properties = serde_json::from_slice(properties).ok()?;
    Some(said.total_slots.get().min(MAX_IN_FLIGHT))
}

/// A connection that never came up carried nothing, and hyper calls a request cancelled when its
/// connection ended before the request was taken up.
fn sending_error(error: &hyper_util::client::legacy::Error) -> EngineError {
    let source = std::error::Error::source(error);
    let cancelled = source
        .and_then(|source| source.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_canceled);
    if error.is_connect() || cancelled {
        EngineError::Unreachable
    } else {
        EngineError::Failed
    }
}

fn authorization(
    config: &EngineConfig,
    node: &Loaded<NodeConfig>,
) -> Result<Option<HeaderValue>, ConfigError> {
    let Some(path) = &config.api_key_file else {
        return Ok(None);
    };
    let key = config::read_secret(&node.resolve(path))?;
    let key = key.trim_ascii();
    let scheme = b"Bearer ";
    // Room for all of it at once: a vector that grows leaves copies behind.
    let room = scheme.len().saturating_add(key.len());
    let mut value = zeroize::Zeroizing::new(Vec::with_capacity(room));
    value.extend_from_slice(scheme);
    value.extend_from_slice(key);
    let text = std::str::from_utf8(&value).unwrap_or_default();
    let legal = HeaderValue::from_str(text)
        .ok()
        .filter(|_| !text.is_empty());
    let mut value = legal.ok_or_else(|| {
        let message = "the file holds one line of visible ASCII";
        node.invalid("engine.api_key_file", message)
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn tls_config(
    config: &EngineConfig,
    node: &Loaded<NodeConfig>,
) -> Result<ClientConfig, EngineSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &config.ca_file {
        Some(path) => builder.with_root_certificates(roots(node.resolve(path))?),
        None => builder.with_webpki_roots(),
    };
    Ok(builder.with_no_client_auth())
}

fn roots(path: PathBuf) -> Result<RootCertStore, EngineSetupError> {
    let text = config::read_text(&path)?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        Err(EngineSetupError::Roots { path })
    } else {
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_llama_cpp_tells() {
        let cases = [
            (
                r#"{"default_generation_settings":{"n_ctx":32},"total_slots":4,"ui":true}"#,
                Some(4),
            ),
            (r#"{"total_slots":1000000}"#, Some(MAX_IN_FLIGHT)),
            (r#"{"total_slots":0}"#, None),
            (r#"{"total_slots":-1}"#, None),
            (r#"{"total_slots":"4"}"#, None),
            ("{}", None),
            ("", None),
        ];
        for (said, expected) in cases {
            assert_eq!(slots(said.as_bytes()), expected, "{said}");
        }
    }
}
