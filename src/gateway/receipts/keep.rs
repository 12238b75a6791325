//! Receipts that were checked, and whoever keeps them.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use attestation::Nonce;
use futures_util::future::BoxFuture;

use crate::{
    ids::RequestId,
    store::{ReceiptRow, Reserved},
};

/// Most receipts that are kept in memory; the oldest goes. Each takes about 2 KiB.
const MAX_KEPT: usize = 10_000;

/// A receipt that was checked, and what it rests on.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::gateway) struct KeptReceipt {
    pub(in crate::gateway) request_id: RequestId,
    /// The id of the key that made the request: names can be another's later.
    pub(in crate::gateway) key: Arc<str>,
    /// The node's id.
    pub(in crate::gateway) node: Arc<str>,
    /// The receipt.
    pub(in crate::gateway) jws: String,
    /// What proves prompt and answer, if that was asked for.
    pub(in crate::gateway) salts: Option<String>,
    /// The digest in hex of the statement that was sealed to.
    pub(in crate::gateway) statement: String,
    /// What the archive calls the node's answer that it was verified by: its digest in hex.
    pub(in crate::gateway) evidence: String,
    /// What that answer was asked with.
    pub(in crate::gateway) nonce: Nonce,
    /// The digests in hex of the policy and the bundle that it was judged by.
    pub(in crate::gateway) policy: String,
    pub(in crate::gateway) bundle: Option<String>,
    /// When the node was asked for it.
    pub(in crate::gateway) asked_at: SystemTime,
    /// When it was judged last.
    pub(in crate::gateway) appraised_at: SystemTime,
    /// When the receipt was checked.
    pub(in crate::gateway) at: SystemTime,
}

impl fmt::Debug for KeptReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptReceipt")
            .field("request_id", &self.request_id)
            .field("key", &self.key)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// There is no place for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place for a receipt")]
pub(in crate::gateway) struct SinkFull;

/// A place for one receipt: in the journal, where receipts outlive the process. Dropped, it is free again.
#[must_use]
#[derive(Debug)]
pub(in crate::gateway) struct Slot(pub(super) Option<Reserved<ReceiptRow>>);

impl Slot {
    /// Where receipts are gone with the process, there is always one.
    pub(in crate::gateway) const fn of_memory() -> Self {
        Self(None)
    }
}

/// Keeps receipts, a bounded number of them.
pub(in crate::gateway) trait ReceiptSink: fmt::Debug + Send + Sync {
    /// Takes a place for one that may come.
    ///
    /// # Errors
    /// [`SinkFull`].
    fn reserve(&self) -> Result<Slot, SinkFull>;

    /// Takes one, at once: it may be on a request's path. Of two of one request, the first is kept.
    ///
    /// # Errors
    /// [`SinkFull`] where it cannot be written down.
    fn keep(&self, receipt: KeptReceipt, slot: Slot) -> Result<(), SinkFull>;

    /// The receipt of a request, if it is kept and `key` made the request.
    ///
    /// # Errors
    /// [`Unreached`] where nobody knows.
    fn find<'a>(
        &'a self,
        id: RequestId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<KeptReceipt>>, Unreached>>;
}

/// Where receipts are kept does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Unreached;

/// The newest receipts, as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct InMemory(Mutex<Kept>);

/// A request's id, and the key that made it: one who seals chooses ids himself, and must not have
/// another's receipt go by it.
type Place = (RequestId, Arc<str>);

#[derive(Debug, Default)]
struct Kept {
    by_place: HashMap<Place, Arc<KeptReceipt>>,
    /// The oldest first.
    order: VecDeque<Place>,
}

impl ReceiptSink for InMemory {
    fn reserve(&self) -> Result<Slot, SinkFull> {
        Ok(Slot::of_memory())
    }

    fn keep(&self, receipt: KeptReceipt, _slot: Slot) -> Result<(), SinkFull> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (receipt.request_id, Arc::clone(&receipt.key));
        if let Entry::Vacant(free) = kept.by_place.entry(place.clone()) {
            free.insert(Arc::new(receipt));
            kept.order.push_back(place);
        }
        while kept.order.len() > MAX_KEPT {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_place.remove(&oldest);
            }
        }
        Ok(())
    }

    fn find<'a>(
        &'a self,
        id: RequestId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<KeptReceipt>>, Unreached>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.by_place.get(&(id, Arc::from(key))).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn receipt(id: RequestId, key: &str) -> KeptReceipt {
        KeptReceipt {
            request_id: id,
            key: key.into(),
            node: "n".into(),
            jws: "jws".to_owned(),
            salts: None,
            statement: String::new(),
            evidence: String::new(),
            nonce: Nonce::from([0; 32]),
            policy: String::new(),
            bundle: None,
            asked_at: SystemTime::UNIX_EPOCH,
            appraised_at: SystemTime::UNIX_EPOCH,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_newest_are_kept_each_for_its_key() {
        let kept = InMemory::default();
        let find = |id, key| kept.find(id, key).now_or_never().unwrap().unwrap();
        let ids: Vec<_> = (0..=MAX_KEPT).map(|_| RequestId::generate()).collect();
        for id in &ids {
            kept.keep(receipt(*id, "mine"), Slot::of_memory()).unwrap();
        }
        assert_eq!(find(ids[0], "mine"), None, "the oldest is gone");
        kept.keep(receipt(ids[2], "other"), Slot::of_memory())
            .unwrap();
        assert_eq!(find(ids[1], "mine"), None, "each takes a place");
        assert_eq!(find(ids[2], "other").unwrap().key.as_ref(), "other");
        let second = KeptReceipt {
            jws: "another".to_owned(),
            ..receipt(ids[2], "other")
        };
        kept.keep(second, Slot::of_memory()).unwrap();
        let found = find(ids[2], "other").unwrap();
        assert_eq!(found.jws, "jws", "the first stays");
        for id in [ids[2], ids[MAX_KEPT]] {
            assert_eq!(*find(id, "mine").unwrap(), receipt(id, "mine"));
        }
        assert_eq!(find(ids[MAX_KEPT], "other"), None);
        assert_eq!(find(RequestId::generate(), "mine"), None);
        let held = kept.0.lock().unwrap();
        assert_eq!(
            (held.by_place.len(), held.order.len()),
            (MAX_KEPT, MAX_KEPT)
        );
    }
}
