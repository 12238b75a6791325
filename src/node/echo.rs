//! The echo engine as a server in the node's own process.
//!
//! It stands where a real engine would, behind the same client, so that everything but the model
//! can be tried without one.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Either, Full, Limited, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, unix_seconds},
    ids::RequestId,
    listener::{Limits, serve_connections},
    openai::{
        Code, Endpoint, ErrorObject, Request as AskedRequest,
        echo::{Echo, MODEL, embed},
        models::{Model, ModelList},
    },
};

/// Most bytes of one request: more than any node lets in.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Events made ahead of their reader.
const EVENTS_AHEAD: usize = 16;
const LIMITS: Limits = Limits {
    connections: 16 * 1024,
    head_timeout: Duration::from_secs(30),
    idle_timeout: Duration::from_secs(30),
    write_timeout: Duration::from_secs(60),
    shutdown_timeout: Duration::ZERO,
};

type Body = Either<Full<Bytes>, StreamBody<Events>>;
type Events = stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

/// Starts the engine on a loopback port of the system's choice, until `stop`.
///
/// # Errors
/// If it cannot listen.
pub(super) async fn start(clock: Clock, stop: CancellationToken) -> io::Result<Uri> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(answer(clock, request).await) });
    tokio::spawn(serve_connections(listener, service, LIMITS, stop));
    Uri::try_from(format!("http://{address}")).map_err(io::Error::other)
}

async fn answer(clock: Clock, request: Request<Incoming>) -> Response<Body> {
    let created = unix_seconds(clock.now());
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models") => {
            let list = ModelList::new(vec![Model::new(MODEL, created, "sealgate")]);
            json(StatusCode::OK, list.to_json())
        }
        (&Method::POST, path) => match Endpoint::of(path) {
            None => error(Code::NotFound),
            Some(Endpoint::Images) => draws_nothing(),
            Some(endpoint) => {
                let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
                    return error(Code::RequestTooLarge);
                };
                reply(endpoint, body.to_bytes(), created)
            }
        },
        _ => error(Code::NotFound),
    }
}

fn reply(endpoint: Endpoint, body: Bytes, created: u64) -> Response<Body> {
    let answered = AskedRequest::parse(endpoint, body).and_then(|request| match endpoint {
        Endpoint::Embeddings => Ok(json(StatusCode::OK, embed(&request)?)),
        _ => {
            let prefix = match endpoint {
                Endpoint::ChatCompletions => "chatcmpl",
                _ => "cmpl",
            };
            let id = format!("{prefix}-{}", RequestId::generate());
            let echo = Echo::new(&request, id, created)?;
            Ok(match echo.stream() {
                true => events(echo),
                false => json(StatusCode::OK, echo.reply()),
            })
        }
    });
    answered.unwrap_or_else(|error| json(StatusCode::BAD_REQUEST, error.object().to_json()))
}

fn events(echo: Echo) -> Response<Body> {
    let (sender, mut receiver) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(async move {
        for event in echo.events() {
            if sender.send(Bytes::from(event)).await.is_err() {
                return;
            }
        }
    });
    let events = stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|event| event.map(|event| Ok(Frame::data(event))))
    });
    let body = Either::Right(StreamBody::new(Box::pin(events) as Events));
    response(StatusCode::OK, "text/event-stream", body)
}

/// As OpenAI answers for a model of another kind; a node gives the caller what an engine says so.
fn draws_nothing() -> Response<Body> {
    let object = ErrorObject {
        message: "The built-in echo engine draws no images.".into(),
        kind: Code::InvalidRequest.kind(),
        param: None,
        code: Some(Code::InvalidRequest.code()),
    };
    json(StatusCode::NOT_FOUND, object.to_json())
}

fn error(code: Code) -> Response<Body> {
    json(code.status(), code.object().to_json())
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    response(
        status,
        "application/json",
        Either::Left(Full::new(body.into())),
    )
}

fn response(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
