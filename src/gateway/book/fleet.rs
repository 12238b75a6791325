//! Limits across gateways: each tells the others through the store what its keys' requests hold and count,
//! and hears the same of them.
//!
//! What a gateway admits is known to the others after two intervals at most; that is by how much they are
//! wrong together. What it tells is all of its part each time, so that nothing counts twice, and a gateway
//! whose words stay the same is not there any more. No clocks are compared for that.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Book;
use crate::store::{OtherShare, Share, StoreError};

/// Intervals after which what a gateway told counts no more, and after which it is removed.
const STALE: u32 = 5;
const GONE: u32 = 600;
/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What was heard of other gateways.
#[derive(Debug, Default)]
struct Heard {
    /// The last beat of each, and when it was another one.
    beats: HashMap<String, (i64, Instant)>,
}

impl Heard {
    /// Those that are still there, and the ids of those that are long gone.
    fn fresh(
        &mut self,
        shares: Vec<OtherShare>,
        every: Duration,
    ) -> (HashMap<String, Vec<Share>>, Vec<String>) {
        let now = Instant::now();
        let mut fresh = HashMap::<String, Vec<Share>>::new();
        let mut known = HashMap::new();
        for other in shares {
            let before = self.beats.get(&other.gateway_id).copied();
            let same = before.filter(|(beat, _)| *beat == other.beat);
            let (_, since) = same.unwrap_or((other.beat, now));
            known.insert(other.gateway_id, (other.beat, since));
            if now.duration_since(since) <= every.saturating_mul(STALE) {
                fresh.entry(other.key_id).or_default().push(other.share);
            }
        }
        let is_gone =
            |(_, since): &(i64, Instant)| now.duration_since(*since) > every.saturating_mul(GONE);
        let gone = known.iter().filter(|(_, it)| is_gone(it));
        let gone = gone.map(|(id, _)| id.clone()).collect();
        self.beats = known;
        (fresh, gone)
    }
}

impl Book {
    /// Tells and hears; never ends. While the store does not answer, each gateway holds the limits alone.
    pub(in crate::gateway) async fn share(&self, every: Duration) {
        let gateway_id = hex::encode(rand::random::<[u8; 16]>());
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beat, mut heard, mut failed) = (0, Heard::default(), 0_u32);
        loop {
            ticks.tick().await;
            let sharing = self.share_once(&gateway_id, &mut beat, &mut heard, every);
            let error = match timeout(TIMEOUT, sharing).await {
                Ok(Ok(())) => {
                    failed = 0;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            failed = failed.saturating_add(1);
            if failed == 1 {
                tracing::error!(error, "limits are not shared with other gateways");
            }
            if failed == STALE {
                let pages = self.pages();
                let all = pages.keys.values();
                all.for_each(|known| known.held.meter.hear(&[], &[], self.clock.now()));
            }
        }
    }

    async fn share_once(
        &self,
        gateway_id: &str,
        beat: &mut i64,
        heard: &mut Heard,
        every: Duration,
    ) -> Result<(), StoreError> {
        let (shares, is_needed) = self.shares();
        if !is_needed && *beat == 0 {
            return Ok(());
        }
        *beat = beat.saturating_add(1);
        self.store.put_shares(gateway_id, *beat, &shares).await?;
        // First what is held, then what is spent: what leaves the one is in the other by then.
        let others = self.store.other_shares(gateway_id).await?;
        let spent = self.spent().await?;
        let (fresh, gone) = heard.fresh(others, every);
        for id in gone {
            self.store.put_shares(&id, 0, &[]).await?;
        }
        let pages = self.pages();
        for (id, known) in &pages.keys {
            let shares = fresh.get(id).map(Vec::as_slice).unwrap_or_default();
            let spent = spent.iter().filter(|spend| spend.key_id == *id);
            known.held.meter.hear(shares, spent, self.clock.now());
        }
        Ok(())
    }

    /// This gateway's part, and whether any key has limits.
    fn shares(&self) -> (Vec<(String, Share)>, bool) {
        let (pages, now) = (self.pages(), self.clock.now());
        let metered = || pages.keys.iter().filter(|(_, known)| known.is_metered());
        let shares = metered().filter_map(|(id, known)| {
            let share = known.held.meter.share(now)?;
            Some((id.clone(), share))
        });
        (shares.collect(), metered().next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn other(gateway_id: &str, beat: i64) -> OtherShare {
        OtherShare {
            gateway_id: gateway_id.to_owned(),
            key_id: "k".to_owned(),
            beat,
            share: Share::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_whose_words_stay_the_same_counts_no_more_and_then_is_gone() {
        let every = Duration::from_secs(1);
        let mut heard = Heard::default();
        // Seconds from the one before, the beats of two gateways, how many count, and who is gone.
        let cases = [
            (0, (1, 7), 2, &[][..]),
            (4, (2, 7), 2, &[]),
            (2, (3, 7), 1, &[]),
            (600, (4, 7), 1, &["b"]),
            (1, (5, 8), 2, &[]),
        ];
        for (at, (seconds, (a, b), count, gone)) in cases.into_iter().enumerate() {
            advance(Duration::from_secs(seconds)).await;
            let (fresh, found) = heard.fresh(vec![other("a", a), other("b", b)], every);
            let fresh = fresh.get("k").map_or(0, Vec::len);
            assert_eq!(
                (fresh, found.as_slice()),
                (
                    count,
                    &gone.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..]
                ),
                "{at}"
            );
        }
        heard.fresh(Vec::new(), every);
        assert!(heard.beats.is_empty());
    }
}
