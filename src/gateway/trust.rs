//! How long what a node sends is given on: as long as the node is verified.

use std::sync::Arc;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::NodeFailure;

/// One stretch of time in which a holder of keys is verified: from the first appraisal that passed,
/// through those that renew it for a key that is the same, to the end of the last one, a policy that
/// refuses the node, or the gateway's own end.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    ended: Arc<CancellationToken>,
    cut: CancellationToken,
}

impl Trust {
    /// Trust that begins; `cut` ends all of it.
    pub(super) fn begin(cut: &CancellationToken) -> Self {
        Self {
            ended: Arc::new(cut.child_token()),
            cut: cut.clone(),
        }
    }

    /// Ends every request that rests on it.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Waits for its end.
    pub(super) fn ended(&self) -> WaitForCancellationFutureOwned {
        CancellationToken::clone(&self.ended).cancelled_owned()
    }

    /// Whether both are one and the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ended, &other.ended)
    }

    /// Why it ended.
    pub(super) fn failure(&self) -> NodeFailure {
        if self.cut.is_cancelled() {
            NodeFailure::Cut
        } else {
            NodeFailure::NoLongerVerified
        }
    }
}
