//! Inference: one request's path, whatever kind it is of.

use std::sync::Arc;

use attestation::Padding;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    Shared,
    admit::Permit,
    ask::{Answer, Held, take_note},
    authenticate::Caller,
    body::{self, ReplyBody},
    error::{Error, NodeFailure},
    exchange::Job,
    health::Shown,
    labels::Wish,
    limits,
    nodes::Served,
    padding,
    receipts::Terms,
    record::Record,
    stream::EventStream,
    whole::WholeReply,
};
use crate::{
    config::prices::Price,
    ids::RequestId,
    openai::{Endpoint, Request, sse::Obfuscation},
    sealer::{ExchangeError, Reply},
};

/// What OpenAI's SDKs obey before their own rule by status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Says that a receipt of the reply will be kept, if it is good.
const RECEIPT: HeaderName = HeaderName::from_static("sealgate-receipt");

/// Who asks, and what for.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) caller: Arc<Caller>,
    /// What nodes know the caller by.
    pseudonym: String,
    wish: Wish,
    /// How lengths are hidden, if the caller or his key says so.
    padding: Option<Padding>,
    /// The digest in hex of the policy that alone will do, if one was agreed on.
    pub(super) policy: Option<Arc<str>>,
}

impl Asker {
    /// The request in a body that has come.
    ///
    /// # Errors
    /// What is wrong with it, or that he may not use its model.
    pub(super) fn request(
        &self,
        endpoint: Endpoint,
        content: Bytes,
        record: &mut Record,
    ) -> Result<Request, Error> {
        record.bytes_in = content.len();
        let request = Request::parse(endpoint, content)?;
        record.stream = request.stream();
        if !self.caller.may_use(request.model()) {
            return Err(Error::ModelNotAllowed);
        }
        Ok(request)
    }
}

impl Shared {
    /// Answers one request. Whoever drops the future, or the reply's body, ends all work for it.
    pub(super) async fn infer(
        &self,
        id: RequestId,
        endpoint: Endpoint,
        parts: &Parts,
        mut body: Incoming,
    ) -> Response<ReplyBody> {
        let mut record = Record::new(id, endpoint.path(), &self.metrics);
        match self
            .try_infer(endpoint, parts, &mut body, &mut record)
            .await
        {
            Ok((answer, permit, obfuscation)) => self.reply(answer, permit, obfuscation, record),
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

    async fn try_infer(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<(Answer, Permit, Option<Obfuscation>), Error> {
        if self.phase.is_draining() {
            return Err(Error::Draining);
        }
        let asker = self.asker(&parts.headers, record).await?;
        let permit = self.admission.admit(&asker.caller)?;
        let max = self.limits.body_bytes;
        body::check_head(&parts.headers, body, max)?;
        let reading = body::read(body, max, self.timeouts.body, &self.admission);
        // The room for the body is given back when the answer has begun.
        let (content, _room) = reading.await?;
        let request = asker.request(endpoint, content, record)?;
        let (answer, obfuscation) = self.asked(&asker, &request, record).await?;
        Ok((answer, permit, obfuscation))
    }

    /// Who asks, by these headers, and for which nodes.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or what is wrong with the wish.
    pub(super) async fn asker(
        &self,
        headers: &HeaderMap,
        record: &mut Record,
    ) -> Result<Asker, Error> {
        let caller = self.callers.authenticate(headers).await?;
        record.asked_by(&caller);
        Ok(Asker {
            pseudonym: self.callers.pseudonym(&caller, headers),
            wish: caller.wish.and(self.labels.wished(headers)?),
            padding: padding::asked(headers)?.or(caller.padding),
            caller,
            policy: None,
        })
    }

    /// Answers a request; also says how its events are levelled, if they are.
    ///
    /// # Errors
    /// That no node answers it.
    pub(super) async fn asked(
        &self,
        asker: &Asker,
        request: &Request,
        record: &mut Record,
    ) -> Result<(Answer, Option<Obfuscation>), Error> {
        let served = self
            .nodes
            .serving(request.model(), self.timeouts.attest)
            .await?;
        record.asks(&served);
        let price = self.price_of(&served);
        record.wants(request.asked(), request.body().len(), price);
        if let Some(metered) = &asker.caller.metered {
            if metered.counts_money() && price.is_none() {
                return Err(Error::NoPrice);
            }
            let (asked, body) = (request.asked(), request.body().len());
            let assumed = self.limits.assumed_completion_tokens;
            let most = limits::at_most(asked, body, assumed, price.as_ref());
            record.hold(metered, self.clock, most)?;
        }
        let terms = Terms::of(&asker.caller, self.receipt_terms);
        let slot = terms.reserve(&self.receipts)?;
        record.let_in(self)?;
        let job = Job {
            id: record.id,
            endpoint: request.asked().endpoint,
            stream: request.stream(),
            caller: &asker.pseudonym,
            content: request.body(),
            requires_pq: asker.wish.requires_pq(),
            hardware: asker.wish.hardware(),
            padding: asker.padding.unwrap_or(self.padding),
            policy: asker.policy.as_deref(),
            receipt: terms.scope(),
        };
        let asking = self.ask(&job, &served, asker.wish, record);
        let mut answer = tokio::select! {
            biased;
            answer = timeout(self.timeouts.total_first_byte, asking) => {
                answer.map_err(|_| NodeFailure::from(ExchangeError::FirstByteTimeout))??
            }
            () = self.cut.cancelled() => return Err(NodeFailure::Cut.into()),
        };
        let terms = (terms, slot);
        self.await_receipt(&mut answer, terms, &job, served.on_nodes(), &asker.caller)
            .inspect_err(|failure| {
                record.try_failed(&answer.node.node, failure);
                take_note(&answer.node.node, None, failure);
            })?;
        // A stream has yet to show how it ends.
        if matches!(answer.reply, Reply::Whole(_)) {
            answer.node.node.note(Shown::Success);
        }
        let (obfuscation, by_default) = self.obfuscation;
        let levels = request.asked().include_obfuscation.unwrap_or(by_default);
        Ok((answer, levels.then_some(obfuscation)))
    }

    /// What a model costs: an alias has its own price, or that of what it stands for.
    fn price_of(&self, served: &Served) -> Option<Price> {
        let mut names = [&served.name, served.on_nodes()].into_iter();
        names.find_map(|name| self.prices.get(&**name).copied())
    }

    /// What a plain caller gets.
    pub(super) fn reply(
        &self,
        answer: Answer,
        permit: Permit,
        obfuscation: Option<Obfuscation>,
        mut record: Record,
    ) -> Response<ReplyBody> {
        let Answer {
            verified,
            node,
            retries,
            reply,
            receipt,
            ..
        } = answer;
        let (is_kept, rates) = (receipt.is_kept(), record.rates());
        let held = Held {
            permit,
            node,
            _retries: retries,
        };
        let mut response = match reply {
            Reply::Whole(whole) => {
                record.replied(whole.status);
                record.came = whole.parts.iter().map(Bytes::len).sum();
                record.seen = limits::tokens_of(record.came);
                record.claimed(whole.usage);
                let body = WholeReply::new(whole.parts, record, held);
                let mut response = Response::new(ReplyBody::Whole(Box::new(body)));
                *response.status_mut() = whole.status;
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                if let Some(seconds) = whole.retry_after_s {
                    headers.insert(RETRY_AFTER, seconds.into());
                }
                // SDKs repeat these by themselves, and the engine may have worked already.
                if matches!(
                    whole.status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT
                ) {
                    headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
                }
                response
            }
            Reply::Stream { unread, .. } => {
                record.replied(StatusCode::OK);
                let trust = verified.trust.clone();
                let as_told = (self.timeouts.stream, obfuscation);
                let body = EventStream::new(unread, as_told, trust, record, held);
                let body = body.with_receipt(receipt.into_awaited());
                let mut response = Response::new(ReplyBody::Stream(Box::new(body)));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                let buffering = HeaderName::from_static("x-accel-buffering");
                headers.insert(buffering, HeaderValue::from_static("no"));
                response
            }
        };
        if is_kept {
            let yes = HeaderValue::from_static("yes");
            response.headers_mut().insert(RECEIPT, yes);
        }
        verified.say(response.headers_mut(), self.clock.now());
        rates.on(response)
    }
}
