//! The ledger: brings what requests used into the database, beside the requests.
//!
//! What has ended waits in the journal, and in a queue of the same length, until a batch of it is in the
//! database. A batch that fails is tried again until it is there; a row is unique by its request's id, so
//! that none counts twice.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Journal, JournalError, Spend, Store, StoreError, UsageRow,
    journal::{Found, Place},
    usage::MAX_ROWS,
};
use crate::{clock::Clock, telemetry::metrics::Counter};

/// How long the database may take for one batch.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_secs(2);

type Ended = (Place<UsageRow>, UsageRow, Option<Box<dyn Settle>>);

/// What a request held of its key's budgets, until its row is in the database.
pub(crate) trait Settle: fmt::Debug + Send + Sync {
    /// The row is there; `spent` is what its key has spent by then.
    fn settled(self: Box<Self>, spent: &[Spend]);
}

/// Takes requests in, and what they used.
#[derive(Debug)]
pub(crate) struct Ledger {
    journal: Arc<Journal<UsageRow>>,
    ended: mpsc::Sender<Ended>,
    counts: Arc<Counts>,
}

/// What became of rows.
#[derive(Debug, Default)]
struct Counts {
    written: Counter,
    failed: Counter,
    set_aside: Counter,
}

/// A request that was let in and has not ended.
#[must_use]
#[derive(Debug)]
pub(crate) struct Open {
    place: Place<UsageRow>,
    ended: mpsc::Sender<Ended>,
}

/// Looks at a ledger.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    journal: Arc<Journal<UsageRow>>,
    counts: Arc<Counts>,
}

/// Writes rows; not yet begun.
#[must_use]
#[derive(Debug)]
pub(crate) struct Writer {
    store: Store,
    clock: Clock,
    found: Vec<Ended>,
    ended: mpsc::Receiver<Ended>,
    counts: Arc<Counts>,
    /// What rows hold that the database refuses: it counts on.
    aside: Mutex<Vec<Box<dyn Settle>>>,
}

impl Ledger {
    /// With a journal, and what was found in it.
    pub(crate) fn new(
        store: Store,
        clock: Clock,
        (journal, found): (Arc<Journal<UsageRow>>, Found<UsageRow>),
    ) -> (Self, Writer) {
        // Whatever waits has a place, so there is room for it.
        let (ended, waiting) = mpsc::channel(journal.places().max(1));
        let counts = Arc::<Counts>::default();
        let writer = Writer {
            store,
            clock,
            found: found
                .rows
                .into_iter()
                .map(|(place, row)| (place, row, None))
                .collect(),
            ended: waiting,
            counts: Arc::clone(&counts),
            aside: Mutex::default(),
        };
        let ledger = Self {
            journal,
            ended,
            counts,
        };
        (ledger, writer)
    }

    /// Writes down that a request is let in.
    ///
    /// # Errors
    /// [`JournalError`]: then it must not be.
    pub(crate) fn begin(&self, row: &UsageRow) -> Result<Open, JournalError> {
        Ok(Open {
            place: self.journal.begin(row)?,
            ended: self.ended.clone(),
        })
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch {
            journal: Arc::clone(&self.journal),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl Open {
    /// Writes down what is known of how it ends, before anybody is told.
    pub(crate) fn note(&self, row: &UsageRow) {
        if let Err(error) = self.place.end(row) {
            tracing::error!(request_id = row.request_id, %error, "journal");
        }
    }

    /// It has ended; what it holds is told once its row is in the database.
    pub(crate) fn end(self, row: UsageRow, holds: Option<Box<dyn Settle>>) {
        self.note(&row);
        match self.ended.try_send((self.place, row, holds)) {
            Ok(()) => {}
            // The writer has stopped: the journal has it.
            Err(TrySendError::Closed(_) | TrySendError::Full(_)) => {}
        }
    }
}

impl Watch {
    /// Requests in flight, and those that wait for the database.
    pub(crate) fn taken(&self) -> usize {
        self.journal.taken()
    }

    /// Most of both.
    pub(crate) fn places(&self) -> usize {
        self.journal.places()
    }

    /// Rows in the database.
    pub(crate) fn written(&self) -> u64 {
        self.counts.written.get()
    }

    /// Batches that were not written when they were tried.
    pub(crate) fn failed(&self) -> u64 {
        self.counts.failed.get()
    }

    /// Rows that the database does not take.
    pub(crate) fn set_aside(&self) -> u64 {
        self.counts.set_aside.get()
    }
}

impl Writer {
    /// Writes what was found in the journal, as far as the database takes it now: the rest is written with
    /// what comes.
    pub(crate) async fn write_found(&mut self) {
        let mut done = 0_usize;
        for found in self.found.chunks(MAX_ROWS) {
            let rows: Vec<_> = found.iter().map(|(_, row, _)| row.clone()).collect();
            match timeout(WRITE_TIMEOUT, self.add(&rows)).await {
                Ok(Ok(_)) => done = done.saturating_add(found.len()),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        for (place, ..) in self.found.drain(..done) {
            self.counts.written.inc();
            place.free();
        }
    }

    /// Writes until all who could send are gone, or until `stop`; then what waits is tried once more, and
    /// what stays is in the journal.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut found = std::mem::take(&mut self.found);
        while !found.is_empty() {
            let batch = found.split_off(found.len().saturating_sub(MAX_ROWS));
            if !self.write(batch, &stop).await {
                return;
            }
        }
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                n = self.ended.recv_many(&mut batch, MAX_ROWS) => if n == 0 { return },
                () = stop.cancelled() => return,
            }
            if !self.write(batch, &stop).await {
                return;
            }
        }
    }

    /// Writes a batch, however often that has to be tried; false if it was given up because of `stop`.
    async fn write(&self, batch: Vec<Ended>, stop: &CancellationToken) -> bool {
        let (mut rows, mut rest) = (Vec::new(), Vec::new());
        for (place, row, holds) in batch {
            rows.push(row);
            rest.push((place, holds));
        }
        let mut wait = FIRST_WAIT;
        loop {
            let was_stopped = stop.is_cancelled();
            let written = timeout(WRITE_TIMEOUT, self.add(&rows)).await;
            match written {
                Ok(Ok(spent)) => {
                    for ((place, holds), row) in rest.into_iter().zip(&rows) {
                        self.settle((place, holds), row, &spent);
                    }
                    return true;
                }
                Ok(Err(error)) if is_of_a_row(&error) => {
                    let batch = rest.into_iter().zip(rows);
                    let batch = batch.map(|((place, holds), row)| (place, row, holds));
                    return self.one_by_one(batch, stop).await;
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

    async fn add(&self, rows: &[UsageRow]) -> Result<Vec<Spend>, StoreError> {
        self.store.add_usage(rows, self.clock.now()).await
    }

    fn settle(
        &self,
        (place, holds): (Place<UsageRow>, Option<Box<dyn Settle>>),
        row: &UsageRow,
        spent: &[Spend],
    ) {
        self.counts.written.inc();
        place.free();
        if let Some(holds) = holds {
            let of_key = spent.iter().filter(|it| it.key_id == row.key_id);
            holds.settled(&of_key.cloned().collect::<Vec<_>>());
        }
    }

    fn failed(&self, error: &str, wait: Duration) {
        self.counts.failed.inc();
        // Said once for a time that the database is away.
        if wait == FIRST_WAIT {
            tracing::error!(error, "usage waits for the database");
        }
    }

    /// One row that the database will never take must not hold up all others.
    async fn one_by_one(
        &self,
        batch: impl Iterator<Item = Ended>,
        stop: &CancellationToken,
    ) -> bool {
        for (place, row, holds) in batch {
            match self.write_one(&row, stop).await {
                One::Written(spent) => self.settle((place, holds), &row, &spent),
                // Its place stays taken and counts: nothing that somebody used is forgotten.
                One::Refused(error) => {
                    self.counts.set_aside.inc();
                    tracing::error!(request_id = row.request_id, %error, "usage set aside");
                    let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
                    aside.extend(holds);
                }
                One::GivenUp => return false,
            }
        }
        true
    }

    async fn write_one(&self, row: &UsageRow, stop: &CancellationToken) -> One {
        let mut wait = FIRST_WAIT;
        loop {
            let was_stopped = stop.is_cancelled();
            let written = timeout(WRITE_TIMEOUT, self.add(std::slice::from_ref(row)));
            match written.await {
                Ok(Ok(spent)) => return One::Written(spent),
                Ok(Err(error)) if is_of_a_row(&error) => return One::Refused(error),
                Ok(Err(error)) => self.failed(&error.to_string(), wait),
                Err(_) => self.failed("it takes too long", wait),
            }
            if was_stopped {
                return One::GivenUp;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
    }
}

/// What came of one row.
enum One {
    Written(Vec<Spend>),
    Refused(StoreError),
    /// Because of a stop: the journal has it.
    GivenUp,
}

/// Whether it is a row that the database refuses, and not the database that cannot.
pub(super) fn is_of_a_row(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(error)) = error else {
        return matches!(
            error,
            StoreError::Database(sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_))
        );
    };
    // PostgreSQL: data exceptions and broken constraints.
    let of_data = error
        .code()
        .is_some_and(|code| code.len() == 5 && code.starts_with("22"));
    of_data || !matches!(error.kind(), sqlx::error::ErrorKind::Other)
}
