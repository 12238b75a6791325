//! What is sealed between a caller and a node, carried: the request's bytes once to the node over
//! its verified channel, and the reply as it comes.
//!
//! Nothing here can open what it carries, so a reply is neither checked nor mended, and a request is
//! never sent twice. What can be seen is kept: a reply that breaks off, or whose node is no longer
//! verified, ends with an aborted connection and never looks whole.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING},
};
use http_body_util::Full;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Shared,
    ask::{Held, take_note},
    body::{Aborted, ReplyBody},
    error::{Error, NodeFailure},
    health::Shown,
    node::{Node, Verified},
    record::Record,
    trust::Trust,
};
use crate::sealer::{ExchangeError, NodeBody};

/// A node's reply that has begun, and what it rests on.
#[must_use]
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) response: Response<NodeBody>,
    pub(super) verified: Arc<Verified>,
    pub(super) held: Held,
}

/// The rest of a node's reply.
#[derive(Debug)]
pub(super) struct Relayed {
    /// `None` once it has ended, well or not.
    from: Option<NodeBody>,
    /// Bytes that are still to come, where the node says how many.
    left: Option<u64>,
    idle: Duration,
    silent: Pin<Box<Sleep>>,
    trust: Trust,
    trust_ended: Pin<Box<WaitForCancellationFutureOwned>>,
    record: Record,
    /// Given back as soon as the reply has ended.
    held: Option<Held>,
}

impl Shared {
    /// What the node was verified as, under the rules in force.
    ///
    /// # Errors
    /// [`NodeFailure::NotVerified`].
    pub(super) async fn verified(&self, node: &Node) -> Result<Arc<Verified>, NodeFailure> {
        let verified = node.verified_under(&self.rules, self.timeouts.attest).await;
        verified
            .filter(|it| !self.halted.is_cancelled() && !it.has_ended(self.clock.now()))
            .ok_or(NodeFailure::NotVerified)
    }

    /// Sends a request to a node, once, and waits for the head of the reply.
    ///
    /// # Errors
    /// [`NodeFailure`] where there is none that may be given on.
    pub(super) async fn send_once(
        &self,
        node: &Node,
        verified: &Verified,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<NodeBody>, NodeFailure> {
        let is_work = request.method() == Method::POST;
        let sending = timeout(self.timeouts.first_byte, verified.channel.send(request));
        let sent = tokio::select! {
            biased;
            () = verified.trust.ended() => Err(verified.trust.failure()),
            sent = sending => match sent {
                Ok(sent) => sent.map_err(|error| ExchangeError::from(error).into()),
                Err(_) => Err(ExchangeError::FirstByteTimeout.into()),
            },
        };
        let checked = sent.and_then(|response| checked(node, response));
        // A key or evidence shows nothing of whether it works.
        let works = checked.as_ref().is_ok_and(|it| it.status().is_success());
        if works && is_work {
            node.note(Shown::Success);
        }
        checked.inspect_err(|failure| take_note(node, None, failure))
    }

    /// Gives a node's reply on.
    pub(super) fn relay(&self, begun: Begun, mut record: Record) -> Response<ReplyBody> {
        let Begun {
            response,
            verified,
            held,
        } = begun;
        let (head, body) = response.into_parts();
        record.replied(head.status);
        let rates = record.rates();
        let relayed = Relayed::new(body, self.timeouts.idle, &verified.trust, record, held);
        let mut response = Response::new(ReplyBody::Relay(Box::new(relayed)));
        *response.status_mut() = head.status;
        let headers = response.headers_mut();
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = head.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let buffering = HeaderName::from_static("x-accel-buffering");
        headers.insert(buffering, HeaderValue::from_static("no"));
        verified.say(headers, self.clock.now());
        rates.on(response)
    }
}

/// A reply that may be given on: its end can be told from a break, and it is meant for the caller.
fn checked(node: &Node, response: Response<NodeBody>) -> Result<Response<NodeBody>, NodeFailure> {
    let status = response.status();
    let is_chunked =
        response.version() == Version::HTTP_2 || response.headers().contains_key(TRANSFER_ENCODING);
    if response.body().left().is_none() && !is_chunked {
        return Err(ExchangeError::Unexpected("a reply that shows no end").into());
    }
    if status.is_informational() || status.is_redirection() {
        return Err(ExchangeError::Unexpected("a status that is no answer").into());
    }
    // It is the gateway's own credential that the node refuses, not the caller's.
    let refuses_gateway = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    );
    let is_full = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if refuses_gateway || is_full {
        let retry_after = response.headers().get(RETRY_AFTER);
        let refusal = NodeFailure::from(ExchangeError::Outside {
            status,
            retry_after_s: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
            not_executed: true,
        });
        if refuses_gateway {
            return Err(refusal);
        }
        take_note(node, None, &refusal);
    }
    Ok(response)
}

impl Relayed {
    fn new(from: NodeBody, idle: Duration, trust: &Trust, record: Record, held: Held) -> Self {
        let mut relayed = Self {
            left: from.left(),
            from: Some(from),
            idle,
            silent: Box::pin(sleep_until(Instant::now() + idle)),
            trust_ended: Box::pin(trust.ended()),
            trust: trust.clone(),
            record,
            held: Some(held),
        };
        if relayed.left == Some(0) {
            relayed.complete();
        }
        relayed
    }

    /// Bytes that are still to come, where the node says how many.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    pub(super) fn is_ended(&self) -> bool {
        self.from.is_none()
    }

    /// The next bytes for the caller; an error means that the connection must be aborted.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Some(from) = &mut self.from else {
            return Poll::Ready(None);
        };
        // Asked each time, and first: what comes of a node that is no longer verified is not given on.
        if self.trust_ended.as_mut().poll(cx).is_ready() {
            return self.fail(self.trust.failure());
        }
        match from.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                self.take_in(&data, cx);
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(ExchangeError::Broken(error).into()),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                std::task::ready!(self.silent.as_mut().poll(cx));
                self.fail(ExchangeError::IdleTimeout.into())
            }
        }
    }

    fn take_in(&mut self, data: &Bytes, cx: &mut Context<'_>) {
        self.record.bytes_out = self.record.bytes_out.saturating_add(data.len());
        self.silent.as_mut().reset(Instant::now() + self.idle);
        let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.left = self.left.map(|left| left.saturating_sub(len));
        if self.left == Some(0) {
            // Nobody may ask for more; the connection goes back where the end is read.
            let _ = self.from.as_mut().map(|from| from.poll_data(cx));
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.record.complete();
        self.from = None;
        self.held = None;
    }

    fn fail(&mut self, failure: NodeFailure) -> Poll<Option<Result<Bytes, Aborted>>> {
        self.record.failed(&Error::from(failure));
        self.from = None;
        self.held = None;
        Poll::Ready(Some(Err(Aborted)))
    }
}
