//! The node: opens sealed requests, asks its engine, seals the answers.
//!
//! It runs beside the engine, inside the TEE. A request comes through the modules in this order:
//! `routes` finds what is asked, `request` opens it and lets it in, `answer` asks the
//! engine, `reply` seals. Keys live in memory only and die with the process; no prompt, reply or
//! key reaches a log or an error.

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use attestation::statement::EngineLocation;
use futures_util::future::join;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    buffered::Buffered, dialects::ReplayTables, engine::Engine, metrics::Metrics, models::Models,
    salt::SaltSecret,
};
use crate::{
    admin::{self, Admin, AdminError, Pages, serve_beside},
    attester::{
        answer::Evidence,
        evidence::{self, Sources},
        paced::Pacing,
        problem,
        replay::{self, ReplayTable},
        request,
        statement::{Facts, Identity, Named},
        time::{self, SteadyClock},
    },
    clock::Clock,
    config::{
        self, ConfigError, Loaded,
        node::{self as node_config, EngineUrl, NodeConfig},
    },
    listener::{self, ConnectionCounts, Listener, Sockets, serve_counted},
    net::Acceptor,
    reload::Reload,
    telemetry::metrics::Exposition,
    tls,
};

mod answer;
mod buffered;
mod dialects;
mod echo;
mod engine;
mod engine_metrics;
mod engine_stream;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod metrics;
mod models;
mod paced;
mod places;
pub mod probe;
mod receipts;
mod record;
mod reply;
mod routes;
mod said;
mod salt;
mod seal;
mod take;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

pub use self::engine::EngineSetupError;
pub use crate::attester::{
    evidence::{
        ConfigfsError, EvidenceError, GpuError, GuestDeviceError, NitroError, SOFTWARE_MEASUREMENT,
        TableError,
    },
    statement::IdentityError,
};

/// Rest between two looks at the keys and the engines' models.
const UPKEEP: Duration = Duration::from_secs(30);
/// The same while an engine has not said what it serves, and the longest such rest.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Rest between two looks at the files of `[tls]`, and of `[admin.tls]`.
const TLS_LOOK: Duration = Duration::from_secs(5);
/// Time for streams that were cut to send their last chunk.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no evidence to be had.
    #[error("evidence: {0}")]
    Evidence(#[from] EvidenceError),
    /// An engine cannot be set up.
    #[error("engine: {0}")]
    Engine(#[from] EngineSetupError),
    /// Keys or statement cannot be made.
    #[error("identity: {0}")]
    Identity(#[from] IdentityError),
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl From<AdminError> for StartError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Config(error) => Self::Config(error),
            AdminError::Listen { address, source } => Self::Listen { address, source },
        }
    }
}

/// A node that listens and does not yet answer.
#[must_use = "a node answers once it is served"]
pub struct Node {
    state: Arc<State>,
    listener: Acceptor,
    address: SocketAddr,
    admin: Option<Admin>,
    tls: Option<tls::Keeper>,
    reload: Reload,
    /// Stops what runs beside the listener when the node is gone.
    alive: DropGuard,
}

/// What the requests of a node share.
struct State {
    config: NodeConfig,
    metrics: Arc<Metrics>,
    connections: Arc<ConnectionCounts>,
    clock: SteadyClock,
    identity: Identity,
    evidence: Evidence,
    models: Models,
    salts: SaltSecret,
    /// When paced replies go out.
    pacing: Pacing,
    replay: ReplayTable,
    /// The same for each dialect.
    replay_of: ReplayTables,
    /// Places for sealed requests.
    requests: Arc<Semaphore>,
    /// Room for requests that have not reached an engine.
    buffered: Arc<Semaphore>,
    /// Set when the node is told to stop: it takes no new work.
    draining: CancellationToken,
    /// Set when it stops waiting: streams end where they are.
    cut: CancellationToken,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Makes the keys and the statement, asks the engines what they serve, and listens.
    ///
    /// An engine that does not answer yet is no error: it is asked again while the node serves.
    ///
    /// # Errors
    /// [`StartError`] says which part of the configuration or the machine is at fault.
    pub async fn bind(config: Loaded<NodeConfig>, clock: Clock) -> Result<Self, StartError> {
        Self::bind_to(Sockets::default(), config, clock).await
    }

    /// The same on sockets that listen already, in place of the addresses in the configuration.
    ///
    /// # Errors
    /// As for [`Node::bind`].
    pub async fn bind_to(
        sockets: Sockets,
        config: Loaded<NodeConfig>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        node_config::check(&config)?;
        let tls = read_tls(&config, clock)?;
        // The hardware is asked here and now: a node that cannot attest does not start.
        let evidence = Evidence::new(Sources::open(&config, &config.value.evidence)?);
        let alive = CancellationToken::new();
        let models = Models::new(engines(&config, clock, &alive).await?);
        models.refresh().await;
        let (clock, system) = (SteadyClock::new(clock), clock);
        let ends_at = tls.as_ref().map(tls::Keeper::spki_sha256);
        let now = clock.unix_now();
        let identity = identity(&config.value, models.names(), ends_at, now)?;
        let address = config.value.listen;
        let listen = |source| StartError::Listen { address, source };
        let listener = Acceptor::bind(sockets.public, address)
            .await
            .map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let admin =
            Admin::open(sockets.admin, &config, config.value.admin.as_ref(), system).await?;
        let config = config.value;
        let state = State {
            metrics: Arc::default(),
            connections: Arc::default(),
            clock,
            identity,
            evidence,
            models,
            salts: SaltSecret::generate(),
            pacing: Pacing::begin(&config.padding),
            replay: ReplayTable::new(config.limits.replay_entries.get()),
            requests: Arc::new(Semaphore::new(places(&config))),
            replay_of: ReplayTables::new(&config),
            buffered: Buffered::shared(config.limits.buffered_bytes.get()),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            config,
        };
        Ok(Self {
            state: Arc::new(state),
            listener,
            address,
            admin,
            tls,
            reload: Reload::default(),
            alive: alive.drop_guard(),
        })
    }

    /// Whether its admin listener, if there is one, is asked by TLS.
    #[must_use]
    pub fn admin_is_https(&self) -> bool {
        self.admin.as_ref().is_some_and(Admin::is_https)
    }

    /// Whether gateways connect by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// Has files read again while the node is served.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that its admin listener has, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Answers until `shutdown`; then refuses new work, waits for the replies under way, at most
    /// for the configured time, and cuts those that are left with a sealed word.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self {
            state,
            listener,
            admin,
            tls,
            reload,
            alive: _alive,
            ..
        } = self;
        let stop = CancellationToken::new();
        let listener = Listener::on(listener, tls.as_ref().map(tls::Keeper::tls));
        let keeping = keep_tls(&state, tls, &reload);
        let shared = Arc::clone(&state);
        let service = service_fn(move |request: Request<Incoming>| {
            let state = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(Box::pin(routes::answer(&state, request)).await) }
        });
        let (limits, connections) = (limits(&state.config), Arc::clone(&state.connections));
        let served = serve_counted(listener, service, limits, stop.clone(), connections);
        let admin = admin.map(|admin| {
            let asked = Arc::clone(&state);
            let pages = Pages {
                metrics: Exposition::new("sealgate_node", metrics::Scrape(Arc::clone(&state))),
                unready: Box::new(move || routes::unready(&asked)),
                api: None,
            };
            (admin, pages)
        });
        let administered = serve_beside(admin, &reload, TLS_LOOK);
        let drained = async {
            shutdown.cancelled().await;
            drain(&state).await;
            stop.cancel();
        };
        tokio::select! {
            biased;
            _ = join(served, drained) => {}
            () = upkeep(&state) => {}
            () = watch::watch(&state.models) => {}
            () = keeping => {}
        }
        administered.await;
    }
}

/// Keeps TLS as its files are, and has the statement say which key connections end at; never ends.
async fn keep_tls(state: &Arc<State>, tls: Option<tls::Keeper>, reload: &Reload) {
    let Some(keeper) = tls else {
        return std::future::pending().await;
    };
    let state = Arc::clone(state);
    let vouch = move |spki_sha256| {
        let (models, now) = (state.models.names(), state.clock.unix_now());
        if let Err(error) = state.identity.end_tls_at(spki_sha256, &models, now) {
            tracing::error!(%error, "the statement names the TLS key of before");
        }
    };
    keeper.run(reload.asked(), TLS_LOOK, vouch).await;
}

fn read_tls(config: &Loaded<NodeConfig>, clock: Clock) -> Result<Option<tls::Keeper>, ConfigError> {
    let Some(tls) = &config.value.tls else {
        return Ok(None);
    };
    let files = config::tls::of_node(config, tls)?;
    tls::read(config, files, config.value.node_id.as_str(), clock).map(Some)
}

/// What has to be known of files that [`check_files`] found nothing wrong with.
#[must_use]
pub fn warnings(config: &Loaded<NodeConfig>) -> Vec<String> {
    let tls = config.value.tls.as_ref();
    let files = tls.and_then(|tls| config::tls::of_node(config, tls).ok());
    let public = files.and_then(|files| tls::warning(&files, Clock::system().now()));
    let of_admin = admin::warnings(config, config.value.admin.as_ref());
    public.into_iter().chain(of_admin).collect()
}

/// Reads every file that the configuration names, as a start does, and opens no port.
///
/// # Errors
/// [`StartError`] says which part of the configuration is at fault.
pub fn check_files(config: &Loaded<NodeConfig>) -> Result<(), StartError> {
    node_config::check(config)?;
    read_tls(config, Clock::system())?;
    Sources::open(config, &config.value.evidence)?;
    admin::check_files(config, config.value.admin.as_ref())?;
    for engine in &config.value.engines {
        if let EngineUrl::Http(base) = &engine.url {
            Engine::new(base.clone(), engine, config)?;
        }
    }
    Ok(())
}

fn identity(
    config: &NodeConfig,
    models: Vec<String>,
    tls_spki_sha256: Option<[u8; 32]>,
    now: u64,
) -> Result<Identity, IdentityError> {
    let named = Named {
        node_id: config.node_id.as_str(),
        keys: &config.keys,
        dialects: &config.dialects,
    };
    let facts = Facts {
        models,
        tls_spki_sha256,
        engine: if config.engines_are_local() {
            EngineLocation::Local
        } else {
            EngineLocation::Remote
        },
        config_sha256: config_digest(config),
    };
    Identity::generate(named, facts, now)
}

/// SHA-256 of the effective configuration without secrets.
fn config_digest(config: &NodeConfig) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(config).unwrap_or_default()).into()
}

async fn engines(
    config: &Loaded<NodeConfig>,
    clock: Clock,
    alive: &CancellationToken,
) -> Result<Vec<Arc<Engine>>, EngineSetupError> {
    let mut engines = Vec::new();
    for engine in &config.value.engines {
        let base = match &engine.url {
            EngineUrl::Http(base) => base.clone(),
            EngineUrl::Echo => echo::start(clock, alive.child_token())
                .await
                .map_err(EngineSetupError::Echo)?,
        };
        engines.push(Arc::new(Engine::new(base, engine, config)?));
    }
    Ok(engines)
}

/// Places for requests, as many as can be taken back at once when the node drains.
fn places(config: &NodeConfig) -> usize {
    let most = usize::try_from(u32::MAX).unwrap_or(Semaphore::MAX_PERMITS);
    config
        .limits
        .requests
        .get()
        .min(most.min(Semaphore::MAX_PERMITS))
}

fn limits(config: &NodeConfig) -> listener::Limits {
    listener::Limits {
        connections: config.limits.connections.get(),
        head_timeout: config.timeouts.head_ms.duration(),
        idle_timeout: config.timeouts.idle_ms.duration(),
        write_timeout: config.timeouts.write_ms.duration(),
        shutdown_timeout: CUT_GRACE,
    }
}

/// Waits until no request is under way, then, past the time allowed, cuts what is left.
async fn drain(state: &State) {
    state.draining.cancel();
    let all = u32::try_from(places(&state.config)).unwrap_or(u32::MAX);
    let idle = state.requests.acquire_many(all);
    let patience = state.config.timeouts.drain_ms.duration();
    if timeout(patience, idle).await.is_err() {
        tracing::warn!("requests are still under way and are cut");
        state.cut.cancel();
        let idle = state.requests.acquire_many(all);
        let _ = timeout(CUT_GRACE, idle).await;
    }
}

/// Turns the keys when they are due and asks the engines what they serve; never ends.
async fn upkeep(state: &State) {
    let rest = UPKEEP.min(Duration::from_secs(state.config.keys.life_s.get() / 16));
    let rest = rest.max(Duration::from_secs(1));
    let mut retry = FIRST_RETRY;
    let mut known = state.models.all_known();
    loop {
        sleep(if known { rest } else { retry.min(rest) }).await;
        known = state.models.refresh().await;
        retry = retry.saturating_mul(2).min(LAST_RETRY);
        if let Err(error) = state
            .identity
            .renew(&state.models.names(), state.clock.unix_now())
        {
            tracing::error!(%error, "the statement stays as it is");
        }
    }
}
