//! One request to one node: sealed, sent, and its reply opened as far as it must be known before
//! anything of it is given on.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use attestation::VerifiedKey;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    credential::Credential,
    error::{ExchangeError, Incomplete},
    is_media_type,
    problem::{self, Problem},
    upstream::{Channel, NodeBody, SendError},
};
use crate::{
    ids::RequestId,
    openai::{Endpoint, Usage},
    seal::{
        FinalPart, OpenError, Padding, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, ReceiptScope,
        ReplyHead, ReplyOpener, ReplyPart, RequestHead, Trailers, seal_request,
    },
};

/// Where a node takes sealed requests and shows its keys (RFC 9540).
pub(crate) const OHTTP: &str = "/.well-known/ohttp-gateway";
/// Most that is read of an error outside the seal.
const MAX_OUTSIDE: usize = 16 * 1024;
/// Longest time to read an error outside the seal.
const OUTSIDE_TIME: Duration = Duration::from_secs(2);
/// The statuses outside the seal with which a node refuses before anything runs (docs/wire.md,
/// "Refusals outside the encapsulation"). Others come from something between, or too late.
const REFUSALS: [StatusCode; 6] = [
    StatusCode::BAD_REQUEST,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::EXPECTATION_FAILED,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) id: RequestId,
    pub(crate) endpoint: Endpoint,
    pub(crate) stream: bool,
    /// What the node knows the caller by, where others ask through the same sealer.
    pub(crate) caller: Option<&'a str>,
    /// The body, as it goes under the seal.
    pub(crate) content: &'a Bytes,
    /// The digest in hex of the statement that was verified.
    pub(crate) statement: &'a str,
    /// The body's name for the model, where the node's differs.
    pub(crate) model: Option<&'a str>,
    /// What the node wants to see under the seal.
    pub(crate) credential: Option<&'a Credential>,
    pub(crate) padding: Padding,
    /// What the node's receipt is to say.
    pub(crate) receipt: ReceiptScope,
}

/// The way to one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) channel: &'a Arc<Channel>,
    /// Where what is sealed goes.
    pub(crate) path: &'a str,
    /// What whoever carries it there wants to see outside the seal.
    pub(crate) authorization: Option<&'a Credential>,
    /// Whether an error outside the seal counts as the node's word.
    pub(crate) is_believed: bool,
}

/// What a reply may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For its first part; a reply that is no stream comes whole.
    pub(crate) first_byte: Duration,
    /// For each further part.
    pub(crate) idle: Duration,
    /// Most bytes of a reply that is no stream.
    pub(crate) reply_bytes: usize,
}

/// What a node replied.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A complete reply that is no event stream.
    Whole(WholeContent),
    /// An event stream of status 200 that has begun.
    Stream {
        unread: Unread,
        /// `sealgate-receipt-salts`, if they stand in its head.
        receipt_salts: Option<String>,
    },
}

/// A reply that is complete and is the engine's word.
#[derive(Debug)]
pub(crate) struct WholeContent {
    pub(crate) status: StatusCode,
    pub(crate) retry_after_s: Option<u32>,
    pub(crate) parts: Vec<Bytes>,
    pub(crate) usage: Option<Usage>,
    pub(crate) trailers: Trailers,
    /// `sealgate-receipt-salts`, if they stand in its head too.
    pub(crate) receipt_salts: Option<String>,
}

/// The part of a reply that is still to be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is still coming.
    Open {
        body: NodeBody,
        opener: Box<ReplyOpener>,
    },
    /// It came whole; its end is proved.
    Ended(FinalPart),
}

/// Asks one node.
///
/// # Errors
/// [`ExchangeError`] says whether another try is allowed.
pub(crate) async fn exchange(
    ask: &Ask<'_>,
    key: &VerifiedKey,
    now: SystemTime,
    way: &Way<'_>,
    bounds: &Bounds,
) -> Result<Reply, ExchangeError> {
    let mut first_copy = None;
    let exchanged = try_exchange(ask, key, now, way, bounds, &mut first_copy).await;
    exchanged.map_err(|error| match first_copy {
        Some(broken) if !error.speaks_of_every_copy() => broken.into(),
        _ => error,
    })
}

async fn try_exchange(
    ask: &Ask<'_>,
    key: &VerifiedKey,
    now: SystemTime,
    way: &Way<'_>,
    bounds: &Bounds,
    first_copy: &mut Option<SendError>,
) -> Result<Reply, ExchangeError> {
    let (sealed, opener) = seal(ask, key, now)?;
    let beginning = async {
        let response = send(way, sealed, first_copy).await?;
        let body = checked(response, way.is_believed).await?;
        begin(body, opener).await
    };
    let (head, unread) = match timeout(bounds.first_byte, beginning).await {
        Ok(begun) => begun?,
        Err(_) => return Err(ExchangeError::FirstByteTimeout),
    };
    let status = StatusCode::from_u16(head.status)
        .map_err(|_| ExchangeError::Unexpected("an impossible status"))?;
    let is_events = is_type(&head, "text/event-stream");
    if status == StatusCode::OK && is_events != ask.stream {
        return Err(ExchangeError::Unexpected(
            "a stream in place of a whole reply, or vice versa",
        ));
    }
    if status == StatusCode::OK && is_events {
        return Ok(Reply::Stream {
            unread,
            receipt_salts: head.receipt_salts,
        });
    }
    let (parts, trailers) = read_whole(unread, bounds).await?;
    judge(status, &head, parts, trailers).map(Reply::Whole)
}

fn seal(
    ask: &Ask<'_>,
    key: &VerifiedKey,
    now: SystemTime,
) -> Result<(Bytes, ReplyOpener), ExchangeError> {
    let date = httpdate::fmt_http_date(now);
    let id = ask.id.to_string();
    let mut fields: Vec<(&str, &str)> = Vec::with_capacity(10);
    fields.extend([
        ("content-type", "application/json"),
        (
            "accept",
            if ask.stream {
                "text/event-stream"
            } else {
                "application/json"
            },
        ),
        ("date", date.as_str()),
        ("sealgate-statement", ask.statement),
        ("sealgate-request-id", id.as_str()),
    ]);
    if ask.padding != Padding::default() {
        fields.push(("sealgate-padding", ask.padding.as_str()));
    }
    if ask.receipt != ReceiptScope::None {
        fields.push(("sealgate-receipt", ask.receipt.as_str()));
    }
    if let Some(caller) = ask.caller {
        fields.push(("sealgate-caller", caller));
    }
    if let Some(name) = ask.model {
        fields.push(("sealgate-model", name));
    }
    if let Some(credential) = ask.credential {
        fields.push(("authorization", credential.as_field_value()));
    }
    let head = RequestHead {
        path: ask.endpoint.path(),
        fields: &fields,
    };
    Ok(seal_request(key, now, &head, ask.content, ask.padding)?)
}

/// The body of a response that may hold a sealed reply.
async fn checked(
    response: Response<NodeBody>,
    is_believed: bool,
) -> Result<NodeBody, ExchangeError> {
    let (head, body) = response.into_parts();
    let status = head.status;
    let is_type = |expected: &str| {
        head.headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| is_media_type(value.as_bytes(), expected.as_bytes()))
    };
    if status == StatusCode::OK && is_type(RESPONSE_MEDIA_TYPE) {
        return Ok(body);
    }
    if status.is_success() {
        return Err(ExchangeError::NotSealed { status });
    }
    let retry_after = head.headers.get(RETRY_AFTER);
    let retry_after_s = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let is_problem = is_type(problem::MEDIA_TYPE);
    let not_executed = is_believed && REFUSALS.contains(&status);
    if status == StatusCode::BAD_REQUEST && is_problem {
        let reading = read_outside(body);
        let body = timeout(OUTSIDE_TIME, reading).await.unwrap_or_default();
        if problem::is_ohttp_key(&body) {
            return Err(ExchangeError::OhttpKey { not_executed });
        }
    }
    Err(ExchangeError::Outside {
        status,
        retry_after_s,
        not_executed,
    })
}

/// The rest of a reply, with its end proved.
async fn read_whole(
    unread: Unread,
    bounds: &Bounds,
) -> Result<(Vec<Bytes>, Trailers), ExchangeError> {
    let max = bounds.reply_bytes;
    let mut parts = Vec::new();
    let mut len = 0_usize;
    let mut add = |part: Bytes| {
        len = len.saturating_add(part.len());
        parts.push(part);
        if len > max {
            Err(ExchangeError::TooLong { max })
        } else {
            Ok(())
        }
    };
    let last = match unread {
        Unread::Ended(last) => last,
        Unread::Open {
            mut body,
            mut opener,
        } => {
            let mut opened = opener.chunks_opened();
            let mut silent_at = Instant::now() + bounds.idle;
            loop {
                while let Some(part) = opener.next_part()? {
                    match part {
                        ReplyPart::Content(content) => add(content)?,
                        ReplyPart::Head(_) => return Err(ExchangeError::Unexpected("two heads")),
                    }
                }
                if opener.chunks_opened() > opened {
                    opened = opener.chunks_opened();
                    silent_at = Instant::now() + bounds.idle;
                }
                match timeout_at(silent_at, body.data()).await {
                    Ok(Some(data)) => opener.push(data.map_err(ExchangeError::Broken)?)?,
                    Ok(None) => break opener.finish()?,
                    Err(_) => return Err(ExchangeError::IdleTimeout),
                }
            }
        }
    };
    add(last.content)?;
    Ok((parts, last.trailers))
}

/// Sends what was sealed. A pooled connection may turn out to be dead; then the same bytes go once
/// more, and the node's replay table answers if they had arrived after all. What became of the
/// first copy then stands in `first_copy`.
async fn send(
    way: &Way<'_>,
    sealed: Bytes,
    first_copy: &mut Option<SendError>,
) -> Result<Response<NodeBody>, ExchangeError> {
    let request = || -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::post(way.path)
            .header(CONTENT_TYPE, HeaderValue::from_static(REQUEST_MEDIA_TYPE))
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .header(
                HeaderName::from_static("incremental"),
                HeaderValue::from_static("?1"),
            );
        if let Some(authorization) = way.authorization {
            request = request.header(AUTHORIZATION, authorization.to_header()?);
        }
        request.body(Full::new(sealed.clone()))
    };
    let mut sent = way.channel.send(request()?).await;
    if let Err(broken @ SendError::Broken { reused: true, .. }) = sent {
        *first_copy = Some(broken);
        sent = way.channel.send_afresh(request()?).await;
    }
    Ok(sent?)
}

/// Reads on until the inner head opened.
async fn begin(
    mut body: NodeBody,
    mut opener: ReplyOpener,
) -> Result<(ReplyHead, Unread), ExchangeError> {
    loop {
        match opener.next_part()? {
            Some(ReplyPart::Head(head)) => {
                let opener = Box::new(opener);
                return Ok((head, Unread::Open { body, opener }));
            }
            Some(ReplyPart::Content(_)) => return Err(ExchangeError::Unexpected("content first")),
            None => {}
        }
        match body.data().await {
            Some(data) => opener.push(data.map_err(ExchangeError::Broken)?)?,
            None => {
                let mut last = opener.finish()?;
                let head = last.head.take().ok_or(OpenError::Truncated)?;
                return Ok((head, Unread::Ended(last)));
            }
        }
    }
}

async fn read_outside(mut body: NodeBody) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        if all.len().saturating_add(data.len()) > MAX_OUTSIDE {
            break;
        }
        all.extend_from_slice(&data);
    }
    all
}

fn is_type(head: &ReplyHead, expected: &str) -> bool {
    let value = head.content_type.as_deref().unwrap_or_default();
    is_media_type(value.as_bytes(), expected.as_bytes())
}

fn retry_after_s(head: &ReplyHead) -> Option<u32> {
    head.retry_after.as_deref()?.parse().ok()
}

/// Whether a complete reply is the engine's word, which the caller gets, or a refusal.
fn judge(
    status: StatusCode,
    head: &ReplyHead,
    parts: Vec<Bytes>,
    trailers: Trailers,
) -> Result<WholeContent, ExchangeError> {
    let retry_after_s = retry_after_s(head);
    if is_type(head, problem::MEDIA_TYPE) {
        let body: Cow<'_, [u8]> = match parts.as_slice() {
            [only] => Cow::Borrowed(only),
            many => Cow::Owned(many.concat()),
        };
        let problem = Problem::from_json(&body);
        return Err(ExchangeError::Problem {
            problem,
            retry_after_s,
        });
    }
    check_complete(&trailers)?;
    if status.is_server_error() {
        return Err(ExchangeError::Engine {
            status: status.as_u16(),
        });
    }
    if status != StatusCode::OK && !status.is_client_error() {
        return Err(ExchangeError::Unexpected(
            "a status that is neither 200 nor an error",
        ));
    }
    if !is_type(head, "application/json") {
        return Err(ExchangeError::Unexpected("a reply that is not JSON"));
    }
    Ok(WholeContent {
        status,
        retry_after_s,
        parts,
        usage: usage(&trailers),
        trailers,
        receipt_salts: head.receipt_salts.clone(),
    })
}

/// # Errors
/// [`ExchangeError::Incomplete`] if the node says that it ended early.
pub(crate) fn check_complete(trailers: &Trailers) -> Result<(), ExchangeError> {
    match trailers.incomplete.as_deref() {
        None => Ok(()),
        Some(why) => Err(ExchangeError::Incomplete(Incomplete::from_trailer(why))),
    }
}

/// The node's own count, if it gave one that can be read.
pub(crate) fn usage(trailers: &Trailers) -> Option<Usage> {
    trailers
        .usage
        .as_deref()
        .and_then(|text| Usage::from_json(text.as_bytes()).ok())
}
