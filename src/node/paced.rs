//! A paced reply: a chunk of 512 bytes at each tick, whatever the engine does (docs/wire.md, "Hiding
//! lengths").
//!
//! The reply begins when the request was accepted, and the work for it is done behind its ticks: so the
//! wait for a place and for the engine's first word is hidden too. That work is a task, which goes on
//! whether anybody reads or not: what waits in turn with others must not depend on one reader. From the
//! engine's first word on the body is pulled, as any other: while nobody reads, no tick counts, and
//! nothing piles up. What the engine says faster than ticks carry it waits, up to a bound, and then the
//! engine is not read. Dropping the body ends the work.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::{sync::WaitForCancellationFutureOwned, task::AbortOnDropHandle};

use super::{
    State,
    answer::{Answer, Begun},
    engine_stream::{EngineStream, Part, Why},
    places::EnginePlace,
    problem::Refusal,
    receipts::{Running, Signed},
    record::Record,
    reply::{Aborted, Place},
    seal::{EVENT_STREAM, trailer, trailers},
};
use crate::{
    config::node::PaddingConfig,
    openai::Usage,
    seal::{PacedSealer, Row, SealError, Tick},
};

/// Content that waits for ticks before the engine is no longer read; one piece of its may be above.
const MAX_WAITING: usize = 64 * 1024;

/// What works on a request; dropped, it ends.
pub(super) type Work = AbortOnDropHandle<Answer>;

/// When ticks are: at whole multiples of a time from a request's acceptance on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacing {
    accepted: Instant,
    tick: Duration,
    pub(super) row: Row,
}

impl Pacing {
    /// The ticks of a request that is accepted now.
    pub(super) fn begin(config: &PaddingConfig) -> Self {
        Self {
            accepted: Instant::now(),
            tick: config.tick_ms.duration(),
            row: Row {
                least: config.least_chunks.into(),
                steps: config.steps_per_doubling.into(),
            },
        }
    }

    /// The first tick after now.
    pub(super) fn next(self) -> Instant {
        let tick = self.tick.as_nanos().max(1);
        let passed = self.accepted.elapsed().as_nanos() / tick;
        let at = passed.saturating_add(1).saturating_mul(tick);
        self.accepted + Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// One tick after the other. Ticks that nobody waited for are passed over, and those after them are
    /// where they would have been.
    fn ticks(self) -> Interval {
        let mut ticks = interval_at(self.next(), self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }
}

/// The body of a paced reply.
pub(super) struct PacedReply {
    /// Gone at the end.
    sealer: Option<PacedSealer>,
    receipt: Option<Running>,
    source: Source,
    ticks: Interval,
    /// Whether what was there of the answer was taken in since the last tick.
    is_taken_in: bool,
    state: Arc<State>,
    /// Ends when the node stops without waiting any longer.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
    /// What the record says once the last chunk is out.
    outcome: &'static str,
    record: Record,
    _place: Place,
}

/// Where content comes from.
enum Source {
    /// The engine has not begun to answer.
    Work(Work),
    Engine {
        engine: Box<EngineStream>,
        _place: EnginePlace,
    },
    /// All of it is known.
    Ended,
}

impl PacedReply {
    pub(super) fn new(
        (sealer, receipt): (PacedSealer, Option<Running>),
        work: Work,
        pacing: Pacing,
        state: Arc<State>,
        (record, place): (Record, Place),
    ) -> Self {
        Self {
            sealer: Some(sealer),
            receipt,
            source: Source::Work(work),
            ticks: pacing.ticks(),
            is_taken_in: false,
            cut: Box::pin(state.cut.clone().cancelled_owned()),
            state,
            is_cut: false,
            outcome: record.outcome,
            record,
            _place: place,
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.sealer.is_none()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Some(mut sealer) = self.sealer.take() else {
            return Poll::Ready(None);
        };
        // Asked first: what goes out at a tick waited for it, so that no chunk is late by what the
        // engine says just then. Who reads only now and then finds every tick due.
        let is_due = self.ticks.poll_tick(cx).is_ready();
        if !is_due || !self.is_taken_in {
            self.is_taken_in = true;
            if let Err(error) = self.take_in(cx, &mut sealer) {
                return Poll::Ready(Some(Err(self.abort(&error))));
            }
        }
        if !is_due {
            self.sealer = Some(sealer);
            return Poll::Pending;
        }
        self.is_taken_in = false;
        let sealed = self.seal(sealer);
        Poll::Ready(Some(sealed.map_err(|error| self.abort(&error))))
    }

    /// Seals what goes out at a tick.
    fn seal(&mut self, mut sealer: PacedSealer) -> Result<Bytes, SealError> {
        if sealer.must_begin() {
            self.begin(&mut sealer, Refusal::EngineFailed.into())?;
        }
        let says_something = sealer.has_begun();
        let bytes = match sealer.tick()? {
            Tick::Chunk(bytes, sealer) => {
                if let Some(receipt) = &mut self.receipt {
                    receipt.left(sealer.waiting());
                }
                self.sealer = Some(sealer);
                bytes
            }
            Tick::Last(bytes) => {
                self.record.outcome = self.outcome;
                bytes
            }
        };
        if says_something {
            self.record.went(bytes.len());
        } else {
            self.record.filled(bytes.len());
        }
        Ok(bytes)
    }

    fn abort(&mut self, error: &dyn fmt::Display) -> Aborted {
        tracing::error!(%error, "paced reply");
        self.record.outcome = "internal";
        self.source = Source::Ended;
        Aborted
    }

    /// Takes what is there of the answer, as long as there is room for it.
    fn take_in(&mut self, cx: &mut Context<'_>, sealer: &mut PacedSealer) -> Result<(), Failed> {
        // Asked first: an engine that is always ahead never waits.
        if !self.is_cut && self.cut.as_mut().poll(cx).is_ready() {
            self.is_cut = true;
            self.cut(sealer)?;
        }
        loop {
            match &mut self.source {
                Source::Ended => return Ok(()),
                Source::Work(work) => {
                    let Poll::Ready(answer) = Pin::new(work).poll(cx) else {
                        return Ok(());
                    };
                    self.begin(sealer, answer.map_err(|_| Failed::Work)?)?;
                }
                Source::Engine { .. } if sealer.waiting() >= MAX_WAITING => return Ok(()),
                Source::Engine { engine, .. } => {
                    let Poll::Ready(part) = engine.poll_part(cx) else {
                        return Ok(());
                    };
                    self.add(sealer, &part)?;
                }
            }
        }
    }

    /// The engine has answered, or nobody will.
    fn begin(&mut self, sealer: &mut PacedSealer, answer: Answer) -> Result<(), SealError> {
        self.source = Source::Ended;
        match answer {
            Answer::Stream(begun) => {
                let Begun {
                    engine,
                    place,
                    first,
                } = *begun;
                self.record.status = 200;
                sealer.begin(200, &EVENTS)?;
                self.source = Source::Engine {
                    engine: Box::new(engine),
                    _place: place,
                };
                self.add(sealer, &first)
            }
            Answer::Said(said) => {
                let state = Arc::clone(&self.state);
                let said = said.said(&state.clock);
                self.outcome = said.outcome();
                self.record.says(&said);
                let message = said.to_sealer();
                let signed = self.receipt.as_ref().map(|it| it.sign_whole(&said));
                let signed = signed.unwrap_or_default();
                let usage = said.usage().map(trailer);
                let trailers = trailers(usage.as_deref(), None, &signed);
                sealer.say(
                    message.status,
                    &message.fields(),
                    &message.content,
                    &trailers,
                )
            }
        }
    }

    fn add(&mut self, sealer: &mut PacedSealer, part: &Part) -> Result<(), SealError> {
        sealer.push(part.content())?;
        if let Some(receipt) = &mut self.receipt {
            receipt.waits(part.content());
        }
        let (usage, broken) = match part {
            Part::Content(_) => return Ok(()),
            Part::End { usage, .. } => (usage, None),
            Part::Broken { usage, why, .. } => (usage, Some(*why)),
        };
        // Its place goes to the next one, however long the rest travels.
        self.source = Source::Ended;
        self.outcome = broken.map_or("complete", Why::as_str);
        if let Some(why) = broken.filter(|why| *why != Why::Cancelled) {
            self.record.engine_broke(why.as_str());
        }
        let signed = self.receipt.as_ref().map(|it| it.sign(usage.as_ref()));
        end(usage.as_ref(), broken, signed, |trailers| {
            sealer.end(trailers)
        })
    }

    /// The node waits no longer.
    fn cut(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        let usage = match mem::replace(&mut self.source, Source::Ended) {
            Source::Engine { engine, .. } => engine.usage(),
            Source::Work(_) | Source::Ended => None,
        };
        // Of what no engine has begun, there is none.
        let receipt = self.receipt.as_ref().filter(|_| sealer.has_begun());
        let signed = receipt.map(|it| it.sign_cut(usage.as_ref()));
        if !sealer.has_begun() {
            self.record.status = 200;
            sealer.begin(200, &EVENTS)?;
        }
        let lost = end(usage.as_ref(), Some(Why::Cancelled), signed, |trailers| {
            sealer.cut(trailers)
        })?;
        if lost {
            self.outcome = Why::Cancelled.as_str();
        }
        Ok(())
    }
}

/// Why a reply is aborted.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What a panic says stays with it.
    #[error("the work for the request ended without an answer")]
    Work,
}

const EVENTS: [(&str, &str); 1] = [("content-type", EVENT_STREAM)];

/// Ends a stream with the trailers that say how it went.
fn end<T>(
    usage: Option<&Usage>,
    broken: Option<Why>,
    signed: Option<Signed>,
    with: impl FnOnce(&[(&str, &str)]) -> T,
) -> T {
    let usage = usage.map(trailer);
    with(&trailers(
        usage.as_deref(),
        broken,
        &signed.unwrap_or_default(),
    ))
}
