//! Seals what an engine answers, whole or as it comes.
//!
//! A stream's body is pulled: hyper asks for the next frame when the asker has read the last, and
//! only then is the engine read. Nothing is queued, no task runs beside it, and dropping it closes
//! the engine's connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    engine_stream::{EngineStream, Part},
    problem::{Outside, PROBLEM_JSON, Refusal},
    record::Record,
    request::http_date,
    time::SteadyClock,
};
use crate::{
    openai::Usage,
    seal::{Padding, RESPONSE_MEDIA_TYPE, ReplySealer, SealError, StreamSealer},
};

/// The trailer with the usage, and the one that says that a reply is not whole.
const USAGE: &str = "sealgate-usage";
const INCOMPLETE: &str = "sealgate-incomplete";
const EVENT_STREAM: &str = "text/event-stream";

/// What keeps a place in the node's limits until the last byte of the reply went out.
pub(super) type Place = OwnedSemaphorePermit;

/// One opened request that waits for its answer.
pub(super) struct Exchange {
    pub(super) sealer: ReplySealer,
    pub(super) padding: Padding,
    pub(super) record: Record,
    pub(super) place: Place,
}

impl Exchange {
    /// Answers with a refusal under the seal.
    pub(super) fn refuse(mut self, refusal: Refusal, clock: &SteadyClock) -> Response<ReplyBody> {
        self.record.outcome = refusal.code();
        self.record.status = refusal.status();
        let retry_after = refusal.retry_after_s().map(|seconds| seconds.to_string());
        let date = http_date(clock.now());
        let mut fields = vec![("content-type", PROBLEM_JSON)];
        fields.extend(
            retry_after
                .as_deref()
                .map(|seconds| ("retry-after", seconds)),
        );
        if refusal == Refusal::Date {
            fields.push(("date", date.as_str()));
        }
        self.seal_whole(refusal.status(), &fields, &refusal.to_json(), &[])
    }

    /// Answers with what an engine said, all of it.
    pub(super) fn whole(
        mut self,
        status: u16,
        content_type: &'static str,
        content: &[u8],
        usage: Option<Usage>,
    ) -> Response<ReplyBody> {
        self.record.outcome = "complete";
        self.record.status = status;
        let usage = usage.as_ref().map(trailer);
        let trailers: Vec<_> = usage.iter().map(|usage| (USAGE, usage.as_str())).collect();
        self.seal_whole(
            status,
            &[("content-type", content_type)],
            content,
            &trailers,
        )
    }

    /// Answers with an error of the contract, which is the caller's to see.
    pub(super) fn error(mut self, status: u16, object: &[u8]) -> Response<ReplyBody> {
        self.record.outcome = "invalid-request";
        self.record.status = status;
        self.seal_whole(status, &[("content-type", "application/json")], object, &[])
    }

    fn seal_whole(
        mut self,
        status: u16,
        fields: &[(&str, &str)],
        content: &[u8],
        trailers: &[(&str, &str)],
    ) -> Response<ReplyBody> {
        match self
            .sealer
            .seal_whole(status, fields, content, trailers, self.padding)
        {
            Ok(sealed) => {
                self.record.went(sealed.len());
                encapsulated(ReplyBody::Whole {
                    body: Full::new(sealed),
                    _place: Some(self.place),
                })
            }
            Err(error) => cannot_seal(self.record, error),
        }
    }

    /// Answers with an event stream, of which `first` is the beginning.
    pub(super) fn stream(
        mut self,
        engine: EngineStream,
        engine_place: Place,
        first: Part,
        cut: CancellationToken,
    ) -> Response<ReplyBody> {
        self.record.status = 200;
        let fields = [("content-type", EVENT_STREAM)];
        let sealer = match self.sealer.into_stream(200, &fields, self.padding) {
            Ok(sealer) => sealer,
            Err(error) => return cannot_seal(self.record, error),
        };
        let stream = SealedStream {
            sealer: Some(sealer),
            engine,
            first: Some(first),
            cut: Box::pin(cut.cancelled_owned()),
            record: self.record,
            _places: [self.place, engine_place],
        };
        encapsulated(ReplyBody::Stream(Box::new(stream)))
    }
}

fn cannot_seal(mut record: Record, error: SealError) -> Response<ReplyBody> {
    tracing::error!(%error, "seal");
    record.outcome = "internal";
    record.status = 500;
    Outside::Internal.response()
}

/// The counters as a trailer's value.
fn trailer(usage: &Usage) -> String {
    String::from_utf8(usage.to_json()).unwrap_or_default()
}

fn encapsulated(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(RESPONSE_MEDIA_TYPE),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of any reply of the node.
pub(super) enum ReplyBody {
    Whole {
        body: Full<Bytes>,
        _place: Option<Place>,
    },
    Stream(Box<SealedStream>),
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

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = SealError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SealError>>> {
        match self.get_mut() {
            Self::Whole { body, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Stream(stream) => stream
                .poll(cx)
                .map(|sealed| sealed.map(|s| s.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { body, .. } => body.is_end_stream(),
            Self::Stream(stream) => stream.sealer.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { body, .. } => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An engine's event stream, sealed as it comes.
pub(super) struct SealedStream {
    /// Gone once the final chunk was sealed.
    sealer: Option<StreamSealer>,
    engine: EngineStream,
    /// What was read before the reply began.
    first: Option<Part>,
    /// Ends when the node stops without waiting any longer.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    record: Record,
    _places: [Place; 2],
}

impl SealedStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SealError>>> {
        if self.sealer.is_none() {
            return Poll::Ready(None);
        }
        let part = match self.first.take() {
            Some(first) => first,
            // Asked before the engine: one that is always ahead of the asker never waits.
            None if self.cut.as_mut().poll(cx).is_ready() => self.engine.cancelled(),
            None => ready!(self.engine.poll_part(cx)),
        };
        let sealed = self.seal(part);
        match &sealed {
            Some(Ok(bytes)) => self.record.went(bytes.len()),
            Some(Err(error)) => {
                tracing::error!(%error, "seal");
                self.record.outcome = "internal";
            }
            None => {}
        }
        Poll::Ready(sealed)
    }

    fn seal(&mut self, part: Part) -> Option<Result<Bytes, SealError>> {
        let (content, usage, incomplete) = match part {
            Part::Content(content) => return Some(self.sealer.as_mut()?.chunk(&content)),
            Part::End { content, usage } => (content, usage, None),
            Part::Broken {
                content,
                usage,
                why,
            } => (content, usage, Some(why.as_str())),
        };
        let usage = usage.as_ref().map(trailer);
        let mut trailers: Vec<_> = usage.iter().map(|usage| (USAGE, usage.as_str())).collect();
        trailers.extend(incomplete.map(|why| (INCOMPLETE, why)));
        self.record.outcome = incomplete.unwrap_or("complete");
        Some(self.sealer.take()?.finish(&content, &trailers))
    }
}
