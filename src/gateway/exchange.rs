//! One request to one node: sealed, sent, and its reply opened as far as it must be known before
//! the caller gets a status.

use std::{borrow::Cow, time::Duration};

use attestation::Ineligible;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Shared,
    body::is_media_type,
    error::{Incomplete, NodeFailure},
    node::{Node, Verified},
    nodes::Served,
    problem::{self, Problem},
    upstream::{NodeBody, SendError},
};
use crate::{
    ids::RequestId,
    openai::{Endpoint, Usage},
    seal::{
        FinalPart, OpenError, Padding, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, ReplyHead,
        ReplyOpener, ReplyPart, RequestHead, Trailers, seal_request,
    },
};

/// Where a node takes sealed requests (RFC 9540).
const PATH: &str = "/.well-known/ohttp-gateway";
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
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) id: RequestId,
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
    /// The caller's body.
    pub(super) content: &'a Bytes,
}

/// What a node replied.
#[derive(Debug)]
pub(super) enum Reply {
    /// A complete reply that is no event stream.
    Whole(WholeContent),
    /// An event stream of status 200 that has begun.
    Stream(Unread),
}

/// A reply that is complete and is the engine's word.
#[derive(Debug)]
pub(super) struct WholeContent {
    pub(super) status: StatusCode,
    pub(super) retry_after_s: Option<u32>,
    pub(super) parts: Vec<Bytes>,
    pub(super) usage: Option<Usage>,
}

/// The part of a reply that is still to be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is still coming.
    Open {
        body: NodeBody,
        opener: Box<ReplyOpener>,
    },
    /// It came whole; its end is proved.
    Ended(FinalPart),
}

impl Shared {
    /// Asks one node.
    ///
    /// # Errors
    /// [`NodeFailure`] says whether another try is allowed.
    pub(super) async fn exchange(
        &self,
        job: &Job<'_>,
        served: &Served,
        node: &Node,
        verified: &Verified,
    ) -> Result<Reply, NodeFailure> {
        let mut first_copy = None;
        let exchanged = self.try_exchange(job, served, node, verified, &mut first_copy);
        let exchanged = exchanged.await;
        exchanged.map_err(|failure| match first_copy {
            Some(broken) if !failure.speaks_of_every_copy() => broken.into(),
            _ => failure,
        })
    }

    async fn try_exchange(
        &self,
        job: &Job<'_>,
        served: &Served,
        node: &Node,
        verified: &Verified,
        first_copy: &mut Option<SendError>,
    ) -> Result<Reply, NodeFailure> {
        let (sealed, opener) = self.seal(job, served, node, verified)?;
        let beginning = async {
            let response = send(verified, sealed, first_copy).await?;
            let body = self.checked(response, verified).await?;
            begin(body, opener).await
        };
        let (head, unread) = match timeout(self.timeouts.first_byte, beginning).await {
            Ok(begun) => begun?,
            Err(_) => return Err(NodeFailure::FirstByteTimeout),
        };
        let status = StatusCode::from_u16(head.status)
            .map_err(|_| NodeFailure::Unexpected("an impossible status"))?;
        let is_events = is_type(&head, "text/event-stream");
        if status == StatusCode::OK && is_events != job.stream {
            return Err(NodeFailure::Unexpected(
                "a stream in place of a whole reply, or vice versa",
            ));
        }
        if status == StatusCode::OK && is_events {
            return Ok(Reply::Stream(unread));
        }
        let (parts, trailers) = self.read_whole(unread).await?;
        judge(status, &head, parts, trailers).map(Reply::Whole)
    }

    fn seal(
        &self,
        job: &Job<'_>,
        served: &Served,
        node: &Node,
        verified: &Verified,
    ) -> Result<(Bytes, ReplyOpener), NodeFailure> {
        let now = self.clock.now();
        if verified.has_ended(now) {
            return Err(Ineligible::AppraisalExpired.into());
        }
        let key = verified.node.sealing_key(now)?;
        let date = httpdate::fmt_http_date(now);
        let id = job.id.to_string();
        let mut fields: Vec<(&str, &str)> = Vec::with_capacity(8);
        fields.extend([
            ("content-type", "application/json"),
            (
                "accept",
                if job.stream {
                    "text/event-stream"
                } else {
                    "application/json"
                },
            ),
            ("date", date.as_str()),
            ("sealgate-statement", verified.statement.as_str()),
            ("sealgate-request-id", id.as_str()),
        ]);
        if self.padding != Padding::default() {
            fields.push(("sealgate-padding", self.padding.as_str()));
        }
        if let Some(name) = &served.node_name {
            fields.push(("sealgate-model", name));
        }
        if let Some(credential) = &node.credential {
            fields.push(("authorization", credential.as_field_value()));
        }
        let head = RequestHead {
            path: job.endpoint.path(),
            fields: &fields,
        };
        Ok(seal_request(&key, now, &head, job.content, self.padding)?)
    }

    /// The body of a response that may hold a sealed reply.
    async fn checked(
        &self,
        response: Response<NodeBody>,
        verified: &Verified,
    ) -> Result<NodeBody, NodeFailure> {
        let status = response.status();
        let is_type = |expected: &str| {
            response
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|value| is_media_type(value.as_bytes(), expected.as_bytes()))
        };
        if status == StatusCode::OK && is_type(RESPONSE_MEDIA_TYPE) {
            return Ok(response.into_body());
        }
        if status.is_success() {
            return Err(NodeFailure::NotSealed { status });
        }
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after_s = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let is_problem = is_type(problem::MEDIA_TYPE);
        let is_believed = verified.authenticated_channel || self.retry_unauthenticated;
        let not_executed = is_believed && REFUSALS.contains(&status);
        if status == StatusCode::BAD_REQUEST && is_problem {
            let reading = read_outside(response.into_body());
            let body = timeout(OUTSIDE_TIME, reading).await.unwrap_or_default();
            if problem::is_ohttp_key(&body) {
                return Err(NodeFailure::OhttpKey { not_executed });
            }
        }
        Err(NodeFailure::Outside {
            status,
            retry_after_s,
            not_executed,
        })
    }

    /// The rest of a reply, with its end proved.
    async fn read_whole(&self, unread: Unread) -> Result<(Vec<Bytes>, Trailers), NodeFailure> {
        let max = self.limits.reply_bytes;
        let mut parts = Vec::new();
        let mut len = 0_usize;
        let mut add = |part: Bytes| {
            len = len.saturating_add(part.len());
            parts.push(part);
            if len > max {
                Err(NodeFailure::TooLong { max })
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
                let mut silent_at = Instant::now() + self.timeouts.idle;
                loop {
                    while let Some(part) = opener.next_part()? {
                        match part {
                            ReplyPart::Content(content) => add(content)?,
                            ReplyPart::Head(_) => return Err(NodeFailure::Unexpected("two heads")),
                        }
                    }
                    if opener.chunks_opened() > opened {
                        opened = opener.chunks_opened();
                        silent_at = Instant::now() + self.timeouts.idle;
                    }
                    match timeout_at(silent_at, body.data()).await {
                        Ok(Some(data)) => opener.push(data.map_err(NodeFailure::Broken)?)?,
                        Ok(None) => break opener.finish()?,
                        Err(_) => return Err(NodeFailure::IdleTimeout),
                    }
                }
            }
        };
        add(last.content)?;
        Ok((parts, last.trailers))
    }
}

/// Sends what was sealed. A pooled connection may turn out to be dead; then the same bytes go once
/// more, and the node's replay table answers if they had arrived after all. What became of the
/// first copy then stands in `first_copy`.
async fn send(
    verified: &Verified,
    sealed: Bytes,
    first_copy: &mut Option<SendError>,
) -> Result<Response<NodeBody>, NodeFailure> {
    let request = || {
        Request::post(PATH)
            .header(CONTENT_TYPE, HeaderValue::from_static(REQUEST_MEDIA_TYPE))
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .header(
                HeaderName::from_static("incremental"),
                HeaderValue::from_static("?1"),
            )
            .body(Full::new(sealed.clone()))
    };
    let mut sent = verified.channel.send(request()?).await;
    if let Err(broken @ SendError::Broken { reused: true, .. }) = sent {
        *first_copy = Some(broken);
        sent = verified.channel.send_afresh(request()?).await;
    }
    Ok(sent?)
}

/// Reads on until the inner head opened.
async fn begin(
    mut body: NodeBody,
    mut opener: ReplyOpener,
) -> Result<(ReplyHead, Unread), NodeFailure> {
    loop {
        match opener.next_part()? {
            Some(ReplyPart::Head(head)) => {
                let opener = Box::new(opener);
                return Ok((head, Unread::Open { body, opener }));
            }
            Some(ReplyPart::Content(_)) => return Err(NodeFailure::Unexpected("content first")),
            None => {}
        }
        match body.data().await {
            Some(data) => opener.push(data.map_err(NodeFailure::Broken)?)?,
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
) -> Result<WholeContent, NodeFailure> {
    let retry_after_s = retry_after_s(head);
    if is_type(head, problem::MEDIA_TYPE) {
        let body: Cow<'_, [u8]> = match parts.as_slice() {
            [only] => Cow::Borrowed(only),
            many => Cow::Owned(many.concat()),
        };
        let problem = Problem::from_json(&body);
        return Err(NodeFailure::Problem {
            problem,
            retry_after_s,
        });
    }
    check_complete(&trailers)?;
    if status.is_server_error() {
        return Err(NodeFailure::Engine {
            status: status.as_u16(),
        });
    }
    if status != StatusCode::OK && !status.is_client_error() {
        return Err(NodeFailure::Unexpected(
            "a status that is neither 200 nor an error",
        ));
    }
    if !is_type(head, "application/json") {
        return Err(NodeFailure::Unexpected("a reply that is not JSON"));
    }
    Ok(WholeContent {
        status,
        retry_after_s,
        parts,
        usage: usage(&trailers),
    })
}

/// # Errors
/// [`NodeFailure::Incomplete`] if the node says that it ended early.
pub(super) fn check_complete(trailers: &Trailers) -> Result<(), NodeFailure> {
    match trailers.incomplete.as_deref() {
        None => Ok(()),
        Some(why) => Err(NodeFailure::Incomplete(Incomplete::from_trailer(why))),
    }
}

/// The node's own count, if it gave one that can be read.
pub(super) fn usage(trailers: &Trailers) -> Option<Usage> {
    trailers
        .usage
        .as_deref()
        .and_then(|text| Usage::from_json(text.as_bytes()).ok())
}
