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
use rand::RngExt as _;
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
use crate::clock::Clock;

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
        log(self.node, &verified, &self.rules.borrow());
        let changed = self.node.appraised(verified.ok());
        if self.node.expire(now) || changed {
            self.nodes.changed();
        }
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
                    log(self.node, &Ok(Arc::clone(&verified)), &rules);
                    self.node.judged_again(&kept, verified);
                    self.expire();
                }
                Err(error) => {
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
        let spread = LONGEST_SPREAD.mul_f64(rand::rng().random_range(0.0..=1.0));
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
        most.mul_f64(rand::rng().random_range(0.9..=1.0))
            .max(MIN_INTERVAL)
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
    match node.next_end() {
        Some(end) => {
            let left = end.duration_since(clock.now()).unwrap_or_default();
            sleep(left.min(LONGEST_SLEEP)).await;
        }
        None => std::future::pending().await,
    }
}

/// Doubles with each failure up to a bound, with half of it left to chance.
fn rest_after(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let longest = FIRST_REST.saturating_mul(doubled).min(LONGEST_REST);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn log(node: &Node, outcome: &Result<Arc<Verified>, AttestError>, rules: &Rules) {
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
mod tests {
    use std::{collections::BTreeMap, fs};

    use futures_util::FutureExt as _;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::gateway::{
        archive::Archive,
        attest::Settings,
        rules::Sources,
        tests::fake::{self, FakeNode, Keys},
        tls::Roots,
        trust::Trust,
    };

    /// Nothing here takes longer, unless it hangs.
    const PATIENCE: Duration = Duration::from_secs(20);
    const MAX_AGE: Duration = Duration::from_secs(60);

    /// Rules of their own, by which the measurement that nodes have is `measured`.
    fn rules(measured: bool) -> Arc<Rules> {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(fake::folder().join("policy.toml")).unwrap();
        let age = format!("version = 1\nappraisal_max_age_s = {}\n", MAX_AGE.as_secs());
        let mut text = text.replace("version = 1\n", &age);
        if !measured {
            text = text.replace(&hex::encode(fake::MEASUREMENT), &"00".repeat(48));
        }
        let policy = dir.path().join("policy.toml");
        fs::write(&policy, text).unwrap();
        fs::copy(fake::folder().join("ark.pem"), dir.path().join("ark.pem")).unwrap();
        Arc::new(Sources::new(policy, None).read().unwrap())
    }

    /// A node that is kept appraised.
    struct Kept {
        fake: FakeNode,
        node: Arc<Node>,
        attester: Arc<Attester>,
        rules: watch::Sender<Arc<Rules>>,
        keeping: tokio::task::JoinHandle<()>,
    }

    impl Kept {
        async fn start(archive: Option<Archive>) -> Self {
            let fake = FakeNode::start("one").await;
            let url = format!("http://{}", fake.address).parse().unwrap();
            let node = Arc::new(Node::new(url, None, Roots::Public));
            let nodes = Nodes::new(vec![Arc::clone(&node)], BTreeMap::new());
            let rules = watch::Sender::new(rules(true));
            let settings = Settings {
                clock: Clock::tokio(),
                interval: Duration::from_secs(3600),
                timeout: Duration::from_secs(3600),
                connect_timeout: PATIENCE,
                max_idle: 1,
            };
            let cut = CancellationToken::new();
            let attester = Attester::new(settings, rules.subscribe(), archive, cut);
            let attester = Arc::new(attester);
            let (its, of) = (Arc::clone(&node), Arc::clone(&attester));
            let keeping = tokio::spawn(async move { Keeper::new(&of, &nodes, &its).run().await });
            Self {
                fake,
                node,
                attester,
                rules,
                keeping,
            }
        }

        async fn verified(&self) -> Arc<Verified> {
            let verified = in_time("it is verified", self.node.until_verified());
            verified.await.unwrap()
        }

        /// Has the node appraised again, and waits for what is then in force. Once for each node:
        /// the next one would have to rest.
        async fn verified_again(&self) -> Arc<Verified> {
            let before = self.node.verified().unwrap();
            self.node.wanted.notify_one();
            let other = |it: Option<&Arc<Verified>>| it.is_some_and(|it| !Arc::ptr_eq(it, &before));
            in_time("another is in force", self.node.until(other)).await;
            self.node.verified().unwrap()
        }

        /// Time until the appraisal in force ends.
        fn left(&self) -> Duration {
            let end = self.node.verified().unwrap().node.expires_at();
            let now = self.attester.settings.clock.now();
            end.duration_since(now).unwrap()
        }
    }

    /// Waits for something, but not for ever. Time must not stand still: then it would run on while
    /// the network is waited for.
    async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, work).await.expect(what)
    }

    /// Winds the clock on.
    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    fn has_ended(trust: &Trust) -> bool {
        trust.ended().now_or_never().is_some()
    }

    /// Lets everything happen that waits for no time.
    async fn settle() {
        tokio::time::pause();
        idle().await;
    }

    /// The same where time stands still already: it goes on only when nothing else can.
    async fn idle() {
        sleep(Duration::from_millis(10)).await;
    }

    #[tokio::test]
    async fn new_rules_are_followed_where_the_same_node_already_waits_to_be_judged() {
        let kept = Kept::start(None).await;
        kept.verified().await;
        let mut turns: Vec<_> = Vec::new();
        while let Ok(turn) = kept.attester.at_once.try_acquire() {
            turns.push(turn);
        }
        kept.node.wanted.notify_one();
        in_time("it is asked again", kept.fake.until_attested(2)).await;
        settle().await;
        kept.rules.send_replace(rules(true));
        idle().await;
        drop(turns.pop());
        let in_force = kept.rules.subscribe();
        let verified = kept.node.verified_under(&in_force, PATIENCE);
        assert!(verified.await.is_some(), "one turn is enough");
    }

    #[tokio::test]
    async fn a_refused_node_is_out_of_use_before_the_archive_is_waited_for() {
        let (archive, mut waiting) = Archive::by_hand();
        let kept = Kept::start(Some(archive)).await;
        let first = waiting.recv().await.unwrap();
        assert!(kept.node.verified().is_none(), "it is required");
        first.written();
        let verified = kept.verified().await;
        kept.rules.send_replace(rules(false));
        let _second = waiting.recv().await.unwrap();
        assert!(kept.node.verified().is_none());
        assert!(has_ended(&verified.trust));
    }

    #[tokio::test]
    async fn nothing_is_sealed_under_rules_of_before() {
        let kept = Kept::start(None).await;
        let verified = kept.verified().await;
        let rules_in_force = kept.rules.subscribe();
        let now = kept.node.verified_under(&rules_in_force, Duration::ZERO);
        assert!(Arc::ptr_eq(&now.await.unwrap(), &verified));
        let turns = kept.attester.at_once.acquire_many(8).await.unwrap();
        kept.rules.send_replace(rules(true));
        tokio::time::pause();
        let judged = kept.node.verified_under(&rules_in_force, PATIENCE);
        assert!(judged.await.is_none(), "not while it awaits judgement");
        drop(turns);
        let judged = kept.node.verified_under(&rules_in_force, PATIENCE).await;
        let judged = judged.expect("waited for");
        assert!(Arc::ptr_eq(&judged.rules, &rules_in_force.borrow()));
        assert!(judged.trust.is(&verified.trust));
    }

    #[tokio::test]
    async fn rules_that_refuse_a_replaced_appraisal_end_it() {
        let kept = Kept::start(None).await;
        let first = kept.verified().await;
        kept.fake.restart();
        let second = kept.verified_again().await;
        assert!(!has_ended(&first.trust));
        kept.rules.send_replace(rules(false));
        in_time("the second ends", second.trust.ended()).await;
        in_time("the first ends", first.trust.ended()).await;
        assert!(kept.node.held().is_empty());
    }

    #[tokio::test]
    async fn trust_goes_on_only_with_the_same_id_and_a_key_that_was_verified_before() {
        for (name, id, keys, goes_on) in [
            ("the same machine", "one", Keys::Same, true),
            ("a further key", "one", Keys::Rotated, true),
            ("other keys", "one", Keys::New, false),
            ("another id", "two", Keys::Same, false),
            ("another id and key", "two", Keys::New, false),
        ] {
            let kept = Kept::start(None).await;
            let first = kept.verified().await;
            // Long before it would be renewed.
            pass(MAX_AGE / 3).await;
            kept.fake.replace(id, keys);
            let second = kept.verified_again().await;
            assert_eq!(&*second.id, id, "{name}");
            assert_eq!(second.trust.is(&first.trust), goes_on, "{name}");
            let held = kept.node.held();
            assert_eq!(held.len(), if goes_on { 1 } else { 2 }, "{name}");
            // Past the first's end, and long before the second's.
            pass(MAX_AGE - MAX_AGE / 3 + Duration::from_secs(1)).await;
            if !goes_on {
                in_time(name, first.trust.ended()).await;
            }
            assert_eq!(has_ended(&first.trust), !goes_on, "{name}");
            assert!(!has_ended(&second.trust), "{name}");
            assert!(kept.node.verified().is_some(), "{name}");
        }
    }

    #[tokio::test]
    async fn an_appraisal_ends_while_new_rules_are_followed() {
        let kept = Kept::start(None).await;
        let verified = kept.verified().await;
        let _turns = kept.attester.at_once.acquire_many(8).await.unwrap();
        kept.rules.send_replace(rules(true));
        settle().await;
        sleep(kept.left() + Duration::from_secs(1)).await;
        assert!(kept.node.verified().is_none());
        assert!(has_ended(&verified.trust));
    }

    #[tokio::test]
    async fn a_node_whose_task_is_gone_is_not_verified() {
        let kept = Kept::start(None).await;
        let verified = kept.verified().await;
        kept.keeping.abort();
        assert!(kept.keeping.await.unwrap_err().is_cancelled());
        assert!(kept.node.verified().is_none());
        assert!(has_ended(&verified.trust));
    }

    #[test]
    fn failures_rest_longer_and_longer_up_to_a_bound() {
        for (failures, most) in [
            (1, 250),
            (2, 500),
            (3, 1000),
            (8, 30_000),
            (u32::MAX, 30_000),
        ] {
            let rest = rest_after(failures).as_millis();
            assert!((most / 2..=most).contains(&rest), "{failures}: {rest}");
        }
    }
}
