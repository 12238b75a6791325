//! One sealed request, from its first byte until it is let in (docs/wire.md, "Request").
//!
//! Until the final chunk opened, refusals are in clear; from then on they are sealed. Nothing is
//! done for a request before [`Gate::admit`] has let it in.

use std::time::{Duration, SystemTime};

use attestation::StatementDigest;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    caller::Caller,
    problem::{Outside, Refusal},
    replay::{DATE_WINDOW_S, ReplayTable, Source},
    statement::Identity,
};
use crate::{
    clock::unix_seconds,
    ids::RequestId,
    pace::{LeastRate, Pace},
    seal::{
        FormError, OpenErrorKind, OpenedRequest, Padding, REQUEST_MEDIA_TYPE, ReceiptScope,
        ReplySealer, RequestLimits, RequestOpener,
    },
};

/// Most bytes of a refused request that are read away, and the longest time for it.
const MAX_DISCARDED: usize = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Room that what comes of requests shares.
pub(crate) trait Room {
    /// Makes room for more bytes.
    ///
    /// # Errors
    /// [`Outside::TooMany`] if there is none.
    fn grow(&mut self, bytes: usize) -> Result<(), Outside>;
}

/// A request that was opened, with everything that its answer needs.
pub(crate) struct Received<R> {
    /// What was sealed; authentic even where its form is wrong.
    pub(crate) request: Result<OpenedRequest, FormError>,
    pub(crate) sealer: ReplySealer,
    pub(crate) room: R,
}

impl<R> Received<R> {
    /// How the reply's lengths are hidden; a refusal of the field itself is padded as by default.
    pub(crate) fn padding(&self) -> Padding {
        let request = self.request.as_ref().ok();
        let padding = request.and_then(|request| request.fields.get("sealgate-padding"));
        padding
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }
}

/// Checks what stands outside the seal.
///
/// # Errors
/// [`Outside`] before a byte of the body was read.
pub(crate) fn check_head(headers: &HeaderMap, max_body: u64) -> Result<(), Outside> {
    if headers.contains_key(header::EXPECT) {
        return Err(Outside::Expectation);
    }
    let media_type = single(headers, header::CONTENT_TYPE);
    if media_type.is_none_or(|value| !value.eq_ignore_ascii_case(REQUEST_MEDIA_TYPE))
        || headers.contains_key(header::CONTENT_ENCODING)
    {
        return Err(Outside::MediaType);
    }
    let length = single(headers, header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_body) {
        return Err(Outside::TooLarge);
    }
    Ok(())
}

/// Most bytes of an encapsulated request with at most so many of content: padding may double what is
/// sealed, and chunks have their own framing. The opener counts exactly.
pub(crate) fn max_body(content: u64) -> u64 {
    content.saturating_add(128 * 1024).saturating_mul(2)
}

/// The value of a field that stands once.
pub(crate) fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Reads the body and opens it as it arrives.
///
/// # Errors
/// [`Outside`] if it does not arrive, does not fit or does not open.
pub(crate) async fn receive<R: Room>(
    identity: &Identity,
    limits: RequestLimits,
    mut coming: Coming<'_>,
    mut room: R,
    mut came: impl FnMut(usize),
) -> Result<Received<R>, Outside> {
    let mut opener = RequestOpener::new(limits);
    while let Some(data) = coming.next().await? {
        came(data.len());
        room.grow(data.len())?;
        identity
            .open_with(|keys| opener.push(keys.opening(), data))
            .map_err(|error| refused(error.kind()))?;
    }
    let (request, sealer) = opener
        .finish_or_refuse()
        .map_err(|error| refused(error.kind()))?;
    Ok(Received {
        request,
        sealer,
        room,
    })
}

/// Lets the rest of a refused request come, within bounds: a connection that closes on unread bytes
/// is reset, and its peer may never see the refusal.
pub(crate) async fn discard(mut body: Incoming) {
    let mut left = MAX_DISCARDED;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Too slow or too long ends alike: the connection closes.
    let _ = timeout(DISCARD_TIME, rest).await;
}

/// How slowly a body may come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For all of it.
    pub(crate) within: Duration,
    /// For the next bytes of it.
    pub(crate) idle: Duration,
    pub(crate) rate: LeastRate,
}

/// A body that comes.
pub(crate) struct Coming<'a> {
    body: &'a mut Incoming,
    deadline: Instant,
    idle: Duration,
    pace: Pace,
}

impl<'a> Coming<'a> {
    /// One that begins now.
    pub(crate) fn new(body: &'a mut Incoming, patience: Patience) -> Self {
        let now = Instant::now();
        Self {
            body,
            deadline: now + patience.within,
            idle: patience.idle,
            pace: Pace::begin(patience.rate, now),
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Outside`] if they do not come, or not in time.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Outside> {
        loop {
            let idle = Instant::now() + self.idle;
            let soonest = self.pace.too_slow_at().map_or(idle, |at| at.min(idle));
            match timeout_at(self.deadline.min(soonest), self.body.frame()).await {
                Err(_) => return Err(Outside::Timeout),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(Outside::Malformed),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.pace.came(data.len(), Instant::now());
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

fn refused(kind: OpenErrorKind) -> Outside {
    match kind {
        OpenErrorKind::Key => Outside::OhttpKey,
        OpenErrorKind::TooLarge => Outside::TooLarge,
        OpenErrorKind::Malformed => Outside::Malformed,
    }
}

/// What the sealed fields say, once they are well-formed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) id: RequestId,
    date: u64,
    statement: StatementDigest,
    /// Who asks, as the gateway calls him.
    pub(crate) caller: Option<Caller>,
    /// What its receipt is to say.
    pub(crate) receipt: ReceiptScope,
}

impl Form {
    /// Reads the fields that a request must have, and those that steer its answer.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] names the field.
    pub(crate) fn of(request: &OpenedRequest) -> Result<Self, Refusal> {
        if request.method != "POST" {
            return Err(Refusal::Malformed("the method is POST"));
        }
        let fields = &request.fields;
        let id = fields
            .get("sealgate-request-id")
            .and_then(|text| text.parse().ok());
        let date = fields
            .get("date")
            .and_then(|text| httpdate::parse_http_date(text).ok());
        let statement = fields
            .get("sealgate-statement")
            .and_then(|text| text.parse().ok());
        let caller = fields.get("sealgate-caller").map(str::parse).transpose();
        let padding = fields.get("sealgate-padding");
        if padding.is_some_and(|text| text.parse::<Padding>().is_err()) {
            return Err(Refusal::Malformed(
                "sealgate-padding is off, bucket or paced",
            ));
        }
        let receipt = fields.get("sealgate-receipt").map(str::parse).transpose();
        Ok(Self {
            id: id.ok_or(Refusal::Malformed(
                "sealgate-request-id is 32 lower-case hex digits",
            ))?,
            date: date
                .map(unix_seconds)
                .ok_or(Refusal::Malformed("date is an HTTP date"))?,
            statement: statement.ok_or(Refusal::Malformed(
                "sealgate-statement is 64 lower-case hex digits",
            ))?,
            caller: caller
                .map_err(|_| Refusal::Malformed("sealgate-caller is 32 lower-case hex digits"))?,
            receipt: receipt
                .map_err(|_| Refusal::Malformed("sealgate-receipt is none, usage or content"))?
                .unwrap_or_default(),
        })
    }
}

impl Form {
    /// The statement that the request names.
    pub(crate) fn statement(&self) -> StatementDigest {
        self.statement
    }
}

#[cfg(test)]
impl Form {
    /// Of a request that is sealed at that time under that statement.
    pub(crate) fn sealed(date: u64, statement: StatementDigest) -> Self {
        Self {
            id: "0".repeat(32).parse().unwrap(),
            date,
            statement,
            caller: None,
            receipt: ReceiptScope::None,
        }
    }
}

/// What requests are let in by.
pub(crate) struct Gate<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) replay: &'a ReplayTable,
    /// The time, in Unix seconds, by a clock that never goes back.
    pub(crate) now: u64,
}

impl Gate<'_> {
    /// Lets in a well-formed request whose credential is good, as far as its date, its being new and
    /// its statement go. Once claimed, it stays claimed.
    ///
    /// `source` is who asks, where several share the table.
    ///
    /// # Errors
    /// The first [`Refusal`] in the order of docs/wire.md: date, replay, statement.
    pub(crate) fn admit(
        &self,
        enc_digest: [u8; 32],
        form: &Form,
        source: Option<Source>,
    ) -> Result<(), Refusal> {
        if self.now.abs_diff(form.date) > DATE_WINDOW_S {
            return Err(Refusal::Date);
        }
        let end = form.date.saturating_add(DATE_WINDOW_S);
        self.replay
            .claim(enc_digest, end, self.now, source)
            .map_err(Refusal::from)?;
        if !self.identity.counts(&form.statement, self.now) {
            return Err(Refusal::Statement);
        }
        Ok(())
    }
}

/// The time for the `date` field of a refusal.
pub(crate) fn http_date(now: SystemTime) -> String {
    httpdate::fmt_http_date(now)
}
