//! An engine whose every answer is known beforehand, and which counts what it works on.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::network::{Arrivals, Network, Pipe};
use crate::net::Stream;

/// What may go wrong in it, each as a part of all requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mishaps {
    /// It answers 500.
    pub(super) fails: f64,
    /// It answers nothing, ever.
    pub(super) hangs: f64,
    /// Its connection ends in the middle of the answer.
    pub(super) dies: f64,
    /// It says that it is full.
    pub(super) full: f64,
    /// Longest time between two words.
    pub(super) pause: Duration,
}

/// One engine.
#[derive(Clone)]
pub(super) struct Engine {
    mishaps: Mishaps,
    rng: Arc<Mutex<StdRng>>,
    worked: Worked,
}

/// How often each prompt was worked on, by any engine.
#[derive(Clone, Default)]
pub(super) struct Worked(Arc<Mutex<HashMap<String, usize>>>);

type Body = UnsyncBoxBody<Bytes, Died>;

#[derive(Debug, thiserror::Error)]
#[error("the engine died")]
struct Died;

/// The whole answer to a prompt.
pub(super) fn truth(prompt: &str) -> String {
    words(prompt).concat()
}

fn words(prompt: &str) -> Vec<String> {
    let count = prompt.len() % 23 + 1;
    (0..count)
        .map(|i| format!(" {prompt}\u{fc}\u{1f511}{i}"))
        .collect()
}

impl Worked {
    pub(super) fn on(&self, prompt: &str) -> usize {
        self.0.lock().unwrap().get(prompt).copied().unwrap_or(0)
    }

    fn begin(&self, prompt: &str) {
        *self.0.lock().unwrap().entry(prompt.to_owned()).or_default() += 1;
    }
}

impl Engine {
    pub(super) fn new(seed: u64, mishaps: Mishaps, worked: &Worked) -> Self {
        Self {
            mishaps,
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            worked: worked.clone(),
        }
    }

    /// Answers at `arrivals`; never ends.
    pub(super) async fn serve(self, arrivals: Arrivals) {
        loop {
            let Ok((pipe, _)) = arrivals.accept().await else {
                return;
            };
            tokio::spawn(self.clone().serve_one(pipe));
        }
    }

    async fn serve_one(self, pipe: Pipe) {
        let service = service_fn(move |request| {
            let engine = self.clone();
            async move { Ok::<_, Infallible>(engine.answer(request).await) }
        });
        let io = TokioIo::new(Stream::Simulated(pipe));
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::GET {
            let list = json!({"object": "list", "data": [{"id": "m", "object": "model"}]});
            return whole(StatusCode::OK, &list);
        }
        let Ok(body) = request.into_body().collect().await else {
            return whole(StatusCode::BAD_REQUEST, &json!({}));
        };
        let asked: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        let prompt = asked["prompt"].as_str().unwrap().to_owned();
        if self.befalls(self.mishaps.full) {
            return whole(StatusCode::SERVICE_UNAVAILABLE, &json!({}));
        }
        self.worked.begin(&prompt);
        if self.befalls(self.mishaps.fails) {
            return whole(StatusCode::INTERNAL_SERVER_ERROR, &json!({}));
        }
        if self.befalls(self.mishaps.hangs) {
            std::future::pending::<()>().await;
        }
        self.pause().await;
        if asked["stream"] == json!(true) {
            return self.events(&prompt);
        }
        let choice =
            json!({"index": 0, "text": truth(&prompt), "finish_reason": "stop", "logprobs": null});
        let reply = json!({"id": "x", "object": "text_completion", "created": 1, "model": "m",
            "choices": [choice], "usage": usage(&prompt)});
        if self.befalls(self.mishaps.dies) {
            let half = reply.to_string().into_bytes();
            let half = Bytes::copy_from_slice(&half[..half.len() / 2]);
            return body_of("application/json", vec![Ok(half), Err(Died)], self);
        }
        whole(StatusCode::OK, &reply)
    }

    fn events(self, prompt: &str) -> Response<Body> {
        let event = |choices: Value, usage: Value| {
            let chunk = json!({"id": "x", "object": "text_completion", "created": 1, "model": "m",
                "choices": choices, "usage": usage});
            Ok(Bytes::from(format!("data: {chunk}\n\n")))
        };
        let word = |text: String| json!([{"index": 0, "text": text, "finish_reason": null, "logprobs": null}]);
        let mut events: Vec<_> = words(prompt)
            .into_iter()
            .map(|text| event(word(text), Value::Null))
            .collect();
        events.push(event(
            json!([{"index": 0, "text": "", "finish_reason": "stop", "logprobs": null}]),
            Value::Null,
        ));
        events.push(event(json!([]), usage(prompt)));
        events.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
        if self.befalls(self.mishaps.dies) {
            let at = self.rng.lock().unwrap().random_range(0..events.len());
            events.truncate(at);
            events.push(Err(Died));
        }
        body_of("text/event-stream", events, self)
    }

    fn befalls(&self, part: f64) -> bool {
        self.rng.lock().unwrap().random_bool(part)
    }

    async fn pause(&self) {
        let part = self.rng.lock().unwrap().random_range(0.0..=1.0);
        sleep(self.mishaps.pause.mul_f64(part)).await;
    }
}

fn usage(prompt: &str) -> Value {
    let count = words(prompt).len();
    json!({"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1})
}

fn whole(status: StatusCode, content: &Value) -> Response<Body> {
    let content = Bytes::from(content.to_string());
    let body = http_body_util::Full::new(content).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    response
}

/// Pieces with pauses between them.
fn body_of(media_type: &str, pieces: Vec<Result<Bytes, Died>>, engine: Engine) -> Response<Body> {
    let pieces = stream::iter(pieces).then(move |piece| {
        let engine = engine.clone();
        async move {
            engine.pause().await;
            piece.map(Frame::data)
        }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
    response
}

/// An engine at a port of its own of this host.
pub(super) fn start(
    network: &Network,
    engine: Engine,
) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let arrivals = network.listen(([127, 0, 0, 1], 0).into());
    let address = arrivals.address;
    (address, tokio::spawn(engine.serve(arrivals)))
}
