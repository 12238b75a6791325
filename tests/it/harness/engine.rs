//! A fake engine that does what a test tells it to, and tells what was done to it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::soon;

/// One piece of a stream that a test steers.
pub(crate) type Step = Result<Bytes, std::io::Error>;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What the engine answers to one request.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// A status, a media type and bytes as they are.
    Raw(u16, &'static str, Vec<u8>),
    /// A refusal with this status, and with this `Retry-After`.
    Later(u16, Option<&'static str>),
    /// An event stream whose pieces the test sends; an `Err` cuts the connection.
    Stream(mpsc::Receiver<Step>),
    /// Nothing, for as long as the asker waits.
    Hang,
}

/// A stream that the test feeds.
pub(crate) struct Feed(mpsc::Sender<Step>);

impl Feed {
    /// Sends bytes as they are.
    pub(crate) async fn raw(&self, bytes: impl Into<Bytes>) {
        self.0.send(Ok(bytes.into())).await.unwrap();
    }

    /// Sends one event with one choice's text.
    pub(crate) async fn text(&self, text: &str) {
        self.raw(format!("data: {}\n\n", chunk(text, Value::Null)))
            .await;
    }

    /// Sends the last choice, the usage and `[DONE]`.
    pub(crate) async fn done(&self) {
        self.raw(format!(
            "data: {}\n\ndata: [DONE]\n\n",
            chunk("", json!("stop"))
        ))
        .await;
    }

    /// Cuts the connection in the middle of the body.
    pub(crate) async fn cut(&self) {
        self.0
            .send(Err(std::io::Error::other("cut by the test")))
            .await
            .unwrap();
    }

    /// Resolves when nobody reads this stream any more.
    pub(crate) async fn abandoned(&self) {
        soon("the stream is abandoned", self.0.closed()).await;
    }
}

/// A stream chunk in the shape of vLLM's.
pub(crate) fn chunk(text: &str, finish_reason: Value) -> Value {
    json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny",
        "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason}],
    })
}

/// A whole reply with `text`.
pub(crate) fn completion(text: &str) -> Value {
    json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny",
        "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    })
}

/// A fake engine on a port of the kernel's choice.
#[derive(Clone)]
pub(crate) struct Engine {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Bytes>>,
    /// Requests whose reply is neither whole nor abandoned, and all requests so far.
    counts: watch::Sender<(usize, usize)>,
}

/// Counts a request as in flight until it is dropped, however that comes about.
struct InFlight(Arc<State>);

impl InFlight {
    fn new(state: &Arc<State>) -> Self {
        state.counts.send_modify(|(active, all)| {
            *active += 1;
            *all += 1;
        });
        Self(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counts.send_modify(|(active, _)| *active -= 1);
    }
}

impl Engine {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::default(),
            received: Mutex::default(),
            counts: watch::Sender::new((0, 0)),
        });
        let engine = Self {
            address,
            state: Arc::clone(&state),
        };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(async move {
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        engine
    }

    /// Sets the answer to the next request that has none yet.
    pub(crate) fn reply(&self, reply: Reply) {
        self.state.script.lock().unwrap().push_back(reply);
    }

    /// Sets the answer to the next request: a stream that the test feeds.
    pub(crate) fn stream(&self) -> Feed {
        let (sender, receiver) = mpsc::channel(1);
        self.reply(Reply::Stream(receiver));
        Feed(sender)
    }

    /// The bodies of all requests so far.
    pub(crate) fn received(&self) -> Vec<Bytes> {
        self.state.received.lock().unwrap().clone()
    }

    /// The only request's body.
    pub(crate) fn only_request(&self) -> Value {
        let received = self.received();
        assert_eq!(received.len(), 1, "requests that reached the engine");
        serde_json::from_slice(&received[0]).unwrap()
    }

    /// Resolves when `n` requests have arrived in all.
    pub(crate) async fn arrived(&self, n: usize) {
        let mut counts = self.state.counts.subscribe();
        soon("requests arrive", counts.wait_for(|(_, all)| *all >= n))
            .await
            .unwrap();
    }

    /// Resolves when no request is in flight.
    pub(crate) async fn idle(&self) {
        let mut counts = self.state.counts.subscribe();
        soon(
            "the engine is idle",
            counts.wait_for(|(active, _)| *active == 0),
        )
        .await
        .unwrap();
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/v1/models" {
        let models = json!({"object": "list", "data": [
            {"id": "tiny", "object": "model", "created": 1, "owned_by": "test"}]});
        return Ok(whole(
            200,
            "application/json",
            models.to_string().into_bytes(),
        ));
    }
    if request.method() == http::Method::GET {
        return Ok(whole(404, "application/json", b"{}".to_vec()));
    }
    assert!(
        sealgate::openai::Endpoint::of(request.uri().path()).is_some(),
        "a node asks for nothing else"
    );
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    state.received.lock().unwrap().push(body.clone());
    let in_flight = InFlight::new(&state);
    let scripted = state.script.lock().unwrap().pop_front();
    Ok(match scripted.unwrap_or_else(|| echo(&body)) {
        Reply::Json(status, value) => {
            whole(status, "application/json", value.to_string().into_bytes())
        }
        Reply::Raw(status, media_type, bytes) => whole(status, media_type, bytes),
        Reply::Later(status, retry_after) => {
            let body = json!({"error": {"message": "later", "code": status}});
            let mut reply = whole(status, "application/json", body.to_string().into_bytes());
            if let Some(retry_after) = retry_after {
                let value = hyper::header::HeaderValue::from_static(retry_after);
                reply.headers_mut().insert("retry-after", value);
            }
            reply
        }
        Reply::Stream(receiver) => {
            let frames = futures_util::stream::unfold(
                (receiver, in_flight),
                |(mut receiver, in_flight)| async move {
                    let step = receiver.recv().await?;
                    Some((step.map(Frame::data), (receiver, in_flight)))
                },
            );
            let body = StreamBody::new(frames).boxed_unsync();
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .unwrap()
        }
        Reply::Hang => {
            let _in_flight = in_flight;
            std::future::pending().await
        }
    })
}

/// Without a script the engine gives the prompt back, as a stream word by word.
fn echo(body: &[u8]) -> Reply {
    let request: Value = serde_json::from_slice(body).unwrap();
    let text = request["prompt"]
        .as_str()
        .map_or_else(|| request["prompt"].to_string(), str::to_owned);
    if request["stream"] != json!(true) {
        return Reply::Json(200, completion(&text));
    }
    let mut events = String::new();
    for word in text.split_inclusive(' ') {
        events += &format!("data: {}\n\n", chunk(word, Value::Null));
    }
    events += &format!("data: {}\n\n", chunk("", json!("stop")));
    let usage = json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny",
        "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}});
    events += &format!("data: {usage}\n\ndata: [DONE]\n\n");
    Reply::Raw(200, "text/event-stream", events.into_bytes())
}

fn whole(status: u16, media_type: &str, bytes: Vec<u8>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", media_type)
        .body(
            Full::from(bytes)
                .map_err(|never| match never {})
                .boxed_unsync(),
        )
        .unwrap()
}
