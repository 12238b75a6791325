//! How long what a node sends is given on: as long as the node is verified.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::NodeFailure;

/// One stretch of time in which a node is verified: from the appraisal that passed when none was in
/// force, through those that renew it, to the end of the last one, a policy that refuses the node,
/// or the gateway's own end.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    ended: CancellationToken,
    cut: CancellationToken,
}

impl Trust {
    /// Trust that begins; `cut` ends all of it.
    pub(super) fn begin(cut: &CancellationToken) -> Self {
        Self {
            ended: cut.child_token(),
            cut: cut.clone(),
        }
    }

    /// Ends every request that rests on it.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Waits for its end.
    pub(super) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
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
