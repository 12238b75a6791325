//! From an accepted request to its sealed reply: the engine is asked, its answer levelled.

use std::{future::poll_fn, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    spawn,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    State,
    buffered::Buffered,
    engine::{Engine, EngineError},
    engine_stream::{EngineStream, Part},
    health::{Dead, Try},
    places::EnginePlace,
    problem::{RETRY_AFTER_S, Refusal},
    receipts::Draft,
    reply::{Exchange, ReplyBody},
    said::Outcome,
    salt::Caller,
};
use crate::{
    ids::RequestId,
    openai::{
        Code, Endpoint, Request, RequestError, Usage,
        level::{self, CacheSalt, LevelError, LevelledRequest, ReplyContext, RequestOptions},
    },
};

/// Most bytes of a unary reply of an engine.
const MAX_REPLY: usize = 64 * 1024 * 1024;
/// Most bytes of an engine's error.
const MAX_ERROR: usize = 1024 * 1024;
/// Longest `retry-after` that is given on; clients do not retry at all beyond it.
const MAX_RETRY_AFTER_S: u16 = 120;

const JSON: &str = "application/json";
/// The media type of event streams.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// What the engine is asked.
pub(super) struct Question {
    pub(super) id: RequestId,
    pub(super) endpoint: Endpoint,
    pub(super) content: Bytes,
    /// The node's name of the model, where the caller's is another.
    pub(super) model: Option<String>,
    /// Who asks, where a gateway says so.
    pub(super) caller: Option<Caller>,
    /// What was said of the content outside its seal.
    pub(super) outer: Option<Outer>,
    /// Its receipt, if one is asked for.
    pub(super) receipt: Option<Draft>,
    pub(super) buffered: Buffered,
}

/// What the seed's format says of a request outside the seal. Anybody on the way can write it, so it
/// must be what the content says.
pub(super) struct Outer {
    pub(super) model: String,
    pub(super) stream: bool,
}

/// What the work for a request came to.
pub(super) enum Answer {
    Said(Outcome),
    Stream(Box<Begun>),
}

/// A stream whose engine has said something.
pub(super) struct Begun {
    pub(super) engine: EngineStream,
    pub(super) place: EnginePlace,
    pub(super) first: Part,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Said(Outcome::Refusal(refusal))
    }
}

/// Answers one accepted request.
pub(super) async fn answer(
    state: &Arc<State>,
    mut exchange: Exchange,
    question: Question,
) -> Response<ReplyBody> {
    let Question {
        id,
        endpoint,
        content,
        model,
        caller,
        outer,
        receipt,
        buffered,
    } = question;
    let request = match Request::parse(endpoint, content) {
        Ok(request) => request,
        Err(error) => return exchange.error(400, error.object()).await,
    };
    if outer.is_some_and(|outer| outer.model != request.model() || outer.stream != request.stream())
    {
        let refusal = Refusal::Malformed("model_name and stream are those of the sealed body");
        return exchange.refuse(refusal, &state.clock).await;
    }
    let name = model.as_deref().unwrap_or(request.model());
    let Some(engine) = state.models.engine_of(name) else {
        return exchange.error(404, Code::ModelNotFound.object()).await;
    };
    exchange.record.model = Some(name.to_owned());
    if let Some(draft) = receipt {
        exchange.seal.with_receipt(draft.with_model(name));
    }
    exchange.record.engine = Some(Arc::clone(&engine.counts));
    let salt = |own: Option<&str>| state.salts.salt(caller, own);
    let options = RequestOptions {
        engine_model: model.as_deref(),
        ignores: &engine.ignores,
        cache_salt: engine.is_salted().then_some(CacheSalt(&salt)),
    };
    let levelled = match level::level_request(endpoint, request.body(), &options) {
        Ok(levelled) => levelled,
        Err(error) => return exchange.error(400, error.object()).await,
    };
    drop(request);
    let asking = Asking {
        id,
        endpoint,
        engine,
        levelled,
        buffered,
    };
    if asking.levelled.asked.stream && exchange.is_paced() {
        // The reply begins now, and the work for it is done behind its ticks.
        let here = Arc::clone(state);
        let work = spawn(async move { work(&here, asking).await });
        return exchange.paced(AbortOnDropHandle::new(work), state);
    }
    let answer = work(state, asking).await;
    exchange.answer(answer, state).await
}

/// Lets a request to the engine, maybe after a wait in its queue.
///
/// # Errors
/// [`Refusal`]: nothing was sent to the engine, so that another node may take the request. A node that
/// is told to stop lets nobody wait.
async fn admit(state: &State, engine: &Engine) -> Result<(EnginePlace, Try), Refusal> {
    if engine.health.is_dead() {
        return Err(Refusal::EngineUnreachable);
    }
    if engine.is_overloaded() {
        return Err(engine.places.full().into());
    }
    let place = tokio::select! {
        biased;
        () = state.draining.cancelled() => Err(Refusal::Draining),
        place = engine.places.take() => place.map_err(Refusal::from),
    }?;
    let tried = engine.health.admit();
    Ok((place, tried.map_err(|Dead| Refusal::EngineUnreachable)?))
}

/// A levelled request, whom it is for, and what it holds.
struct Asking {
    id: RequestId,
    endpoint: Endpoint,
    engine: Arc<Engine>,
    levelled: LevelledRequest,
    buffered: Buffered,
}

/// Asks the engine, once there is a place with it.
async fn work(state: &State, asking: Asking) -> Answer {
    let Asking {
        id,
        endpoint,
        engine,
        levelled,
        buffered,
    } = asking;
    let (place, tried) = match admit(state, &engine).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into(),
    };
    let context = levelled.context(id, state.clock.now());
    let streamed = levelled.asked.stream;
    let accept = if streamed { EVENT_STREAM } else { JSON };
    let asked = Instant::now();
    let reply = engine
        .post(endpoint.path(), accept, levelled.body.into())
        .await;
    drop(buffered);
    tried.ends(reply.is_ok());
    match reply {
        Ok(reply) if streamed && is_event_stream(&reply) => {
            stream(state, &engine, place, context, (reply, asked)).await
        }
        Ok(reply) => {
            engine.counts.began(asked.elapsed());
            Answer::Said(whole(state, &engine, &context, streamed, reply).await)
        }
        Err(error) => {
            tracing::warn!(%error, "engine");
            engine.counts.failed(error.class());
            refusal_of(error).into()
        }
    }
}

fn refusal_of(error: EngineError) -> Refusal {
    match error {
        EngineError::Unreachable => Refusal::EngineUnreachable,
        EngineError::Failed | EngineError::FirstByteTimeout | EngineError::Models => {
            Refusal::EngineFailed
        }
    }
}

/// Answers with a reply that is read whole: turns it into the contract's, by its status.
async fn whole(
    state: &State,
    engine: &Engine,
    context: &ReplyContext,
    streamed: bool,
    reply: Response<Incoming>,
) -> Outcome {
    let mut status = reply.status();
    let answered = match status {
        StatusCode::OK if !streamed => match levelled(state, context, reply).await {
            // The engine worked, and not on what was asked: the caller's to mend.
            Err(Unlevelled::Ignored(member)) => {
                status = StatusCode::BAD_REQUEST;
                let error = RequestError::Unsupported(member.to_owned());
                Ok((error.object().to_json().into(), None))
            }
            Err(Unlevelled::Failed) => Err(Refusal::EngineFailed),
            Ok(answer) => Ok(answer),
        },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(Refusal::Overloaded {
                retry_after_s: retry_after(reply.headers()),
            })
        }
        // These are about the node's own credential, which is nothing to the caller.
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(Refusal::EngineFailed),
        // An engine that does not do such requests at all says so before it works.
        StatusCode::NOT_IMPLEMENTED => {
            status = StatusCode::BAD_REQUEST;
            flaw(state, status, reply).await
        }
        _ if status.is_client_error() => flaw(state, status, reply).await,
        _ => Err(Refusal::EngineFailed),
    };
    match answered {
        Ok((content, usage)) if status == StatusCode::OK => Outcome::Reply { content, usage },
        Ok((content, _)) => Outcome::EngineError {
            status: status.as_u16(),
            content,
        },
        Err(refusal) => {
            tracing::warn!(status = status.as_u16(), refusal = refusal.code(), "engine");
            engine.counts.failed(refusal.code());
            Outcome::Refusal(refusal)
        }
    }
}

fn is_event_stream(reply: &Response<Incoming>) -> bool {
    let media_type = reply.headers().get(header::CONTENT_TYPE);
    let media_type = media_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default();
    reply.status() == StatusCode::OK && essence.trim().eq_ignore_ascii_case(EVENT_STREAM)
}

fn retry_after(headers: &HeaderMap) -> u16 {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|text| text.parse().ok());
    seconds
        .unwrap_or(RETRY_AFTER_S)
        .clamp(RETRY_AFTER_S, MAX_RETRY_AFTER_S)
}

type Answered = Result<(Vec<u8>, Option<Usage>), Refusal>;

/// Why a reply of status 200 is none.
enum Unlevelled {
    /// It takes no notice of this member.
    Ignored(&'static str),
    Failed,
}

async fn levelled(
    state: &State,
    context: &ReplyContext,
    reply: Response<Incoming>,
) -> Result<(Vec<u8>, Option<Usage>), Unlevelled> {
    let body = read(state, reply, MAX_REPLY)
        .await
        .map_err(|_| Unlevelled::Failed)?;
    match level::level_reply(&body, context) {
        Ok(levelled) => Ok((levelled.body, levelled.usage)),
        Err(LevelError::Ignored(member)) => Err(Unlevelled::Ignored(member)),
        Err(_) => Err(Unlevelled::Failed),
    }
}

/// What the engine finds wrong with the request, which is the caller's to see.
async fn flaw(state: &State, status: StatusCode, reply: Response<Incoming>) -> Answered {
    let body = read(state, reply, MAX_ERROR).await?;
    Ok((level::level_error(status.as_u16(), &body), None))
}

/// The engine's whole body, as long as it keeps coming.
async fn read(state: &State, reply: Response<Incoming>, max: usize) -> Result<Bytes, Refusal> {
    let idle = state.config.timeouts.engine_idle_ms.duration();
    let mut body = reply.into_body();
    let mut read = BytesMut::new();
    loop {
        let frame = timeout(idle, body.frame())
            .await
            .map_err(|_| Refusal::EngineFailed)?;
        let Some(frame) = frame else {
            return Ok(read.freeze());
        };
        let frame = frame.map_err(|_| Refusal::EngineFailed)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > max.saturating_sub(read.len()) {
            return Err(Refusal::EngineFailed);
        }
        read.extend_from_slice(&data);
    }
}

/// Begins a stream once the engine has said something, so that an engine that fails before is a
/// refusal, and not a stream without content.
async fn stream(
    state: &State,
    engine: &Engine,
    place: EnginePlace,
    context: ReplyContext,
    (reply, asked): (Response<Incoming>, Instant),
) -> Answer {
    let timeouts = &state.config.timeouts;
    let (first, idle) = (
        timeouts.engine_first_byte_ms.duration(),
        timeouts.engine_idle_ms.duration(),
    );
    let mut stream = EngineStream::new(reply.into_body(), context, first, idle);
    match poll_fn(|cx| stream.poll_part(cx)).await {
        Part::Broken { content, why, .. } if content.is_empty() => {
            tracing::warn!(why = why.as_str(), "engine");
            engine.counts.failed(why.as_str());
            Refusal::EngineFailed.into()
        }
        first => {
            engine.counts.began(asked.elapsed());
            Answer::Stream(Box::new(Begun {
                engine: stream,
                place,
                first,
            }))
        }
    }
}
