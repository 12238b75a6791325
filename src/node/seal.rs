//! The seals that an answer can go out under; what is answered does not depend on them.
//!
//! A request's opening hands out the one seal that fits its reply, so that a reply to one dialect
//! is never sealed as another.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    engine_stream::{Part, Why},
    problem::Refusal,
    receipts::{Draft, Running, Signed},
    said::{Message, Said},
};
use crate::{
    attester::paced::Pacing,
    openai::Usage,
    seal::{
        EhbpFrames, EhbpReplySealer, Padding, RESPONSE_MEDIA_TYPE, RESPONSE_NONCE, ReplySealer,
        SealError, SeedReplySealer, StreamSealer,
    },
};

/// The trailer with the usage, and the one that says that a reply is not whole.
const USAGE: &str = "sealgate-usage";
const INCOMPLETE: &str = "sealgate-incomplete";
const EVENT_STREAM: &str = "text/event-stream";
const JSON: &str = "application/json";

/// What seals the reply to one request.
pub(super) enum Seal {
    /// This project's own encapsulation.
    Ohttp {
        sealer: ReplySealer,
        padding: Padding,
        /// When its reply may go out, if it is paced.
        pacing: Option<Pacing>,
        /// Its receipt, once it is known that there is to be one.
        receipt: Option<Draft>,
    },
    /// Encrypted HTTP bodies.
    Ehbp(EhbpReplySealer),
    /// The seed's confidential format.
    Seed(SeedReplySealer),
}

impl Seal {
    /// When a reply may go out, if it is paced.
    pub(super) const fn pacing(&self) -> Option<Pacing> {
        match self {
            Self::Ohttp { pacing, .. } => *pacing,
            Self::Ehbp(_) | Self::Seed(_) => None,
        }
    }

    /// Has the reply carry a receipt, if an engine makes it.
    pub(super) fn with_receipt(&mut self, draft: Draft) {
        if let Self::Ohttp { receipt, .. } = self {
            *receipt = Some(draft);
        }
    }

    /// Seals an answer that is known whole.
    ///
    /// # Errors
    /// [`SealError`] if it cannot be sealed; nothing of it may go out then.
    pub(super) fn whole(self, said: &Said<'_>) -> Result<Response<Bytes>, SealError> {
        match self {
            Self::Ohttp {
                sealer,
                padding,
                receipt,
                ..
            } => {
                let mut message = said.to_sealer();
                let receipt = receipt.as_ref();
                message
                    .fields
                    .extend(receipt.and_then(|draft| draft.salts_of(said)));
                let signed = receipt
                    .map(|draft| draft.sign_whole(said))
                    .unwrap_or_default();
                let usage = said.usage().map(trailer);
                let trailers = trailers(usage.as_deref(), None, &signed);
                let (status, content) = (message.status, &message.content);
                let sealed =
                    sealer.seal_whole(status, &message.fields(), content, &trailers, padding)?;
                Ok(encapsulated(sealed))
            }
            Self::Ehbp(sealer) => {
                let mut message = said.to_client();
                let mut frames = sealer.begin()?;
                message.content = frames.seal(&message.content)?;
                let nonce = frames.response_nonce();
                message.fields.push((RESPONSE_NONCE, nonce));
                Ok(message.into_response())
            }
            Self::Seed(mut sealer) => {
                let Said::Reply { content, usage } = said else {
                    return Ok(said.to_anybody().into_response());
                };
                let usage = usage.as_ref().map(Usage::to_json);
                let sealed = sealer.seal(content, usage.as_deref())?;
                let message = Message {
                    status: 200,
                    content_type: JSON,
                    fields: Vec::new(),
                    content: sealed.into(),
                };
                Ok(message.into_response())
            }
        }
    }

    /// Begins an event stream: the head of the response, and what seals its parts.
    ///
    /// # Errors
    /// [`SealError`] if it cannot be sealed.
    pub(super) fn stream(self) -> Result<(Response<()>, StreamSeal), SealError> {
        let head = |fields| Message {
            status: 200,
            content_type: EVENT_STREAM,
            fields,
            content: Bytes::new(),
        };
        match self {
            Self::Ohttp {
                sealer,
                padding,
                receipt,
                ..
            } => {
                let salts = receipt.as_ref().and_then(Draft::salts);
                let fields = event_fields(salts.as_ref());
                let sealer = sealer.into_stream(200, &fields, padding)?;
                let receipt = receipt.map(|draft| Box::new(Running::from(draft)));
                Ok((encapsulated(()), StreamSeal::Ohttp(sealer, receipt)))
            }
            Self::Ehbp(sealer) => {
                let frames = sealer.begin()?;
                let message = head(vec![(RESPONSE_NONCE, frames.response_nonce())]);
                let response = message.into_response().map(drop);
                Ok((response, StreamSeal::Ehbp(frames)))
            }
            Self::Seed(sealer) => {
                let response = head(Vec::new()).into_response().map(drop);
                Ok((response, StreamSeal::Seed(sealer)))
            }
        }
    }
}

/// The fields of an event stream, with the salts of its receipt.
pub(super) fn event_fields<'a>(
    salts: Option<&'a (&'static str, String)>,
) -> Vec<(&'static str, &'a str)> {
    let salts = salts.map(|(name, text)| (*name, text.as_str()));
    [("content-type", EVENT_STREAM)]
        .into_iter()
        .chain(salts)
        .collect()
}

/// What seals the parts of an event stream.
pub(super) enum StreamSeal {
    Ohttp(StreamSealer, Option<Box<Running>>),
    Ehbp(EhbpFrames),
    Seed(SeedReplySealer),
}

/// What follows the bytes of a part.
pub(super) enum Next {
    /// More parts.
    More(StreamSeal),
    /// The end of the body.
    End,
    /// No end: whoever reads must see that the reply is not whole.
    Abort,
}

impl StreamSeal {
    /// Seals the next part.
    ///
    /// # Errors
    /// [`SealError`] if it cannot be sealed; the reply must be aborted then.
    pub(super) fn part(self, part: &Part) -> Result<(Bytes, Next), SealError> {
        match self {
            Self::Ohttp(sealer, receipt) => own(sealer, receipt, part),
            Self::Ehbp(mut frames) => {
                let bytes = frames.seal(&client_events(part))?;
                Ok((bytes, next(part, Self::Ehbp(frames))))
            }
            Self::Seed(mut sealer) => {
                let bytes = seed_events(&mut sealer, part)?;
                Ok((bytes, next(part, Self::Seed(sealer))))
            }
        }
    }
}

/// The encapsulation says itself how a stream ended.
fn own(
    mut sealer: StreamSealer,
    mut receipt: Option<Box<Running>>,
    part: &Part,
) -> Result<(Bytes, Next), SealError> {
    if let Some(receipt) = &mut receipt {
        receipt.sent(part.content());
    }
    let (usage, incomplete) = match part {
        Part::Content(content) => {
            let bytes = sealer.chunk(content)?;
            return Ok((bytes, Next::More(StreamSeal::Ohttp(sealer, receipt))));
        }
        Part::End { usage, .. } => (usage, None),
        Part::Broken { usage, why, .. } => (usage, Some(*why)),
    };
    let signed = receipt.map(|receipt| receipt.sign(usage.as_ref()));
    let signed = signed.unwrap_or_default();
    let usage = usage.as_ref().map(trailer);
    let trailers = trailers(usage.as_deref(), incomplete, &signed);
    Ok((sealer.finish(part.content(), &trailers)?, Next::End))
}

/// The dialects have no end that could be proved: a stream that broke has none.
fn next(part: &Part, seal: StreamSeal) -> Next {
    match part {
        Part::Content(_) => Next::More(seal),
        Part::End { .. } => Next::End,
        Part::Broken { .. } => Next::Abort,
    }
}

/// The events as an OpenAI client reads them, without the comments that are for this project's
/// sealers; a stream that broke ends with an error.
fn client_events(part: &Part) -> Vec<u8> {
    let mut events = Vec::with_capacity(part.content().len());
    for line in lines(part.content()) {
        events.extend_from_slice(line);
    }
    events.extend_from_slice(&error_event(part));
    events
}

/// Each event sealed by itself, but for the end event, which these clients do not take.
fn seed_events(sealer: &mut SeedReplySealer, part: &Part) -> Result<Bytes, SealError> {
    let mut events = Vec::new();
    for line in lines(part.content()) {
        let Some(event) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
            continue;
        };
        if event == DONE {
            continue;
        }
        let usage = Usage::of_chunk(event).map(|usage| usage.to_json());
        events.extend_from_slice(b"data: ");
        events.extend_from_slice(&sealer.seal(event, usage.as_deref())?);
        events.extend_from_slice(b"\n\n");
    }
    // In clear, and fixed.
    events.extend_from_slice(&error_event(part));
    Ok(events.into())
}

const DONE: &[u8] = b"[DONE]";

/// The lines that are no comments, each with its LF.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| line.first() != Some(&b':'))
}

fn error_event(part: &Part) -> Bytes {
    let refusal = match part {
        Part::Content(_) | Part::End { .. } => return Bytes::new(),
        Part::Broken {
            why: Why::EngineFailed | Why::Idle,
            ..
        } => Refusal::EngineFailed,
        Part::Broken {
            why: Why::Cancelled,
            ..
        } => Refusal::Draining,
    };
    refusal.object().sse_event()
}

/// The trailers of a reply: what it used, why it is not whole, and its receipt.
pub(super) fn trailers<'a>(
    usage: Option<&'a str>,
    incomplete: Option<Why>,
    signed: &'a Signed,
) -> Vec<(&'static str, &'a str)> {
    let usage = usage.map(|usage| (USAGE, usage));
    let incomplete = incomplete.map(|why| (INCOMPLETE, why.as_str()));
    usage
        .into_iter()
        .chain(incomplete)
        .chain(signed.fields())
        .collect()
}

/// The counters as a trailer's value.
pub(super) fn trailer(usage: &Usage) -> String {
    String::from_utf8(usage.to_json()).unwrap_or_default()
}

pub(super) fn encapsulated<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(RESPONSE_MEDIA_TYPE),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Message {
    /// The fields as they are sealed.
    pub(super) fn fields(&self) -> Vec<(&str, &str)> {
        let further = self.fields.iter();
        let further = further.map(|(name, value)| (*name, value.as_str()));
        [("content-type", self.content_type)]
            .into_iter()
            .chain(further)
            .collect()
    }

    /// The message as HTTP has it.
    pub(super) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.content);
        // An engine's status is one that hyper parsed; ours are constants.
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.fields {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}
