//! Receipts in the store, the newest in memory as well: there one is found before it is written. What is
//! in the store counts: of two of one request, that is the first, also where it was checked elsewhere.

use std::sync::Arc;

use attestation::Nonce;
use futures_util::future::BoxFuture;

use super::keep::{InMemory, KeptReceipt, ReceiptSink, SinkFull, Slot, Unreached};
use crate::{
    ids::RequestId,
    store::{ReceiptQueue, ReceiptRow, Store},
};

/// Keeps receipts in the store.
#[derive(Debug)]
pub(in crate::gateway) struct Stored {
    newest: InMemory,
    queue: ReceiptQueue,
    store: Store,
}

impl Stored {
    pub(in crate::gateway) fn new(store: Store, queue: ReceiptQueue) -> Self {
        Self {
            newest: InMemory::default(),
            queue,
            store,
        }
    }
}

impl ReceiptSink for Stored {
    fn reserve(&self) -> Result<Slot, SinkFull> {
        let reserved = self.queue.reserve().map_err(|_| SinkFull)?;
        Ok(Slot(Some(reserved)))
    }

    fn keep(&self, receipt: KeptReceipt, slot: Slot) -> Result<(), SinkFull> {
        let Slot(Some(reserved)) = slot else {
            return Err(SinkFull);
        };
        self.queue.add(reserved, row(&receipt)).map_err(|error| {
            tracing::error!(%error, "receipt not written down");
            SinkFull
        })?;
        self.newest.keep(receipt, Slot::of_memory())
    }

    fn find<'a>(
        &'a self,
        id: RequestId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<KeptReceipt>>, Unreached>> {
        Box::pin(async move {
            let found = self.store.receipt(&id.to_string(), key).await;
            let found = found.map_err(|error| {
                tracing::error!(%error, "receipt not looked up");
                Unreached
            })?;
            match found {
                Some(row) => Ok(kept(id, row).map(Arc::new)),
                None => self.newest.find(id, key).await,
            }
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
        asked_at: receipt.asked_at,
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
        asked_at: row.asked_at,
        appraised_at: row.appraised_at,
        at: row.checked_at,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::store::{Journal, ReceiptWriter, tests::places};

    fn receipt(id: RequestId, jws: &str) -> KeptReceipt {
        KeptReceipt {
            request_id: id,
            key: "key".into(),
            node: "node".into(),
            jws: jws.to_owned(),
            salts: None,
            statement: String::new(),
            evidence: "0".repeat(64),
            nonce: Nonce::from([0; 32]),
            policy: "0".repeat(64),
            bundle: None,
            asked_at: SystemTime::UNIX_EPOCH,
            appraised_at: SystemTime::UNIX_EPOCH,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn of_two_receipts_of_one_request_the_first_is_served_before_and_after_it_is_written() {
        for place in places().await {
            let store = place.open().await;
            let path = place.dir.path().join("receipts");
            let opened = Journal::open(&path, 2).unwrap();
            let (writer, queue) = ReceiptWriter::new(store.clone(), opened);
            let sink = Stored::new(store.clone(), queue.clone());
            // Another gateway, which has the second one alone in memory.
            let other = Stored::new(store.clone(), queue);
            let id = RequestId::generate();
            for (sink, jws) in [(&sink, "first"), (&other, "second")] {
                let slot = sink.reserve().unwrap();
                sink.keep(receipt(id, jws), slot).unwrap();
            }
            assert_eq!(sink.reserve().map(drop), Err(SinkFull), "two places");
            let found = sink.find(id, "key").await.unwrap().unwrap();
            assert_eq!(found.jws, "first", "{}", place.name);
            let found = async |sink: Stored| sink.find(id, "key").await.unwrap().unwrap();
            let stop = tokio_util::sync::CancellationToken::new();
            let writing = tokio::spawn(writer.run(stop));
            while store
                .receipt(&id.to_string(), "key")
                .await
                .unwrap()
                .is_none()
            {
                tokio::task::yield_now().await;
            }
            assert_eq!(found(sink).await.jws, "first", "{}", place.name);
            assert_eq!(found(other).await.jws, "first", "{}", place.name);
            writing.await.unwrap();
        }
    }
}
