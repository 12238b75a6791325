//! Receipts that were checked, as long as they are kept.
//!
//! One that waits for the database waits in a journal of its own, and in a queue of the same length. Its place can be
//! taken before there is a receipt: so one that must be kept will be, or is never asked for.

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sqlx::{QueryBuilder, Row as _};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Journal, JournalError, Store, StoreError,
    journal::{Found, Journaled, Place, Reserved},
    keys::{millis, time},
    ledger::is_of_a_row,
    on,
};
use crate::config::store::receipts_journal;

/// Most rows of one statement: each has 13 values, and SQLite takes 32,766.
const MAX_ROWS: usize = 256;
/// Most rows that go at once when their time is over.
const PRUNED: i64 = 10_000;
/// Most receipts that are reserved or wait for the database.
pub(crate) const PLACES: usize = 4096;
/// How long the database may take for one batch, and how long it rests after one that failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(500);

/// A receipt, and what it rests on.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ReceiptRow {
    pub(crate) request_id: String,
    pub(crate) key_id: String,
    pub(crate) node: String,
    pub(crate) jws: String,
    pub(crate) salts: Option<String>,
    pub(crate) statement: String,
    pub(crate) evidence: String,
    pub(crate) nonce: String,
    pub(crate) policy: String,
    pub(crate) bundle: Option<String>,
    pub(crate) asked_at: SystemTime,
    pub(crate) appraised_at: SystemTime,
    pub(crate) checked_at: SystemTime,
}

impl fmt::Debug for ReceiptRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptRow")
            .field("request_id", &self.request_id)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Journaled for ReceiptRow {
    /// The longest receipt, and as much again for what it rests on.
    const PLACE: usize = 8192;
    const MAGIC: [u8; 4] = *b"SGR1";

    /// None is written down before it is whole.
    fn was_lost(&mut self) {}
}

type Waiting = (Place<ReceiptRow>, ReceiptRow);

/// Where receipts wait for the database.
#[derive(Clone, Debug)]
pub(crate) struct ReceiptQueue {
    journal: Arc<Journal<ReceiptRow>>,
    waiting: mpsc::Sender<Waiting>,
}

/// Writes receipts; not yet begun.
#[must_use]
#[derive(Debug)]
pub(crate) struct ReceiptWriter {
    store: Store,
    /// The first that were checked come first.
    found: VecDeque<Waiting>,
    waiting: mpsc::Receiver<Waiting>,
}

impl ReceiptQueue {
    /// Takes a place for a receipt that may come.
    ///
    /// # Errors
    /// [`JournalError::Full`].
    pub(crate) fn reserve(&self) -> Result<Reserved<ReceiptRow>, JournalError> {
        self.journal.reserve()
    }

    /// Whether half of the places are taken.
    pub(crate) fn is_half_taken(&self) -> bool {
        self.journal.taken().saturating_mul(2) >= self.journal.places()
    }

    /// Takes a receipt, which is not lost from then on.
    ///
    /// # Errors
    /// [`JournalError`]: then it is not taken.
    pub(crate) fn add(
        &self,
        place: Reserved<ReceiptRow>,
        row: ReceiptRow,
    ) -> Result<(), JournalError> {
        let place = place.end(&row)?;
        // Whatever waits has a place, so there is room for it; where the writer has stopped, the journal
        // has it.
        let _ = self.waiting.try_send((place, row));
        Ok(())
    }
}

/// The receipts' journal, beside that of usage.
pub(crate) fn journal_beside(usage: &Path) -> PathBuf {
    receipts_journal(usage)
}

impl ReceiptWriter {
    /// With a journal, and what was found in it.
    pub(crate) fn new(
        store: Store,
        (journal, found): (Arc<Journal<ReceiptRow>>, Found<ReceiptRow>),
    ) -> (Self, ReceiptQueue) {
        let (sender, waiting) = mpsc::channel(journal.places().max(1));
        let mut found = found.rows;
        // Of two of one request, the first is kept.
        found.sort_by_key(|(_, row)| row.checked_at);
        let queue = ReceiptQueue {
            journal,
            waiting: sender,
        };
        let writer = Self {
            store,
            found: found.into(),
            waiting,
        };
        (writer, queue)
    }

    /// Writes what was found in the journal, as far as the database takes it now: the rest is written with
    /// what comes.
    pub(crate) async fn write_found(&mut self) {
        loop {
            let rows: Vec<_> = self.found.iter().take(MAX_ROWS).collect();
            let rows: Vec<_> = rows.into_iter().map(|(_, row)| row.clone()).collect();
            let writing = self.store.add_receipts(&rows);
            let (false, Ok(Ok(()))) = (rows.is_empty(), timeout(WRITE_TIMEOUT, writing).await)
            else {
                return;
            };
            for (place, _) in self.found.drain(..rows.len()) {
                place.free();
            }
        }
    }

    /// Writes until `stop`; then what waits is tried once more, and what stays is in the journal.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let many = self.found.len().min(MAX_ROWS);
            let mut batch: Vec<_> = self.found.drain(..many).collect();
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    n = self.waiting.recv_many(&mut batch, MAX_ROWS) => if n == 0 { return },
                    () = stop.cancelled() => return,
                }
            }
            if !self.write(batch, &stop).await {
                return;
            }
        }
    }

    /// Writes a batch, however often that has to be tried; false if it was given up because of `stop`.
    async fn write(&self, batch: Vec<Waiting>, stop: &CancellationToken) -> bool {
        let (places, rows): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let mut was_said = false;
        loop {
            let was_stopped = stop.is_cancelled();
            let error = match timeout(WRITE_TIMEOUT, self.store.add_receipts(&rows)).await {
                Ok(Ok(())) => {
                    places.into_iter().for_each(Place::free);
                    return true;
                }
                Ok(Err(error)) if is_of_a_row(&error) => {
                    return self
                        .one_by_one(places.into_iter().zip(rows), error, stop)
                        .await;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            if !std::mem::replace(&mut was_said, true) {
                tracing::error!(error, "receipts wait for the database");
            }
            if was_stopped {
                return false;
            }
            tokio::select! {
                () = sleep(REST) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// One row that the database will never take must not hold up all others. Its place stays taken, and it
    /// is found at the next start.
    async fn one_by_one(
        &self,
        batch: impl ExactSizeIterator<Item = Waiting>,
        error: StoreError,
        stop: &CancellationToken,
    ) -> bool {
        if batch.len() == 1 {
            tracing::error!(%error, "a receipt that the database refuses stays in the journal");
            return true;
        }
        for one in batch {
            if !Box::pin(self.write(vec![one], stop)).await {
                return false;
            }
        }
        true
    }
}

impl Store {
    /// Adds receipts; one that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]: then none of them was added.
    pub(crate) async fn add_receipts(&self, rows: &[ReceiptRow]) -> Result<(), StoreError> {
        for rows in rows.chunks(MAX_ROWS) {
            on!(self, pool: Db => {
                let mut statement: QueryBuilder<Db> = QueryBuilder::new(
                    "INSERT INTO receipt (request_id, key_id, node, jws, salts, statement, evidence, \
                     nonce, policy, bundle, asked_at, appraised_at, checked_at) ",
                );
                statement.push_values(rows, |mut value, row| {
                    value
                        .push_bind(&row.request_id)
                        .push_bind(&row.key_id)
                        .push_bind(&row.node)
                        .push_bind(&row.jws)
                        .push_bind(&row.salts)
                        .push_bind(&row.statement)
                        .push_bind(&row.evidence)
                        .push_bind(&row.nonce)
                        .push_bind(&row.policy)
                        .push_bind(&row.bundle)
                        .push_bind(millis(row.asked_at))
                        .push_bind(millis(row.appraised_at))
                        .push_bind(millis(row.checked_at));
                });
                statement.push(" ON CONFLICT (request_id, key_id) DO NOTHING");
                statement.build().persistent(false).execute(pool).await?;
            });
        }
        Ok(())
    }

    /// The receipt of a request that this key made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn receipt(
        &self,
        request_id: &str,
        key_id: &str,
    ) -> Result<Option<ReceiptRow>, StoreError> {
        let statement = "SELECT node, jws, salts, statement, evidence, nonce, policy, bundle, \
                         appraised_at, checked_at, asked_at FROM receipt WHERE request_id = $1 AND key_id = $2";
        let found = on!(self, pool => {
            let row = sqlx::query(statement).bind(request_id).bind(key_id).fetch_optional(pool).await?;
            match row {
                None => None,
                Some(row) => Some(ReceiptRow {
                    request_id: request_id.to_owned(),
                    key_id: key_id.to_owned(),
                    node: row.try_get(0)?,
                    jws: row.try_get(1)?,
                    salts: row.try_get(2)?,
                    statement: row.try_get(3)?,
                    evidence: row.try_get(4)?,
                    nonce: row.try_get(5)?,
                    policy: row.try_get(6)?,
                    bundle: row.try_get(7)?,
                    appraised_at: time(row.try_get(8)?),
                    checked_at: time(row.try_get(9)?),
                    // One of before this was kept.
                    asked_at: time(row.try_get::<Option<i64>, _>(10)?.map_or(row.try_get(8), Ok)?),
                }),
            }
        });
        Ok(found)
    }

    /// Removes some of the receipts that were checked before `before`, and says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn prune_receipts(&self, before: SystemTime) -> Result<u64, StoreError> {
        let statement = "DELETE FROM receipt WHERE (request_id, key_id) IN \
                         (SELECT request_id, key_id FROM receipt WHERE checked_at < $1 LIMIT $2)";
        let gone = on!(self, pool => {
            let done = sqlx::query(statement).bind(millis(before)).bind(PRUNED).execute(pool).await?;
            done.rows_affected()
        });
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
