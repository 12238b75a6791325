//! What a gateway tells the audit log: what came in force or was refused, which nodes there are, and every
//! appraisal.
//!
//! Whoever has something to tell leaves it in a queue and goes on; one task brings it into the store, and
//! tries until it is there. Where the queue is full, an entry is lost, and that is an entry itself.
//!
//! `heads` tells the log's head to where it is kept.

use std::{fs, net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    store::{Event, Retry, Store, What},
    telemetry::metrics::{Counter, Tally},
};

mod heads;

pub(super) use self::heads::{Heads, Post};

/// Most entries that wait for the store: the appraisals of a large fleet for a while.
const QUEUE: usize = 4096;
/// Most entries of one transaction.
const BATCH: usize = 64;
/// Takes what is to be in the log; without a store it is nowhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    events: mpsc::Sender<Event>,
    clock: Clock,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    written: Counter,
    failed: Counter,
    lost: Counter,
    /// What came of telling the head, by where and how.
    heads: Arc<Tally<2>>,
}

/// Brings entries into the store; not yet begun.
#[must_use]
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    events: mpsc::Receiver<Event>,
    clock: Clock,
    counts: Arc<Counts>,
    /// Of those that were lost, how many the log knows of.
    admitted: u64,
}

/// How this gateway is called there: by its machine, and where it listens.
pub(super) fn actor(listen: SocketAddr) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => format!("gateway {listen}"),
        host => format!("gateway {host} {listen}"),
    }
}

impl Audit {
    pub(super) fn new(store: Store, clock: Clock) -> (Self, Writer) {
        let (events, waiting) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let writer = Writer {
            store,
            events: waiting,
            clock,
            counts: Arc::clone(&counts),
            admitted: 0,
        };
        let told = Told {
            events,
            clock,
            counts,
        };
        (Self(Some(Arc::new(told))), writer)
    }

    /// Leaves an entry to be written; never waits. Details are an object, and hold no secret and nothing
    /// of a request.
    pub(super) fn say(&self, what: What, subject: &str, detail: Value) {
        let Some(told) = &self.0 else { return };
        let event = Event::new(told.clock.now(), what, subject).with(detail);
        if told.events.try_send(event).is_err() {
            told.counts.lost.inc();
            tracing::error!(event = what.as_str(), "audit: no room for an entry");
        }
    }

    /// Entries so far: in the log, tries that failed, and those that were lost; nothing without a store.
    pub(super) fn counts(&self) -> Option<[u64; 3]> {
        let counts = &self.0.as_ref()?.counts;
        Some([counts.written.get(), counts.failed.get(), counts.lost.get()])
    }

    /// What came of telling the log's head: where to, and how.
    pub(super) fn heads(&self) -> Option<Arc<Tally<2>>> {
        Some(Arc::clone(&self.0.as_ref()?.counts.heads))
    }

    /// Entries that wait.
    pub(super) fn waiting(&self) -> usize {
        let told = self.0.as_ref();
        told.map_or(0, |it| QUEUE.saturating_sub(it.events.capacity()))
    }
}

impl Writer {
    /// Writes until `stop`; what waits then is tried once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                n = self.events.recv_many(&mut batch, BATCH) => if n == 0 { return },
                () = stop.cancelled() => return,
            }
            let lost = self.counts.lost.get();
            if lost > self.admitted {
                let detail = json!({ "entries": lost.saturating_sub(self.admitted) });
                let event = Event::new(self.clock.now(), What::AuditLost, "").with(detail);
                batch.insert(0, event);
                self.admitted = lost;
            }
            if !self.write(&batch, &stop).await {
                let entries = batch.len().saturating_add(self.events.len());
                tracing::error!(entries, "audit: stopped before these entries were written");
                return;
            }
        }
    }

    /// Writes a batch, however often that has to be tried; false if it was given up because of `stop`.
    async fn write(&self, batch: &[Event], stop: &CancellationToken) -> bool {
        let retry = Retry {
            of: "the audit log",
            failed: &self.counts.failed,
            stop,
        };
        let written = retry.until_done(|| self.store.append_audit(batch)).await;
        let entries = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.counts.written.add(written.map_or(0, |()| entries));
        written.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::store::{StoreConfig, StoreUrl};

    async fn store(dir: &Path) -> Store {
        let config = StoreConfig {
            url: StoreUrl::Sqlite(dir.join("db")),
            ..StoreConfig::default()
        };
        Store::open(&config).await.unwrap()
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_the_log_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(store.clone(), Clock::system());
        for n in 0..QUEUE + 3 {
            audit.say(What::NodeAdded, &n.to_string(), json!({}));
        }
        assert_eq!(audit.counts(), Some([0, 0, 3]));
        assert_eq!(audit.waiting(), QUEUE);
        let stop = CancellationToken::new();
        stop.cancel();
        writer.run(stop).await;
        let [written, failed, lost] = audit.counts().unwrap();
        assert_eq!((written, failed, lost), (QUEUE as u64 + 1, 0, 3));
        let first = store.audit(0, None, 1).await.unwrap().remove(0);
        assert_eq!(
            (first.event.as_str(), first.detail.as_str()),
            ("audit.lost", r#"{"entries":3}"#)
        );
        assert_eq!(store.verify_audit(None).await.unwrap().flaw, None);
    }

    #[tokio::test]
    async fn what_a_store_that_is_away_does_not_take_is_tried_again_and_at_last_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(store.clone(), Clock::system());
        store.close().await;
        audit.say(What::NodeAdded, "a", json!({}));
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));
        while audit.counts().unwrap()[1] < 2 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        writing.await.unwrap();
        assert_eq!(audit.counts().unwrap()[0], 0);
    }
}
