//! Nodes that announce themselves: where they may be, how often they may ask, and how one joins.
//!
//! An announcement proves nothing and is believed in nothing: it only says where to ask. The name is
//! resolved once, every address is checked, and the node is reached at those addresses alone from
//! then on. It joins only with evidence that passes, and nothing of one that does not is kept.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::ranges::{Reach, reach};
use super::{
    Shared,
    attest::{AttestError, Attester},
    authenticate::Caller,
    error::{Error, NotAnnounced},
    keep::Keeper,
    node::{Node, Terms, Verified},
    nodes::{Nodes, NotJoined},
    probe, until,
};
use crate::{
    config::gateway::{AnnounceConfig, NodeUrl},
    sealer::Proxy,
    store::What,
};

mod ranges;

/// Most announcements that are looked into at once.
const MAX_AT_ONCE: usize = 8;
/// Most addresses of a name.
const MAX_ADDRESSES: usize = 16;
/// Over which the announcements of a caller are counted.
const WINDOW: Duration = Duration::from_secs(60);

type Resolving = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Says what a host's name means.
#[derive(Clone)]
pub(super) struct Resolver(Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>);

/// Where announcements are handed in.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) config: AnnounceConfig,
    /// How those that join take part.
    terms: Mutex<Terms>,
    /// The proxy that leads to those that announce themselves from now on.
    proxy: Mutex<Option<Arc<Proxy>>>,
    resolver: Resolver,
    pub(super) turns: Semaphore,
    orders: mpsc::Sender<Order>,
    /// The other end, until it is served.
    waiting: Mutex<Option<mpsc::Receiver<Order>>>,
    /// When each caller's announcements so far are worked off, by its name.
    paid: Mutex<HashMap<Arc<str>, Instant>>,
}

/// A node to look into, and who waits for the verdict.
#[derive(Debug)]
pub(super) struct Order {
    node: Arc<Node>,
    verdict: oneshot::Sender<Result<(), NotAnnounced>>,
}

impl Resolver {
    pub(super) fn new(resolve: impl Fn(String, u16) -> Resolving + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    /// The system's.
    fn system() -> Self {
        Self::new(|host, port| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((host, port)).await?;
                Ok(found.collect())
            })
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Desk {
    pub(super) fn new(config: AnnounceConfig, terms: Terms, proxy: Option<Arc<Proxy>>) -> Self {
        let (orders, waiting) = mpsc::channel(MAX_AT_ONCE);
        Self {
            config,
            terms: Mutex::new(terms),
            proxy: Mutex::new(proxy),
            resolver: Resolver::system(),
            turns: Semaphore::new(MAX_AT_ONCE),
            orders,
            waiting: Mutex::new(Some(waiting)),
            paid: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn resolve_with(&mut self, resolver: Resolver) {
        self.resolver = resolver;
    }

    /// Counts an announcement of a caller.
    ///
    /// # Errors
    /// [`Error::RateLimited`] where there were too many in the last minute.
    pub(super) fn count(&self, caller: &Caller) -> Result<(), Error> {
        let price = WINDOW / self.config.per_key_per_minute.get();
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let last = paid.get(&caller.name).copied().unwrap_or(now).max(now);
        let next = last + price;
        let over = next.duration_since(now).saturating_sub(WINDOW);
        if !over.is_zero() {
            let retry_after_s = u32::try_from(over.as_secs()).unwrap_or(u32::MAX);
            return Err(Error::RateLimited {
                retry_after_s: retry_after_s.saturating_add(1),
            });
        }
        paid.insert(Arc::clone(&caller.name), next);
        Ok(())
    }

    /// The addresses of a node, once each of them was found to be one where a node may be.
    ///
    /// # Errors
    /// [`NotAnnounced`].
    pub(super) async fn addresses(
        &self,
        url: &NodeUrl,
        within: Duration,
    ) -> Result<Vec<SocketAddr>, NotAnnounced> {
        if !self.config.allows(url) {
            return Err(NotAnnounced::Place);
        }
        let (host, port) = (url.host(), url.port());
        let mut found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let resolving = (self.resolver.0)(host.to_owned(), port);
                let resolved = timeout(within, resolving).await;
                resolved
                    .map_err(|_| NotAnnounced::Unresolved)?
                    .map_err(|_| NotAnnounced::Unresolved)?
            }
        };
        let is_refused = |address: &SocketAddr| match reach(address.ip()) {
            Reach::Global => false,
            Reach::Private => !self.config.allow_private,
            Reach::Never => true,
        };
        if found.iter().any(is_refused) {
            return Err(NotAnnounced::Range);
        }
        if found.is_empty() {
            return Err(NotAnnounced::Unresolved);
        }
        found.truncate(MAX_ADDRESSES);
        Ok(found)
    }

    /// Has a node looked into, and waits for the verdict, which comes in a time that is bounded.
    ///
    /// # Errors
    /// [`Error::Announcement`], or [`Error::Draining`] where nobody looks any more.
    pub(super) async fn join(&self, url: NodeUrl, addresses: Vec<SocketAddr>) -> Result<(), Error> {
        let proxy = self.proxy().clone();
        let node = Node::announced(url, addresses, self.terms()).through(proxy.as_ref());
        let node = Arc::new(node);
        let (verdict, said) = oneshot::channel();
        let order = Order { node, verdict };
        self.orders.send(order).await.map_err(|_| Error::Draining)?;
        said.await.map_err(|_| Error::Draining)??;
        Ok(())
    }

    /// Has those that announce themselves from now on reached through `proxy`; those that have joined stay
    /// reached as they are.
    pub(super) fn reach_through(&self, proxy: Option<Arc<Proxy>>) {
        *self.proxy() = proxy;
    }

    fn proxy(&self) -> MutexGuard<'_, Option<Arc<Proxy>>> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn terms(&self) -> Terms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that join from now on take part on these terms.
    pub(super) fn set_terms(&self, terms: Terms) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    /// What was handed in, for the one who looks into it.
    pub(super) fn take_orders(&self) -> Option<mpsc::Receiver<Order>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }
}

/// Looks into what is handed in; never ends while the desk is there. Each node that joins is kept by
/// a task of its own.
pub(super) async fn serve(
    mut orders: mpsc::Receiver<Order>,
    attester: Arc<Attester>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    while let Some(order) = orders.recv().await {
        let (attester, shared) = (Arc::clone(&attester), Arc::clone(&shared));
        tasks.spawn(until(stop.clone(), look_into(order, attester, shared)));
    }
}

async fn look_into(order: Order, attester: Arc<Attester>, shared: Arc<Shared>) {
    let Some(desk) = &shared.desk else { return };
    let Order { node, verdict } = order;
    // The evidence is waited for as any node's, and its turn to be judged no longer than that.
    let within = attester.settings.timeout.saturating_mul(2);
    let joining = join(&node, &attester, &shared.nodes, desk.config.max_nodes.get());
    let joined = timeout(within, joining).await;
    let verified = match joined.unwrap_or(Err(AttestError::Timeout.into())) {
        Ok(verified) => verified,
        Err(error) => {
            tracing::warn!(node = %node.url, %error, "announced node not taken in");
            // Whoever asked may have left.
            let _ = verdict.send(Err(error));
            return;
        }
    };
    let member = Member {
        shared: &shared,
        node: &node,
    };
    let detail = json!({ "node_id": &*verified.id });
    let url = node.url.to_string();
    shared.audit.say(What::NodeAnnounced, &url, detail);
    // They may have changed while it was appraised.
    node.set_terms(desk.terms());
    tracing::info!(
        node = %node.url,
        node_id = &*verified.id,
        root = %verified.node.root(),
        "a node that announced itself has joined"
    );
    // Whoever is told of it finds it in the list; if that takes long, sooner.
    let listed = shared.nodes.until_listed(&node, &verified.id);
    let _ = timeout(within, listed).await;
    let _ = verdict.send(Ok(()));
    let forget_after = Duration::from_secs(desk.config.forget_after_s.get().into());
    tokio::select! {
        biased;
        () = Keeper::new(&attester, &shared.nodes, &node).run_on(&verified) => {}
        () = probe::watch(&shared.nodes, &node) => {}
        () = forgotten(&node, forget_after) => {
            tracing::warn!(node = %node.url, "announced node forgotten: it is not verified any more");
        }
        () = node.gone.cancelled() => {}
        () = shared.halted.cancelled() => {}
    }
    drop(member);
}

async fn join(
    node: &Arc<Node>,
    attester: &Attester,
    nodes: &Nodes,
    max: usize,
) -> Result<Arc<Verified>, NotAnnounced> {
    let judged = attester.appraise(node).await?;
    let verified = attester.verified(node, judged)?;
    node.counts.accepted();
    node.appraised(Some(Arc::clone(&verified)));
    nodes.join(node, max).map_err(|why| {
        node.distrust();
        match why {
            NotJoined::IdTaken => NotAnnounced::IdTaken,
            NotJoined::Full => NotAnnounced::Full,
        }
    })?;
    Ok(verified)
}

/// Resolves once a node was not verified for so long.
async fn forgotten(node: &Node, after: Duration) {
    loop {
        node.until_unverified().await;
        if timeout(after, node.until_verified()).await.is_err() {
            return;
        }
    }
}

/// A node among the others, for as long as its task runs, however that ends.
struct Member<'a> {
    shared: &'a Shared,
    node: &'a Arc<Node>,
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let Self { shared, node } = self;
        shared.nodes.leave(node);
        let url = node.url.to_string();
        shared.audit.say(What::NodeLeft, &url, json!({}));
    }
}
