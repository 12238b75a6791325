//! A node's keys turn at each instant of an exchange, however it comes to the node: sealed by a gateway, by
//! a client past a gateway, or by a client straight to the node.
//!
//! Keys live 64 seconds here: the next ones come at second 48, the first end at 64, and open until 664.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use attestation::Policy;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http1, server, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    network::{Arrivals, Network},
    run::folder,
};
use crate::{
    client::{Client, Reply},
    clock::Clock,
    config,
    gateway::tests::simulated as gateway,
    net::Stream,
    node::tests::simulated as node,
    seal::REQUEST_MEDIA_TYPE,
};

const LIFE_S: u64 = 64;
const NEXT_KEYS: u64 = 48;
/// More than a connection takes on its way at once.
const PROMPT: usize = 40_000;
const WORDS: u64 = 15;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// When what happens, in seconds after the node's start.
struct Case {
    name: &'static str,
    verified: u64,
    asked: u64,
    /// Bytes of the body that go through at once, and when the rest does.
    held: Option<(usize, u64)>,
    /// What the engine takes before its first word, and before each further one.
    engine: (u64, u64),
    stream: bool,
    /// Whether the first keys are there no more when the request comes.
    is_refused: bool,
}

const CALM: Case = Case {
    name: "",
    verified: 5,
    asked: 47,
    held: None,
    engine: (0, 0),
    stream: false,
    is_refused: false,
};

const CASES: [Case; 8] = [
    Case {
        name: "before it is attested",
        verified: 54,
        asked: 55,
        ..CALM
    },
    Case {
        name: "between attestation and sealing",
        asked: 55,
        ..CALM
    },
    Case {
        name: "while the request's body is on its way",
        held: Some((20_000, 54)),
        ..CALM
    },
    Case {
        name: "before the engine answers",
        engine: (30, 0),
        ..CALM
    },
    Case {
        name: "before the engine begins a stream",
        engine: (30, 0),
        stream: true,
        ..CALM
    },
    Case {
        name: "in the middle of a stream, which outlives the key",
        engine: (1, 60),
        stream: true,
        ..CALM
    },
    Case {
        name: "past the key's end, while it still opens",
        asked: 60,
        held: Some((0, 90)),
        ..CALM
    },
    Case {
        name: "past the time in which it opens",
        asked: 60,
        held: Some((0, 900)),
        is_refused: true,
        ..CALM
    },
];

/// How a request comes to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Gateway,
    ClientPastGateway,
    Client,
}

#[test]
fn keys_turn_at_each_instant_of_an_exchange() {
    for by in [By::Gateway, By::ClientPastGateway, By::Client] {
        for case in &CASES {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let network = Network::begin(7);
            eprintln!("{by:?}: {}", case.name);
            runtime.block_on(Run::start(network, by, case.engine).through(case));
            Network::end();
        }
    }
}

/// What an engine was asked, and how long it takes.
#[derive(Clone)]
struct Engine {
    pace: (u64, u64),
    asked: Arc<Mutex<usize>>,
}

/// The way to the node, on which a request can be held.
#[derive(Clone)]
struct Way {
    network: Network,
    node: SocketAddr,
    /// Of the next request.
    hold: Arc<Mutex<Option<(usize, Instant)>>>,
    /// The key ids of all that were sealed.
    key_ids: Arc<Mutex<Vec<u8>>>,
}

struct Run {
    by: By,
    started: Instant,
    clock: Clock,
    engine: Engine,
    way: Way,
    gateway: Option<SocketAddr>,
    shutdown: CancellationToken,
}

/// Prompts stay on the node's machine.
const ENGINE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)), 8000);
const WAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2)), 8000);

impl Run {
    fn start(network: Network, by: By, pace: (u64, u64)) -> Self {
        let engine = Engine {
            pace,
            asked: Arc::default(),
        };
        let way = Way {
            network,
            node: NODE,
            hold: Arc::default(),
            key_ids: Arc::default(),
        };
        Self {
            by,
            started: Instant::now(),
            clock: Clock::tokio(),
            engine,
            way,
            gateway: None,
            shutdown: CancellationToken::new(),
        }
    }

    async fn at(&self, second: u64) {
        sleep_until(self.started + Duration::from_secs(second)).await;
    }

    async fn through(mut self, case: &Case) {
        let network = self.way.network.clone();
        tokio::spawn(self.engine.clone().serve(network.listen(ENGINE)));
        tokio::spawn(self.way.clone().serve(network.listen(WAY)));
        self.start_node().await;
        let first = self.first_key_id().await;
        if self.by != By::Client {
            self.at(case.verified).await;
            self.start_gateway().await;
        }
        let client = self.client();
        self.at(case.verified).await;
        let channel = match self.by {
            By::Gateway => None,
            _ => Some(client.verify("m").await.unwrap()),
        };
        self.at(case.asked).await;
        if let Some((after, until)) = case.held {
            let until = self.started + Duration::from_secs(until);
            *self.way.hold.lock().unwrap() = Some((after, until));
        }
        let body = json!({"model": "m", "prompt": "x".repeat(PROMPT), "stream": case.stream});
        let text = match channel {
            None => self.ask_gateway(&body).await,
            Some(channel) => match channel.completions(&body).await {
                Ok(reply) => text_of(reply).await,
                Err(error) => {
                    assert!(case.is_refused, "{}: {error}", case.name);
                    assert!(error.wants_verification(), "{error}");
                    let again = client.verify("m").await.unwrap();
                    text_of(again.completions(&body).await.unwrap()).await
                }
            },
        };
        self.judge(case, first, &text);
        self.shutdown.cancel();
    }

    /// The whole answer came, was worked on once, and was sealed with the key that was to be expected.
    fn judge(&self, case: &Case, first: u8, text: &str) {
        assert_eq!(text, truth(), "{}", case.name);
        assert_eq!(*self.engine.asked.lock().unwrap(), 1, "{}", case.name);
        let key_ids = self.way.key_ids.lock().unwrap();
        let sealings = if case.is_refused { 2 } else { 1 };
        assert_eq!(key_ids.len(), sealings, "{}: {key_ids:?}", case.name);
        let is_first = key_ids.first() == Some(&first);
        // A gateway attests in time by itself, too.
        if self.by != By::Gateway || case.asked < NEXT_KEYS {
            let expected = case.verified < NEXT_KEYS;
            assert_eq!(is_first, expected, "{}: {key_ids:?}", case.name);
        }
        assert!(
            !case.is_refused || key_ids.last() != Some(&first),
            "{key_ids:?}"
        );
        let seconds = self.started.elapsed().as_secs();
        let least = match case.engine {
            (_, between) if case.stream && between > 0 => case.asked + (WORDS - 1) * between,
            (before, _) => case.held.map_or(case.asked, |(_, until)| until) + before,
        };
        assert!(seconds >= least, "{}: over at {seconds}", case.name);
    }

    async fn start_node(&self) {
        let text = format!(
            "node_id = \"one\"\nlisten = \"{}\"\n\
             evidence = {{ source = \"software-root\", dir = \"{}\" }}\n\
             keys = {{ life_s = {LIFE_S} }}\n\
             [[engine]]\nurl = \"http://{}\"\nmodels = [\"m\"]\n",
            NODE,
            folder().display(),
            ENGINE
        );
        let config = config::parse(Path::new("node.toml"), &text, std::iter::empty()).unwrap();
        let (node, _) = node::bind(config, self.clock).await;
        tokio::spawn(node.serve(self.shutdown.clone()));
    }

    async fn start_gateway(&mut self) {
        let text = format!(
            "listen = \"127.0.0.1:8001\"\nauth = \"open\"\npolicy = \"policy.toml\"\n\
             reload_s = 100000\n[timeouts]\nfirst_byte_ms = 3000000\n\
             total_first_byte_ms = 3000000\n[[node]]\nurl = \"http://{}\"\n",
            WAY
        );
        let path = folder().join("gateway.toml");
        let config = config::parse(&path, &text, std::iter::empty()).unwrap();
        let (gateway, _) = gateway::bind(config, self.clock).await;
        self.gateway = Some(gateway.address());
        let first = gateway.first_verified();
        tokio::spawn(gateway.serve(self.shutdown.clone()));
        assert!(first.await.is_some());
    }

    fn client(&self) -> Client {
        let policy = std::fs::read_to_string(folder().join("policy.toml")).unwrap();
        let mut read = |name: &str| std::fs::read(folder().join(name));
        let policy = Policy::from_toml(&policy, &mut read).unwrap();
        let builder = match self.gateway {
            Some(gateway) => Client::at_gateway(&format!("http://{gateway}"), policy),
            None => Client::at_node(&format!("http://{}", WAY), policy),
        };
        let patience = Duration::from_secs(3000);
        let builder = builder.clock(self.clock).first_byte_timeout(patience);
        builder.build().unwrap()
    }

    /// The id of the node's first key, which is of X-Wing.
    async fn first_key_id(&self) -> u8 {
        let request = Request::get("/.well-known/ohttp-gateway").body(Full::default());
        let reply = send(&self.way.network, NODE, request.unwrap()).await;
        let list = reply.collect().await.unwrap().to_bytes();
        assert_eq!(list[3..5], [0x64, 0x7a], "X-Wing first");
        list[2]
    }

    async fn ask_gateway(&self, body: &Value) -> String {
        let request = Request::post("/v1/completions")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()));
        let gateway = self.gateway.unwrap();
        let reply = send(&self.way.network, gateway, request.unwrap()).await;
        let status = reply.status();
        let body = reply.collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        let Some(events) = body.strip_suffix("data: [DONE]\n\n") else {
            return text_in(&serde_json::from_str(body).unwrap());
        };
        let events = events
            .split("\n\n")
            .filter_map(|it| it.strip_prefix("data: "));
        events
            .map(|event| text_in(&serde_json::from_str(event).unwrap()))
            .collect()
    }
}

fn text_in(reply: &Value) -> String {
    let text = reply["choices"][0]["text"].as_str();
    text.unwrap_or_default().to_owned()
}

async fn text_of(reply: Reply) -> String {
    let mut events = match reply {
        Reply::Whole(whole) => {
            assert_eq!(whole.status(), 200);
            return text_in(&whole.json().unwrap());
        }
        Reply::Stream(events) => events,
    };
    let mut text = String::new();
    while let Some(event) = events.next().await.unwrap() {
        text += &text_in(&event.json().unwrap());
    }
    events.finish().unwrap();
    text
}

/// A request over a connection of its own.
async fn send<B>(network: &Network, to: SocketAddr, request: Request<B>) -> Response<Incoming>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().to_string();
    head.uri = path.parse().unwrap();
    head.headers.insert("host", to.to_string().parse().unwrap());
    let uri = format!("http://{to}/").parse().unwrap();
    let pipe = network.connect(&uri).await.unwrap();
    let io = TokioIo::new(Stream::Simulated(pipe));
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::from_parts(head, body);
    sender.send_request(request).await.unwrap()
}

fn truth() -> String {
    (0..WORDS).map(|word| format!(" w{word}")).collect()
}

impl Engine {
    async fn serve(self, arrivals: Arrivals) {
        while let Ok((pipe, _)) = arrivals.accept().await {
            let engine = self.clone();
            let service = service_fn(move |request| {
                let engine = engine.clone();
                async move { Ok::<_, Infallible>(engine.answer(request).await) }
            });
            let io = TokioIo::new(Stream::Simulated(pipe));
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(io, service));
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::GET {
            let list = json!({"object": "list", "data": [{"id": "m", "object": "model"}]});
            return whole(&list);
        }
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let asked: Value = serde_json::from_slice(&asked).unwrap();
        *self.asked.lock().unwrap() += 1;
        let (before, between) = self.pace;
        sleep(Duration::from_secs(before)).await;
        if asked["stream"] != json!(true) {
            return whole(&chunk(&truth(), json!("stop")));
        }
        let words = (0..WORDS).map(|word| chunk(&format!(" w{word}"), Value::Null));
        let mut events: Vec<_> = words.map(|it| format!("data: {it}\n\n")).collect();
        events.push(format!("data: {}\n\n", chunk("", json!("stop"))));
        events.push("data: [DONE]\n\n".to_owned());
        let pieces = stream::unfold(events.into_iter(), move |mut left| async move {
            let event = left.next()?;
            if !event.contains(" w0\"") {
                sleep(Duration::from_secs(between)).await;
            }
            Some((Ok(Frame::data(Bytes::from(event))), left))
        });
        let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
        let event_stream = "text/event-stream".parse().unwrap();
        response.headers_mut().insert(CONTENT_TYPE, event_stream);
        response
    }
}

fn chunk(text: &str, finish_reason: Value) -> Value {
    let choice =
        json!({"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": null});
    let usage = json!({"prompt_tokens": 1, "completion_tokens": WORDS, "total_tokens": WORDS + 1});
    json!({"id": "x", "object": "text_completion", "created": 1, "model": "m",
        "choices": [choice], "usage": usage})
}

fn whole(content: &Value) -> Response<Body> {
    let body = Full::from(content.to_string()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    let json = "application/json".parse().unwrap();
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

impl Way {
    async fn serve(self, arrivals: Arrivals) {
        while let Ok((pipe, _)) = arrivals.accept().await {
            let way = self.clone();
            let service = service_fn(move |request| {
                let way = way.clone();
                async move { Ok::<_, Infallible>(way.carry(request).await) }
            });
            let io = TokioIo::new(Stream::Simulated(pipe));
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(io, service));
        }
    }

    async fn carry(self, request: Request<Incoming>) -> Response<Incoming> {
        let (head, body) = request.into_parts();
        let media_type = head.headers.get(CONTENT_TYPE);
        if media_type.is_none_or(|it| it != REQUEST_MEDIA_TYPE) {
            let request = Request::from_parts(head, body);
            return send(&self.network, self.node, request).await;
        }
        let body = body.collect().await.unwrap().to_bytes();
        self.key_ids.lock().unwrap().push(body[0]);
        let hold = self.hold.lock().unwrap().take();
        let (after, until) = hold.unwrap_or((0, Instant::now()));
        // Where nothing goes through at once, the node does not see that anybody is there.
        if after == 0 {
            sleep_until(until).await;
        }
        let parts = [body.slice(..after), body.slice(after..)].into_iter();
        let parts = stream::unfold(parts, move |mut left| async move {
            let part = left.next()?;
            if left.len() == 0 {
                sleep_until(until).await;
            }
            Some((Ok::<_, Infallible>(Frame::data(part)), left))
        });
        let body = StreamBody::new(Box::pin(parts));
        send(&self.network, self.node, Request::from_parts(head, body)).await
    }
}
