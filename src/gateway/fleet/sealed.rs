//! Requests that are sealed to a node's key by whoever sent them: authenticated, admitted, counted
//! by bytes, and carried.

use std::{sync::Arc, time::SystemTime};

use attestation::{Dialect, Ineligible};
use bytes::Bytes;
use http::{
    HeaderName, Method, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{Route, Shared};
use crate::{
    gateway::{
        admit::Permit,
        ask::Held,
        authenticate::Caller,
        body::{self, ReplyBody},
        error::{Error, NodeFailure},
        hardware::Hardware,
        limits::Amount,
        node::{Chosen, Node, Verified},
        record::Record,
        relay::Begun,
    },
    ids::RequestId,
    openai::nodes::ConfidentialRequest,
    seal::{Kem, REQUEST_MEDIA_TYPE, named_key},
    sealer::{ExchangeError, NodeBody, OHTTP, is_media_type},
};

/// The media type of a node's refusals in clear.
const PROBLEM: &[u8] = b"application/problem+json";

impl Shared {
    /// Carries a request. Whoever drops the future, or the reply's body, ends all work for it.
    pub(super) async fn carry(
        &self,
        id: RequestId,
        route: &Route<'_>,
        parts: &Parts,
        mut body: Incoming,
    ) -> Response<ReplyBody> {
        let mut record = Record::new(id, route.path(), &self.metrics);
        let carrying = self.try_carry(route, parts, &mut body, &mut record);
        match carrying.await {
            Ok(begun) => self.relay(begun, record),
            Err(error) => {
                record.refused(&error);
                let rates = record.rates();
                drop(record);
                if error.lets_the_body_come() {
                    body::discard(&parts.headers, body).await;
                }
                rates.on(error.into_response())
            }
        }
    }

    async fn try_carry(
        &self,
        route: &Route<'_>,
        parts: &Parts,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Begun, Error> {
        if self.phase.is_draining() {
            return Err(Error::Draining);
        }
        let caller = self.callers.authenticate(&parts.headers).await?;
        record.asked_by(&caller);
        let permit = self.admission.admit(&caller)?;
        if let Some(metered) = &caller.metered {
            if metered.counts_tokens() {
                return Err(Error::NotCounted);
            }
            record.hold(metered, self.clock, Amount::default())?;
        }
        match *route {
            Route::Confidential(path) => {
                self.confidential(path, &caller, permit, (parts, body), record)
                    .await
            }
            Route::Sealed(node) => {
                self.blind(node, &caller, permit, (parts, body), record)
                    .await
            }
            _ => Err(Error::NotFound),
        }
    }

    /// What is sealed in the seed's format, to the node of the caller's lock.
    async fn confidential(
        &self,
        path: &'static str,
        caller: &Caller,
        permit: Permit,
        (parts, body): (&Parts, &mut Incoming),
        record: &mut Record,
    ) -> Result<Begun, Error> {
        let max = self.limits.body_bytes;
        body::check_head(&parts.headers, body, max)?;
        let reading = body::read(body, max, self.timeouts.body, &self.admission);
        // The room for the body is given back when the answer has begun.
        let (content, _room) = reading.await?;
        record.bytes_in = content.len();
        let outside = ConfidentialRequest::parse(&content)?;
        record.stream = outside.stream;
        if !caller.may_use(&outside.model) {
            return Err(Error::ModelNotAllowed);
        }
        if caller.wish.requires_pq() {
            return Err(Error::DialectNotPostQuantum);
        }
        let id = outside.stack_small_id;
        let lock = self
            .locks
            .take(id, caller, &outside.model, &outside.node_key)?;
        record.model = Some(Arc::clone(&lock.model));
        if let Ok(served) = self.nodes.snapshot().model(&lock.model) {
            record.asks(served);
        }
        let verified = self.verified(&lock.node.node).await?;
        check_key(&verified, &lock.key, self.clock.now())?;
        // With that, what is sealed can be opened where the statement is of, and that is where this says.
        if !caller.wish.hardware().is_of(&verified.node) {
            return Err(Error::HardwareNotAllowed);
        }
        record.suite = Some(Dialect::Seed.suite().as_str());
        let request = confidential(path, &lock.node.node, record.id, outside.stream, content);
        self.begin(request, lock.node, verified, permit, record)
            .await
    }

    /// What is sealed to a node's key configurations.
    async fn blind(
        &self,
        id: &str,
        caller: &Caller,
        permit: Permit,
        (parts, body): (&Parts, &mut Incoming),
        record: &mut Record,
    ) -> Result<Begun, Error> {
        let max = self.limits.body_bytes;
        body::check_sealed_head(&parts.headers, body, max)?;
        self.nodes.settled(self.timeouts.attest).await;
        let node = self.place_with(id, caller)?;
        let reading = body::read(body, max, self.timeouts.body, &self.admission);
        let (content, _room) = reading.await?;
        record.bytes_in = content.len();
        let verified = self.verified(&node.node).await?;
        // Which model is asked stands under the seal.
        if !caller.may_use_all(verified.node.models()) {
            return Err(Error::RelayNotAllowed);
        }
        // A node opens nothing with a key of another KEM than the request names.
        let named = named_key(&content);
        let kem = named.map(|(_, kem)| kem);
        let requires_pq = caller.wish.requires_pq() || verified.node.requires_pq();
        if requires_pq && kem != Some(Kem::XWing) {
            return Err(Error::SealNotPostQuantum);
        }
        let is_known = named.is_some_and(|named| has_key(&verified, named));
        // A key that is not in the statement may be of another machine than the evidence.
        let hardware = caller.wish.hardware();
        if hardware != Hardware::ANY && !(is_known && hardware.is_of(&verified.node)) {
            return Err(Error::HardwareNotAllowed);
        }
        let request = post(OHTTP, REQUEST_MEDIA_TYPE).body(Full::new(content));
        let (known, digest) = (Arc::clone(&node.node), verified.node.statement_digest());
        let begun = self.begin(request, node, verified, permit, record).await?;
        if begun.response.status().is_success() {
            record.suite = kem.map(Kem::as_str);
        } else if is_known && is_refused(&begun.response) && known.takes_hint() {
            // Who asks for the keys after this refusal gets those that the node has now.
            let _ = known.reattest(&digest, self.timeouts.attest).await;
        }
        Ok(begun)
    }

    /// The node of an id, if the caller's requests may go to it.
    pub(super) fn node_within(&self, id: &str, caller: &Caller) -> Result<Arc<Node>, Error> {
        let node = self.node_of(id)?;
        let is_within = caller.wish.takes(node.labels);
        is_within.then_some(node).ok_or(Error::NodeNotFound)
    }

    fn place_with(&self, id: &str, caller: &Caller) -> Result<Chosen, Error> {
        Chosen::new(&self.node_within(id, caller)?).ok_or(Error::NoNodeAvailable)
    }

    async fn begin(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
        mut node: Chosen,
        verified: Arc<Verified>,
        permit: Permit,
        record: &mut Record,
    ) -> Result<Begun, Error> {
        record.node = Some(Arc::clone(&verified.id));
        record.tries = 1;
        let request = request.map_err(|error| NodeFailure::from(ExchangeError::from(error)))?;
        record.let_in(self)?;
        let sent = self.send_once(&node.node, &verified, request).await;
        if sent.as_ref().is_ok_and(|it| it.status().is_success()) {
            node.began();
        }
        let response = sent.inspect_err(|failure| record.try_failed(&node.node, failure))?;
        record.answered_by(&node.node);
        Ok(Begun {
            response,
            verified,
            held: Held {
                permit,
                node,
                _retries: Vec::new(),
            },
        })
    }
}

/// Whether a node does not open what it was sent, as after a restart, when it has other keys than its
/// statement here says. It is only a hint, which anybody who may ask can cause.
fn is_refused(response: &Response<NodeBody>) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE);
    response.status() == StatusCode::BAD_REQUEST
        && media_type.is_some_and(|it| is_media_type(it.as_bytes(), PROBLEM))
}

/// Whether a verified statement has the key that a request names: one that it has not is the caller's
/// own old one.
fn has_key(verified: &Verified, (key_id, kem): (u8, Kem)) -> bool {
    let mut keys = verified.node.statement().keys().iter();
    keys.any(|key| key.key_id == key_id && key.suite.as_str() == kem.as_str())
}

/// Whether the key of a lock is still the node's: that it was, when the lock was given, may have been
/// before it restarted, or before another policy.
fn check_key(verified: &Verified, key: &[u8; 32], now: SystemTime) -> Result<(), Error> {
    if let Err(Ineligible::Forbidden(_)) = verified.node.dialect_key(Dialect::Seed, now) {
        return Err(Error::DialectForbidden);
    }
    let mut keys = verified.node.statement().keys().iter();
    let suite = Dialect::Seed.suite();
    keys.any(|claimed| claimed.suite == suite && claimed.public_key.x25519() == Some(key))
        .then_some(())
        .ok_or(Error::LockNotFound)
}

fn confidential(
    path: &'static str,
    node: &Node,
    id: RequestId,
    stream: bool,
    content: Bytes,
) -> http::Result<Request<Full<Bytes>>> {
    let accept = if stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let mut request = post(path, "application/json")
        .header(ACCEPT, accept)
        .header("sealgate-request-id", id.to_string());
    if let Some(credential) = &node.credential {
        request = request.header(AUTHORIZATION, credential.to_header()?);
    }
    request.body(Full::new(content))
}

fn post(path: &'static str, media_type: &'static str) -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(CONTENT_TYPE, media_type)
        .header(CACHE_CONTROL, "no-store")
        .header(HeaderName::from_static("incremental"), "?1")
}
