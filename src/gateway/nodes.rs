//! The nodes, and what they serve.
//!
//! What attestation found is kept as one immutable [`Snapshot`] that is replaced as a whole, so a
//! request looks its model up in one step, whatever the number of nodes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    error::Error,
    metrics::{MAX_MODELS, ModelCounts, OTHER},
    node::{Node, Verified},
    select::Candidates,
};
use crate::{
    clock::{Clock, unix_seconds},
    config::gateway::NodeUrl,
};

/// Most models that are remembered once no node serves them any more.
const MAX_REMEMBERED: usize = 16 * 1024;

/// All nodes, and what they serve.
#[derive(Debug)]
pub(super) struct Nodes {
    /// In no order; replaced as a whole when one comes or goes.
    all: RwLock<Arc<Vec<Arc<Node>>>>,
    /// Other names for models: the caller's name to the node's.
    aliases: RwLock<Arc<BTreeMap<String, String>>>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Wakes the task that makes snapshots.
    changed: Notify,
    /// How many reasons there were to make another.
    news: AtomicU64,
    /// How many of them the last that was made knows.
    made: watch::Sender<u64>,
    /// Whether every node was appraised once, whatever came of it.
    settled: watch::Sender<bool>,
    /// Held while it is decided whether one more is put out.
    putting_out: Mutex<()>,
}

/// What is served now, and by whom.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// By the caller's name for it. A model that was served once stays, with no nodes.
    models: HashMap<Arc<str>, Arc<Served>>,
    /// Nodes that are verified, by their ids; of several with one id the configured one.
    by_id: HashMap<Arc<str>, Arc<Node>>,
    /// The counts of models that are too many to have their own.
    other: Arc<ModelCounts>,
}

/// Why an announced node does not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotJoined {
    /// Another has its id.
    IdTaken,
    /// There are as many as may be.
    Full,
}

/// A model.
#[derive(Debug)]
pub(super) struct Served {
    /// The caller's name for it.
    pub(super) name: Arc<str>,
    /// The node's name for it, where that is another.
    pub(super) node_name: Option<Arc<str>>,
    /// When it was first served, in Unix seconds.
    pub(super) since: u64,
    pub(super) counts: Arc<ModelCounts>,
    pub(super) nodes: Candidates,
}

impl Served {
    /// The name that nodes have for it.
    pub(super) fn on_nodes(&self) -> &Arc<str> {
        self.node_name.as_ref().unwrap_or(&self.name)
    }
}

impl Nodes {
    pub(super) fn new(all: Vec<Arc<Node>>, aliases: BTreeMap<String, String>) -> Self {
        Self {
            all: RwLock::new(Arc::new(all)),
            aliases: RwLock::new(Arc::new(aliases)),
            snapshot: RwLock::default(),
            changed: Notify::new(),
            made: watch::Sender::new(0),
            news: AtomicU64::new(0),
            settled: watch::Sender::new(false),
            putting_out: Mutex::default(),
        }
    }

    /// The model of this name. While nodes await their first appraisal, a model that nobody is
    /// known to serve may yet be theirs: then they are waited for, at most for `patience`.
    ///
    /// # Errors
    /// As for [`Snapshot::model`].
    pub(super) async fn serving(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<Arc<Served>, Error> {
        // Read first: a snapshot that is older than their word would be believed.
        let (settled, news) = (*self.settled.borrow(), self.news.load(Ordering::Acquire));
        let found = self.snapshot().model(name).cloned();
        if found.is_ok() {
            return found;
        }
        if !settled {
            self.settled(patience).await;
        }
        // What is known already, and in no snapshot yet.
        let mut made = self.made.subscribe();
        let _ = timeout(patience, made.wait_for(|made| *made >= news)).await;
        self.snapshot().model(name).cloned()
    }

    /// Waits until every node was appraised once, at most for `patience`.
    pub(super) async fn settled(&self, patience: Duration) {
        let mut settled = self.settled.subscribe();
        // In vain or not: what is asked next is answered by what is known then.
        let _ = timeout(patience, settled.wait_for(|settled| *settled)).await;
    }

    /// Waits for the first node that is verified.
    pub(super) async fn first_verified(&self) -> Option<Arc<Verified>> {
        let all = self.all();
        let verified = all.iter().map(|node| Box::pin(node.until_verified()));
        futures_util::future::select_all(verified).await.0
    }

    /// Every node, verified or not.
    pub(super) fn all(&self) -> Arc<Vec<Arc<Node>>> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The node at this address.
    pub(super) fn at(&self, url: &NodeUrl) -> Option<Arc<Node>> {
        self.all().iter().find(|node| node.url == *url).cloned()
    }

    /// Takes in a node that announced itself and is verified, in place of an announced one at the
    /// same address.
    ///
    /// # Errors
    /// [`NotJoined`] if another node has its id, or `max` have announced themselves.
    pub(super) fn join(&self, new: &Arc<Node>, max: usize) -> Result<(), NotJoined> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let is_replaced = |node: &Arc<Node>| node.is_announced() && node.url == new.url;
        let mut others = all.iter().filter(|node| !is_replaced(node));
        if others.any(|node| node.holds_id_of(new)) {
            return Err(NotJoined::IdTaken);
        }
        let mut next: Vec<_> = all.iter().filter(|it| !is_replaced(it)).cloned().collect();
        if next.iter().filter(|node| node.is_announced()).count() >= max {
            return Err(NotJoined::Full);
        }
        next.push(Arc::clone(new));
        let before = std::mem::replace(&mut *all, Arc::new(next));
        drop(all);
        for node in before.iter().filter(|node| is_replaced(node)) {
            node.gone.cancel();
        }
        self.changed();
        Ok(())
    }

    /// Waits until the snapshot has a node that joined, by its id.
    pub(super) async fn until_listed(&self, node: &Arc<Node>, id: &str) {
        let mut made = self.made.subscribe();
        let is_listed = |known: &Arc<Node>| Arc::ptr_eq(known, node);
        while !self.snapshot().node(id).is_some_and(is_listed) {
            // The sender is here: it cannot be gone.
            let _ = made.changed().await;
        }
    }

    /// Gives models other names.
    pub(super) fn rename(&self, aliases: BTreeMap<String, String>) {
        let mut names = self.aliases.write().unwrap_or_else(PoisonError::into_inner);
        *names = Arc::new(aliases);
        drop(names);
        self.changed();
    }

    /// Takes in nodes of the configuration, in place of announced ones at their addresses.
    pub(super) fn add(&self, new: &[Arc<Node>]) {
        let is_replaced =
            |node: &Arc<Node>| node.is_announced() && new.iter().any(|new| new.url == node.url);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let staying = all.iter().filter(|node| !is_replaced(node));
        let next = staying.chain(new).cloned().collect();
        let before = std::mem::replace(&mut *all, Arc::new(next));
        drop(all);
        for node in before.iter().filter(|node| is_replaced(node)) {
            node.gone.cancel();
        }
        self.changed();
    }

    /// Lets a node go.
    pub(super) fn leave(&self, gone: &Arc<Node>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let staying = all.iter().filter(|node| !Arc::ptr_eq(node, gone));
        let next = Arc::new(staying.cloned().collect());
        *all = next;
        drop(all);
        self.changed();
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a node out that has failed too often, unless then more than half of the nodes of one of
    /// its models were out: what fails everywhere is seldom the nodes' fault, and the others would
    /// have to carry it all.
    pub(super) fn put_out(&self, node: &Arc<Node>) {
        let one_at_a_time = self.putting_out.lock();
        if self.snapshot().can_spare(node) {
            let time = node.health.put_out();
            let seconds = time.as_secs();
            tracing::warn!(node = %node.url, seconds, "node put out: it failed too often");
        } else {
            node.health.leave_in();
            tracing::warn!(node = %node.url, "node fails and stays: as many others are out as may be");
        }
        drop(one_at_a_time);
    }

    /// Has a new snapshot made of what attestation found.
    pub(super) fn changed(&self) {
        self.news.fetch_add(1, Ordering::Release);
        self.changed.notify_one();
    }

    /// Makes snapshots; never ends. That grows with the number of nodes, so one is made for all that
    /// changed since the last, and never on a request's path.
    pub(super) async fn keep_current(&self, clock: Clock) {
        loop {
            self.changed.notified().await;
            self.rebuild(clock.now());
        }
    }

    fn rebuild(&self, now: SystemTime) {
        let news = self.news.load(Ordering::Acquire);
        let all = self.all();
        let settled = all.iter().all(|node| node.is_appraised());
        let (announced, configured): (Vec<_>, Vec<_>) =
            all.iter().partition(|node| node.is_announced());
        let mut served: HashMap<String, Vec<Arc<Node>>> = HashMap::new();
        let mut by_id: HashMap<Arc<str>, Arc<Node>> = HashMap::new();
        for node in configured.into_iter().chain(announced) {
            let Some(verified) = node.verified() else {
                continue;
            };
            // Whoever announced itself first, the configuration's word counts.
            if node.is_announced() && by_id.contains_key(&verified.id) {
                continue;
            }
            let id = Arc::clone(&verified.id);
            by_id.entry(id).or_insert_with(|| Arc::clone(node));
            for model in verified.node.models() {
                served
                    .entry(model.clone())
                    .or_default()
                    .push(Arc::clone(node));
            }
        }
        let old = self.snapshot();
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        let aliases = Arc::clone(&aliases);
        let snapshot = Snapshot::next(&old, &served, &aliases, by_id, unix_seconds(now));
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        // Last: who waits for it reads the snapshot next.
        self.made.send_replace(news);
        if settled {
            self.settled.send_replace(true);
        }
    }
}

impl Snapshot {
    fn next(
        old: &Self,
        served: &HashMap<String, Vec<Arc<Node>>>,
        aliases: &BTreeMap<String, String>,
        by_id: HashMap<Arc<str>, Arc<Node>>,
        now: u64,
    ) -> Self {
        let aliased = aliases
            .iter()
            .map(|(name, of)| (name, Some(of), served.get(of)));
        let plain = served
            .iter()
            .filter(|(name, _)| !aliases.contains_key(*name))
            .map(|(name, nodes)| (name, None, Some(nodes)));
        let mut models: HashMap<Arc<str>, Arc<Served>> = HashMap::new();
        let mut own = old.counted_models().count();
        for (name, of, nodes) in aliased.chain(plain) {
            let known = old.models.get(name.as_str());
            let served = Served {
                name: known.map_or_else(|| name.as_str().into(), |known| Arc::clone(&known.name)),
                node_name: of.map(|of| of.as_str().into()),
                since: known.map_or(now, |known| known.since),
                counts: known.map_or_else(
                    || old.counts_for(name, &mut own),
                    |known| Arc::clone(&known.counts),
                ),
                nodes: Candidates::new(nodes.cloned().unwrap_or_default()),
            };
            models.insert(Arc::clone(&served.name), Arc::new(served));
        }
        for (name, gone) in &old.models {
            if models.len() >= MAX_REMEMBERED {
                break;
            }
            models.entry(Arc::clone(name)).or_insert_with(|| {
                Arc::new(Served {
                    name: Arc::clone(name),
                    node_name: gone.node_name.clone(),
                    since: gone.since,
                    counts: Arc::clone(&gone.counts),
                    nodes: Candidates::default(),
                })
            });
        }
        Self {
            models,
            by_id,
            other: Arc::clone(&old.other),
        }
    }

    /// Counts for a model that is new, beside so many that have their own.
    fn counts_for(&self, name: &str, own: &mut usize) -> Arc<ModelCounts> {
        if *own >= MAX_MODELS || name == OTHER {
            return Arc::clone(&self.other);
        }
        *own = own.saturating_add(1);
        Arc::default()
    }

    /// The counts of those that have none of their own.
    pub(super) fn other_counts(&self) -> &ModelCounts {
        &self.other
    }

    /// The models that have counts of their own, with these, in no order.
    pub(super) fn counted_models(&self) -> impl Iterator<Item = (&str, &ModelCounts)> {
        let own = self.models.values();
        own.filter(|served| !Arc::ptr_eq(&served.counts, &self.other))
            .map(|served| (&*served.name, &*served.counts))
    }

    /// Whether any node is verified.
    pub(super) fn is_ready(&self) -> bool {
        !self.by_id.is_empty()
    }

    /// The verified node with this id.
    pub(super) fn node(&self, id: &str) -> Option<&Arc<Node>> {
        self.by_id.get(id)
    }

    /// The nodes that are verified, one for each id, in no order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.by_id.values()
    }

    /// Whether at most half of the nodes of each of its models are out without it.
    fn can_spare(&self, node: &Arc<Node>) -> bool {
        let verified = node.verified();
        let models = verified.iter().flat_map(|verified| verified.node.models());
        let mut served = models.filter_map(|model| self.models.get(model.as_str()));
        served.all(|served| {
            let all = served.nodes.all();
            let others = all.iter().filter(|other| !Arc::ptr_eq(other, node));
            let out = others.filter(|other| other.health.is_out());
            out.count().saturating_add(1).saturating_mul(2) <= all.len()
        })
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if no verified node ever served it; [`Error::NoAttestedNode`] if
    /// none does now, or if none is verified at all, so that nobody knows.
    pub(super) fn model(&self, name: &str) -> Result<&Arc<Served>, Error> {
        match self.models.get(name) {
            Some(served) if served.nodes.is_empty() => Err(Error::NoAttestedNode),
            Some(served) => Ok(served),
            None if self.is_ready() => Err(Error::ModelNotFound),
            None => Err(Error::NoAttestedNode),
        }
    }

    /// The models that can be asked now, in no order.
    pub(super) fn models(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.models
            .values()
            .filter(|served| !served.nodes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::node::Terms, sealer::Roots};

    fn nodes(count: usize) -> Vec<Arc<Node>> {
        let url = |i| format!("http://127.0.0.1:{}", i + 1).parse().unwrap();
        (0..count)
            .map(|i| Arc::new(Node::new(url(i), None, Roots::Public, Terms::default())))
            .collect()
    }

    fn snapshot(models: &[(&str, &[Arc<Node>])], old: &Snapshot, verified: usize) -> Snapshot {
        let served = models
            .iter()
            .map(|(name, nodes)| ((*name).to_owned(), nodes.to_vec()));
        let aliases = BTreeMap::from([("other".to_owned(), "a".to_owned())]);
        let ids = nodes(verified).into_iter().enumerate();
        let by_id = ids.map(|(i, node)| (i.to_string().into(), node)).collect();
        Snapshot::next(old, &served.collect(), &aliases, by_id, 7)
    }

    #[tokio::test]
    async fn a_model_is_unknown_only_when_somebody_could_know_it() {
        let nodes = nodes(1);
        let none = snapshot(&[], &Snapshot::default(), 0);
        assert!(matches!(none.model("a"), Err(Error::NoAttestedNode)));
        assert!(matches!(none.model("other"), Err(Error::NoAttestedNode)));
        let one = snapshot(&[("a", &nodes)], &none, 1);
        assert!(one.model("a").is_ok());
        assert_eq!(one.model("other").unwrap().node_name.as_deref(), Some("a"));
        assert!(matches!(one.model("b"), Err(Error::ModelNotFound)));
        let gone = snapshot(&[("b", &nodes)], &one, 1);
        assert!(matches!(gone.model("a"), Err(Error::NoAttestedNode)));
        assert!(matches!(gone.model("c"), Err(Error::ModelNotFound)));
        assert_eq!(gone.models().count(), 1);
        assert_eq!(gone.model("b").unwrap().since, 7);
    }

    #[tokio::test]
    async fn a_bounded_number_of_models_have_counts_of_their_own() {
        let node = nodes(1);
        let name = |i: usize| format!("m{i}");
        let names: Vec<_> = (0..MAX_MODELS - 1).map(name).collect();
        let models = |names: &'_ [String]| -> Vec<(String, Vec<Arc<Node>>)> {
            names.iter().map(|it| (it.clone(), node.clone())).collect()
        };
        let next = |old: &Snapshot, names: &[String]| {
            let served = models(names).into_iter().collect();
            Snapshot::next(old, &served, &BTreeMap::new(), HashMap::new(), 7)
        };
        let first = next(&Snapshot::default(), &names);
        let counts = |snapshot: &Snapshot, name: &str| Arc::clone(&snapshot.models[name].counts);
        let others: Vec<_> = (5000..5010).map(name).chain([OTHER.to_owned()]).collect();
        let second = next(&first, &others);
        assert_eq!(second.counted_models().count(), MAX_MODELS);
        assert!(Arc::ptr_eq(&counts(&second, OTHER), &second.other));
        assert!(
            Arc::ptr_eq(&counts(&first, "m0"), &counts(&second, "m0")),
            "it goes on"
        );
        let third = next(&second, &others);
        assert_eq!(third.counted_models().count(), MAX_MODELS);
        assert!(Arc::ptr_eq(&third.other, &second.other));
    }
}
