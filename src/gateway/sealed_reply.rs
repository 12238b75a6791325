//! Seals what a plain caller would get to the caller who sealed.
//!
//! Status, the headers that mean something to him and the content go inside; outside stands the same
//! for every answer. A stream that broke ends under the seal, and says so.

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::{
    body::{Aborted, ReplyBody},
    paced::{self, Work},
    stream::{EventStream, Part},
};
use crate::{
    attester::{
        paced::Pacing,
        problem::{PROBLEM_JSON, Refusal},
        request::http_date,
        time::SteadyClock,
    },
    ids::RequestId,
    openai::Usage,
    seal::{Padding, RESPONSE_MEDIA_TYPE, ReplySealer, SealError, StreamSealer},
};

/// The trailer with the usage, and the one that says that a reply is not whole.
const USAGE: &str = "sealgate-usage";
const INCOMPLETE: &str = "sealgate-incomplete";
/// The headers of a plain reply that go inside.
const INSIDE: [&str; 11] = [
    "content-type",
    "retry-after",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "sealgate-node",
    "sealgate-attestation",
];

/// What seals the one reply to a request.
#[must_use]
pub(super) struct Seal {
    sealer: ReplySealer,
    padding: Padding,
    /// When the reply may go out, if it is paced.
    pacing: Option<Pacing>,
}

impl Seal {
    /// For a request whose reply is to be padded so; a paced one goes out at these ticks.
    pub(super) fn new(sealer: ReplySealer, padding: Padding, pacing: Pacing) -> Self {
        Self {
            sealer,
            padding,
            pacing: (padding == Padding::Paced).then_some(pacing),
        }
    }

    /// Whether the reply goes out at ticks.
    pub(super) fn is_paced(&self) -> bool {
        self.pacing.is_some()
    }

    /// Seals a refusal of the wire; if it is paced, it goes at the next tick.
    ///
    /// # Errors
    /// [`SealError`]; nothing of it may go out then.
    pub(super) async fn refusal(
        self,
        refusal: Refusal,
        clock: &SteadyClock,
    ) -> Result<Response<ReplyBody>, SealError> {
        let retry_after = refusal.retry_after_s().map(|seconds| seconds.to_string());
        let date = (refusal == Refusal::Date).then(|| http_date(clock.now()));
        let mut fields = vec![("content-type", PROBLEM_JSON)];
        fields.extend(retry_after.as_deref().map(|it| (RETRY_AFTER.as_str(), it)));
        fields.extend(date.as_deref().map(|it| ("date", it)));
        let (status, content) = (refusal.status(), refusal.to_json());
        let sealed = self
            .sealer
            .seal_whole(status, &fields, &content, &[], self.padding)?;
        wait(self.pacing).await;
        Ok(encapsulated(ReplyBody::from(sealed)))
    }

    /// Seals what `work` will come to, as a plain caller would get it, at ticks that begin now.
    ///
    /// # Errors
    /// [`SealError`]; nothing of it may go out then.
    pub(super) fn paced(
        self,
        work: Work,
        id: RequestId,
        cut: CancellationToken,
    ) -> Result<Response<ReplyBody>, SealError> {
        let pacing = self.pacing.ok_or(SealError::NeedsTicks)?;
        let sealer = self.sealer.into_paced(pacing.row)?;
        let reply = paced::reply(sealer, work, id, pacing, cut);
        Ok(encapsulated(ReplyBody::Paced(Box::new(reply))))
    }

    /// Seals what a plain caller would get; if it is paced, it goes at the next tick.
    ///
    /// # Errors
    /// [`SealError`]; nothing of it may go out then.
    pub(super) async fn response(
        self,
        response: Response<ReplyBody>,
        id: RequestId,
    ) -> Result<Response<ReplyBody>, SealError> {
        let pacing = self.pacing;
        let sealed = self.sealed(response, id)?;
        wait(pacing).await;
        Ok(encapsulated(sealed))
    }

    fn sealed(self, response: Response<ReplyBody>, id: RequestId) -> Result<ReplyBody, SealError> {
        let Self {
            sealer, padding, ..
        } = self;
        let (head, body) = response.into_parts();
        let (status, id) = (head.status.as_u16(), id.to_string());
        let fields = inside(&head.headers, &id);
        let body = match body {
            ReplyBody::Own(content) => {
                let content = content.unwrap_or_default();
                ReplyBody::from(sealer.seal_whole(status, &fields, &content, &[], padding)?)
            }
            ReplyBody::Whole(reply) => {
                let sealed = reply.sealed(|content, usage| {
                    let usage = usage.map(trailer);
                    let trailers = trailers(usage.as_deref(), None);
                    sealer.seal_whole(status, &fields, content, &trailers, padding)
                })?;
                ReplyBody::Whole(Box::new(sealed))
            }
            ReplyBody::Stream(events) => ReplyBody::Sealed(Box::new(SealedEvents {
                sealer: Some(sealer.into_stream(status, &fields, padding)?),
                events,
            })),
            // What is sealed already was not asked for here.
            ReplyBody::Roomy(_)
            | ReplyBody::Sealed(_)
            | ReplyBody::Paced(_)
            | ReplyBody::Relay(_) => {
                return Err(SealError::Failed);
            }
        };
        Ok(body)
    }
}

/// Waits for the next tick, if there are any. Who leaves before has had nothing.
async fn wait(pacing: Option<Pacing>) {
    if let Some(pacing) = pacing {
        sleep_until(pacing.next()).await;
    }
}

/// The fields of a plain reply that go inside, and the request's id.
pub(super) fn inside<'a>(headers: &'a HeaderMap, id: &'a str) -> Vec<(&'static str, &'a str)> {
    let value = |name: &str| headers.get(name)?.to_str().ok();
    let stands = |name| Some((name, value(name)?));
    let fields = INSIDE.into_iter().filter_map(stands);
    fields.chain([("x-request-id", id)]).collect()
}

/// The trailers of a reply: what it used, and why it is not whole.
pub(super) fn trailers<'a>(
    usage: Option<&'a str>,
    incomplete: Option<&'a str>,
) -> Vec<(&'static str, &'a str)> {
    let usage = usage.map(|usage| (USAGE, usage));
    let incomplete = incomplete.map(|why| (INCOMPLETE, why));
    usage.into_iter().chain(incomplete).collect()
}

/// The counters as a trailer's value.
pub(super) fn trailer(usage: &Usage) -> String {
    String::from_utf8(usage.to_json()).unwrap_or_default()
}

fn encapsulated(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_static(RESPONSE_MEDIA_TYPE);
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An event stream, sealed as it comes.
pub(super) struct SealedEvents {
    /// Nothing once the last chunk is out.
    sealer: Option<StreamSealer>,
    events: Box<EventStream>,
}

impl SealedEvents {
    pub(super) fn is_ended(&self) -> bool {
        self.sealer.is_none()
    }

    /// The next sealed bytes; an error means that the connection must be aborted.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Aborted>>> {
        loop {
            let Some(sealer) = self.sealer.take() else {
                return Poll::Ready(None);
            };
            let part = match self.events.poll_part(cx) {
                Poll::Ready(part) => part,
                Poll::Pending => {
                    self.sealer = Some(sealer);
                    return Poll::Pending;
                }
            };
            match self.seal(sealer, part) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.events.went(bytes.len());
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Err(error) => {
                    tracing::error!(%error, "seal");
                    return Poll::Ready(Some(Err(Aborted)));
                }
            }
        }
    }

    fn seal(&mut self, mut sealer: StreamSealer, part: Option<Part>) -> Result<Bytes, SealError> {
        let (content, incomplete) = match part {
            Some(Part::Content(content)) => {
                let bytes = sealer.chunk(&content)?;
                self.sealer = Some(sealer);
                return Ok(bytes);
            }
            Some(Part::End(content)) => (content, None),
            Some(Part::Failed { content, why, .. }) => (content, Some(why)),
            // It ends by one of the two before it has nothing more.
            None => return Err(SealError::Failed),
        };
        let usage = self.events.usage().as_ref().map(trailer);
        self.events.finish();
        sealer.finish(&content, &trailers(usage.as_deref(), incomplete))
    }
}

impl fmt::Debug for SealedEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedEvents(..)")
    }
}
