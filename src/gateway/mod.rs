//! The gateway: from the plain contract to a sealed request and back.
//!
//! A request goes through the modules in this order: `routes` finds its path, `infer` leads it
//! along `authenticate`, `admit` and `body`; `nodes` knows who serves the model, `select` chooses one
//! by its `labels`, `load` and `health`, `ask` decides on another try, `exchange` has the request sealed, sent and its reply opened by
//! `sealer`; `whole` or `stream` give it on.
//!
//! What is sealed by somebody else takes another way: `fleet` gives out what is known of nodes and
//! `locks` on them, and `relay` carries sealed bytes that nothing here can open. `announce` takes in
//! nodes that the configuration does not name; `dial` holds connections to addresses.
//!
//! Beside it `probe` watches each node's health, and `keep` has each `node` appraised by `attest`,
//! under the `rules` in force; `archive` keeps what was judged, `metrics` counts for the operator,
//! `trust` ends what a node's requests hold when it is no longer verified, and
//! `self_test` tries the verifier itself.
//!
//! Nothing is sealed to a node that was not verified, and nothing is given on that did not open.
//! The gateway carries bodies and replies; it rewrites neither.

mod admit;
mod announce;
mod archive;
mod ask;
mod attest;
mod authenticate;
mod body;
mod budget;
mod cors;
mod document;
mod error;
mod exchange;
mod fleet;
mod health;
mod infer;
mod keep;
mod labels;
mod load;
mod locks;
mod metrics;
mod node;
mod nodes;
mod probe;
mod reconfigure;
mod record;
mod relay;
mod routes;
mod rules;
mod select;
mod self_test;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod trust;
mod whole;

use std::{
    convert::Infallible,
    io,
    net::{self, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use attestation::{PolicyError, VerifiedNode};
use hyper::service::service_fn;
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::self_test::SelfTestError;
use self::{
    admit::Admission,
    announce::Desk,
    archive::Archive,
    attest::{Attester, Settings},
    authenticate::Callers,
    cors::Cors,
    keep::Keeper,
    labels::Labels,
    load::Share,
    locks::Locks,
    metrics::{Metrics, Scrape},
    node::{Node, Terms},
    nodes::Nodes,
    reconfigure::Reconfigurer,
    rules::{Reloader, Rules, Sources},
    stream::Timing,
};
use crate::{
    admin::{Admin, AdminError, Pages, serve_beside},
    clock::Clock,
    config::{
        self, ConfigError, Loaded,
        bundle::BundleFolderError,
        gateway::{Auth, GatewayConfig, HealthConfig, KeysFile, MAX_LABELS, NodeConfig, millis},
    },
    listener::{self, ConnectionCounts, Listener, serve_counted},
    net::Acceptor,
    reload::Reload,
    seal::Padding,
    sealer::{Credential, Roots, Shown, TlsError},
    telemetry::metrics::Exposition,
    tls,
};

/// Between two looks for idle connections that have waited too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Time for error events to leave once open requests are ended.
const CUT_GRACE: Duration = Duration::from_secs(2);
/// Most questions for evidence that callers have nodes asked at once.
const MAX_QUESTIONS: usize = 8;
/// Time for the last verdicts to be written.
const ARCHIVE_GRACE: Duration = Duration::from_secs(2);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or a file that it names, cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy cannot be used.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The policy's file.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// The bundle cannot be used.
    #[error("bundle: {0}")]
    Bundle(#[from] BundleFolderError),
    /// The verifier is not to be relied on.
    #[error("self-test: {0}: this program must not be used")]
    SelfTest(#[from] SelfTestError),
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
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

/// A gateway that listens.
#[derive(Debug)]
pub struct Gateway {
    listener: Acceptor,
    address: SocketAddr,
    limits: listener::Limits,
    farewell: Farewell,
    tls: Option<tls::Keeper>,
    prepared: reconfigure::Prepared,
    beside: Beside,
    shared: Arc<Shared>,
    admin: Option<Admin>,
    archive: Option<archive::Watch>,
}

/// What works beside the requests.
#[derive(Debug)]
struct Beside {
    attester: Attester,
    reloader: Reloader,
    reload: Reload,
    reload_every: Duration,
    self_test: self_test::Test,
    archive_ended: Option<archive::Ended>,
}

/// What all requests share that begin under one configuration: each takes it once, so none sees two.
/// Another configuration is another one of these, with the same nodes and the same places taken.
#[derive(Clone, Debug)]
struct Shared {
    clock: Clock,
    metrics: Arc<Metrics>,
    callers: Arc<Callers>,
    admission: Admission,
    nodes: Arc<Nodes>,
    /// Regions and tags of the configured ones.
    labels: Arc<Labels>,
    health: HealthConfig,
    /// Where nodes announce themselves, if they may.
    desk: Option<Arc<Desk>>,
    locks: Arc<Locks>,
    /// Callers' questions to nodes for evidence.
    questions: Arc<Semaphore>,
    /// What nodes are judged by.
    rules: watch::Receiver<Arc<Rules>>,
    padding: Padding,
    retry_unauthenticated: bool,
    cors: Cors,
    /// Whether only requests to a name of this machine are answered.
    loopback_only: bool,
    limits: Limits,
    timeouts: Timeouts,
    phase: Arc<Phase>,
    /// Ends open requests.
    cut: CancellationToken,
    /// Set once the verifier is not to be relied on: no node counts as verified any more.
    halted: CancellationToken,
}

/// How far the gateway's end has come.
#[derive(Debug, Default)]
struct Phase {
    /// Whether callers should go elsewhere, though they are still served.
    leaving: AtomicBool,
    /// Whether no new work is taken.
    draining: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    body_bytes: usize,
    reply_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Timeouts {
    body: Duration,
    connect: Duration,
    attest: Duration,
    first_byte: Duration,
    total_first_byte: Duration,
    idle: Duration,
    stream: Timing,
}

impl Shared {
    fn is_leaving(&self) -> bool {
        self.phase.leaving.load(Ordering::Relaxed)
    }

    fn is_draining(&self) -> bool {
        self.phase.draining.load(Ordering::Relaxed)
    }
}

impl Gateway {
    /// Tests the verifier, reads every file that the configuration names, and listens.
    ///
    /// # Errors
    /// [`StartError`] names what cannot be used.
    pub async fn bind(config: Loaded<GatewayConfig>, clock: Clock) -> Result<Self, StartError> {
        Self::bind_to(None, config, clock).await
    }

    /// The same on a socket that listens already, in place of `listen`.
    ///
    /// # Errors
    /// As for [`Gateway::bind`].
    pub async fn bind_to(
        socket: Option<net::TcpListener>,
        config: Loaded<GatewayConfig>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        Self::bind_with(socket, config, clock, attestation::self_test).await
    }

    async fn bind_with(
        socket: Option<net::TcpListener>,
        config: Loaded<GatewayConfig>,
        clock: Clock,
        self_test: self_test::Test,
    ) -> Result<Self, StartError> {
        config::gateway::check(&config)?;
        self_test::run(self_test).await?;
        let mut reloader = Reloader::start(sources(&config))?;
        let tls = keep_tls(&config, clock)?;
        let seen = reconfigure::seen(&config);
        let shared = Arc::new(share(&config, clock, reloader.rules())?);
        reloader.count_in(Arc::clone(&shared.metrics.reloads));
        let (archive, archive_ended) = open_archive(&config)?.unzip();
        let watched = archive.as_ref().map(Archive::watch);
        let value = &config.value;
        let (limits, timeouts) = (&value.limits, &value.timeouts);
        let settings = Settings {
            clock,
            interval: Duration::from_secs(value.reattest_s.get().into()),
            timeout: millis(timeouts.attest_ms),
            connect_timeout: millis(timeouts.connect_ms),
            max_idle: limits.idle_connections_per_node,
        };
        let farewell = Farewell {
            delay: Duration::from_millis(timeouts.shutdown_delay_ms),
            drain: millis(timeouts.drain_ms),
        };
        let asked = value.listen;
        let listen = |source| StartError::Listen {
            address: asked,
            source,
        };
        let listener = Acceptor::bind(socket, asked).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        config::gateway::check_address(&config, address)?;
        let admin = Admin::open(&config, config.value.admin.as_ref()).await?;
        Ok(Self {
            address,
            listener,
            limits: listener::Limits {
                connections: limits.connections.get(),
                head_timeout: millis(timeouts.head_ms),
                idle_timeout: millis(timeouts.idle_connection_ms),
                write_timeout: millis(timeouts.write_ms),
                shutdown_timeout: farewell.drain.saturating_add(CUT_GRACE),
            },
            farewell,
            tls,
            prepared: reconfigure::Prepared::new(&config, address, seen),
            beside: Beside {
                attester: Attester::new(settings, reloader.rules(), archive, shared.cut.clone()),
                reloader,
                reload: Reload::default(),
                reload_every: Duration::from_secs(value.reload_s.get().into()),
                self_test,
                archive_ended,
            },
            shared,
            admin,
            archive: watched,
        })
    }

    /// The address that the gateway listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that its admin listener has, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Whether callers connect by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// Has files read again while the gateway is served.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.beside.reload.clone()
    }

    /// Waits for the first node that is verified, once the gateway is served.
    pub fn first_verified(&self) -> impl Future<Output = Option<VerifiedNode>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { Some(shared.nodes.first_verified().await?.node.clone()) }
    }

    /// Serves until `shutdown`. Then it is not ready, and after the delay that the configuration gives
    /// takes no more work; it lets open requests end in their time, and ends what is left as failed.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self {
            listener,
            limits,
            farewell,
            tls,
            prepared,
            beside,
            shared,
            admin,
            archive,
            ..
        } = self;
        let stop = CancellationToken::new();
        let connections = Arc::<ConnectionCounts>::default();
        let administered = serve_beside(admin.map(|admin| {
            let (scraped, asked) = (Arc::clone(&shared), Arc::clone(&shared));
            let scrape = Scrape {
                shared: scraped,
                connections: Arc::clone(&connections),
                connection_limit: limits.connections,
                archive,
            };
            let pages = Pages {
                metrics: Exposition::new("sealgate_gateway", scrape),
                unready: Box::new(move || asked.unready()),
            };
            (admin, pages)
        }));
        let tasks = TaskTracker::new();
        let listener = Listener::on(listener, tls.as_ref().map(tls::Keeper::tls));
        if let Some(keeper) = tls {
            let keeping = keeper.run(beside.reload.asked(), beside.reload_every, |_| {});
            tasks.spawn(until(stop.clone(), keeping));
        }
        let reconfigurer = prepared.keep(&shared);
        let current = reconfigurer.current();
        let archive_ended = beside.start(&shared, reconfigurer, &stop, &tasks);
        tasks.spawn(sweep(Arc::clone(&shared), stop.clone()));
        let closing = CancellationToken::new();
        let leaving = farewell.say(Arc::clone(&shared), shutdown, closing.clone());
        tasks.spawn(until(stop.clone(), leaving));
        tasks.close();
        let service = service_fn(move |request| {
            // Boxed, so that a connection whose stream goes on for long does not keep its room.
            let shared = Arc::clone(&current.borrow());
            let answering = Box::pin(shared.handle(request));
            async { Ok::<_, Infallible>(answering.await) }
        });
        serve_counted(listener, service, limits, closing, connections).await;
        stop.cancel();
        tasks.wait().await;
        if let Some(ended) = archive_ended {
            let _ = timeout(ARCHIVE_GRACE, ended).await;
        }
        administered.await;
    }
}

impl Beside {
    /// Starts a task for each node and each other thing, all of which end with `stop`; the archive
    /// ends after them.
    fn start(
        self,
        shared: &Arc<Shared>,
        reconfigurer: Reconfigurer,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Option<archive::Ended> {
        let attester = Arc::new(self.attester);
        let keepers = Keepers {
            attester: Arc::clone(&attester),
            shared: Arc::clone(shared),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        for node in shared.nodes.all().iter() {
            keepers.keep(node);
        }
        let reconfiguring = reconfigurer.run(keepers, self.reload.asked(), self.reload_every);
        tasks.spawn(until(stop.clone(), reconfiguring));
        if let Some(orders) = shared.desk.as_deref().and_then(Desk::take_orders) {
            let (stop, tasks) = (stop.clone(), tasks.clone());
            let serving = announce::serve(
                orders,
                attester,
                Arc::clone(shared),
                stop.clone(),
                tasks.clone(),
            );
            tasks.spawn(until(stop, serving));
        }
        let locks = Arc::clone(shared);
        let expiring = async move { locks.locks.expire().await };
        tasks.spawn(until(stop.clone(), expiring));
        let nodes = Arc::clone(shared);
        let current = async move { nodes.nodes.keep_current(nodes.clock).await };
        tasks.spawn(until(stop.clone(), current));
        let reloading = self.reloader.run(self.reload.asked(), self.reload_every);
        tasks.spawn(until(stop.clone(), reloading));
        let testing = self_test::daily(self.self_test, shared.halted.clone());
        tasks.spawn(until(stop.clone(), testing));
        self.archive_ended
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Has nodes kept, each by a task of its own.
struct Keepers {
    attester: Arc<Attester>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Keepers {
    fn keep(&self, node: &Arc<Node>) {
        let (attester, shared) = (Arc::clone(&self.attester), Arc::clone(&self.shared));
        let keeping = keep(attester, shared, Arc::clone(node));
        self.tasks.spawn(until(self.stop.clone(), keeping));
    }
}

/// Keeps a node appraised, and watches its health, until the verifier is not to be relied on, or the configuration names it no
/// more and its last request has ended.
async fn keep(attester: Arc<Attester>, shared: Arc<Shared>, node: Arc<Node>) {
    tokio::select! {
        () = Keeper::new(&attester, &shared.nodes, &node).run() => {}
        () = probe::watch(&shared.nodes, &node, &shared.health) => {}
        () = reconfigure::let_go(&node) => {}
        () = shared.halted.cancelled() => {}
    }
}

/// Reads every file that the configuration names, as a start does, and opens no port.
///
/// # Errors
/// [`StartError`] names what cannot be used.
pub fn check_files(config: &Loaded<GatewayConfig>) -> Result<(), StartError> {
    let rules = Reloader::start(sources(config))?.rules();
    keep_tls(config, Clock::system())?;
    share(config, Clock::system(), rules)?;
    if let Some(admin) = &config.value.admin {
        admin.token(config)?;
    }
    Ok(())
}

/// What has to be known of files that [`check_files`] found nothing wrong with.
#[must_use]
pub fn warning(config: &Loaded<GatewayConfig>) -> Option<String> {
    let files = config::tls::of_gateway(config, config.value.tls.as_ref()?).ok()?;
    tls::warning(&files, Clock::system().now())
}

fn keep_tls(
    config: &Loaded<GatewayConfig>,
    clock: Clock,
) -> Result<Option<tls::Keeper>, ConfigError> {
    let Some(tls) = &config.value.tls else {
        return Ok(None);
    };
    let files = config::tls::of_gateway(config, tls)?;
    let keeper = tls::Keeper::start(files.clone(), "localhost", clock);
    keeper
        .map(Some)
        .map_err(|error| tls::named(config, &files, &error))
}

/// How long a gateway that was told to stop goes on.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    /// With new work, so that whoever sends it can notice.
    delay: Duration,
    /// With open requests, after that.
    drain: Duration,
}

impl Farewell {
    /// Once told to stop: not ready at once, no new work after the delay, and no request after the
    /// drain.
    async fn say(
        self,
        shared: Arc<Shared>,
        shutdown: CancellationToken,
        closing: CancellationToken,
    ) {
        shutdown.cancelled().await;
        shared.phase.leaving.store(true, Ordering::Relaxed);
        sleep(self.delay).await;
        tracing::info!("draining: no new requests, streams may finish");
        shared.phase.draining.store(true, Ordering::Relaxed);
        closing.cancel();
        sleep(self.drain).await;
        shared.cut.cancel();
    }
}

async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for verified in shared.nodes.all().iter().flat_map(|node| node.held()) {
            verified.channel.sweep();
        }
    }
}

fn share(
    config: &Loaded<GatewayConfig>,
    clock: Clock,
    rules: watch::Receiver<Arc<Rules>>,
) -> Result<Shared, ConfigError> {
    let value = &config.value;
    let limits = &value.limits;
    let labels = Labels::default();
    let labels = labels
        .with(&value.nodes)
        .ok_or_else(|| too_many_labels(config))?;
    let nodes = value.nodes.iter();
    let nodes = nodes.map(|node| read_node(config, node, &labels));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    nodes.iter().for_each(|node| node.load.skip_warm_up());
    let announced = terms(value, 1.0, None, 0);
    let desk = |announce| Arc::new(Desk::new(announce, announced));
    Ok(Shared {
        clock,
        metrics: Arc::new(Metrics::new(clock)),
        callers: Arc::new(read_callers(config, &labels, None)?),
        admission: Admission::new(limits.in_flight.get(), as_usize(limits.bodies_bytes.get())),
        nodes: Arc::new(Nodes::new(nodes, value.models.clone())),
        labels: Arc::new(labels),
        health: value.health,
        desk: value.announce.clone().map(desk),
        locks: Arc::new(Locks::new(value.locks)),
        questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        rules,
        padding: value.padding,
        retry_unauthenticated: value.retry_unauthenticated,
        cors: Cors::new(value.cors.origins.clone()),
        loopback_only: value.auth == Auth::Open,
        limits: limits_of(value),
        timeouts: timeouts_of(value),
        phase: Arc::default(),
        cut: CancellationToken::new(),
        halted: CancellationToken::new(),
    })
}

fn limits_of(config: &GatewayConfig) -> Limits {
    Limits {
        body_bytes: as_usize(config.limits.body_bytes.get()),
        reply_bytes: config.limits.reply_bytes.get(),
    }
}

fn timeouts_of(config: &GatewayConfig) -> Timeouts {
    let timeouts = &config.timeouts;
    Timeouts {
        body: millis(timeouts.body_ms),
        connect: millis(timeouts.connect_ms),
        attest: millis(timeouts.attest_ms),
        first_byte: millis(timeouts.first_byte_ms),
        total_first_byte: millis(timeouts.total_first_byte_ms),
        idle: millis(timeouts.idle_ms),
        stream: Timing {
            idle: millis(timeouts.idle_ms),
            sign_of_life: millis(timeouts.sign_of_life_ms),
        },
    }
}

fn as_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn sources(config: &Loaded<GatewayConfig>) -> Sources {
    let bundle = config.value.bundle.as_ref();
    Sources::new(
        config.resolve(&config.value.policy),
        bundle.map(|folder| config.resolve(folder)),
    )
}

fn open_archive(
    config: &Loaded<GatewayConfig>,
) -> Result<Option<(Archive, archive::Ended)>, ConfigError> {
    let Some(archive) = &config.value.archive else {
        return Ok(None);
    };
    let dir = config.resolve(&archive.dir);
    let opened = Archive::open(archive, &dir);
    let unusable = |e| config.invalid("archive.dir", format!("{}: {e}", dir.display()));
    opened.map(Some).map_err(unusable)
}

fn read_callers(
    config: &Loaded<GatewayConfig>,
    labels: &Labels,
    before: Option<&Callers>,
) -> Result<Callers, ConfigError> {
    let value = &config.value;
    let places = value.limits.in_flight_per_key.get();
    match &value.keys_file {
        Some(file) if value.auth == Auth::Keys => {
            let path = config.resolve(file);
            let text = config::read_text(&path)?;
            let keys = config::parse::<KeysFile>(&path, &text, std::iter::empty())?;
            let callers = Callers::with_keys(keys.value, labels, places, before);
            callers.map_err(|error| config.invalid("keys_file", error.to_string()))
        }
        _ => {
            let bounded = before.and_then(|before| before.bounded(places));
            Ok(bounded.unwrap_or_else(|| Callers::anybody(places)))
        }
    }
}

fn read_node(
    config: &Loaded<GatewayConfig>,
    node: &NodeConfig,
    labels: &Labels,
) -> Result<Arc<Node>, ConfigError> {
    let credential = match &node.credential_file {
        Some(file) => {
            let text = config::read_secret(&config.resolve(file))?;
            let text = std::str::from_utf8(&text).unwrap_or_default();
            let read = Credential::from_file_text(text);
            Some(read.map_err(|e| config.invalid("node.credential_file", e.to_string()))?)
        }
        None => None,
    };
    let roots = match &node.ca_file {
        Some(file) => Roots::from_pem_file(&config.resolve(file))
            .map_err(|e| config.invalid("node.ca_file", e.to_string()))?,
        None => Roots::Public,
    };
    let value = &config.value;
    let price = node.price.get().powf(value.selection.price_weight.get());
    // Neither free nor out of reach, whatever was written.
    let bias = (price / node.weight.get()).clamp(1e-6, 1e6);
    let labels = labels.bits(node.region.as_ref(), &node.tags);
    let terms = terms(value, bias, node.max_in_flight, labels);
    let shown = read_shown(config, node)?;
    let node = Node::new(node.url.clone(), credential, roots, terms);
    Ok(Arc::new(node.showing(shown)))
}

fn too_many_labels(config: &Loaded<GatewayConfig>) -> ConfigError {
    let message = format!(
        "at most {MAX_LABELS} different regions and tags since the gateway was started: restart it"
    );
    config.invalid("node.tags", message)
}

fn terms(
    config: &GatewayConfig,
    bias: f64,
    max_in_flight: Option<NonZeroU32>,
    labels: u64,
) -> Terms {
    let most = max_in_flight.unwrap_or(config.limits.in_flight_per_node);
    Terms {
        labels,
        share: Share {
            bias,
            max_in_flight: most.get(),
            warm_up: config.selection.warm_up_s.duration(),
        },
        health: config.health,
    }
}

fn read_shown(
    config: &Loaded<GatewayConfig>,
    node: &NodeConfig,
) -> Result<Option<Shown>, ConfigError> {
    let Ok(Some((certificate, key))) = node.identity() else {
        return Ok(None);
    };
    let certificate = config::read_text(&config.resolve(certificate))?;
    let key = config::read_secret(&config.resolve(key))?;
    let shown = Shown::from_pem(certificate.as_bytes(), &key);
    let invalid = |e: TlsError| config.invalid("node.client_certificate_file", e.to_string());
    shown.map(Some).map_err(invalid)
}
