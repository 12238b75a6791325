//! The gateway: from the plain contract to a sealed request and back.
//!
//! A request goes through the modules in this order: `routes` finds its path, `infer` leads it
//! along `authenticate`, `admit` and `body`; `nodes` knows who serves the model, `select` chooses one
//! by its `labels`, `hardware`, `load` and `health`, `ask` decides on another try, `exchange` has the request
//! sealed, sent and its reply opened by `sealer`; `whole` or `stream` give it on.
//!
//! What is sealed by somebody else takes another way: `fleet` gives out what is known of nodes and
//! `locks` on them, and `relay` carries sealed bytes that nothing here can open. `announce` takes in
//! nodes that the configuration does not name; `dial` holds connections to addresses.
//!
//! Beside it `probe` watches each node's health, and `keep` has each `node` appraised by `attest`,
//! under the `rules` in force; `archive` keeps what was judged, `receipts` checks and keeps what
//! nodes sign of replies, `audit` tells the store of what was judged and of what changes, `metrics` counts for the
//! operator, `trust` ends what a node's requests hold when it is no longer verified, and `self_test` tries the
//! verifier itself. `admin_api` is what an administrator asks.
//!
//! A gateway in a TEE has evidence of its own: `own` is what it says of itself, `sealed` lets requests
//! in that are sealed to it and has them asked as plain ones are, `sealed_reply` seals the answers, `paced`
//! at ticks.
//!
//! `keeping` opens the store and works for it beside the requests, `book` is its keys in memory,
//! `limits` holds keys to what they may use, `claims` nodes to what they can have used, and `record` ends
//! in the row of both.
//!
//! `start` is what can keep a gateway from starting, `files` reads what a configuration names, `shared` is what
//! requests take from it, `beside` holds what works beside them, `reconfigure` changes all that while the
//! gateway serves, and `farewell` ends it.
//!
//! Nothing is sealed to a node that was not verified, and nothing is given on that did not open.
//! The gateway carries bodies and replies; it rewrites neither.

mod admin_api;
mod admit;
mod announce;
mod archive;
mod ask;
mod attest;
mod audit;
mod authenticate;
mod beside;
mod body;
mod book;
mod budget;
mod claims;
mod cors;
mod document;
mod error;
mod exchange;
mod farewell;
mod files;
mod fleet;
mod hardware;
mod health;
mod infer;
mod keep;
mod keeping;
mod labels;
mod limits;
mod load;
mod locks;
mod metrics;
mod node;
mod nodes;
mod own;
mod paced;
mod padding;
mod probe;
mod receipts;
mod reconfigure;
mod record;
mod relay;
mod routes;
mod rules;
mod sealed;
mod sealed_reply;
mod select;
mod self_test;
mod shared;
mod sources;
mod start;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod trust;
mod whole;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use attestation::VerifiedNode;
use hyper::service::service_fn;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    admin_api::AdminApi,
    archive::Archive,
    attest::{Attester, Settings},
    beside::{Beside, sweep, until},
    farewell::Farewell,
    files::{keep_tls, open_archive, sources},
    metrics::Scrape,
    rules::Reloader,
    shared::Shared,
};
pub use self::{
    self_test::SelfTestError,
    start::{StartError, check_files, warnings},
};
use crate::{
    admin::{Admin, Pages, serve_beside},
    clock::Clock,
    config::{
        self, Loaded,
        gateway::{GatewayConfig, millis},
    },
    listener::{self, ConnectionCounts, Listener, Sockets, serve_counted},
    net::Acceptor,
    reload::Reload,
    store::What,
    telemetry::metrics::Exposition,
    tls,
};

/// Time for error events to leave once open requests are ended.
const CUT_GRACE: Duration = Duration::from_secs(2);
/// Most questions for evidence that callers have nodes asked at once.
const MAX_QUESTIONS: usize = 8;
/// Time for the last usage to be written; what is not stays in the journal.
const LEDGER_GRACE: Duration = Duration::from_secs(15);
/// Time for the last verdicts to be written.
const ARCHIVE_GRACE: Duration = Duration::from_secs(2);

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

impl Gateway {
    /// Tests the verifier, reads every file that the configuration names, and listens.
    ///
    /// # Errors
    /// [`StartError`] names what cannot be used.
    pub async fn bind(config: Loaded<GatewayConfig>, clock: Clock) -> Result<Self, StartError> {
        Self::bind_to(Sockets::default(), config, clock).await
    }

    /// The same on sockets that listen already, in place of the addresses in the configuration.
    ///
    /// # Errors
    /// As for [`Gateway::bind`].
    pub async fn bind_to(
        sockets: Sockets,
        config: Loaded<GatewayConfig>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        Self::bind_with(sockets, config, clock, attestation::self_test).await
    }

    async fn bind_with(
        sockets: Sockets,
        config: Loaded<GatewayConfig>,
        clock: Clock,
        self_test: self_test::Test,
    ) -> Result<Self, StartError> {
        config::gateway::check(&config)?;
        self_test::run(self_test).await?;
        let mut reloader = Reloader::start(sources(&config))?;
        let tls = keep_tls(&config, clock)?;
        let seen = reconfigure::seen(&config);
        let shared = Shared::read(&config, clock, reloader.rules())?;
        let (shared, keeping) = Box::pin(keeping::open(&config, shared)).await?;
        // The hardware is asked here and now: a gateway that is to attest and cannot does not start.
        let ends_at = tls.as_ref().map(tls::Keeper::spki_sha256);
        let shared = Arc::new(shared.attesting(&config, ends_at)?);
        reloader.count_in(Arc::clone(&shared.metrics.reloads));
        reloader.tell(shared.audit.clone());
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
        let listener = Acceptor::bind(sockets.public, asked)
            .await
            .map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        config::gateway::check_address(&config, address)?;
        let admin = Admin::open(sockets.admin, &config, config.value.admin.as_ref(), clock).await?;
        let attester = Attester::new(settings, reloader.rules(), archive, shared.cut.clone());
        shared.say_started(&config, address);
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
                attester: attester.telling(shared.audit.clone()),
                reloader,
                reload: Reload::default(),
                reload_every: Duration::from_secs(value.reload_s.get().into()),
                self_test,
                archive_ended,
                keeping,
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

    /// Whether its admin listener, if there is one, is asked by TLS.
    #[must_use]
    pub fn admin_is_https(&self) -> bool {
        self.admin.as_ref().is_some_and(Admin::is_https)
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
            mut beside,
            shared,
            admin,
            archive,
            ..
        } = self;
        let stop = CancellationToken::new();
        let connections = Arc::<ConnectionCounts>::default();
        let reconfigurer = prepared.keep(&shared);
        let current = reconfigurer.current();
        let stored = beside.keeping.as_ref().map(|keeping| {
            let store = keeping.store.for_administrators();
            (store, shared.book())
        });
        let api = Arc::new(AdminApi::new(stored, shared.clock));
        let admin = admin.map(|admin| {
            let asked = Arc::clone(&shared);
            let scrape = Scrape {
                current: current.clone(),
                connections: Arc::clone(&connections),
                connection_limit: limits.connections,
                archive,
            };
            let pages = Pages {
                metrics: Exposition::new("sealgate_gateway", scrape),
                unready: Box::new(move || asked.unready()),
                api: Some(Box::new(move |parts, body| {
                    let api = Arc::clone(&api);
                    Box::pin(async move { api.answer(&parts, &body).await })
                })),
            };
            (admin, pages)
        });
        let administered = serve_beside(admin, &beside.reload, beside.reload_every);
        let tasks = TaskTracker::new();
        let listener = Listener::on(listener, tls.as_ref().map(tls::Keeper::tls));
        if let Some(keeper) = tls {
            let own = shared.own.clone();
            let vouch = move |spki_sha256| {
                own.iter().for_each(|own| own.end_tls_at(spki_sha256));
            };
            let keeping = keeper.run(beside.reload.asked(), beside.reload_every, vouch);
            tasks.spawn(until(stop.clone(), keeping));
        }
        let ledger_stop = CancellationToken::new();
        let audit = shared.audit.clone();
        let kept = beside.keeping.take().map(|keeping| {
            let follow = keeping.follow(&shared, stop.clone());
            tasks.spawn(follow);
            keeping.write(ledger_stop.clone())
        });
        let archive_ended = beside.start(&shared, reconfigurer, &stop, &tasks);
        tasks.spawn(sweep(Arc::clone(&shared), stop.clone()));
        if let Some(own) = shared.own.clone() {
            let current = current.clone();
            let keeping = async move { own.keep(current).await };
            tasks.spawn(until(stop.clone(), keeping));
        }
        let receipts = Arc::clone(&shared.receipts);
        let closing = CancellationToken::new();
        let phase = Arc::clone(&shared.phase);
        let leaving = farewell.say(phase, shutdown, closing.clone(), shared.cut.clone());
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
        receipts.end().await;
        if let Some(ended) = archive_ended {
            let _ = timeout(ARCHIVE_GRACE, ended).await;
        }
        audit.say(What::GatewayStopped, "", json!({}));
        // All requests have ended, and what they used is in the queue.
        ledger_stop.cancel();
        if let Some(kept) = kept {
            let _ = timeout(LEDGER_GRACE, kept).await;
        }
        administered.await;
    }
}
