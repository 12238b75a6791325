//! Sends what an engine answers, whole or as it comes, under the seal that the request came with.
//!
//! A stream's body is pulled: hyper asks for the next frame when the asker has read the last, and
//! only then is the engine read. Nothing is queued, no task runs beside it, and dropping it closes
//! the engine's connection.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    State,
    answer::{Answer, Begun},
    engine_stream::{EngineStream, Part, Why},
    paced::{self, PacedReply, Work},
    places::EnginePlace,
    problem::{Outside, Refusal},
    receipts::Running,
    record::Record,
    said::Said,
    seal::{Next, Seal, StreamSeal, encapsulated},
    time::SteadyClock,
};
use crate::{openai::ErrorObject, seal::SealError};

/// Between a last word and the abort of its connection, so that the word arrives.
const LINGER: Duration = Duration::from_millis(20);

/// What keeps a place in the node's limits until the last byte of the reply went out.
pub(super) type Place = OwnedSemaphorePermit;

/// One opened request that waits for its answer.
pub(super) struct Exchange {
    pub(super) seal: Seal,
    pub(super) record: Record,
    pub(super) place: Place,
}

impl Exchange {
    /// Answers with a refusal.
    pub(super) async fn refuse(self, refusal: Refusal, clock: &SteadyClock) -> Response<ReplyBody> {
        self.say(&Said::refusal(refusal, clock)).await
    }

    /// Answers with an error of the contract, which is the caller's to see.
    pub(super) async fn error(self, status: u16, object: ErrorObject<'_>) -> Response<ReplyBody> {
        self.say(&Said::Error { status, object }).await
    }

    /// Answers with what the work for it came to.
    pub(super) async fn answer(self, answer: Answer, state: &State) -> Response<ReplyBody> {
        match answer {
            Answer::Said(outcome) => self.say(&outcome.said(&state.clock)).await,
            Answer::Stream(begun) => self.stream(*begun, state.cut.clone()),
        }
    }

    /// Answers with what is known whole; if it is paced, at the next tick. Who leaves before has had
    /// nothing.
    async fn say(mut self, said: &Said<'_>) -> Response<ReplyBody> {
        let pacing = self.seal.pacing();
        self.record.says(said);
        let sealed = self.seal.whole(said);
        if let Some(pacing) = pacing {
            sleep_until(pacing.next()).await;
        }
        match sealed {
            Ok(response) => {
                self.record.outcome = said.outcome();
                self.record.went(response.body().len());
                response.map(|sealed| ReplyBody::Whole {
                    body: Full::new(sealed),
                    _place: Some(self.place),
                })
            }
            Err(error) => cannot_seal(self.record, error),
        }
    }

    /// Whether what is said goes out at ticks.
    pub(super) fn is_paced(&self) -> bool {
        self.seal.pacing().is_some()
    }

    /// Answers with an event stream that begins before its engine has said anything, as `work` will.
    pub(super) fn paced(self, work: Work, state: &Arc<State>) -> Response<ReplyBody> {
        let begun = match self.seal {
            Seal::Ohttp {
                sealer,
                pacing: Some(pacing),
                receipt,
                ..
            } => sealer.into_paced(pacing.row).map(|sealer| match receipt {
                Some(draft) => {
                    let receipt = Running::from(draft);
                    (sealer.with_room_for_receipt(), Some(receipt), pacing)
                }
                None => (sealer, None, pacing),
            }),
            Seal::Ohttp { .. } | Seal::Ehbp(_) | Seal::Seed(_) => Err(SealError::NeedsTicks),
        };
        match begun {
            Ok((sealer, receipt, pacing)) => {
                let held = (self.record, self.place);
                let sealer = (sealer, receipt);
                let reply = paced::reply(sealer, work, pacing, Arc::clone(state), held);
                encapsulated(ReplyBody::Paced(Box::new(reply)))
            }
            Err(error) => cannot_seal(self.record, error),
        }
    }

    /// Answers with an event stream.
    fn stream(mut self, begun: Begun, cut: CancellationToken) -> Response<ReplyBody> {
        let Begun {
            engine,
            place,
            first,
        } = begun;
        self.record.status = 200;
        let (head, seal) = match self.seal.stream() {
            Ok(begun) => begun,
            Err(error) => return cannot_seal(self.record, error),
        };
        let stream = SealedStream {
            stage: Stage::Open(seal),
            engine,
            first: Some(first),
            cut: Box::pin(cut.cancelled_owned()),
            record: self.record,
            _place: self.place,
            _engine_place: place,
        };
        head.map(|()| ReplyBody::Stream(Box::new(stream)))
    }
}

fn cannot_seal(mut record: Record, error: SealError) -> Response<ReplyBody> {
    tracing::error!(%error, "seal");
    record.outcome = "internal";
    record.status = 500;
    Outside::Internal.response()
}

/// A reply that is not whole. The connection is aborted.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reply was aborted")]
pub(super) struct Aborted;

/// The body of any reply of the node.
pub(super) enum ReplyBody {
    Whole {
        body: Full<Bytes>,
        _place: Option<Place>,
    },
    Stream(Box<SealedStream>),
    Paced(Box<PacedReply>),
}

impl ReplyBody {
    /// A body that holds no place.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole {
            body: Full::new(bytes.into()),
            _place: None,
        }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self::whole(bytes)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match self.get_mut() {
            Self::Whole { body, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Stream(stream) => stream
                .poll(cx)
                .map(|sealed| sealed.map(|s| s.map(Frame::data))),
            Self::Paced(reply) => reply.poll(cx).map_ok(Frame::data).map_err(|_| Aborted),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { body, .. } => body.is_end_stream(),
            Self::Stream(stream) => matches!(stream.stage, Stage::Ended),
            Self::Paced(reply) => reply.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { body, .. } => body.size_hint(),
            Self::Stream(_) | Self::Paced(_) => SizeHint::default(),
        }
    }
}

/// An engine's event stream, sealed as it comes.
pub(super) struct SealedStream {
    stage: Stage,
    engine: EngineStream,
    /// What was read before the reply began.
    first: Option<Part>,
    /// Ends when the node stops without waiting any longer.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    record: Record,
    _place: Place,
    _engine_place: EnginePlace,
}

enum Stage {
    Open(StreamSeal),
    /// The last word is out, and it was no end.
    Aborting(Pin<Box<Sleep>>),
    Ended,
}

impl SealedStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        loop {
            match &mut self.stage {
                Stage::Ended => return Poll::Ready(None),
                Stage::Aborting(linger) => {
                    ready!(linger.as_mut().poll(cx));
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(Err(Aborted)));
                }
                Stage::Open(_) => {}
            }
            let part = match self.first.take() {
                Some(first) => first,
                // Asked before the engine: one that is always ahead of the asker never waits.
                None if self.cut.as_mut().poll(cx).is_ready() => self.engine.cancelled(),
                None => ready!(self.engine.poll_part(cx)),
            };
            match self.seal(&part) {
                // Not every part has something for every seal.
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.record.went(bytes.len());
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Err(error) => {
                    tracing::error!(%error, "seal");
                    self.record.outcome = "internal";
                    return Poll::Ready(Some(Err(Aborted)));
                }
            }
        }
    }

    fn seal(&mut self, part: &Part) -> Result<Bytes, SealError> {
        let Stage::Open(seal) = mem::replace(&mut self.stage, Stage::Ended) else {
            return Err(SealError::Failed);
        };
        let (bytes, next) = seal.part(part)?;
        match part {
            Part::Content(_) => {}
            Part::End { .. } => self.record.outcome = "complete",
            Part::Broken { why, .. } => {
                self.record.outcome = why.as_str();
                if *why != Why::Cancelled {
                    self.record.engine_broke(why.as_str());
                }
            }
        }
        self.stage = match next {
            Next::More(seal) => Stage::Open(seal),
            Next::End => Stage::Ended,
            Next::Abort => Stage::Aborting(Box::pin(sleep(LINGER))),
        };
        Ok(bytes)
    }
}
