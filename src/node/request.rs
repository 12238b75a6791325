//! One sealed request, from its first byte to the engine (docs/wire.md, "Request").
//!
//! Until the final chunk opened, refusals are in clear; from then on they are sealed. Nothing
//! reaches an engine before [`accept`] has let the request in.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use attestation::StatementDigest;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::{
    State,
    problem::{Outside, Refusal},
    record::Record,
    replay::DATE_WINDOW_S,
    salt::Caller,
};
use crate::{
    clock::unix_seconds,
    config::node::{CredentialDigest, NodeConfig},
    ids::RequestId,
    listener::Peer,
    openai::Endpoint,
    pace::{LeastRate, Pace},
    seal::{
        Fields, FormError, OpenErrorKind, OpenedRequest, Padding, REQUEST_MEDIA_TYPE, ReplySealer,
        RequestLimits, RequestOpener,
    },
};

/// Bytes of buffered requests are counted in units, so that their number fits a semaphore.
const BUFFER_UNIT: usize = 1024;

/// Most bytes of a refused request that are read away, and the longest time for it.
const MAX_DISCARDED: usize = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A request that was opened, with everything that its answer needs.
pub(super) struct Received {
    /// What was sealed; authentic even where its form is wrong.
    pub(super) request: Result<OpenedRequest, FormError>,
    pub(super) sealer: ReplySealer,
    pub(super) buffered: Buffered,
}

impl Received {
    /// How the reply's lengths are hidden; a refusal of the field itself is padded as by default.
    pub(super) fn padding(&self) -> Padding {
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
pub(super) fn check_head(headers: &HeaderMap, max_body: u64) -> Result<(), Outside> {
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

/// Most bytes of an encapsulated request: padding may double what is sealed, and chunks have their
/// own framing. The opener counts exactly.
pub(super) fn max_body(config: &NodeConfig) -> u64 {
    let content = u64::from(config.limits.body_bytes.get());
    content.saturating_add(128 * 1024).saturating_mul(2)
}

/// What the content of any request may take up.
pub(super) fn limits(config: &NodeConfig) -> RequestLimits {
    RequestLimits {
        content_bytes: usize::try_from(config.limits.body_bytes.get()).unwrap_or(usize::MAX),
    }
}

/// The value of a field that stands once.
pub(super) fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Reads the body and opens it as it arrives.
///
/// # Errors
/// [`Outside`] if it does not arrive, does not fit or does not open.
pub(super) async fn receive(
    state: &State,
    body: &mut Incoming,
    record: &mut Record,
) -> Result<Received, Outside> {
    let mut opener = RequestOpener::new(limits(&state.config));
    let mut buffered = Buffered::none(&state.buffered);
    let mut coming = Coming::new(body, &state.config);
    while let Some(data) = coming.next().await? {
        record.came(data.len());
        buffered.grow(data.len())?;
        state
            .identity
            .open_with(|keys| opener.push(keys.opening(), data))
            .map_err(|error| refused(error.kind()))?;
    }
    let (request, sealer) = opener
        .finish_or_refuse()
        .map_err(|error| refused(error.kind()))?;
    Ok(Received {
        request,
        sealer,
        buffered,
    })
}

/// Lets the rest of a refused request come, within bounds: a connection that closes on unread bytes
/// is reset, and its peer may never see the refusal.
pub(super) async fn discard(mut body: Incoming) {
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

/// A body that comes, and how slowly it may.
pub(super) struct Coming<'a> {
    body: &'a mut Incoming,
    deadline: Instant,
    idle: Duration,
    pace: Pace,
}

impl<'a> Coming<'a> {
    /// One that begins now.
    pub(super) fn new(body: &'a mut Incoming, config: &NodeConfig) -> Self {
        let (now, timeouts) = (Instant::now(), &config.timeouts);
        let rate = LeastRate {
            bytes_per_s: config.limits.min_body_bytes_per_s,
            behind: timeouts.slow_body_ms.duration(),
        };
        Self {
            body,
            deadline: now + timeouts.body_ms.duration(),
            idle: timeouts.body_idle_ms.duration(),
            pace: Pace::begin(rate, now),
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Outside`] if they do not come, or not in time.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Outside> {
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

/// A request's part of the bytes that all requests may hold before an engine has them.
pub(super) struct Buffered {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Buffered {
    /// The whole that requests share.
    pub(super) fn shared(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(Self::units(bytes)))
    }

    fn units(bytes: usize) -> usize {
        (bytes / BUFFER_UNIT).min(Semaphore::MAX_PERMITS)
    }

    /// Bytes of the whole that is made of `bytes`.
    pub(super) fn room(bytes: usize) -> usize {
        Self::units(bytes).saturating_mul(BUFFER_UNIT)
    }

    /// Bytes of the whole that nobody holds.
    pub(super) fn free(all: &Semaphore) -> usize {
        all.available_permits().saturating_mul(BUFFER_UNIT)
    }

    /// Nothing yet of the whole.
    pub(super) fn none(all: &Arc<Semaphore>) -> Self {
        Self {
            all: Arc::clone(all),
            held: None,
            bytes: 0,
        }
    }

    /// Makes room for more bytes.
    ///
    /// # Errors
    /// [`Outside::TooMany`] if there is none.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Outside> {
        self.bytes = self.bytes.saturating_add(bytes);
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.bytes.div_ceil(BUFFER_UNIT).saturating_sub(held);
        let more = u32::try_from(more).map_err(|_| Outside::TooMany)?;
        let permit = Arc::clone(&self.all)
            .try_acquire_many_owned(more)
            .map_err(|_| Outside::TooMany)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

/// What the sealed fields say, once they are well-formed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) id: RequestId,
    date: u64,
    statement: StatementDigest,
    /// Who asks, as the gateway calls him.
    pub(super) caller: Option<Caller>,
}

impl Form {
    /// Reads the fields that a request must have, and those that steer its answer.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] names the field.
    pub(super) fn of(request: &OpenedRequest) -> Result<Self, Refusal> {
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
        if !matches!(
            fields.get("sealgate-receipt"),
            None | Some("none" | "usage" | "content")
        ) {
            return Err(Refusal::Malformed(
                "sealgate-receipt is none, usage or content",
            ));
        }
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
        })
    }
}

/// Lets a well-formed request in, or refuses it. Once claimed, it stays claimed.
///
/// # Errors
/// The first [`Refusal`] in the order of docs/wire.md: credential, date, replay, statement, path,
/// load.
pub(super) fn accept(
    state: &State,
    request: &OpenedRequest,
    form: &Form,
    peer: Option<Peer>,
) -> Result<Endpoint, Refusal> {
    let credential = state.config.credential_sha256.as_ref();
    if !credential.is_none_or(|expected| has_credential(&request.fields, expected)) {
        return Err(Refusal::Credential);
    }
    let now = state.clock.unix_now();
    if now.abs_diff(form.date) > DATE_WINDOW_S {
        return Err(Refusal::Date);
    }
    let source: Option<IpAddr> = match credential {
        Some(_) => None,
        None => peer.map(|Peer(address)| address.ip()),
    };
    let end = form.date.saturating_add(DATE_WINDOW_S);
    state
        .replay
        .claim(request.enc_digest, end, now, source)
        .map_err(Refusal::from)?;
    if !state.identity.counts(&form.statement, now) {
        return Err(Refusal::Statement);
    }
    let endpoint = Endpoint::of(&request.path).ok_or(Refusal::Path)?;
    if state.draining.is_cancelled() {
        return Err(Refusal::Draining);
    }
    Ok(endpoint)
}

fn has_credential(fields: &Fields, expected: &CredentialDigest) -> bool {
    let token = fields
        .get("authorization")
        .and_then(|value| value.split_at_checked(7));
    token.is_some_and(|(scheme, token)| {
        let digest: [u8; 32] = Sha256::digest(token).into();
        scheme.eq_ignore_ascii_case("bearer ") && bool::from(digest.ct_eq(expected.as_bytes()))
    })
}

/// The node's time for the `date` field of a refusal.
pub(super) fn http_date(now: SystemTime) -> String {
    httpdate::fmt_http_date(now)
}
