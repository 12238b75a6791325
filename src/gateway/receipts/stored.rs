//! Receipts in the store, the newest in memory as well: there one is found before it is written.

use std::sync::Arc;

use attestation::Nonce;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::keep::{InMemory, KeptReceipt, ReceiptSink, SinkFull, Unreached};
use crate::{
    ids::RequestId,
    store::{ReceiptRow, Store},
};

/// Keeps receipts in the store.
#[derive(Debug)]
pub(in crate::gateway) struct Stored {
    newest: InMemory,
    queue: mpsc::Sender<ReceiptRow>,
    store: Store,
}

impl Stored {
    pub(in crate::gateway) fn new(store: Store, queue: mpsc::Sender<ReceiptRow>) -> Self {
        Self {
            newest: InMemory::default(),
            queue,
            store,
        }
    }
}

impl ReceiptSink for Stored {
    fn keep(&self, receipt: KeptReceipt) -> Result<(), SinkFull> {
        self.queue.try_send(row(&receipt)).map_err(|_| SinkFull)?;
        self.newest.keep(receipt)
    }

    fn find<'a>(
        &'a self,
        id: RequestId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<KeptReceipt>>, Unreached>> {
        Box::pin(async move {
            if let Some(found) = self.newest.find(id, key).await? {
                return Ok(Some(found));
            }
            let found = self.store.receipt(&id.to_string(), key).await;
            let found = found.map_err(|error| {
                tracing::error!(%error, "receipt not looked up");
                Unreached
            })?;
            Ok(found.and_then(|row| kept(id, row)).map(Arc::new))
        })
    }
}

fn row(receipt: &KeptReceipt) -> ReceiptRow {
    ReceiptRow {
        request_id: receipt.request_id.to_string(),
        key_id: receipt.key.to_string(),
        node: receipt.node.to_string(),
        jws: receipt.jws.clone(),
        salts: receipt.salts.clone(),
        statement: receipt.statement.clone(),
        evidence: receipt.evidence.clone(),
        nonce: receipt.nonce.to_string(),
        policy: receipt.policy.clone(),
        bundle: receipt.bundle.clone(),
        appraised_at: receipt.appraised_at,
        checked_at: receipt.at,
    }
}

/// What 64 hex digits are.
fn nonce(text: &str) -> Option<Nonce> {
    let mut nonce = [0; 32];
    hex::decode_to_slice(text, &mut nonce).ok()?;
    Some(nonce.into())
}

/// Nothing if somebody wrote what this program does not.
fn kept(request_id: RequestId, row: ReceiptRow) -> Option<KeptReceipt> {
    // They name files of the archive, and nothing else.
    nonce(&row.evidence).and(nonce(&row.policy))?;
    if row.bundle.as_ref().is_some_and(|it| nonce(it).is_none()) {
        return None;
    }
    Some(KeptReceipt {
        request_id,
        key: row.key_id.into(),
        node: row.node.into(),
        jws: row.jws,
        salts: row.salts,
        statement: row.statement,
        evidence: row.evidence,
        nonce: nonce(&row.nonce)?,
        policy: row.policy,
        bundle: row.bundle,
        appraised_at: row.appraised_at,
        at: row.checked_at,
    })
}
