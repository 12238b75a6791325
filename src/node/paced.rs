//! A paced reply: a chunk of 512 bytes at each tick, whatever the engine does (docs/wire.md, "Hiding
//! lengths").
//!
//! The reply begins when the request was accepted, and the work for it happens inside its body: so the
//! wait for a place and for the engine's first word is hidden too. The body is pulled, as any other:
//! while nobody reads, no tick counts, and nothing piles up. What the engine says faster than ticks
//! carry it waits, up to a bound, and then the engine is not read. Dropping the body ends the work.

use std::{
    future::Future,
    mem,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    State,
    answer::{Answer, Begun},
    engine_stream::{EngineStream, Part, Why},
    places::EnginePlace,
    record::Record,
    reply::{Aborted, Place},
    seal::{EVENT_STREAM, trailer, trailers},
};
use crate::{
    config::node::PaddingConfig,
    openai::Usage,
    seal::{PacedSealer, SealError, Tick},
};

/// Content that waits for ticks before the engine is no longer read; one piece of its may be above.
const MAX_WAITING: usize = 64 * 1024;

/// What works on a request; dropped, it ends.
pub(super) type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// When ticks are: at whole multiples of a time from a request's acceptance on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacing {
    accepted: Instant,
    tick: Duration,
    pub(super) steps: NonZeroUsize,
}

impl Pacing {
    /// The ticks of a request that is accepted now.
    pub(super) fn begin(config: &PaddingConfig) -> Self {
        Self {
            accepted: Instant::now(),
            tick: config.tick_ms.duration(),
            steps: config.steps_per_doubling.into(),
        }
    }

    /// The first tick after now.
    pub(super) fn next(self) -> Instant {
        let tick = self.tick.as_nanos().max(1);
        let since = self.accepted.elapsed().as_nanos() % tick;
        let left = u64::try_from(tick.saturating_sub(since)).unwrap_or(u64::MAX);
        Instant::now() + Duration::from_nanos(left)
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
    source: Source,
    ticks: Interval,
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
        sealer: PacedSealer,
        work: Work,
        pacing: Pacing,
        state: Arc<State>,
        (record, place): (Record, Place),
    ) -> Self {
        Self {
            sealer: Some(sealer),
            source: Source::Work(work),
            ticks: pacing.ticks(),
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
        if let Err(error) = self.take_in(cx, &mut sealer) {
            return Poll::Ready(Some(Err(self.abort(error))));
        }
        if self.ticks.poll_tick(cx).is_pending() {
            self.sealer = Some(sealer);
            return Poll::Pending;
        }
        let bytes = match sealer.tick() {
            Ok(Tick::Chunk(bytes, sealer)) => {
                self.sealer = Some(sealer);
                bytes
            }
            Ok(Tick::Last(bytes)) => {
                self.record.outcome = self.outcome;
                bytes
            }
            Err(error) => return Poll::Ready(Some(Err(self.abort(error)))),
        };
        self.record.went(bytes.len());
        Poll::Ready(Some(Ok(bytes)))
    }

    fn abort(&mut self, error: SealError) -> Aborted {
        tracing::error!(%error, "seal");
        self.record.outcome = "internal";
        self.source = Source::Ended;
        Aborted
    }

    /// Takes what is there of the answer, as long as there is room for it.
    fn take_in(&mut self, cx: &mut Context<'_>, sealer: &mut PacedSealer) -> Result<(), SealError> {
        // Asked first: an engine that is always ahead never waits.
        if !self.is_cut && self.cut.as_mut().poll(cx).is_ready() {
            self.is_cut = true;
            self.cut(sealer)?;
        }
        loop {
            match &mut self.source {
                Source::Ended => return Ok(()),
                Source::Work(work) => {
                    let Poll::Ready(answer) = work.as_mut().poll(cx) else {
                        return Ok(());
                    };
                    self.begin(sealer, answer)?;
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
                sealer.begin(message.status, &message.fields())?;
                sealer.push(&message.content)?;
                sealer.end(&[])
            }
        }
    }

    fn add(&mut self, sealer: &mut PacedSealer, part: &Part) -> Result<(), SealError> {
        sealer.push(part.content())?;
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
        end(usage.as_ref(), broken, |trailers| sealer.end(trailers))
    }

    /// The node waits no longer.
    fn cut(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        let usage = match mem::replace(&mut self.source, Source::Ended) {
            Source::Engine { engine, .. } => engine.usage(),
            Source::Work(_) | Source::Ended => None,
        };
        if !sealer.has_begun() {
            self.record.status = 200;
            sealer.begin(200, &EVENTS)?;
        }
        let lost = end(usage.as_ref(), Some(Why::Cancelled), |trailers| {
            sealer.cut(trailers)
        })?;
        if lost {
            self.outcome = Why::Cancelled.as_str();
        }
        Ok(())
    }
}

const EVENTS: [(&str, &str); 1] = [("content-type", EVENT_STREAM)];

/// Ends a stream with the trailers that say how it went.
fn end<T>(
    usage: Option<&Usage>,
    broken: Option<Why>,
    with: impl FnOnce(&[(&str, &str)]) -> T,
) -> T {
    let usage = usage.map(trailer);
    with(&trailers(usage.as_deref(), broken))
}
