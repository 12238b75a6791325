//! Receipts that were checked, as long as they are kept.

use std::time::{Duration, SystemTime};

use sqlx::{QueryBuilder, Row as _};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Store, StoreError,
    keys::{millis, time},
    on,
};

/// Most rows of one statement: each has 12 values, and SQLite takes 32,766.
const MAX_ROWS: usize = 256;
/// Most rows that go at once when their time is over.
const PRUNED: i64 = 10_000;
/// Most receipts that wait for the database. Each takes about 2 KiB.
const QUEUE: usize = 4096;
/// How long the database may take for one batch, and how long it rests after one that failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(500);

/// A receipt, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub(crate) appraised_at: SystemTime,
    pub(crate) checked_at: SystemTime,
}

/// Writes receipts; not yet begun.
#[must_use]
#[derive(Debug)]
pub(crate) struct ReceiptWriter {
    store: Store,
    rows: mpsc::Receiver<ReceiptRow>,
}

impl ReceiptWriter {
    /// With the queue of what it is to write.
    pub(crate) fn new(store: Store) -> (Self, mpsc::Sender<ReceiptRow>) {
        let (sender, rows) = mpsc::channel(QUEUE);
        (Self { store, rows }, sender)
    }

    /// Writes until `stop`; then what waits is tried once more.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                n = self.rows.recv_many(&mut batch, MAX_ROWS) => if n == 0 { return },
                () = stop.cancelled() => return,
            }
            let mut was_said = false;
            loop {
                let was_stopped = stop.is_cancelled();
                let error = match timeout(WRITE_TIMEOUT, self.store.add_receipts(&batch)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "it takes too long".to_owned(),
                };
                if !std::mem::replace(&mut was_said, true) {
                    tracing::error!(error, "receipts wait for the database");
                }
                if was_stopped {
                    tracing::error!(lost = batch.len(), "receipts that are not in the database");
                    return;
                }
                tokio::select! {
                    () = sleep(REST) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
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
                     nonce, policy, bundle, appraised_at, checked_at) ",
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
                         appraised_at, checked_at FROM receipt WHERE request_id = $1 AND key_id = $2";
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
