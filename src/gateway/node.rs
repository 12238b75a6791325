//! One node: what attestation found, how it stands, and how another appraisal is asked for.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use attestation::{StatementDigest, VerifiedNode, statement::ClaimedKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    attest::Evidence,
    hardware::Hardware,
    health::{Health, Shown, Standing},
    load::{Load, Share},
    metrics::NodeCounts,
    rules::Rules,
    trust::Trust,
};
use crate::{
    clock::unix_seconds,
    config::gateway::{HealthConfig, NodeUrl},
    sealer::{self, Channel, Credential, Proxy, Roots, Route, Spoken},
};

/// Shortest time between two appraisals that follow from what anybody can cause.
const HINT_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest time between two appraisals that a request asks for.
const DEMAND_INTERVAL: Duration = Duration::from_secs(10);
/// Most appraisals that hold for requests begun before others took their place: whoever stands
/// behind an address that answers as many machines.
const MAX_REPLACED: usize = 64;
/// How long a node that does not open, or refuses for good, is left alone.
pub(super) const BAR: Duration = Duration::from_secs(60);

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) url: NodeUrl,
    pub(super) credential: Option<Credential>,
    pub(super) roots: Roots,
    /// The certificate that is shown to it where it asks for one.
    pub(super) shown: Option<sealer::Shown>,
    pub(super) origin: Origin,
    /// The proxy that leads to it, if one does.
    proxy: Option<Arc<Proxy>>,
    /// What it speaks without TLS, as its last appraisal found out.
    pub(super) spoken: Arc<Spoken>,
    /// What the configuration says that it is (`labels`).
    pub(super) labels: u64,
    pub(super) load: Load,
    pub(super) health: Health,
    /// Wakes the task that watches its health: it has failed too often.
    pub(super) failing: Notify,
    pub(super) counts: NodeCounts,
    epoch: Instant,
    state: watch::Sender<State>,
    /// Wakes the task that keeps it attested.
    pub(super) wanted: Notify,
    /// Set once another took its place.
    pub(super) gone: CancellationToken,
    /// Whether a request waits for an appraisal.
    demanded: AtomicBool,
    /// When one did last, in milliseconds from `epoch`; 0 for never.
    last_demand: AtomicU64,
    /// When a caller's hint was last followed, likewise.
    last_hint: AtomicU64,
}

/// How a node takes part.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Default))]
pub(super) struct Terms {
    pub(super) labels: u64,
    pub(super) share: Share,
    pub(super) health: HealthConfig,
}

/// Where the gateway knows a node from.
#[derive(Debug)]
pub(super) enum Origin {
    /// The configuration.
    Configured,
    /// Its announcement. Connections go to the addresses that were checked then, whatever its name
    /// means later, and it keeps the id that it joined with.
    Announced {
        addresses: Arc<[SocketAddr]>,
        id: OnceLock<Arc<str>>,
    },
}

/// What attestation found.
#[derive(Debug, Default)]
struct State {
    /// The id that it had last, verified still or not.
    id: Option<Arc<str>>,
    verified: Option<Arc<Verified>>,
    /// Appraisals of other keys that were verified before, on which requests may rest; the oldest
    /// first.
    replaced: Vec<Arc<Verified>>,
    /// Appraisals so far, failed ones too.
    appraisals: u64,
    /// Whether the last one passed.
    passed: bool,
}

/// A node that passed appraisal, as requests need it.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) node: VerifiedNode,
    /// What it was verified from, and by.
    pub(super) evidence: Arc<Evidence>,
    pub(super) rules: Arc<Rules>,
    /// When it was judged by them.
    pub(super) judged_at: SystemTime,
    /// The end, whatever becomes of the time of day.
    pub(super) last: Instant,
    /// Ends when the node is no longer verified.
    pub(super) trust: Trust,
    /// The way to it; its connections end at the certificate that the evidence names.
    pub(super) channel: Arc<Channel>,
    /// Whether the evidence vouches for the connection itself.
    pub(super) authenticated_channel: bool,
    pub(super) id: Arc<str>,
    pub(super) small_id: u64,
    pub(super) id_header: HeaderValue,
    /// The statement's digest in hex.
    pub(super) statement: String,
}

impl Verified {
    /// Whether it is over. What holds by the time of day ends by it, and at the latest after as long
    /// as it held when the evidence came.
    pub(super) fn has_ended(&self, now: SystemTime) -> bool {
        self.node.expires_at() <= now || self.last <= Instant::now()
    }

    /// How long it goes on.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        let left = self.node.expires_at().duration_since(now);
        let least = self.last.saturating_duration_since(Instant::now());
        left.unwrap_or_default().min(least)
    }

    /// The `sealgate-attestation` field: what was appraised, who vouches, and how long ago.
    pub(super) fn attestation_header(&self, now: SystemTime) -> Option<HeaderValue> {
        let age = unix_seconds(now).saturating_sub(unix_seconds(self.node.verified_at()));
        let (tee, root) = (self.node.tee(), self.node.root());
        HeaderValue::try_from(format!("{tee}; root={root}; age={age}")).ok()
    }

    /// Whether its statement has a key that is sealed to under a post-quantum suite.
    pub(super) fn offers_pq(&self) -> bool {
        let mut keys = self.node.statement().keys().iter();
        keys.any(|key| key.suite.is_post_quantum())
    }

    /// Whether its evidence shows what that of `other` does, as far as keys can demand hardware.
    fn is_on_the_same(&self, other: &Self) -> bool {
        let gpu = Hardware::of(None, true);
        let (one, two) = (&self.node, &other.node);
        one.tee() == two.tee() && gpu.is_of(one) == gpu.is_of(two)
    }

    /// Says in a reply's head which node it is of, and what vouches for it.
    pub(super) fn say(&self, headers: &mut HeaderMap, now: SystemTime) {
        let name = HeaderName::from_static("sealgate-node");
        headers.insert(name, self.id_header.clone());
        if let Some(value) = self.attestation_header(now) {
            headers.insert(HeaderName::from_static("sealgate-attestation"), value);
        }
    }

    /// Whether `node` holds a key of this one, so that what was sealed to this one is open to it.
    pub(super) fn is_continued_by(&self, node: &VerifiedNode) -> bool {
        let old = self.node.statement();
        let new = node.statement();
        let held = |old: &ClaimedKey| {
            let is_same =
                |new: &ClaimedKey| (new.suite, &new.public_key) == (old.suite, &old.public_key);
            new.keys().iter().any(is_same)
        };
        self.node.node_id() == node.node_id() && old.keys().iter().any(held)
    }
}

impl State {
    fn held(&self) -> impl Iterator<Item = &Arc<Verified>> {
        self.verified.iter().chain(&self.replaced)
    }

    /// Takes out every appraisal that is so, and ends what rests on it; says whether one of them was
    /// in force.
    fn forget(&mut self, which: impl Fn(&Verified) -> bool, forgotten: &mut Vec<Trust>) -> bool {
        let in_force = self.verified.take_if(|verified| which(verified));
        forgotten.extend(in_force.as_ref().map(|it| it.trust.clone()));
        self.replaced.retain(|replaced| {
            let goes = which(replaced);
            if goes {
                forgotten.push(replaced.trust.clone());
            }
            !goes
        });
        in_force.is_some()
    }
}

impl Node {
    /// A node of the configuration.
    pub(super) fn new(
        url: NodeUrl,
        credential: Option<Credential>,
        roots: Roots,
        terms: Terms,
    ) -> Self {
        Self::with(url, credential, roots, Origin::Configured, terms)
    }

    /// The same, to whom this certificate is shown where it asks for one.
    pub(super) fn showing(self, shown: Option<sealer::Shown>) -> Self {
        Self { shown, ..self }
    }

    /// The same, reached through a proxy unless that passes it by.
    pub(super) fn through(self, proxy: Option<&Arc<Proxy>>) -> Self {
        let addresses = self.pinned().map(|pinned| &**pinned);
        let proxy = proxy.filter(|proxy| !proxy.passes_by(&self.url, addresses));
        Self {
            proxy: proxy.cloned(),
            ..self
        }
    }

    /// A node that announced itself, and may be at these addresses.
    pub(super) fn announced(url: NodeUrl, addresses: Vec<SocketAddr>, terms: Terms) -> Self {
        let origin = Origin::Announced {
            addresses: addresses.into(),
            id: OnceLock::new(),
        };
        Self::with(url, None, Roots::Public, origin, terms)
    }

    fn with(
        url: NodeUrl,
        credential: Option<Credential>,
        roots: Roots,
        origin: Origin,
        terms: Terms,
    ) -> Self {
        Self {
            url,
            credential,
            roots,
            shown: None,
            proxy: None,
            spoken: Arc::default(),
            origin,
            labels: terms.labels,
            load: Load::new(terms.share),
            health: Health::new(terms.health),
            failing: Notify::new(),
            counts: NodeCounts::default(),
            epoch: Instant::now(),
            state: watch::Sender::new(State::default()),
            wanted: Notify::new(),
            gone: CancellationToken::new(),
            demanded: AtomicBool::new(false),
            last_demand: AtomicU64::new(0),
            last_hint: AtomicU64::new(0),
        }
    }

    /// Takes part on other terms from now on; its labels are what it was made with.
    pub(super) fn set_terms(&self, terms: Terms) {
        self.load.set_share(terms.share);
        self.health.set_config(terms.health);
    }

    pub(super) fn is_announced(&self) -> bool {
        matches!(self.origin, Origin::Announced { .. })
    }

    /// How it is reached.
    pub(super) fn route(&self) -> Route<'_> {
        Route {
            addresses: self.pinned(),
            proxy: self.proxy.as_ref(),
            spoken: None,
        }
    }

    /// The addresses that connections are held to.
    fn pinned(&self) -> Option<&Arc<[SocketAddr]>> {
        match &self.origin {
            Origin::Configured => None,
            Origin::Announced { addresses, .. } => Some(addresses),
        }
    }

    /// Whether what was checked of its address is as true of these ones: of a node of the
    /// configuration nothing was.
    pub(super) fn is_at(&self, addresses: &[SocketAddr]) -> bool {
        self.pinned()
            .is_none_or(|pinned| pinned.iter().any(|one| addresses.contains(one)))
    }

    /// Whether it may have this id: a node that announced itself keeps the one that it joined with.
    pub(super) fn may_be(&self, id: &Arc<str>) -> bool {
        match &self.origin {
            Origin::Configured => true,
            Origin::Announced { id: joined, .. } => *joined.get_or_init(|| Arc::clone(id)) == *id,
        }
    }

    /// Whether the id of `other`, which is verified, is this one's: for good if the configuration
    /// names this one, and otherwise while it is verified.
    pub(super) fn holds_id_of(&self, other: &Self) -> bool {
        let id = other.state.borrow().id.clone();
        let state = self.state.borrow();
        state.id == id && (!self.is_announced() || state.verified.is_some())
    }

    /// The id that it had last, verified still or not.
    pub(super) fn last_id(&self) -> Option<Arc<str>> {
        self.state.borrow().id.clone()
    }

    /// What the last appraisal that passed found, if it still holds.
    pub(super) fn verified(&self) -> Option<Arc<Verified>> {
        self.state.borrow().verified.clone()
    }

    /// Whether it is verified with a post-quantum key.
    pub(super) fn offers_pq(&self) -> bool {
        self.verified().is_some_and(|verified| verified.offers_pq())
    }

    /// Whether it is verified on such hardware, where some is demanded.
    pub(super) fn is_on(&self, hardware: Hardware) -> bool {
        let shows = |verified: Arc<Verified>| hardware.is_of(&verified.node);
        hardware == Hardware::ANY || self.verified().is_some_and(shows)
    }

    /// What the last appraisal that passed found, if the rules that are in force let it pass. While it
    /// awaits judgement by them it is waited for, at most for `patience`: nothing is sealed under rules
    /// of before.
    pub(super) async fn verified_under(
        &self,
        rules: &watch::Receiver<Arc<Rules>>,
        patience: Duration,
    ) -> Option<Arc<Verified>> {
        let is_judged = |verified: &Verified| Arc::ptr_eq(&verified.rules, &rules.borrow());
        let verified = self.verified()?;
        if is_judged(&verified) {
            return Some(verified);
        }
        let mut state = self.state.subscribe();
        let judged = state.wait_for(|state| state.verified.as_deref().is_none_or(is_judged));
        timeout(patience, judged).await.ok()?.ok()?.verified.clone()
    }

    /// The appraisals that requests rest on: the one in force first, then those that it replaced.
    pub(super) fn held(&self) -> Vec<Arc<Verified>> {
        self.state.borrow().held().cloned().collect()
    }

    /// How long until the first of them ends.
    pub(super) fn next_end(&self, now: SystemTime) -> Option<Duration> {
        let state = self.state.borrow();
        state.held().map(|it| it.left(now)).min()
    }

    /// Waits until the node is not verified.
    pub(super) async fn until_unverified(&self) {
        let mut state = self.state.subscribe();
        // The sender is this node's own: it cannot be gone.
        let _ = state.wait_for(|state| state.verified.is_none()).await;
    }

    /// Waits until the node is verified.
    pub(super) async fn until_verified(&self) -> Option<Arc<Verified>> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| state.verified.is_some()).await;
        state.ok()?.verified.clone()
    }

    /// Whether it was appraised, whatever came of it.
    pub(super) fn is_appraised(&self) -> bool {
        self.state.borrow().appraisals > 0
    }

    /// Whether it is verified, and its last appraisal passed.
    pub(super) fn passed_last(&self) -> bool {
        let state = self.state.borrow();
        state.passed && state.verified.is_some()
    }

    /// Requests and locks that it holds.
    pub(super) fn in_flight(&self) -> u32 {
        self.load.in_flight()
    }

    pub(super) fn standing(&self) -> Standing {
        self.health.standing()
    }

    /// Takes in what a request showed of it.
    pub(super) fn note(&self, shown: Shown) {
        if self.health.note(shown) {
            self.failing.notify_one();
        }
    }

    /// Takes in the outcome of an appraisal, and says whether it changes what is served.
    pub(super) fn appraised(&self, outcome: Option<Arc<Verified>>) -> bool {
        let (mut changed, mut surplus) = (false, None);
        self.demanded.store(false, Ordering::Relaxed);
        self.state.send_modify(|state| {
            changed = state.appraisals == 0;
            state.appraisals = state.appraisals.wrapping_add(1);
            state.passed = outcome.is_some();
            let Some(new) = outcome else { return };
            let old = state.verified.as_ref();
            let digest = |it: &Arc<Verified>| it.node.statement_digest();
            if old.map(digest) != Some(digest(&new)) {
                self.health.begin_anew();
            }
            // One that has a key of before goes on; any other that comes back has cold caches.
            let was_there = state.id.is_some();
            if was_there && old.is_none_or(|old| !old.is_continued_by(&new.node)) {
                self.load.begin_warm_up();
            }
            changed |= old.is_none_or(|old| {
                // Whoever requires a post-quantum key, or some hardware, is led by that, too.
                old.node.models() != new.node.models()
                    || old.offers_pq() != new.offers_pq()
                    || !old.is_on_the_same(&new)
            });
            let trust = new.trust.clone();
            state.id = Some(Arc::clone(&new.id));
            let old = state.verified.replace(new);
            state.replaced.extend(old);
            state.replaced.retain(|replaced| !replaced.trust.is(&trust));
            if state.replaced.len() > MAX_REPLACED {
                surplus = Some(state.replaced.remove(0));
            }
        });
        if let Some(replaced) = surplus {
            replaced.trust.end();
        }
        changed
    }

    /// Takes in what came of judging the evidence of `kept` again, if that still holds. To requests
    /// it is no appraisal: nothing new was heard of the node.
    pub(super) fn judged_again(&self, kept: &Arc<Verified>, verified: Arc<Verified>) {
        self.state.send_if_modified(|state| {
            let mut held = state.verified.iter_mut().chain(&mut state.replaced);
            let place = held.find(|held| Arc::ptr_eq(held, kept));
            place.map(|place| *place = verified).is_some()
        });
    }

    /// Forgets appraisals that have ended, and says whether one was in force. Their requests end.
    pub(super) fn expire(&self, now: SystemTime) -> bool {
        self.forget(|verified| verified.has_ended(now))
    }

    /// Forgets this appraisal, and says whether it was in force. Its requests end.
    pub(super) fn drop_kept(&self, kept: &Arc<Verified>) -> bool {
        self.forget(|verified| std::ptr::eq(verified, Arc::as_ptr(kept)))
    }

    /// Forgets every appraisal, and says whether one was in force. Their requests end.
    pub(super) fn distrust(&self) -> bool {
        self.forget(|_| true)
    }

    fn forget(&self, which: impl Fn(&Verified) -> bool) -> bool {
        let mut forgotten = Vec::new();
        let mut in_force = false;
        self.state.send_if_modified(|state| {
            in_force = state.forget(which, &mut forgotten);
            in_force
        });
        // After the change: who is ended by it must not find the node verified.
        for trust in &forgotten {
            trust.end();
        }
        in_force
    }

    /// Has the node appraised again because it does not know `stale`, and waits for it; all
    /// requests that ask meanwhile share one appraisal.
    pub(super) async fn reattest(&self, stale: &StatementDigest, within: Duration) -> Reattested {
        let mut state = self.state.subscribe();
        let appraisals = {
            let state = state.borrow_and_update();
            let newer = |it: &Arc<Verified>| it.node.statement_digest() != *stale;
            if state.verified.as_ref().is_some_and(newer) {
                return Reattested::Passed;
            }
            state.appraisals
        };
        self.demanded(state, appraisals, within).await
    }

    /// Has the node appraised again, and waits for it.
    pub(super) async fn refresh(&self, within: Duration) -> Reattested {
        let mut state = self.state.subscribe();
        let appraisals = state.borrow_and_update().appraisals;
        self.demanded(state, appraisals, within).await
    }

    async fn demanded(
        &self,
        mut state: watch::Receiver<State>,
        appraisals: u64,
        within: Duration,
    ) -> Reattested {
        if let Err(rest) = self.demand() {
            return Reattested::TooSoon(rest);
        }
        let appraised = state.wait_for(|state| state.appraisals != appraisals);
        match timeout(within, appraised).await {
            Ok(Ok(state)) if state.passed => Reattested::Passed,
            _ => Reattested::Failed,
        }
    }

    /// Whether a hint that anybody can give, and that may mean other keys, is followed: it was long ago
    /// that another was.
    pub(super) fn takes_hint(&self) -> bool {
        let order = Ordering::Relaxed;
        let now = self.ms_after(Duration::ZERO).max(1);
        let due = |last: u64| {
            let rest = Duration::from_millis(now.saturating_sub(last));
            (last == 0 || rest >= HINT_INTERVAL).then_some(now)
        };
        self.last_hint.fetch_update(order, order, due).is_ok()
    }

    /// Has the node appraised again soon, and does not wait for it.
    pub(super) fn want_appraisal(&self) {
        // If another was asked for a short time ago, this one comes later.
        let _ = self.demand();
    }

    /// Asks for an appraisal. One that was asked for a short time ago delays this one, for the
    /// time that is returned.
    fn demand(&self) -> Result<(), Duration> {
        let order = Ordering::Relaxed;
        if self.demanded.load(order) {
            return Ok(());
        }
        let now = self.ms_after(Duration::ZERO).max(1);
        let due = |last: u64| Self::rest(last, now).is_zero().then_some(now);
        let demanded = self.last_demand.fetch_update(order, order, due);
        self.demanded.store(demanded.is_ok(), order);
        self.wanted.notify_one();
        demanded.map(|_| ()).map_err(|last| Self::rest(last, now))
    }

    /// Waits as long as an appraisal that was asked for must wait for the one before it.
    pub(super) async fn rest_before_demanded(&self) {
        if self.demanded.load(Ordering::Relaxed) {
            return;
        }
        let last = self.last_demand.load(Ordering::Relaxed);
        sleep(Self::rest(last, self.ms_after(Duration::ZERO))).await;
        let now = self.ms_after(Duration::ZERO).max(1);
        self.last_demand.store(now, Ordering::Relaxed);
    }

    fn rest(last: u64, now: u64) -> Duration {
        if last == 0 {
            return Duration::ZERO;
        }
        DEMAND_INTERVAL.saturating_sub(Duration::from_millis(now.saturating_sub(last)))
    }

    fn ms_after(&self, time: Duration) -> u64 {
        let since = self.epoch.elapsed().saturating_add(time);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
impl Node {
    /// Waits until it is so, which is looked at whenever another appraisal is in force or none.
    pub(super) async fn until(&self, is_so: impl Fn(Option<&Arc<Verified>>) -> bool) {
        let mut state = self.state.subscribe();
        let so = state.wait_for(|state| is_so(state.verified.as_ref()));
        so.await.unwrap();
    }
}

/// What came of asking for another appraisal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reattested {
    /// There is an appraisal that passed.
    Passed,
    /// It failed.
    Failed,
    /// It will be made after so much time.
    TooSoon(Duration),
}

/// A place with a node, for a request or a lock; given back when it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) node: Arc<Node>,
    /// Whether it is the request that tries a node which was out.
    is_trial: bool,
}

impl Chosen {
    /// A place with the node, whatever is known of its health, unless it has none left.
    pub(super) fn new(node: &Arc<Node>) -> Option<Self> {
        node.load.enter().then(|| Self {
            node: Arc::clone(node),
            is_trial: false,
        })
    }

    /// The same, as the one request that tries the node if it is on trial.
    pub(super) fn in_turn(node: &Arc<Node>) -> Option<Self> {
        let mut chosen = Self::new(node)?;
        if node.standing() == Standing::OnTrial {
            if !node.health.begin_trial() {
                return None;
            }
            chosen.is_trial = true;
        }
        Some(chosen)
    }

    /// The node's reply has begun.
    pub(super) fn began(&mut self) {
        self.is_trial = false;
        if self.node.health.began() {
            self.node.load.begin_warm_up();
            tracing::info!(node = %self.node.url, "node is back");
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if self.is_trial {
            self.node.health.give_up_trial();
        }
        self.node.load.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_share_one_appraisal_and_ask_for_another_only_later() {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let node = Node::new(url, None, Roots::Public, Terms::default());
        assert_eq!(node.demand(), Ok(()));
        assert_eq!(node.demand(), Ok(()), "joins the first");
        assert!(node.appraised(None), "the first counts as news");
        tokio::time::advance(Duration::from_secs(4)).await;
        let rest = node.demand().unwrap_err();
        assert!(rest < Duration::from_secs(7), "{rest:?}");
        let start = Instant::now();
        node.rest_before_demanded().await;
        assert!(
            start.elapsed() >= rest,
            "the task waits before it makes the second"
        );
        assert!(!node.appraised(None));
        assert!(node.demand().is_err());
        tokio::time::advance(DEMAND_INTERVAL).await;
        assert_eq!(node.demand(), Ok(()));
    }
}
