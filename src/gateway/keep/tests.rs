use std::{collections::BTreeMap, fs};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::gateway::{
    archive::Archive,
    attest::Settings,
    node::Terms,
    rules::Sources,
    tests::fake::{self, FakeNode, Keys},
    trust::Trust,
};
use crate::sealer::Roots;

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
        Self::start_by(Clock::tokio(), archive).await
    }

    async fn start_by(clock: Clock, archive: Option<Archive>) -> Self {
        let fake = FakeNode::start("one").await;
        let url = format!("http://{}", fake.address).parse().unwrap();
        let node = Arc::new(Node::new(url, None, Roots::Public, Terms::default()));
        let nodes = Nodes::new(vec![Arc::clone(&node)], BTreeMap::new());
        let rules = watch::Sender::new(rules(true));
        let settings = Settings {
            clock,
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
async fn an_appraisal_ends_though_the_time_of_day_is_set_back() {
    let kept = Kept::start_by(Clock::stopped(), None).await;
    let verified = kept.verified().await;
    let now = kept.attester.settings.clock.now();
    kept.fake.give(false);
    pass(MAX_AGE - Duration::from_secs(1)).await;
    assert!(!verified.has_ended(now));
    pass(Duration::from_secs(1)).await;
    assert!(verified.has_ended(now));
    in_time("the keeper ends it", verified.trust.ended()).await;
    assert!(kept.node.verified().is_none());
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
