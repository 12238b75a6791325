//! Requests that are sealed to the gateway itself (docs/wire.md, "A gateway that is sealed to").
//!
//! One is opened and let in as at a node, in the same order; the credential in it is the caller's API
//! key. From then on it is asked as a plain one is, and what a plain caller would get is sealed.
//! Nothing that was sealed is answered in clear.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use hyper::body::Incoming;
use tokio::spawn;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Shared,
    admit::{BodyRoom, Permit, Unknown},
    authenticate::Callers,
    body::ReplyBody,
    error::Error,
    infer::Asker,
    labels::{REGION, TAGS},
    own::Own,
    padding::PADDING,
    record::Record,
    routes::Route,
    sealed_reply::Seal,
};
use crate::{
    attester::{
        answer::ATTESTATION,
        problem::{Outside, Refusal},
        replay::Source,
        request::{self, Coming, Form, Patience, Received},
    },
    ids::RequestId,
    listener::Peer,
    openai::{Code, Endpoint, Request},
    seal::{Fields, FormError, KEYS_MEDIA_TYPE, OpenedRequest, ReceiptScope, RequestLimits},
    sealer::OHTTP,
};

/// What of a sealed request's fields counts as a plain one's headers do.
const TAKEN: [HeaderName; 4] = [AUTHORIZATION, REGION, TAGS, PADDING];

/// A request that was let in.
struct LetIn {
    endpoint: Endpoint,
    /// What in it would stand in a plain request's head.
    headers: HeaderMap,
    /// The policy that its sender agreed to.
    policy: Arc<str>,
}

/// One whose body is a request, and that nodes are asked for.
struct Going {
    asker: Asker,
    permit: Permit,
    request: Request,
}

impl Shared {
    /// Answers what is asked of the gateway itself, and not of a node.
    pub(super) async fn of_own(
        self: &Arc<Self>,
        route: &Route<'_>,
        parts: &Parts,
        body: Incoming,
    ) -> Response<ReplyBody> {
        match (&self.own, route) {
            (Some(own), Route::Attestation) => self.give_evidence(own, parts).await,
            (Some(own), Route::Ohttp) => self.ohttp(own, parts, body).await,
            _ => Error::NotFound.into_response(),
        }
    }

    /// Gives the gateway's own evidence.
    async fn give_evidence(&self, own: &Own, parts: &Parts) -> Response<ReplyBody> {
        match self.attest(own, parts.uri.query()).await {
            Ok(answer) => {
                let response = found("application/json", answer.into());
                self.metrics.answered(ATTESTATION, response.status(), None);
                response
            }
            Err(outside) => self.refuse_outside(ATTESTATION, outside),
        }
    }

    /// Gives the keys, or answers one sealed request. Whoever drops the future, or the reply's body,
    /// ends all work for it.
    async fn ohttp(
        self: &Arc<Self>,
        own: &Own,
        parts: &Parts,
        mut body: Incoming,
    ) -> Response<ReplyBody> {
        if parts.method != Method::POST {
            let keys = own.identity.key_configs(own.clock.unix_now());
            let response = found(KEYS_MEDIA_TYPE, keys.into());
            self.metrics.answered(OHTTP, response.status(), None);
            return response;
        }
        match self.receive(own, parts, &mut body).await {
            Ok(received) => self.open_and_answer(own, parts, received).await,
            Err(outside) => {
                if outside.lets_the_body_come() {
                    request::discard(body).await;
                }
                self.refuse_outside(OHTTP, outside)
            }
        }
    }

    fn refuse_outside(&self, path: &'static str, outside: Outside) -> Response<ReplyBody> {
        let code = code_of(outside);
        tracing::info!(path, refusal = outside.code(), "refused outside the seal");
        self.metrics.answered(path, outside.status(), Some(code));
        outside.response()
    }

    /// Takes a request in: head, place, body.
    async fn receive(
        &self,
        own: &Own,
        parts: &Parts,
        body: &mut Incoming,
    ) -> Result<Received<Unknown>, Outside> {
        let max = self.limits.body_bytes;
        let most = request::max_body(u64::try_from(max).unwrap_or(u64::MAX));
        request::check_head(&parts.headers, most)?;
        if self.phase.is_draining() {
            return Err(Outside::Unavailable);
        }
        let one_body = usize::try_from(most).unwrap_or(usize::MAX);
        let unknown = self
            .admission
            .admit_unknown(address(parts).into(), one_body);
        let unknown = unknown.map_err(|_| Outside::TooMany)?;
        let patience = Patience {
            within: self.timeouts.body.within,
            idle: self.timeouts.body.within,
            rate: self.timeouts.body.rate,
        };
        let limits = RequestLimits { content_bytes: max };
        let coming = Coming::new(body, patience);
        request::receive(&own.identity, limits, coming, unknown, |_| {}).await
    }

    async fn open_and_answer(
        self: &Arc<Self>,
        own: &Own,
        parts: &Parts,
        received: Received<Unknown>,
    ) -> Response<ReplyBody> {
        let padding = received.padding();
        let Received {
            request,
            sealer,
            room,
        } = received;
        let seal = Seal::new(sealer, padding, own.pacing);
        let accepted = self.accepted(own, request, address(parts)).await;
        let room = room.known();
        let (id, let_in, content) = match accepted {
            Ok(accepted) => accepted,
            Err(refusal) => {
                drop(room);
                return self.refuse_inside(own, seal, refusal).await;
            }
        };
        let mut record = Record::new(id, let_in.endpoint.path(), &self.metrics);
        record.came_sealed();
        let begun = self.begin_sealed(&let_in, content, &mut record).await;
        self.answer_sealed(seal, begun, record, room).await
    }

    /// Judges a request that was opened.
    ///
    /// # Errors
    /// The [`Refusal`] that its sender gets.
    async fn accepted(
        &self,
        own: &Own,
        request: Result<OpenedRequest, FormError>,
        address: IpAddr,
    ) -> Result<(RequestId, LetIn, Bytes), Refusal> {
        let malformed = Refusal::Malformed("what was sealed is no well-formed request");
        let request = request.map_err(|_| malformed)?;
        let form = form_of(&request)?;
        let let_in = self.let_in(own, &request, &form, address).await?;
        Ok((form.id, let_in, request.content))
    }

    async fn answer_sealed(
        self: &Arc<Self>,
        seal: Seal,
        begun: Result<Going, Error>,
        record: Record,
        room: BodyRoom,
    ) -> Response<ReplyBody> {
        let id = record.id;
        let response = match begun {
            Ok(going) if going.request.stream() && seal.is_paced() => {
                // The reply begins now, and the work for it is done behind its ticks.
                let here = Arc::clone(self);
                let work = spawn(async move { here.go(going, record, room).await });
                let work = AbortOnDropHandle::new(work);
                let begun = seal.paced(work, id, self.cut.clone());
                return begun.unwrap_or_else(cannot_seal);
            }
            // On the heap: the other branch has no need of its room.
            Ok(going) => Box::pin(self.go(going, record, room)).await,
            Err(error) => {
                drop(room);
                refused(record, error)
            }
        };
        let sealed = seal.response(response, id).await;
        sealed.unwrap_or_else(cannot_seal)
    }

    /// Lets a well-formed request in, or refuses it. Once claimed, it stays claimed.
    ///
    /// # Errors
    /// The first [`Refusal`] in the order of docs/wire.md: credential, date, replay, statement, path,
    /// load.
    async fn let_in(
        &self,
        own: &Own,
        request: &OpenedRequest,
        form: &Form,
        address: IpAddr,
    ) -> Result<LetIn, Refusal> {
        let headers = headers(&request.fields);
        let caller = self.callers.authenticate(&headers).await;
        let caller = caller.map_err(|error| match error {
            // Nobody knows whether it is one: it may come again.
            Error::StoreUnavailable => Refusal::Overloaded { retry_after_s: 1 },
            _ => Refusal::Credential,
        })?;
        let source = match *self.callers {
            Callers::Keys(_) | Callers::Stored(_) => Source::Caller(Arc::clone(&caller.name)),
            Callers::Anybody(_) => address.into(),
        };
        let rules = own.let_in(self, request.enc_digest, form, source)?;
        let endpoint = Endpoint::of(&request.path).ok_or(Refusal::Path)?;
        if self.phase.is_draining() {
            return Err(Refusal::Draining);
        }
        Ok(LetIn {
            endpoint,
            headers,
            policy: rules.policy_digest.as_str().into(),
        })
    }

    /// Takes in what asks as a plain request does whose body has come.
    ///
    /// # Errors
    /// As for that.
    async fn begin_sealed(
        &self,
        let_in: &LetIn,
        content: Bytes,
        record: &mut Record,
    ) -> Result<Going, Error> {
        let mut asker = self.asker(&let_in.headers, record).await?;
        asker.policy = Some(Arc::clone(&let_in.policy));
        let permit = self.admission.admit(&asker.caller)?;
        let request = asker.request(let_in.endpoint, content, record)?;
        Ok(Going {
            asker,
            permit,
            request,
        })
    }

    /// Asks nodes, and gives what a plain caller would get.
    async fn go(&self, going: Going, mut record: Record, room: BodyRoom) -> Response<ReplyBody> {
        let Going {
            asker,
            permit,
            request,
        } = going;
        let asked = self.asked(&asker, &request, &mut record).await;
        // The room for the body is given back when the answer has begun.
        drop((request, room));
        match asked {
            Ok((answer, levels)) => self.reply(answer, permit, levels, record),
            Err(error) => refused(record, error),
        }
    }

    async fn refuse_inside(&self, own: &Own, seal: Seal, refusal: Refusal) -> Response<ReplyBody> {
        tracing::info!(
            path = OHTTP,
            refusal = refusal.code(),
            "refused under the seal"
        );
        let status = refusal.status().try_into().unwrap_or_default();
        let code = match refusal {
            Refusal::Credential => Code::InvalidApiKey,
            Refusal::Path => Code::NotFound,
            Refusal::Overloaded { .. } => Code::Overloaded,
            Refusal::Draining => Code::Draining,
            _ => Code::InvalidRequest,
        };
        self.metrics.answered(OHTTP, status, Some(code));
        let sealed = seal.refusal(refusal, &own.clock).await;
        sealed.unwrap_or_else(cannot_seal)
    }
}

fn refused(mut record: Record, error: Error) -> Response<ReplyBody> {
    record.refused(&error);
    let rates = record.rates();
    drop(record);
    rates.on(error.into_response())
}

/// # Errors
/// [`Refusal::Malformed`] names the field.
fn form_of(request: &OpenedRequest) -> Result<Form, Refusal> {
    let form = Form::of(request)?;
    // A node's receipt is of what this gateway sealed to it.
    if form.receipt != ReceiptScope::None {
        return Err(Refusal::Malformed(
            "this gateway signs no receipts: ask for none",
        ));
    }
    Ok(form)
}

/// Where a request comes from; all whose address is not known come from one.
fn address(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>();
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(address)| address.ip())
}

fn headers(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter() {
        let taken = TAKEN.into_iter().find(|taken| taken.as_str() == name);
        if let (Some(name), Ok(value)) = (taken, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn found(media_type: &'static str, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn cannot_seal(error: crate::seal::SealError) -> Response<ReplyBody> {
    tracing::error!(%error, "seal");
    Outside::Internal.response()
}

/// What metrics call it.
fn code_of(outside: Outside) -> Code {
    match outside {
        Outside::OhttpKey
        | Outside::Malformed
        | Outside::Nonce
        | Outside::Expectation
        | Outside::Method(_) => Code::InvalidRequest,
        Outside::Timeout => Code::RequestTimeout,
        Outside::TooLarge => Code::RequestTooLarge,
        Outside::MediaType => Code::UnsupportedMediaType,
        Outside::NotFound => Code::NotFound,
        Outside::TooMany => Code::Overloaded,
        Outside::Unavailable => Code::Draining,
        Outside::Internal => Code::Internal,
    }
}
