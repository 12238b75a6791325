//! Keeps each node appraised: one task per node, so one appraisal at a time and never on a
//! request's path.
//!
//! What passed serves until its own end, whatever comes of later attempts, unless the rules change:
//! then the same evidence is judged again at once, and a node that does not pass is dropped.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use attestation::{Root, time::to_rfc3339};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    attest::{AttestError, Attester, Judged},
    node::{Node, Verified},
    nodes::Nodes,
    rules::Rules,
};
use crate::{chance, clock::Clock};

/// Rest after the first failed appraisal; doubled by each further one.
const FIRST_REST: Duration = Duration::from_millis(250);
/// Longest rest between failed appraisals.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Shortest time between two appraisals that passed.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Time over which the nodes of a fleet are asked again after the rules changed.
const LONGEST_SPREAD: Duration = Duration::from_secs(2);
/// Longest time between two looks at the clock while something ends by it: it may be set, or the
/// machine sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(2);

/// One node's task.
pub(super) struct Keeper<'a> {
    attester: &'a Attester,
    nodes: &'a Nodes,
    node: &'a Arc<Node>,
    rules: watch::Receiver<Arc<Rules>>,
    /// Appraisals that failed since one passed.
    failures: u32,
    /// When the next one is made, if nobody asks sooner.
    due: Instant,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(attester: &'a Attester, nodes: &'a Nodes, node: &'a Arc<Node>) -> Self {
        Self {
            rules: attester.rules(),
            attester,
            nodes,
            node,
            failures: 0,
            due: Instant::now(),
        }
    }

    /// Appraises the node at once, then again before an appraisal ends, at the latest after the
    /// interval, and when a request asks for it; never ends.
    pub(super) async fn run(mut self) {
        loop {
            let appraised = self.appraise().await;
            self.take_in(appraised);
            // They may have changed in between.
            self.follow_rules().await;
            self.rest().await;
        }
    }

    /// The same for a node that was verified just now.
    pub(super) async fn run_on(mut self, verified: &Verified) {
        let renewal = self.until_renewal(verified, self.clock().now());
        self.due = Instant::now() + renewal;
        self.follow_rules().await;
        self.rest().await;
        self.run().await;
    }

    async fn appraise(&mut self) -> Result<Judged, AttestError> {
        loop {
            if let Some(appraised) = self.appraise_under_one_policy().await {
                return appraised;
            }
            self.follow_rules().await;
        }
    }

    /// Nothing if there are new rules to follow first. Then the attempt is given up, not only left:
    /// it may hold a place in the queue that following the rules waits in.
    async fn appraise_under_one_policy(&mut self) -> Option<Result<Judged, AttestError>> {
        let (node, clock) = (self.node, self.clock());
        let mut appraising = pin!(self.attester.appraise(node));
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.rules.changed() => {
                    if !node.held().is_empty() {
                        return None;
                    }
                }
                () = end_of(node, clock) => self.expire(),
                appraised = &mut appraising => return Some(appraised),
            }
        }
    }

    fn take_in(&mut self, appraised: Result<Judged, AttestError>) {
        let verified = appraised.and_then(|judged| self.attester.verified(self.node, judged));
        let now = self.clock().now();
        let rest = match &verified {
            Ok(verified) => {
                self.failures = 0;
                self.until_renewal(verified, now)
            }
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                rest_after(self.failures)
            }
        };
        self.due = Instant::now() + rest;
        let changed = self.node.appraised(verified.as_ref().ok().cloned());
        if self.node.expire(now) || changed {
            self.nodes.changed();
        }
        // Said once it holds: who reads it may ask.
        note(self.node, &verified, &self.rules.borrow());
    }

    /// Judges by the rules in force what others let pass.
    async fn follow_rules(&mut self) {
        let are_new = self.rules.has_changed().unwrap_or(false);
        loop {
            let rules = Arc::clone(&self.rules.borrow_and_update());
            let mut held = self.node.held().into_iter();
            let Some(kept) = held.find(|kept| !Arc::ptr_eq(&kept.rules, &rules)) else {
                break;
            };
            let judging = self.attester.judge_again(&kept, &rules);
            let verdict = self.beside_ends(judging).await;
            if verdict.outcome.is_err() {
                self.drop_kept(&kept);
            }
            let archived = self.attester.archived(self.node, verdict);
            let judged = self.beside_ends(archived).await;
            let verified = judged.and_then(|judged| self.attester.verified(self.node, judged));
            match verified {
                Ok(verified) => {
                    let renewal = self.until_renewal(&verified, self.clock().now());
                    self.due = self.due.min(Instant::now() + renewal);
                    note(self.node, &Ok(Arc::clone(&verified)), &rules);
                    self.node.judged_again(&kept, verified);
                    self.expire();
                }
                Err(error) => {
                    error.count(&self.node.counts);
                    self.drop_kept(&kept);
                    self.ask_soon();
                    let policy = &rules.policy_digest;
                    let why = match error {
                        AttestError::Archive(_) | AttestError::Panicked => {
                            "node dropped: it could not be judged by the policy that is now in force"
                        }
                        _ => "node dropped: it does not pass the policy that is now in force",
                    };
                    tracing::warn!(node = %self.node.url, %error, policy, "{why}");
                }
            }
        }
        if are_new && self.node.verified().is_none() {
            self.ask_soon();
        }
    }

    /// Does the work, and meanwhile ends what comes to its end.
    async fn beside_ends<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = end_of(self.node, self.clock()) => self.expire(),
                done = &mut work => return done,
            }
        }
    }

    fn drop_kept(&self, kept: &Arc<Verified>) {
        if self.node.drop_kept(kept) {
            self.nodes.changed();
        }
    }

    /// Waits for the next appraisal to be due or wanted.
    async fn rest(&mut self) {
        let (node, clock) = (self.node, self.clock());
        let mut wanted = pin!(async {
            node.wanted.notified().await;
            node.rest_before_demanded().await;
        });
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                Ok(()) = self.rules.changed() => {
                    self.follow_rules().await;
                    if node.verified().is_none() {
                        self.ask_soon();
                    }
                }
                () = end_of(node, clock) => self.expire(),
                () = sleep_until(due) => return,
                () = &mut wanted => return,
            }
        }
    }

    /// After the rules changed: what was refused before may pass now. Not all nodes in one instant.
    fn ask_soon(&mut self) {
        self.failures = 0;
        let spread = LONGEST_SPREAD.mul_f64(chance::draw(0.0..=1.0));
        self.due = Instant::now() + spread;
    }

    /// Forgets an appraisal that has ended.
    fn expire(&self) {
        let now = self.clock().now();
        if self.node.expire(now) {
            self.nodes.changed();
            tracing::warn!(node = %self.node.url, "node dropped: its appraisal has ended");
        }
    }

    /// The interval, or half of the time that is left if that is sooner, and a little less so that
    /// the nodes of a fleet do not fall into step.
    fn until_renewal(&self, verified: &Verified, now: SystemTime) -> Duration {
        let end = verified.node.expires_at();
        let left = end.duration_since(now).unwrap_or_default();
        let most = self.attester.settings.interval.min(left / 2);
        most.mul_f64(chance::draw(0.9..=1.0)).max(MIN_INTERVAL)
    }

    fn clock(&self) -> Clock {
        self.attester.settings.clock
    }
}

/// Without its task, by a panic too, nobody would end what the node is trusted for.
impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(node = %self.node.url, "node dropped: the task that keeps it panicked");
        }
        self.node.distrust();
        self.nodes.changed();
    }
}

/// The first end of an appraisal that requests rest on, or a time to look at the clock again;
/// without one, never.
async fn end_of(node: &Node, clock: Clock) {
    match node.next_end(clock.now()) {
        Some(left) => sleep(left.min(LONGEST_SLEEP)).await,
        None => std::future::pending().await,
    }
}

/// Doubles with each failure up to a bound, with half of it left to chance.
fn rest_after(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let longest = FIRST_REST.saturating_mul(doubled).min(LONGEST_REST);
    longest.mul_f64(chance::draw(0.5..=1.0))
}

/// Counts an appraisal, and writes its line.
fn note(node: &Node, outcome: &Result<Arc<Verified>, AttestError>, rules: &Rules) {
    match outcome {
        Ok(_) => node.counts.accepted(),
        Err(error) => error.count(&node.counts),
    }
    let policy = &rules.policy_digest;
    match outcome {
        Ok(verified) => {
            let expires = verified.node.expires_at();
            let root = verified.node.root();
            tracing::info!(
                node = %node.url,
                node_id = &*verified.id,
                tee = verified.node.tee(),
                %root,
                statement = verified.statement,
                models = verified.node.models().len(),
                expires_at = to_rfc3339(expires),
                policy,
                bundle = rules.bundle_digest,
                claims = %verified.node.claims(),
                "{}",
                match root {
                    Root::Software => "node verified against a software root: no hardware vouches",
                    _ => "node verified",
                },
            );
        }
        Err(AttestError::Refused(refusal)) => {
            tracing::warn!(node = %node.url, %refusal, policy, "node refused");
        }
        Err(error) => tracing::warn!(node = %node.url, %error, "node not appraised"),
    }
}

#[cfg(test)]
mod tests;
