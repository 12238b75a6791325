//! An asker that leaves, and a node that stops.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    STREAM_BODY,
    harness::{Asked, FakeEngine, PATIENCE, Running, Sent},
};
use crate::{
    node::buffered::Buffered,
    seal::{Padding, REQUEST_MEDIA_TYPE},
};

const HALF_A_REPLY: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 100\r\n\r\n{\"id\":\"c\"";
const EVENT: &str = "data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\
    \"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"one\",\"finish_reason\":null}]}\n\n";

/// A sealed request on a connection of its own.
async fn post(node: &Running, content: &str) -> TcpStream {
    begin_on_http_1(node, Phase::BeforeHead, content, Padding::Off).await
}

/// How far a request is when its asker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    BodyArrives,
    Queued,
    BeforeHead,
    /// A whole reply, of which half has come.
    WithinWhole,
    /// A stream that has said nothing yet.
    AfterHead,
    AfterFirstEvent,
    /// A stream that is far ahead of an asker who does not read.
    Blocked,
}

const PHASES: [(Phase, &str, Padding); 13] = [
    (Phase::BodyArrives, super::BODY, Padding::Off),
    (Phase::Queued, super::BODY, Padding::Off),
    (Phase::Queued, STREAM_BODY, Padding::Paced),
    (Phase::BeforeHead, super::BODY, Padding::Off),
    (Phase::BeforeHead, STREAM_BODY, Padding::Off),
    (Phase::BeforeHead, STREAM_BODY, Padding::Paced),
    (Phase::WithinWhole, super::BODY, Padding::Off),
    (Phase::AfterHead, STREAM_BODY, Padding::Off),
    (Phase::AfterHead, STREAM_BODY, Padding::Paced),
    (Phase::AfterFirstEvent, STREAM_BODY, Padding::Off),
    (Phase::AfterFirstEvent, STREAM_BODY, Padding::Paced),
    (Phase::Blocked, STREAM_BODY, Padding::Off),
    (Phase::Blocked, STREAM_BODY, Padding::Paced),
];

/// Plays the engine up to the phase.
async fn play(asked: &mut Asked, phase: Phase) {
    match phase {
        Phase::BodyArrives | Phase::Queued | Phase::BeforeHead => {}
        Phase::WithinWhole => asked.write(HALF_A_REPLY).await,
        Phase::AfterHead => asked.begin_stream().await,
        Phase::AfterFirstEvent => {
            asked.begin_stream().await;
            asked.write(EVENT).await;
        }
        Phase::Blocked => {
            asked.begin_stream().await;
            asked.write_until_blocked(&EVENT.repeat(64)).await;
        }
    }
}

/// The engine's one place is taken by another request, so that the next one waits for it.
async fn fill(node: &Running, engine: &mut FakeEngine) -> (TcpStream, Asked) {
    let first = post(node, super::BODY).await;
    let asked = engine.asked().await;
    node.until_queued(1, 0).await;
    (first, asked)
}

/// A sealed request on an HTTP/1.1 connection of its own, as far as `phase`.
async fn begin_on_http_1(
    node: &Running,
    phase: Phase,
    content: &str,
    padding: Padding,
) -> TcpStream {
    let (request, _) = node
        .seal(Sent {
            content,
            padding,
            ..Sent::default()
        })
        .await;
    let sealed: Bytes = request.into_body().collect().await.unwrap().to_bytes();
    let sent = match phase {
        Phase::BodyArrives => sealed.slice(..sealed.len() / 2),
        _ => sealed.clone(),
    };
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = format!(
        "POST /.well-known/ohttp-gateway HTTP/1.1\r\nhost: a\r\n\
         content-type: {REQUEST_MEDIA_TYPE}\r\ncontent-length: {}\r\n\r\n",
        sealed.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    stream
}

/// Waits until the node has what is sent of a request in this phase; gives the engine's side of it.
async fn arrives(node: &Running, engine: &mut FakeEngine, phase: Phase) -> Option<Asked> {
    match phase {
        Phase::BodyArrives => {
            node.until("half a body came", |state| {
                let room = Buffered::room(state.config.limits.buffered_bytes.get());
                Buffered::free(&state.buffered) < room
            })
            .await;
            None
        }
        Phase::Queued => {
            node.until_queued(1, 1).await;
            None
        }
        _ => {
            let mut asked = engine.asked().await;
            play(&mut asked, phase).await;
            Some(asked)
        }
    }
}

/// What has to hold once the asker has left: his engine stops within a second, and another's does
/// not; nothing stays held.
async fn left(node: &Running, asked: Option<Asked>, other: Option<(TcpStream, Asked)>) {
    if let Some(mut asked) = asked {
        asked.closed().await;
    }
    if let Some((mut stream, mut asked)) = other {
        node.until_queued(1, 0).await;
        asked.reply(400, "{}").await;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
    }
    node.until_idle().await;
}

#[tokio::test]
async fn an_asker_that_leaves_stops_his_engine_and_gives_all_back_in_every_phase_of_http_1() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&format!("{}max_in_flight = 1\n", engine.config())).await;
    for (phase, content, padding) in PHASES {
        for half in [false, true] {
            if half && phase == Phase::Blocked {
                // The end of what he sends stands behind what he does not read.
                continue;
            }
            let other = match phase {
                Phase::Queued => Some(fill(&node, &mut engine).await),
                _ => None,
            };
            let mut asker = begin_on_http_1(&node, phase, content, padding).await;
            let asked = arrives(&node, &mut engine, phase).await;
            let held = if half {
                asker.shutdown().await.unwrap();
                Some(asker)
            } else {
                drop(asker);
                None
            };
            left(&node, asked, other).await;
            drop(held);
        }
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn a_stream_that_is_reset_stops_its_engine_alone_and_gives_all_back_in_every_phase_of_http_2()
{
    let mut engine = FakeEngine::start().await;
    let config = format!("{}max_in_flight = 1\n", engine.config());
    let node = Running::start(&config).await.over_http_2();
    for (phase, content, padding) in PHASES {
        let other = match phase {
            Phase::Queued => Some(fill(&node, &mut engine).await),
            _ => None,
        };
        let (request, _) = node
            .seal(Sent {
                content,
                padding,
                ..Sent::default()
            })
            .await;
        let (head, body) = request.into_parts();
        let sealed = body.collect().await.unwrap().to_bytes();
        let (sent, rest) = match phase {
            Phase::BodyArrives => (sealed.slice(..sealed.len() / 2), true),
            _ => (sealed, false),
        };
        let body = Parts::new(sent, rest);
        let client: Client<_, Parts> = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let asking = tokio::spawn(async move {
            let reply = client.request(Request::from_parts(head, body)).await;
            // Held and not read.
            let _reply = reply.unwrap();
            std::future::pending::<()>().await;
        });
        let asked = arrives(&node, &mut engine, phase).await;
        asking.abort();
        left(&node, asked, other).await;
        assert_eq!(node.get("/health").await.0, 200);
    }
    assert!(engine.idle());
}

/// A body of one piece that ends there or never does.
struct Parts {
    sent: Option<Bytes>,
    more: bool,
}

impl Parts {
    fn new(sent: Bytes, more: bool) -> Self {
        Self {
            sent: Some(sent),
            more,
        }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        match this.sent.take() {
            Some(sent) => Poll::Ready(Some(Ok(Frame::data(sent)))),
            None if this.more => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

#[tokio::test]
async fn who_reads_nothing_holds_no_turn_of_others() {
    let mut engine = FakeEngine::start().await;
    let config = format!("{}max_in_flight = 1\n", engine.config());
    let node = Running::start(&config).await.over_http_2();
    for padding in [Padding::Off, Padding::Paced] {
        let (first, mut asked) = fill(&node, &mut engine).await;
        let (request, _) = node
            .seal(Sent {
                content: STREAM_BODY,
                padding,
                ..Sent::default()
            })
            .await;
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .http2_initial_stream_window_size(0)
            .build_http();
        let unread = tokio::spawn(async move {
            let _reply = client.request(request).await.unwrap();
            std::future::pending::<()>().await;
        });
        node.until_queued(1, 1).await;
        asked.reply(400, "{}").await;
        // His turn comes and goes although nobody takes a byte of his reply.
        engine.asked().await.reply(400, "{}").await;
        let answering = async { engine.asked().await.reply(400, "{}").await };
        let (reply, ()) = tokio::join!(node.ask(Sent::default()), answering);
        assert_eq!(reply.status, 400, "{padding}");
        unread.abort();
        drop(first);
        node.until_idle().await;
    }
}

#[tokio::test]
async fn a_node_that_stops_takes_no_new_work_and_finishes_the_old() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let (late, _) = node.seal(Sent::default()).await;
    let begun = async {
        let mut asked = engine.asked().await;
        asked.begin_stream().await;
        asked.write(EVENT).await;
        asked
    };
    let sent = Sent {
        content: STREAM_BODY,
        ..Sent::default()
    };
    let (mut reply, mut asked) = tokio::join!(node.begin(sent), begun);
    reply.content().await;

    node.shutdown.cancel();
    while node.get("/readyz").await.0 != 503 {}
    let (status, headers, _) = node.send(late).await;
    assert_eq!(
        (status.as_u16(), headers.contains_key("retry-after")),
        (503, true)
    );

    asked.write("data: [DONE]\n\n").await;
    let reply = reply.finish().await;
    assert_eq!(reply.trailers.incomplete, None);
    timeout(PATIENCE, node.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_that_waited_long_enough_cuts_with_a_sealed_word() {
    let mut engine = FakeEngine::start().await;
    let timeouts = "timeouts = { drain_ms = 50 }\n";
    let node = Running::start(&format!("{timeouts}{}", engine.config())).await;
    let begun = async {
        let mut asked = engine.asked().await;
        asked.begin_stream().await;
        asked.write(EVENT).await;
        asked
    };
    let sent = Sent {
        content: STREAM_BODY,
        ..Sent::default()
    };
    let (mut reply, mut asked) = tokio::join!(node.begin(sent), begun);
    reply.content().await;
    node.shutdown.cancel();
    let reply = reply.finish().await;
    assert_eq!(reply.trailers.incomplete.as_deref(), Some("cancelled"));
    asked.closed().await;
    timeout(PATIENCE, node.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_engine_that_is_always_ahead_is_cut_as_well() {
    let mut engine = FakeEngine::start().await;
    let timeouts = "timeouts = { drain_ms = 50 }\n";
    let node = Running::start(&format!("{timeouts}{}", engine.config())).await;
    #[expect(
        clippy::async_yields_async,
        reason = "the engine writes on while the reply is read"
    )]
    let begun = async {
        let mut asked = engine.asked().await;
        asked.begin_stream().await;
        tokio::spawn(asked.write_for_ever(EVENT.repeat(64)))
    };
    let sent = Sent {
        content: STREAM_BODY,
        ..Sent::default()
    };
    let (mut reply, writing) = tokio::join!(node.begin(sent), begun);
    reply.content().await;
    node.shutdown.cancel();
    let reply = reply.finish().await;
    assert_eq!(reply.trailers.incomplete.as_deref(), Some("cancelled"));
    timeout(PATIENCE, writing).await.unwrap().unwrap();
    timeout(PATIENCE, node.served).await.unwrap().unwrap();
}
