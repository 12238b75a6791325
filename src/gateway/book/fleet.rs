//! Limits across gateways: each tells the others through the store what its keys' requests hold and count,
//! and hears the same of them.
//!
//! What a gateway admits is known to the others after two intervals at most; that is by how much they are
//! wrong together. What it tells is all of its part each time, so that nothing counts twice, and a gateway
//! whose words stay the same is not there any more. No clocks are compared for that.
//!
//! One that stops takes back what it told, and one that starts takes back what its process of before told: so
//! nobody counts what a gateway held that was killed.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Book;
use crate::{
    config::store::name_of_teller,
    store::{OtherShare, Share, Store, StoreError},
};

/// Intervals after which what a gateway told counts no more, and after which it is removed.
const STALE: u32 = 5;
const GONE: u32 = 600;
/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The name under which a process tells the others, another one for each process: so two that were made of one
/// copied disk do not take each other for themselves.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Teller {
    id: Arc<str>,
}

impl Teller {
    /// A new one. The name stands beside the journal, whose lock the caller has, so that the next process takes back
    /// what this one told, as this one does for the last.
    pub(in crate::gateway) async fn begin(store: &Store, journal: &Path) -> Self {
        let file = name_of_teller(journal);
        let before = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(before) if is_id(before.trim()) => {
                Self::named(before.trim()).leave(store).await;
                Ok(())
            }
            Ok(before) if before.is_empty() => Ok(()),
            // Whatever it is, it is somebody's.
            Ok(_) => Err(io::Error::other("it holds something else")),
            Err(error) => Err(error),
        };
        let own = Self::named(&hex::encode(rand::random::<[u8; 16]>()));
        if let Err(error) = before.and_then(|()| own.write(&file)) {
            tracing::warn!(
                file = %file.display(), %error,
                "not written: if this gateway is killed, what it held counts for some intervals more"
            );
        }
        own
    }

    fn named(id: &str) -> Self {
        Self { id: id.into() }
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
        let new = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        fs::write(new.path(), format!("{}\n", self.id))?;
        new.persist(file)?;
        Ok(())
    }

    /// Takes back all that was told. Where the store does not answer, it ages.
    pub(in crate::gateway) async fn leave(&self, store: &Store) {
        let leaving = store.put_shares(&self.id, 0, &[]);
        if !matches!(timeout(TIMEOUT, leaving).await, Ok(Ok(()))) {
            tracing::warn!(
                "what limited keys held here counts at other gateways for some intervals more"
            );
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

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
    /// Tells and hears; never ends. What was heard counts for some intervals, whether the store refuses or hangs;
    /// then this gateway holds the limits alone until it answers.
    pub(in crate::gateway) async fn share(&self, every: Duration, teller: &Teller) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beat, mut heard) = (0, Heard::default());
        let (mut failed, mut is_old) = (false, true);
        let mut good_until = Instant::now();
        loop {
            ticks.tick().await;
            let sharing = self.share_once(&teller.id, &mut beat, &mut heard, every);
            let sharing = timeout(TIMEOUT, sharing);
            tokio::pin!(sharing);
            let shared = loop {
                tokio::select! {
                    biased;
                    shared = &mut sharing => break shared,
                    () = sleep_until(good_until), if !is_old => {
                        self.forget_others();
                        is_old = true;
                    }
                }
            };
            let error = match shared {
                Ok(Ok(())) => {
                    (failed, is_old) = (false, false);
                    good_until = Instant::now() + every.saturating_mul(STALE);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            if !std::mem::replace(&mut failed, true) {
                tracing::error!(error, "limits are not shared with other gateways");
            }
            if !is_old && good_until <= Instant::now() {
                self.forget_others();
                is_old = true;
            }
        }
    }

    /// Has what others told count no more.
    fn forget_others(&self) {
        let pages = self.pages();
        let all = pages.keys.values();
        all.for_each(|known| known.held.meter.hear(&[], &[], self.clock.now()));
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
mod tests;
