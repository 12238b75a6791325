//! A paced reply: a chunk of 512 bytes at each tick, whatever it is that answers (docs/wire.md, "Hiding
//! lengths").
//!
//! The reply begins when the request was accepted, and the work for it is done behind its ticks: so the
//! wait for whoever answers is hidden too. What says how the answer goes is a [`Source`]; it is pulled,
//! as any other: while nobody reads, no tick counts, and nothing piles up. What it says faster than
//! ticks carry it waits, up to a bound, and then it is not read. Dropping the body drops the source.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    config::node::PaddingConfig,
    seal::{PacedSealer, Row, SealError, Tick},
};

/// Content that waits for ticks before its source is no longer read; one piece of it may be above.
const MAX_WAITING: usize = 64 * 1024;

/// When ticks are: at whole multiples of a time, from one moment on for all replies of a process. What
/// goes out together is sealed, written and read together; and when that is depends on no request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacing {
    from: Instant,
    tick: Duration,
    pub(crate) row: Row,
}

impl Pacing {
    /// Ticks from now on.
    pub(crate) fn begin(config: &PaddingConfig) -> Self {
        Self {
            from: Instant::now(),
            tick: config.tick_ms.duration(),
            row: Row {
                least: config.least_chunks.into(),
                steps: config.steps_per_doubling.into(),
            },
        }
    }

    /// The first tick after now.
    pub(crate) fn next(self) -> Instant {
        let tick = self.tick.as_nanos().max(1);
        let passed = self.from.elapsed().as_nanos() / tick;
        let at = passed.saturating_add(1).saturating_mul(tick);
        self.from + Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// One tick after the other. Ticks that nobody waited for are passed over, and those after them are
    /// where they would have been.
    fn ticks(self) -> Interval {
        let mut ticks = interval_at(self.next(), self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }
}

/// What a paced reply says, and who is told how it went. Dropped, it ends whatever works for it.
pub(crate) trait Source {
    /// Tells `sealer` what is there next of the answer.
    ///
    /// # Errors
    /// [`Failed`]: the reply must be aborted.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sealer: &mut PacedSealer,
    ) -> Poll<Result<Next, Failed>>;

    /// Says that there is no answer: its status has to go out now.
    ///
    /// # Errors
    /// [`SealError`]: the reply must be aborted.
    fn give_up(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError>;

    /// Ends the answer where it is: the process stops, and waits no longer.
    ///
    /// # Errors
    /// [`SealError`]: the reply must be aborted.
    fn cut(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError>;

    /// Notes that a chunk goes out, and how many bytes of content wait for those after it.
    fn went(&mut self, bytes: usize, what: Went, left: usize);

    /// Notes that the reply is aborted, and ends the work for it.
    fn abort(&mut self);
}

/// Whether more may come of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    /// All of it is known.
    Ended,
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// The reply has not begun.
    Filling,
    Content,
    /// The end of the reply.
    Last,
}

/// Why a paced reply is aborted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What a panic says stays with it.
    #[error("the work for the request ended without an answer")]
    Work,
}

/// The body of a paced reply.
pub(crate) struct PacedReply<S> {
    /// Gone at the end.
    sealer: Option<PacedSealer>,
    source: S,
    ticks: Interval,
    /// Whether what was there of the answer was taken in since the last tick.
    is_taken_in: bool,
    /// Ends when the process stops without waiting any longer.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
}

impl<S: Source> PacedReply<S> {
    /// The reply that `source` gives, until it is `cut`.
    pub(crate) fn new(
        sealer: PacedSealer,
        source: S,
        pacing: Pacing,
        cut: CancellationToken,
    ) -> Self {
        Self {
            sealer: Some(sealer),
            source,
            ticks: pacing.ticks(),
            is_taken_in: false,
            cut: Box::pin(cut.cancelled_owned()),
            is_cut: false,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.sealer.is_none()
    }

    /// The next chunk; an error means that the connection must be aborted.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failed>>> {
        let Some(mut sealer) = self.sealer.take() else {
            return Poll::Ready(None);
        };
        // Asked first: what goes out at a tick waited for it, so that no chunk is late by what the
        // source says just then. Who reads only now and then finds every tick due.
        let is_due = self.ticks.poll_tick(cx).is_ready();
        if !is_due || !self.is_taken_in {
            self.is_taken_in = true;
            if let Err(failed) = self.take_in(cx, &mut sealer) {
                return Poll::Ready(Some(Err(self.abort(failed))));
            }
        }
        if !is_due {
            self.sealer = Some(sealer);
            return Poll::Pending;
        }
        self.is_taken_in = false;
        let sealed = self.seal(sealer);
        Poll::Ready(Some(sealed.map_err(|error| self.abort(error.into()))))
    }

    /// Seals what goes out at a tick.
    fn seal(&mut self, mut sealer: PacedSealer) -> Result<Bytes, SealError> {
        if sealer.must_begin() {
            self.source.give_up(&mut sealer)?;
        }
        let went = if sealer.has_begun() {
            Went::Content
        } else {
            Went::Filling
        };
        let (bytes, went, left) = match sealer.tick()? {
            Tick::Chunk(bytes, sealer) => {
                let left = sealer.waiting();
                self.sealer = Some(sealer);
                (bytes, went, left)
            }
            Tick::Last(bytes) => (bytes, Went::Last, 0),
        };
        self.source.went(bytes.len(), went, left);
        Ok(bytes)
    }

    fn abort(&mut self, failed: Failed) -> Failed {
        tracing::error!(error = %failed, "paced reply");
        self.source.abort();
        failed
    }

    /// Takes what is there of the answer, as long as there is room for it.
    fn take_in(&mut self, cx: &mut Context<'_>, sealer: &mut PacedSealer) -> Result<(), Failed> {
        // Asked first: a source that is always ahead never waits.
        if !self.is_cut && self.cut.as_mut().poll(cx).is_ready() {
            self.is_cut = true;
            self.source.cut(sealer)?;
        }
        while sealer.waiting() < MAX_WAITING {
            match self.source.poll_next(cx, sealer)? {
                Poll::Ready(Next::More) => {}
                Poll::Ready(Next::Ended) | Poll::Pending => break,
            }
        }
        Ok(())
    }
}

impl<S> fmt::Debug for PacedReply<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacedReply(..)")
    }
}
