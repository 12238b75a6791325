//! What the node answers, by method and path.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;

use super::{
    State,
    answer::{self, Question},
    dialects::{self, EHBP_KEYS},
    problem::{Outside, Refusal},
    receipts::Draft,
    record::Record,
    reply::{Exchange, Place, ReplyBody},
    request::{self, Form},
    seal::Seal,
    take::{self, Received},
};
use crate::{
    attester::{self, answer::ATTESTATION, paced::Pacing},
    listener::Peer,
    seal::{KEYS_MEDIA_TYPE, Padding},
};

const OHTTP: &str = "/.well-known/ohttp-gateway";
const JSON: &str = "application/json";

/// Answers one request.
pub(super) async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Response<ReplyBody> {
    if let Some((dialect, endpoint)) = dialects::at(&state.config, request.uri().path()) {
        return if request.method() == Method::POST {
            Box::pin(dialects::answer(state, dialect, endpoint, request)).await
        } else {
            Outside::Method("POST").response()
        };
    }
    match (request.uri().path(), request.method()) {
        // On the heap: a connection that waits for its next request holds no room for it.
        (OHTTP, &Method::POST) => Box::pin(exchange(state, request)).await,
        (OHTTP, &Method::GET) => found(
            KEYS_MEDIA_TYPE,
            state.identity.key_configs(state.clock.unix_now()),
        ),
        (ATTESTATION, &Method::GET) => {
            let attested = attest(state, request.uri().query()).await;
            state
                .metrics
                .attested(attested.as_ref().map_or_else(|e| e.code(), |_| "answered"));
            attested.map_or_else(Outside::response, |answer| found(JSON, answer))
        }
        (EHBP_KEYS, method) => match dialects::key_config(state) {
            Some(config) if method == Method::GET => found(KEYS_MEDIA_TYPE, config),
            Some(_) => Outside::Method("GET").response(),
            None => Outside::NotFound.response(),
        },
        ("/health", &Method::GET | &Method::HEAD) => found(JSON, r#"{"status":"ok"}"#),
        ("/readyz", &Method::GET | &Method::HEAD) => readiness(state),
        (OHTTP, _) => Outside::Method("GET, POST").response(),
        (ATTESTATION, _) => Outside::Method("GET").response(),
        ("/health" | "/readyz", _) => Outside::Method("GET, HEAD").response(),
        _ => Outside::NotFound.response(),
    }
}

fn found(media_type: &'static str, body: impl Into<bytes::Bytes>) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn readiness(state: &State) -> Response<ReplyBody> {
    let Some(why) = unready(state) else {
        return found(JSON, r#"{"status":"ready"}"#);
    };
    let mut response = found(JSON, format!(r#"{{"status":"{why}"}}"#));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Why the node is not ready, if it is not.
pub(super) fn unready(state: &State) -> Option<&'static str> {
    if state.draining.is_cancelled() {
        Some("draining")
    } else if !state.models.any() {
        Some("waiting for an engine")
    } else if state.models.engines().iter().all(|it| it.health.is_dead()) {
        Some("no engine answers")
    } else {
        None
    }
}

/// Evidence for the caller's nonce. A node that serves nothing yet, or no more, gives none: what
/// it says now would be believed for longer than it is true.
async fn attest(state: &State, query: Option<&str>) -> Result<Vec<u8>, Outside> {
    let nonce = attester::answer::nonce(query)?;
    if state.draining.is_cancelled() || !state.models.any() {
        return Err(Outside::Unavailable);
    }
    let place = state.evidence.place()?;
    let statement = state.identity.current();
    state.evidence.answer(place, statement, nonce).await
}

/// One sealed request and its answer.
async fn exchange(state: &Arc<State>, request: Request<Incoming>) -> Response<ReplyBody> {
    let mut record = Record::begin(&state.metrics);
    let (head, mut body) = request.into_parts();
    let (received, place) = match take_in(state, &head, &mut body, &mut record).await {
        Ok(taken) => taken,
        Err(outside) => {
            record.refused(outside);
            if outside.lets_the_body_come() {
                request::discard(body).await;
            }
            return outside.response();
        }
    };
    let padding = received.padding();
    let pacing = (padding == Padding::Paced).then_some(state.pacing);
    let peer = head.extensions.get::<Peer>().copied();
    opened(state, (received, pacing), (record, place), peer).await
}

/// Answers a request that opened.
async fn opened(
    state: &Arc<State>,
    (received, pacing): (Received, Option<Pacing>),
    (record, place): (Record, Place),
    peer: Option<Peer>,
) -> Response<ReplyBody> {
    let padding = received.padding();
    let Received {
        request,
        sealer,
        room: buffered,
    } = received;
    let mut exchange = Exchange {
        seal: Seal::Ohttp {
            sealer,
            padding,
            pacing,
            receipt: None,
        },
        record,
        place,
    };
    let Ok(request) = request else {
        let refusal = Refusal::Malformed("what was sealed is no well-formed request");
        return exchange.refuse(refusal, &state.clock).await;
    };
    let accepted = Form::of(&request).and_then(|form| {
        exchange.record.id = Some(form.id);
        take::accept(state, &request, &form, peer).map(|endpoint| (form, endpoint))
    });
    let (form, endpoint) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => return exchange.refuse(refusal, &state.clock).await,
    };
    exchange.record.path = Some(endpoint.path());
    let model = request.fields.get("sealgate-model").map(ToOwned::to_owned);
    let receipt = Draft::of(state, &request, &form, endpoint);
    let question = Question {
        id: form.id,
        endpoint,
        content: request.content,
        model,
        caller: form.caller,
        outer: None,
        receipt,
        buffered,
    };
    answer::answer(state, exchange, question).await
}

/// Takes a request in: head, place, body.
async fn take_in(
    state: &State,
    head: &Parts,
    body: &mut Incoming,
    record: &mut Record,
) -> Result<(Received, Place), Outside> {
    request::check_head(&head.headers, take::max_body(&state.config))?;
    if state.draining.is_cancelled() {
        return Err(Outside::Unavailable);
    }
    let place = Arc::clone(&state.requests).try_acquire_owned();
    let place = place.map_err(|_| Outside::TooMany)?;
    let received = take::receive(state, body, record).await?;
    Ok((received, place))
}
