//! Replies that go out at ticks, while time stands still but for them.

use std::{
    future::{pending, poll_fn},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::oneshot::error::TryRecvError,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    BODY, STREAM_BODY,
    harness::{Running, Sent},
};
use crate::{
    attester::paced::Pacing,
    ids::RequestId,
    node::{
        answer::{Answer, Begun},
        engine_stream::EngineStream,
        paced::{PacedReply, reply},
        problem::Refusal,
        record::Record,
    },
    openai::{
        Endpoint,
        level::{RequestOptions, level_request},
    },
    seal::{Padding, ReplyOpener, RequestOpener},
};

const TICK: Duration = Duration::from_millis(40);
const EVENT: &str = "data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\
    \"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"one\",\"finish_reason\":null}]}\n\n";
const NODE: &str = "padding = { least_chunks = 1 }\n\
    timeouts = { engine_first_byte_ms = 5000, engine_idle_ms = 1000 }\n\
    [[engine]]\nurl = \"http://127.0.0.1:1\"\nmodels = [\"m\"]\nmax_in_flight = 1\n";

/// A reply and what opens it.
struct Paced {
    node: Running,
    reply: PacedReply,
    opener: ReplyOpener,
    began: Instant,
}

/// Begins a reply in time that stands still, for `work` to answer.
async fn begin(work: impl Future<Output = Answer> + Send + 'static) -> Paced {
    begin_after(Duration::ZERO, work).await
}

/// The same, so long after the moment that ticks are counted from.
async fn begin_after(
    after: Duration,
    work: impl Future<Output = Answer> + Send + 'static,
) -> Paced {
    let node = Running::start(NODE).await;
    let (request, opener) = node
        .seal(Sent {
            content: STREAM_BODY,
            padding: Padding::Paced,
            ..Sent::default()
        })
        .await;
    let sealed = http_body_util::BodyExt::collect(request.into_body())
        .await
        .unwrap()
        .to_bytes();
    let state = Arc::clone(&node.state);
    let mut taking = RequestOpener::new(Default::default());
    state
        .identity
        .open_with(|keys| taking.push(keys.opening(), sealed))
        .unwrap();
    let (_, sealer) = taking.finish().unwrap();
    let place = Arc::clone(&state.requests).try_acquire_owned().unwrap();
    let record = Record::begin(&state.metrics);
    tokio::time::pause();
    let began = Instant::now();
    let pacing = Pacing::begin(&state.config.padding);
    tokio::time::advance(after).await;
    let sealer = sealer.into_paced(pacing.row).unwrap();
    let work = AbortOnDropHandle::new(tokio::spawn(work));
    let reply = reply((sealer, None), work, pacing, state, (record, place));
    Paced {
        node,
        reply,
        opener,
        began,
    }
}

impl Paced {
    /// The next chunk and the tick that it came at or after; `None` at the end.
    async fn next(&mut self) -> Option<(u128, Bytes)> {
        let chunk = poll_fn(|cx| self.reply.poll(cx)).await?.unwrap();
        // Tokio's timers are of whole milliseconds, and a tick is not late by one of its own.
        Some((self.began.elapsed().as_millis() / TICK.as_millis(), chunk))
    }

    /// Reads to the end: the ticks at which chunks came, and what was said.
    async fn finish(mut self) -> (Vec<u128>, Said) {
        let (mut times, mut said) = (Vec::new(), Said::default());
        while let Some((at, chunk)) = self.next().await {
            times.push(at);
            self.opener.push(chunk).unwrap();
            said.take(&mut self.opener);
        }
        let last = self.opener.finish().unwrap();
        said.status = said.status.or(last.head.map(|head| head.status));
        said.content.extend_from_slice(&last.content);
        said.incomplete = last.trailers.incomplete;
        // For the next one, whose node is asked over sockets.
        tokio::time::resume();
        (times, said)
    }
}

#[derive(Debug, Default)]
struct Said {
    status: Option<u16>,
    content: Vec<u8>,
    incomplete: Option<String>,
}

impl Said {
    fn take(&mut self, opener: &mut ReplyOpener) {
        use crate::seal::ReplyPart::{Content, Head};
        while let Some(part) = opener.next_part().unwrap() {
            match part {
                Head(head) => self.status = Some(head.status),
                Content(content) => self.content.extend_from_slice(&content),
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.content.clone()).unwrap()
    }
}

fn ticks(ticks: std::ops::RangeInclusive<u128>) -> Vec<u128> {
    ticks.collect()
}

/// What an engine says, on a connection that a test writes.
async fn engine(node: &Running) -> (DuplexStream, Answer) {
    let (mut here, there) = duplex(4096);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(there))
        .await
        .unwrap();
    tokio::spawn(connection);
    let asking = sender.send_request(Request::new(Empty::<Bytes>::new()));
    let answering = async {
        let mut asked = [0; 512];
        assert!(here.read(&mut asked).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        here.write_all(head.as_bytes()).await.unwrap();
        here.write_all(EVENT.as_bytes()).await.unwrap();
    };
    let (response, ()) = tokio::join!(asking, answering);
    let options = RequestOptions::default();
    let levelled = level_request(Endpoint::Completions, STREAM_BODY.as_bytes(), &options);
    let context = levelled
        .unwrap()
        .context(RequestId::generate(), SystemTime::UNIX_EPOCH);
    let timeouts = &node.state.config.timeouts;
    let mut engine = EngineStream::new(
        response.unwrap().into_body(),
        context,
        timeouts.engine_first_byte_ms.duration(),
        timeouts.engine_idle_ms.duration(),
    );
    let first = poll_fn(|cx| engine.poll_part(cx)).await;
    let place = node.state.models.engines()[0].places.take().await.unwrap();
    let begun = Begun {
        engine,
        place,
        first,
    };
    (here, Answer::Stream(Box::new(begun)))
}

/// A reply whose engine has said one event, and the engine's side of it.
async fn begin_with_engine() -> (Paced, DuplexStream) {
    let (said, saying) = tokio::sync::oneshot::channel();
    let paced = begin(async { saying.await.unwrap() }).await;
    let (engine, answer) = engine(&paced.node).await;
    said.send(answer).ok().unwrap();
    (paced, engine)
}

#[tokio::test]
async fn chunks_come_at_ticks_from_acceptance_on_and_the_status_is_the_true_one() {
    let refusal = Refusal::Overloaded { retry_after_s: 3 };
    for (after_ms, last) in [(0, 1), (39, 1), (95, 3), (990, 25)] {
        let work = async move {
            sleep(Duration::from_millis(after_ms)).await;
            Answer::from(refusal)
        };
        let paced = begin(work).await;
        let (times, said) = paced.finish().await;
        assert_eq!(times, ticks(1..=last), "{after_ms}");
        assert_eq!(said.status, Some(503));
        assert!(said.text().contains("overloaded"), "{said:?}");
    }
}

#[tokio::test]
async fn replies_that_begin_at_other_times_go_out_at_the_same_ticks() {
    for (after_ms, first) in [(0, 1), (1, 1), (39, 1), (40, 2), (61, 2), (4001, 101)] {
        let mut paced = begin_after(Duration::from_millis(after_ms), pending()).await;
        for tick in first..first + 5 {
            assert_eq!(paced.next().await.unwrap().0, tick, "{after_ms}");
        }
        tokio::time::resume();
    }
}

#[tokio::test]
async fn ticks_that_nobody_waited_for_are_passed_over() {
    let mut paced = begin(pending()).await;
    let mut times = Vec::new();
    for rest_ms in [0, 0, 10_000, 0, 0, 55, 0] {
        sleep(Duration::from_millis(rest_ms)).await;
        times.push(paced.next().await.unwrap().0);
    }
    // After ten seconds one at once, and the next where it would have been.
    assert_eq!(times, [1, 2, 252, 253, 254, 255, 256]);
}

#[tokio::test]
async fn a_stream_that_is_whole_ends_at_a_tick_and_gives_the_engines_place_back_before() {
    let (mut paced, mut engine) = begin_with_engine().await;
    let mut held = Vec::new();
    for tick in 1..=3 {
        let (_, chunk) = paced.next().await.unwrap();
        paced.opener.push(chunk).unwrap();
        held.push(paced.node.state.models.engines()[0].places.held());
        if tick == 2 {
            engine.write_all(b"data: [DONE]\n\n").await.unwrap();
        }
    }
    assert_eq!(held, [1, 1, 0], "three chunks are none of the row");
    let taken = paced.node.state.requests.available_permits();
    let requests = Arc::clone(&paced.node.state.requests);
    let (times, said) = paced.finish().await;
    assert_eq!(times, [4], "and four are");
    assert!(said.text().contains("one") && said.text().ends_with("data: [DONE]\n\n"));
    assert_eq!((said.status, said.incomplete), (Some(200), None));
    assert_eq!(requests.available_permits(), taken + 1);
}

#[tokio::test]
async fn an_engine_that_is_silent_too_long_ends_a_stream_that_never_was() {
    let (paced, engine) = begin_with_engine().await;
    let (times, said) = paced.finish().await;
    // A second, and on to the next power of two.
    assert_eq!(times, ticks(1..=32));
    assert_eq!(
        (said.status, said.incomplete.as_deref()),
        (Some(200), Some("idle"))
    );
    assert!(!said.text().contains("[DONE]"));
    drop(engine);
}

#[tokio::test]
async fn an_engine_that_dies_is_told_under_the_seal() {
    let (paced, engine) = begin_with_engine().await;
    drop(engine);
    let (_, said) = paced.finish().await;
    assert_eq!(said.incomplete.as_deref(), Some("engine-failed"));
    assert!(said.text().contains("one"));
}

#[tokio::test]
async fn an_engine_far_ahead_is_not_read_and_nothing_of_it_is_lost() {
    const EVENTS: usize = 6000;
    let (mut paced, mut engine) = begin_with_engine().await;
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counts = Arc::clone(&written);
    let count = move || counts.load(std::sync::atomic::Ordering::Relaxed);
    tokio::spawn(async move {
        for _ in 0..EVENTS {
            engine.write_all(EVENT.as_bytes()).await.unwrap();
            written.fetch_add(EVENT.len(), std::sync::atomic::Ordering::Relaxed);
        }
        engine.write_all(b"data: [DONE]\n\n").await.unwrap();
    });
    let mut said = Said::default();
    for ticks in 1..100 {
        let (_, chunk) = paced.next().await.unwrap();
        paced.opener.push(chunk).unwrap();
        said.take(&mut paced.opener);
        // What waits, a piece, and what lies between: not all that there is.
        let most = 4 * 64 * 1024 + ticks * 512;
        assert!(
            count() <= most && most < EVENTS * EVENT.len(),
            "{}",
            count()
        );
    }
    let (_, rest) = paced.finish().await;
    let text = said.text() + &rest.text();
    assert_eq!(text.matches("\"text\":\"one\"").count(), EVENTS + 1);
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert_eq!(rest.incomplete, None);
}

#[tokio::test]
async fn a_node_that_waits_no_longer_says_so_at_the_next_tick() {
    for has_engine in [false, true] {
        let (mut paced, _engine) = if has_engine {
            let (paced, engine) = begin_with_engine().await;
            (paced, Some(engine))
        } else {
            (begin(pending()).await, None)
        };
        for _ in 0..5 {
            let (_, chunk) = paced.next().await.unwrap();
            paced.opener.push(chunk).unwrap();
            Said::default().take(&mut paced.opener);
        }
        paced.node.state.cut.cancel();
        let (times, said) = paced.finish().await;
        assert_eq!(times, [6], "{has_engine}");
        assert_eq!(said.incomplete.as_deref(), Some("cancelled"));
    }
}

#[tokio::test]
async fn who_leaves_ends_the_work() {
    let (left, ended) = tokio::sync::oneshot::channel::<()>();
    let mut ended = Box::pin(ended);
    let mut paced = begin(async move {
        let _left = left;
        pending().await
    })
    .await;
    paced.next().await.unwrap();
    assert!(ended.try_recv().is_err_and(|it| it == TryRecvError::Empty));
    drop(paced.reply);
    assert!(ended.await.is_err(), "it is dropped");
    let requests = &paced.node.state.requests;
    assert_eq!(requests.available_permits(), 4096);
}

#[tokio::test]
async fn work_that_panics_ends_the_reply_without_a_word() {
    let mut paced = begin(async { panic!("a test") }).await;
    let aborted = poll_fn(|cx| paced.reply.poll(cx)).await;
    assert!(aborted.unwrap().is_err());
    assert!(paced.next().await.is_none());
}

#[tokio::test]
async fn who_comes_only_when_a_tick_is_due_reads_all_of_it() {
    let (mut paced, mut engine) = begin_with_engine().await;
    engine.write_all(b"data: [DONE]\n\n").await.unwrap();
    let mut said = Said::default();
    for _ in 0..8 {
        sleep(TICK * 2).await;
        let Some((_, chunk)) = paced.next().await else {
            break;
        };
        paced.opener.push(chunk).unwrap();
        said.take(&mut paced.opener);
    }
    let last = paced.opener.finish().unwrap().content;
    let text = said.text() + &String::from_utf8_lossy(&last);
    assert!(
        text.contains("one") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_tick_is_a_multiple_from_the_first_moment_on() {
    let tick_ms: u64 = 40;
    let pacing = Pacing::begin(&toml::from_str(&format!("tick_ms = {tick_ms}")).unwrap());
    let from = Instant::now();
    for (at_ms, next) in [
        (0, 1),
        (1, 1),
        (39, 1),
        (40, 2),
        (41, 2),
        (79, 2),
        (4001, 101),
    ] {
        tokio::time::advance(from + Duration::from_millis(at_ms) - Instant::now()).await;
        let expected = Duration::from_millis(next * tick_ms);
        assert_eq!(pacing.next() - from, expected, "{at_ms}");
    }
}

#[tokio::test]
async fn what_is_no_stream_waits_for_a_tick() {
    const TICK_MS: u64 = 300;
    let engines = "[[engine]]\nurl = \"builtin:echo\"\n";
    let node = Running::start(&format!("padding = {{ tick_ms = {TICK_MS} }}\n{engines}")).await;
    let echo = |body: &str| body.replace("\"m\"", "\"echo\"");
    let (unary, stream) = (echo(BODY), echo(STREAM_BODY));
    let old = [("date", "Thu, 01 Jan 1970 00:00:00 GMT")];
    for (content, fields, status) in [
        (&unary[..], &[][..], 200),
        ("{}", &[], 400),
        (&stream, &old, 400),
    ] {
        let sent = Sent {
            content,
            fields,
            padding: Padding::Paced,
            ..Sent::default()
        };
        let (request, opener) = node.seal(sent).await;
        let tick = node.state.pacing.next();
        let reply = node.begin_with(request, opener).await;
        // It may be later, and never sooner.
        assert!(Instant::now() >= tick, "{content}");
        assert_eq!(reply.finish().await.status, status, "{content}");
    }
}
