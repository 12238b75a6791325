//! What requests may hold before an engine has them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attester::{problem::Outside, request::Room};

/// Bytes of buffered requests are counted in units, so that their number fits a semaphore.
const BUFFER_UNIT: usize = 1024;

/// A request's part of the bytes that all requests may hold before an engine has them.
pub(super) struct Buffered {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Buffered {
    /// The whole that requests share.
    pub(super) fn shared(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(Self::units(bytes)))
    }

    fn units(bytes: usize) -> usize {
        (bytes / BUFFER_UNIT).min(Semaphore::MAX_PERMITS)
    }

    /// Bytes of the whole that is made of `bytes`.
    pub(super) fn room(bytes: usize) -> usize {
        Self::units(bytes).saturating_mul(BUFFER_UNIT)
    }

    /// Bytes of the whole that nobody holds.
    pub(super) fn free(all: &Semaphore) -> usize {
        all.available_permits().saturating_mul(BUFFER_UNIT)
    }

    /// Nothing yet of the whole.
    pub(super) fn none(all: &Arc<Semaphore>) -> Self {
        Self {
            all: Arc::clone(all),
            held: None,
            bytes: 0,
        }
    }
}

impl Room for Buffered {
    fn grow(&mut self, bytes: usize) -> Result<(), Outside> {
        self.bytes = self.bytes.saturating_add(bytes);
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.bytes.div_ceil(BUFFER_UNIT).saturating_sub(held);
        let more = u32::try_from(more).map_err(|_| Outside::TooMany)?;
        let permit = Arc::clone(&self.all)
            .try_acquire_many_owned(more)
            .map_err(|_| Outside::TooMany)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}
