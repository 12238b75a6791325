//! What nodes sign of their replies: asked for, checked, kept, given to whoever made the request
//! (docs/wire.md, "Receipts").
//!
//! Receipts that are on are checked beside the request, a bounded number at once; where they are
//! required, a reply without a good one is none. What is kept was checked. A receipt holds nothing of
//! prompt and answer but commitments; salts, which are kept beside it, tell nothing of either.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{
    Shared,
    ask::Answer,
    authenticate::Caller,
    error::{Error, NodeFailure},
    exchange::Job,
};
use crate::{
    clock::Clock,
    config::gateway::{ReceiptMode, ReceiptsConfig},
    seal::{Committer, ReceiptScope, Salts, Trailers},
    sealer::{KeptContent, Passing, Reply, WholeContent},
    telemetry::metrics::Tally,
};

mod answer;
mod check;
mod keep;
mod rests_on;
mod stored;

#[cfg(test)]
pub(super) use self::keep::Unreached;
pub(super) use self::{
    answer::RECEIPTS,
    check::ReceiptFault,
    keep::{KeptReceipt, ReceiptSink, SinkFull, Slot},
    stored::Stored,
};
use self::{
    check::{Contents, Expected, Prompt, Replied, ReplyRoom, Response},
    keep::InMemory,
};

/// Most receipts that are checked at once beside their requests; those of more replies are not kept.
pub(super) const MAX_CHECKS: usize = 1024;
/// Most bundles that are put together at once.
const MAX_READS: usize = 2;

/// What one request is to do about its receipt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms(ReceiptsConfig);

impl Terms {
    /// Those of a caller: his key's mode, or the gateway's.
    pub(super) fn of(caller: &Caller, config: ReceiptsConfig) -> Self {
        let mode = caller.receipts.unwrap_or(config.mode);
        Self(ReceiptsConfig { mode, ..config })
    }

    /// A place for the receipt, where a reply without one is none.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] where there is none: then no node must be asked.
    pub(super) fn reserve(self, desk: &Desk) -> Result<Option<Slot>, Error> {
        if self.0.mode != ReceiptMode::Required {
            return Ok(None);
        }
        let slot = desk.sink.reserve().map(Some);
        slot.map_err(|SinkFull| {
            tracing::error!("not let in: there is no place for its receipt, which is required");
            Error::StoreUnavailable
        })
    }

    /// What a node is asked for.
    pub(super) fn scope(self) -> ReceiptScope {
        match (self.0.mode, self.0.content) {
            (ReceiptMode::Off, _) => ReceiptScope::None,
            (_, false) => ReceiptScope::Usage,
            (_, true) => ReceiptScope::Content,
        }
    }
}

/// What is to become of a reply's receipt.
#[derive(Debug)]
pub(super) enum Receipting {
    /// There is none.
    None,
    /// It came, and will be kept if it is good.
    Taken,
    /// It comes with the stream's end.
    Awaited(Box<Awaited>),
}

impl Receipting {
    /// Whether one will be kept, if it is good.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self, Self::None)
    }

    pub(super) fn into_awaited(self) -> Option<Box<Awaited>> {
        match self {
            Self::Awaited(awaited) => Some(awaited),
            Self::None | Self::Taken => None,
        }
    }
}

/// Where receipts are checked, kept and found.
#[derive(Debug)]
pub(super) struct Desk {
    sink: Arc<dyn ReceiptSink>,
    checks: Arc<Semaphore>,
    tasks: TaskTracker,
    outcomes: Tally<1>,
    /// The archive's folder, if there is an archive.
    archive: Option<PathBuf>,
    reads: Arc<Semaphore>,
}

impl Desk {
    /// One that forgets with the process.
    pub(super) fn new(archive: Option<PathBuf>) -> Self {
        Self::keeping(archive, InMemory::default())
    }

    /// One whose receipts go to `sink`.
    pub(super) fn keeping(archive: Option<PathBuf>, sink: impl ReceiptSink + 'static) -> Self {
        Self {
            sink: Arc::new(sink),
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            tasks: TaskTracker::new(),
            outcomes: Tally::default(),
            archive,
            reads: Arc::new(Semaphore::new(MAX_READS)),
        }
    }

    /// Receipts by what came of them.
    pub(super) fn counts(&self) -> Vec<([&'static str; 1], u64)> {
        self.outcomes.counts()
    }

    /// Receipts that are being checked beside their requests.
    pub(super) fn checking(&self) -> usize {
        MAX_CHECKS.saturating_sub(self.checks.available_permits())
    }

    /// Resolves when everything that was to be checked is. Not before all requests have ended.
    pub(super) async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes every place for a check.
    #[cfg(test)]
    pub(super) fn fill(&self) -> tokio::sync::SemaphorePermit<'_> {
        let all = u32::try_from(MAX_CHECKS).unwrap();
        self.checks.try_acquire_many(all).unwrap()
    }

    fn keep(
        &self,
        receipt: Result<KeptReceipt, ReceiptFault>,
        slot: Option<Slot>,
    ) -> Result<(), ReceiptFault> {
        let kept = receipt.and_then(|receipt| {
            let slot = slot.map_or_else(|| self.sink.reserve(), Ok);
            let kept = slot.and_then(|slot| self.sink.keep(receipt, slot));
            kept.map_err(|SinkFull| ReceiptFault::NotKept)
        });
        let outcome = kept.as_ref().err().map_or("kept", ReceiptFault::class);
        self.outcomes.inc([outcome]);
        kept
    }
}

/// A receipt that was asked for, and what it is held against.
#[derive(Debug)]
pub(super) struct Awaited {
    expected: Expected,
    mode: ReceiptMode,
    clock: Clock,
    desk: Arc<Desk>,
    /// Its place, where one was reserved.
    slot: Option<Slot>,
    /// What is to take a stream's content in.
    passing: Passing,
}

impl Awaited {
    /// What is to take in the stream's content, from its begin on.
    pub(super) fn passing(&mut self) -> Passing {
        std::mem::take(&mut self.passing)
    }

    /// Takes the receipt of a whole reply.
    ///
    /// # Errors
    /// [`ReceiptFault`] where it is required and not good.
    fn whole(self, whole: &WholeContent) -> Result<Receipting, ReceiptFault> {
        // The node may have made an error itself, without an engine.
        if whole.trailers.receipt.is_none() && !whole.status.is_success() {
            return Ok(Receipting::None);
        }
        let is_there = whole.trailers.receipt.is_some();
        let replied = Replied {
            status: whole.status.as_u16(),
            trailers: whole.trailers.clone(),
            response: Response::Parts(whole.parts.clone()),
        };
        self.take(replied)?;
        Ok(if is_there {
            Receipting::Taken
        } else {
            Receipting::None
        })
    }

    /// Takes the receipt of a stream that ended, complete or not.
    ///
    /// # Errors
    /// [`ReceiptFault`] where it is required and not good: then the stream is not complete.
    pub(super) fn ended(self, trailers: &Trailers, content: Passing) -> Result<(), ReceiptFault> {
        self.take(Replied {
            status: 200,
            trailers: trailers.clone(),
            response: Response::Passed(content),
        })
    }

    fn take(mut self, replied: Replied) -> Result<(), ReceiptFault> {
        if self.mode == ReceiptMode::Required {
            return self.check(&replied);
        }
        let Ok(place) = Arc::clone(&self.desk.checks).try_acquire_owned() else {
            self.desk.outcomes.inc(["shed"]);
            tracing::error!(request_id = %self.expected.id, "receipt not kept: too many to check");
            return Ok(());
        };
        let desk = Arc::clone(&self.desk);
        desk.tasks.spawn(async move {
            let _place = place;
            // Its fault is counted and in the log.
            let _ = self.check(&replied);
        });
        Ok(())
    }

    fn check(&mut self, replied: &Replied) -> Result<(), ReceiptFault> {
        let checked = self.expected.check(replied, self.clock.now());
        self.desk
            .keep(checked, self.slot.take())
            .inspect_err(|fault| {
                tracing::error!(
                    request_id = %self.expected.id,
                    node = &*self.expected.verified.id,
                    %fault,
                    "receipt not kept"
                );
            })
    }
}

impl Shared {
    /// Has the receipt of a reply taken, or awaited with its end.
    ///
    /// # Errors
    /// [`NodeFailure::Receipt`] where it is required, came and is not good.
    pub(super) fn await_receipt(
        &self,
        answer: &mut Answer,
        (Terms(config), slot): (Terms, Option<Slot>),
        job: &Job<'_>,
        model: &str,
        caller: &Caller,
    ) -> Result<(), NodeFailure> {
        if config.mode == ReceiptMode::Off {
            return Ok(());
        }
        let (contents, passing) = if config.content {
            let (contents, passing) = self.contents(&answer.reply, job);
            (Some(contents), passing)
        } else {
            (None, Passing::Nothing)
        };
        let awaited = Awaited {
            expected: Expected {
                id: job.id,
                key: Arc::clone(&caller.id),
                path: job.endpoint.path(),
                model: model.to_owned(),
                key_id: answer.key_id,
                verified: Arc::clone(&answer.verified),
                began: self.clock.now(),
                contents,
            },
            mode: config.mode,
            clock: self.clock,
            desk: Arc::clone(&self.receipts),
            slot,
            passing,
        };
        answer.receipt = match &answer.reply {
            Reply::Whole(whole) => awaited.whole(whole)?,
            Reply::Stream { .. } => Receipting::Awaited(Box::new(awaited)),
        };
        Ok(())
    }

    /// What the proof of contents is held against, and what takes a stream's content in for it.
    ///
    /// With salts in the head nothing is kept. Where they come with a stream's end alone, prompt and
    /// reply are, in room that is there for all bodies.
    fn contents(&self, reply: &Reply, job: &Job<'_>) -> (Contents, Passing) {
        let (early, known, is_stream) = match reply {
            Reply::Whole(whole) => {
                let early = whole.receipt_salts.clone();
                (early, whole.trailers.receipt_salts.clone(), false)
            }
            Reply::Stream { receipt_salts, .. } => {
                (receipt_salts.clone(), receipt_salts.clone(), true)
            }
        };
        let salts = known.as_deref().map(str::parse::<Salts>);
        let (prompt, passing) = match salts {
            Some(Ok(salts)) => (
                Prompt::Committed(salts.request.commit(job.content)),
                Passing::Commits(Committer::of_events(&salts.response)),
            ),
            // Refused when it is checked.
            Some(Err(_)) => (Prompt::Gone, Passing::Nothing),
            None if is_stream => {
                let room = || self.admission.body_room();
                let reply = ReplyRoom {
                    room: room(),
                    most: self.limits.reply_bytes,
                };
                (
                    Prompt::kept(job.content, room()),
                    Passing::Keeps(Box::new(KeptContent::new(reply))),
                )
            }
            None => (Prompt::Gone, Passing::Nothing),
        };
        (Contents { early, prompt }, passing)
    }
}
