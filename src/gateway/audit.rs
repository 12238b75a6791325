//! What a gateway tells the audit log: what came in force or was refused, which nodes there are, and every
//! appraisal.
//!
//! Whoever has something to tell leaves it in a queue and goes on; one task brings it into the store, and
//! tries until it is there. Where the queue is full, an entry is lost, and that is an entry itself.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{self, store::AuditConfig},
    store::{Event, Store, What, report},
    telemetry::metrics::Counter,
};

/// Most entries that wait for the store: the appraisals of a large fleet for a while.
const QUEUE: usize = 4096;
/// Most entries of one transaction.
const BATCH: usize = 64;
/// How long the store may take for one.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_secs(2);

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

/// SHA-256 of a file, if it can be read again: what came through a pipe cannot.
pub(super) fn digest_of(path: &Path) -> Option<String> {
    config::open_regular(path).ok()?;
    let text = config::read_text(path).ok()?;
    Some(hex::encode(Sha256::digest(text)))
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
        let mut wait = FIRST_WAIT;
        loop {
            let was_stopped = stop.is_cancelled();
            match timeout(WRITE_TIMEOUT, self.store.append_audit(batch)).await {
                Ok(Ok(())) => {
                    let entries = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                    self.counts.written.add(entries);
                    return true;
                }
                Ok(Err(error)) => self.failed(&error.to_string(), wait),
                Err(_) => self.failed("it takes too long", wait),
            }
            if was_stopped {
                return false;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
    }

    fn failed(&self, error: &str, wait: Duration) {
        self.counts.failed.inc();
        // Said once for a time that the database is away.
        if wait == FIRST_WAIT {
            tracing::error!(error, "the audit log waits for the database");
        }
    }
}

/// Writes the log's head to a file every so often, if one is configured; never ends.
pub(super) async fn keep_head(store: Store, config: AuditConfig, clock: Clock) {
    let every = Duration::from_secs(config.head_every_s.get().into());
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        write_head(&store, &config, clock).await;
    }
}

/// Writes it once.
pub(super) async fn write_head(store: &Store, config: &AuditConfig, clock: Clock) {
    let Some(file) = config.head_file.clone() else {
        return;
    };
    let head = match timeout(WRITE_TIMEOUT, store.audit_head()).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => return not_kept(&error.to_string()),
        Err(_) => return not_kept("the store takes too long"),
    };
    let text = format!("{}\n", report::head(&head, clock.now()));
    let replacing = spawn_blocking(move || replace(&file, text.as_bytes()));
    match replacing.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => not_kept(&config::in_words(&error)),
        Err(_) => not_kept("writing panicked"),
    }
}

fn not_kept(error: &str) {
    tracing::error!(
        error,
        "the head of the audit log is not written to its file"
    );
}

/// Writes a whole file in place of another, so that nobody reads half of it.
fn replace(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    // It is no secret, and somebody else is to carry it away.
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn the_head_is_in_its_file_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let file = dir.path().join("head.json");
        let config = AuditConfig {
            head_file: Some(file.clone()),
            ..AuditConfig::default()
        };
        for n in 1..3 {
            let event = Event::new(Clock::system().now(), What::NodeAdded, "a");
            store.append_audit(&[event]).await.unwrap();
            write_head(&store, &config, Clock::system()).await;
            let text = fs::read_to_string(&file).unwrap();
            let head: crate::store::Head = serde_json::from_str(&text).unwrap();
            assert_eq!(head, store.audit_head().await.unwrap());
            assert_eq!(head.seq, n);
        }
    }
}
