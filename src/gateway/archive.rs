//! Every piece of evidence that was judged, kept by its digest so that it can be judged again.
//!
//! `evidence/DIGEST.json` is an answer exactly as it came, `policies/DIGEST/policy.toml` a policy as
//! it was in force, `bundles/DIGEST` a bundle, and a line of `appraisals.jsonl` says what was judged
//! by what, when, and what came of it. One thread writes, never a request. None of it holds anything
//! of a request.

use std::{io, path::Path, sync::Arc, time::Duration};

use attestation::Nonce;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use self::store::Store;
use super::rules::Rules;
use crate::{config::archive::ArchiveConfig, telemetry::metrics::Counter};

mod bundles;
mod files;
mod shelf;
mod store;

pub(super) use self::store::{POLICIES, POLICY, place_of};
pub(super) const BUNDLES: &str = "bundles";

/// Most verdicts that wait to be written.
const QUEUE: usize = 64;
/// How long an appraisal waits for its place in the queue, and where the archive is required for
/// the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was judged by what, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// RFC 3339.
    pub(super) at: String,
    pub(super) node: String,
    /// Known once the evidence passed.
    pub(super) node_id: Option<String>,
    /// The answer as it came, and its digest in hex.
    pub(super) evidence: Bytes,
    pub(super) digest: String,
    /// What it was asked with.
    pub(super) nonce: Nonce,
    pub(super) rules: Arc<Rules>,
    /// The check that refused, and which device it was about.
    pub(super) refused: Option<(&'static str, Option<usize>)>,
}

/// Why a verdict is not on the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("the disk is too slow: {QUEUE} verdicts wait")]
    Slow,
    #[error("the writer is gone")]
    Gone,
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Takes verdicts for the writer.
#[derive(Debug)]
pub(super) struct Archive {
    orders: mpsc::Sender<Order>,
    required: bool,
    /// Places in the queue, held until the verdict is written: what waits for a turn here does not
    /// count as waiting for the disk.
    turns: Semaphore,
    counts: Arc<Counts>,
}

/// What came of verdicts.
#[derive(Debug, Default)]
struct Counts {
    written: Counter,
    failed: Counter,
}

/// Looks at an archive, and does not keep it.
#[derive(Debug)]
pub(super) struct Watch {
    orders: mpsc::WeakSender<Order>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
pub(super) struct Order {
    entry: Entry,
    written: oneshot::Sender<io::Result<()>>,
}

/// Resolves when the writer has ended.
pub(super) type Ended = oneshot::Receiver<()>;

impl Archive {
    /// Makes the folder, locks it and starts the writer, which ends when the archive is dropped.
    ///
    /// # Errors
    /// If the folder cannot be made or read, or another gateway has it.
    pub(super) fn open(config: &ArchiveConfig, dir: &Path) -> io::Result<(Self, Ended)> {
        let store = Store::open(dir, config)?;
        let (orders, waiting) = mpsc::channel(QUEUE);
        let (ending, ended) = oneshot::channel();
        let counts = Arc::<Counts>::default();
        let of_writer = Arc::clone(&counts);
        // A thread of its own: a disk that hangs must not keep the process from ending.
        std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                write(store, waiting, &of_writer);
                let _ = ending.send(());
            })?;
        let archive = Self {
            orders,
            required: config.required,
            turns: Semaphore::new(QUEUE),
            counts,
        };
        Ok((archive, ended))
    }

    /// For whoever wants to see how it stands.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            orders: self.orders.downgrade(),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Has a verdict written down. Only where the archive is required is it waited for.
    ///
    /// # Errors
    /// [`ArchiveError`] where it is required and not written.
    pub(super) async fn keep(&self, entry: Entry) -> Result<(), ArchiveError> {
        let turn = if self.required {
            self.turns.acquire().await.ok()
        } else {
            None
        };
        let (written, outcome) = oneshot::channel();
        let node = entry.node.clone();
        let sent = self.orders.send_timeout(Order { entry, written }, PATIENCE);
        let sent = sent.await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => ArchiveError::Slow,
            mpsc::error::SendTimeoutError::Closed(_) => ArchiveError::Gone,
        });
        let kept = match sent {
            Ok(()) if !self.required => Ok(()),
            Ok(()) => match timeout(PATIENCE, outcome).await {
                Ok(Ok(written)) => written.map_err(ArchiveError::Write),
                Ok(Err(_)) => Err(ArchiveError::Gone),
                Err(_) => Err(ArchiveError::Slow),
            },
            Err(error) => {
                self.counts.failed.inc();
                tracing::error!(node, %error, "verdict not archived");
                Err(error)
            }
        };
        drop(turn);
        if self.required { kept } else { Ok(()) }
    }
}

#[cfg(test)]
impl Archive {
    /// A required one whose disk is the test.
    pub(super) fn by_hand() -> (Self, mpsc::Receiver<Order>) {
        let (orders, waiting) = mpsc::channel(QUEUE);
        let archive = Self {
            orders,
            required: true,
            turns: Semaphore::new(QUEUE),
            counts: Arc::default(),
        };
        (archive, waiting)
    }
}

#[cfg(test)]
impl Order {
    pub(super) fn written(self) {
        self.written.send(Ok(())).unwrap();
    }
}

impl Watch {
    /// Verdicts that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        let orders = self.orders.upgrade();
        orders.map_or(0, |it| it.max_capacity().saturating_sub(it.capacity()))
    }

    /// Most verdicts that may wait.
    pub(super) fn capacity(&self) -> usize {
        QUEUE
    }

    /// Verdicts that were written so far.
    pub(super) fn written(&self) -> u64 {
        self.counts.written.get()
    }

    /// Those that were not.
    pub(super) fn failed(&self) -> u64 {
        self.counts.failed.get()
    }
}

fn write(mut store: Store, mut waiting: mpsc::Receiver<Order>, counts: &Counts) {
    while let Some(Order { entry, written }) = waiting.blocking_recv() {
        let outcome = store.keep(&entry);
        match &outcome {
            Ok(()) => counts.written.inc(),
            Err(_) => counts.failed.inc(),
        }
        if let Err(error) = &outcome {
            tracing::error!(node = entry.node, %error, "verdict not archived");
        }
        // Nobody waits where the archive is not required.
        let _ = written.send(outcome);
    }
}

#[cfg(test)]
mod tests;
