//! Replies of the gateway's own that go out at ticks, while time stands still but for them; and those
//! that a client gets who asked for it.

use std::{
    future::{pending, poll_fn},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::{
    sync::oneshot::error::TryRecvError,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    fake::{self, FakeNode, Writer},
    harness::{BODY, PATIENCE, Running, STREAM_BODY},
    sealed::{KEY, start_padded},
};
use crate::{
    attester::paced::Pacing,
    client::{AskError, Channel, Endpoint, Events, ExchangeError, Incomplete, Reply},
    clock::Clock,
    gateway::{
        admit::Admission,
        body::ReplyBody,
        error::Error,
        paced::{PacedReply, reply},
        stream::tests::{complete_stream, held, record},
        trust::Trust,
        whole::WholeReply,
    },
    ids::RequestId,
    openai::Usage,
    seal::{
        Padding, REQUEST_MEDIA_TYPE, ReplyOpener, ReplyPart, RequestHead, RequestOpener, Trailers,
        seal_request,
    },
};

const TICK_MS: u64 = 40;
const TICKS: &str = "padding = { tick_ms = 20, least_chunks = 4 }\n";

/// A reply and what opens it.
struct Paced {
    reply: PacedReply,
    opener: ReplyOpener,
    cut: CancellationToken,
    began: Instant,
    lens: Vec<usize>,
    _running: (FakeNode, Running),
}

/// Begins a reply in time that stands still, of at least so many chunks, for `work` to answer.
async fn begin(
    least: u16,
    work: impl Future<Output = Response<ReplyBody>> + Send + 'static,
) -> Paced {
    let node = FakeNode::start("one").await;
    let (running, channel) = start_padded(&node, Padding::Paced, "").await;
    let now = Clock::system().now();
    let key = channel.node().sealing_key(now).unwrap();
    let head = RequestHead {
        path: "/v1/completions",
        fields: &[],
    };
    let sealed = seal_request(&key, now, &head, STREAM_BODY.as_bytes(), Padding::Paced);
    let (sealed, opener) = sealed.unwrap();
    let mut taking = RequestOpener::new(Default::default());
    let own = running.shared.own.as_ref().unwrap();
    own.identity
        .open_with(|keys| taking.push(keys.opening(), sealed))
        .unwrap();
    let (_, sealer) = taking.finish().unwrap();
    tokio::time::pause();
    let padding = format!("tick_ms = {TICK_MS}\nleast_chunks = {least}");
    let (began, pacing) = (
        Instant::now(),
        Pacing::begin(&toml::from_str(&padding).unwrap()),
    );
    let sealer = sealer.into_paced(pacing.row).unwrap();
    let work = AbortOnDropHandle::new(tokio::spawn(work));
    let cut = CancellationToken::new();
    let reply = reply(sealer, work, RequestId::generate(), pacing, cut.clone());
    Paced {
        reply,
        opener,
        cut,
        began,
        lens: Vec::new(),
        _running: (node, running),
    }
}

/// What was said.
#[derive(Debug, Default)]
struct Said {
    status: Option<u16>,
    content_type: Option<String>,
    content: Vec<u8>,
    trailers: Trailers,
}

impl Said {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.content).unwrap()
    }
}

impl Paced {
    /// The tick of the next chunk, which is kept to be opened; `None` at the end.
    async fn next(&mut self) -> Option<u128> {
        let chunk = poll_fn(|cx| self.reply.poll(cx)).await?.unwrap();
        self.lens.push(chunk.len());
        self.opener.push(chunk).unwrap();
        Some(self.began.elapsed().as_millis() / u128::from(TICK_MS))
    }

    /// The number of the chunks to the end, each of which comes at its tick, and all that was said.
    async fn finish(mut self) -> (usize, Said) {
        use crate::seal::ReplyPart::{Content, Head};
        while let Some(tick) = self.next().await {
            assert_eq!(tick, self.lens.len() as u128);
        }
        let (mut head, mut content) = (None, Vec::new());
        while let Some(part) = self.opener.next_part().unwrap() {
            match part {
                Head(first) => head = Some(first),
                Content(more) => content.extend_from_slice(&more),
            }
        }
        let last = self.opener.finish().unwrap();
        content.extend_from_slice(&last.content);
        let head = head.or(last.head);
        // For the next one, whose gateway is asked over sockets.
        tokio::time::resume();
        let said = Said {
            status: head.as_ref().map(|head| head.status),
            content_type: head.and_then(|head| head.content_type),
            content,
            trailers: last.trailers,
        };
        (self.lens.len(), said)
    }
}

fn whole(admission: &Admission) -> Response<ReplyBody> {
    let mut record = record();
    record.came = 100;
    record.claimed(Some(Usage::new(0, 7)));
    let parts = ["{", "\"answer\":1}"].map(Bytes::from).to_vec();
    let reply = WholeReply::new(parts, record, held(admission));
    Response::builder()
        .status(StatusCode::IM_A_TEAPOT)
        .header("content-type", "application/json")
        .body(ReplyBody::Whole(Box::new(reply)))
        .unwrap()
}

/// A stream that came whole, and the node's place.
fn events(admission: &Admission) -> (Response<ReplyBody>, Arc<crate::gateway::node::Node>) {
    let held = held(admission);
    let node = Arc::clone(&held.node.node);
    let trust = Trust::begin(&CancellationToken::new());
    let events = complete_stream(&trust, held);
    let response = Response::builder()
        .header("content-type", "text/event-stream")
        // As long as names and what vouches for them can be.
        .header("sealgate-node", "n".repeat(64))
        .header(
            "sealgate-attestation",
            "azure-snp; root=\"software root\"; age=1234567",
        )
        .body(ReplyBody::Stream(Box::new(events)));
    (response.unwrap(), node)
}

#[tokio::test]
async fn chunks_come_at_ticks_and_an_error_has_its_own_status() {
    for (after_ms, last) in [(0, 1), (39, 1), (95, 3), (990, 25)] {
        let work = async move {
            sleep(Duration::from_millis(after_ms)).await;
            Error::Overloaded.into_response()
        };
        let (chunks, said) = begin(1, work).await.finish().await;
        assert_eq!(chunks, last, "{after_ms}");
        assert_eq!(said.status, Some(429));
        assert_eq!(said.content_type.as_deref(), Some("application/json"));
        assert!(said.text().contains("\"overloaded\""), "{said:?}");
    }
}

#[tokio::test]
async fn what_came_whole_goes_at_one_tick_and_holds_its_place_until_then() {
    let admission = Admission::new(1, 0);
    let admitted = admission.clone();
    let work = async move {
        sleep(Duration::from_millis(TICK_MS * 2 + 1)).await;
        whole(&admitted)
    };
    let mut paced = begin(1, work).await;
    for tick in 1..=2 {
        assert_eq!(paced.next().await, Some(tick));
    }
    // It is there before the tick at which it goes.
    let waited = timeout(Duration::from_millis(TICK_MS / 2), paced.next()).await;
    assert!(waited.is_err());
    assert_eq!(admission.in_flight(), 1);
    let (chunks, said) = paced.finish().await;
    assert_eq!(
        (chunks, said.status, said.text()),
        (3, Some(418), "{\"answer\":1}")
    );
    assert!(said.trailers.usage.unwrap().contains("\"total_tokens\":7"));
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_gives_its_node_back_at_its_end_and_its_place_with_the_last_chunk() {
    let admission = Admission::new(1, 0);
    let (response, node) = events(&admission);
    let mut paced = begin(8, async { response }).await;
    for tick in 1..=7 {
        assert_eq!(paced.next().await, Some(tick));
        assert_eq!((node.load.in_flight(), admission.in_flight()), (0, 1));
    }
    let lens = paced.lens.clone();
    let (chunks, said) = paced.finish().await;
    assert_eq!((chunks, said.status), (8, Some(200)));
    assert!(lens[1..].iter().all(|len| *len == lens[1]), "{lens:?}");
    let text = said.text();
    assert!(text.contains("choices") && text.ends_with("data: [DONE]\n\n"));
    assert_eq!(said.trailers.incomplete, None);
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test]
async fn a_gateway_that_waits_no_longer_says_so_at_the_next_tick() {
    let admission = Admission::new(1, 0);
    let (response, _) = events(&admission);
    let cases = [
        ("no answer yet", None, Some("cancelled")),
        ("nothing to come but the end", Some(response), None),
    ];
    for (name, answer, incomplete) in cases {
        let work = async {
            match answer {
                Some(answer) => answer,
                None => pending().await,
            }
        };
        let mut paced = begin(1024, work).await;
        for _ in 0..5 {
            paced.next().await.unwrap();
        }
        paced.cut.cancel();
        let (chunks, said) = paced.finish().await;
        assert_eq!(chunks, 6, "{name}");
        assert_eq!(said.trailers.incomplete.as_deref(), incomplete, "{name}");
        let is_whole = said.text().ends_with("data: [DONE]\n\n");
        assert_eq!(is_whole, incomplete.is_none(), "{name}");
    }
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test]
async fn who_leaves_ends_the_work_and_gives_back_what_it_holds() {
    let (left, ended) = tokio::sync::oneshot::channel::<()>();
    let mut ended = Box::pin(ended);
    let mut paced = begin(1, async move {
        let _left = left;
        pending().await
    })
    .await;
    paced.next().await.unwrap();
    assert!(ended.try_recv().is_err_and(|it| it == TryRecvError::Empty));
    drop(paced);
    assert!(ended.await.is_err(), "it is dropped");

    tokio::time::resume();
    let admission = Admission::new(1, 0);
    let (response, _) = events(&admission);
    let mut paced = begin(1024, async { response }).await;
    paced.next().await.unwrap();
    assert_eq!(admission.in_flight(), 1);
    drop(paced);
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test]
async fn work_that_panics_ends_the_reply_without_a_word() {
    let mut paced = begin(1, async { panic!("a test") }).await;
    let aborted = poll_fn(|cx| paced.reply.poll(cx)).await;
    assert!(aborted.unwrap().is_err());
    assert!(paced.next().await.is_none());
}

async fn streamed(channel: &Channel) -> Events {
    let reply = channel.request(Endpoint::Completions, STREAM_BODY).await;
    match reply.unwrap() {
        Reply::Stream(events) => events,
        Reply::Whole(whole) => panic!("{whole:?}"),
    }
}

/// The node's events that come up to the end, and how that was.
async fn rest(mut events: Events) -> (usize, Result<(), ExchangeError>) {
    let mut count = 0;
    loop {
        match timeout(PATIENCE, events.next()).await.unwrap() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, Ok(())),
            Err(error) => return (count, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_client_gets_streams_replies_and_refusals_at_ticks() {
    const EVENT: &[u8] = b"data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n";
    let node = FakeNode::start(&"n".repeat(64)).await;
    node.play(|asked| async move {
        assert_eq!(asked.field("sealgate-padding").as_deref(), Some("paced"));
        if asked.request.content.as_ref() == BODY.as_bytes() {
            return asked.json(200, r#"{"answer":1}"#);
        }
        let (mut sealer, writer, response) = asked.stream();
        for _ in 0..40 {
            writer.try_send(Ok(sealer.chunk(EVENT).unwrap())).unwrap();
        }
        let usage = [(
            "sealgate-usage",
            r#"{"prompt_tokens":1,"completion_tokens":40,"total_tokens":41}"#,
        )];
        let last = sealer.finish(b"data: [DONE]\n\n", &usage).unwrap();
        writer.try_send(Ok(last)).unwrap();
        response
    });
    let (running, channel) = start_padded(&node, Padding::Paced, TICKS).await;
    let (count, end) = rest(streamed(&channel).await).await;
    assert_eq!(count, 40);
    end.unwrap();
    let reply = channel.request(Endpoint::Completions, BODY).await.unwrap();
    assert!(matches!(reply, Reply::Whole(whole) if whole.body() == r#"{"answer":1}"#));

    node.play(|asked| async move { asked.problem(503, "overloaded") });
    for body in [BODY, STREAM_BODY] {
        let error = channel.request(Endpoint::Completions, body).await;
        let error = error.unwrap_err();
        assert!(
            matches!(
                error,
                AskError::Exchange(ExchangeError::Engine { status: 503 })
            ),
            "{error}"
        );
    }
    let idle = async {
        while running.shared.admission.in_flight() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, idle).await.unwrap();
}

#[tokio::test]
async fn a_paced_stream_that_breaks_or_is_cut_says_so() {
    for (broken, expected) in [
        (true, Incomplete::EngineFailed),
        (false, Incomplete::Cancelled),
    ] {
        let node = FakeNode::start("one").await;
        let kept: Arc<Mutex<Option<Writer>>> = Arc::default();
        let keeping = Arc::clone(&kept);
        node.play(move |asked| {
            let (mut sealer, writer, response) = asked.stream();
            let event = b"data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n";
            let first = sealer.chunk(event).unwrap();
            writer.try_send(Ok(first)).unwrap();
            *keeping.lock().unwrap() = Some(writer);
            async move { response }
        });
        let (running, channel) = start_padded(&node, Padding::Paced, TICKS).await;
        let mut events = streamed(&channel).await;
        assert!(events.next().await.unwrap().is_some());
        if broken {
            let writer = kept.lock().unwrap().take().unwrap();
            writer.try_send(Err(fake::Broken)).unwrap();
        } else {
            running.shared.cut.cancel();
        }
        let (_, end) = rest(events).await;
        let error = end.unwrap_err();
        assert!(
            matches!(error, ExchangeError::Incomplete(why) if why == expected),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_paced_stream_that_is_cut_tells_no_more_usage_than_can_be_true() {
    let node = FakeNode::start("one").await;
    let kept: Arc<Mutex<Option<Writer>>> = Arc::default();
    let keeping = Arc::clone(&kept);
    node.play(move |asked| {
        let (mut sealer, writer, response) = asked.stream();
        let events = b"data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n\
            :usage {\"prompt_tokens\":1,\"completion_tokens\":1000000,\"total_tokens\":1000001}\n";
        writer.try_send(Ok(sealer.chunk(events).unwrap())).unwrap();
        *keeping.lock().unwrap() = Some(writer);
        async move { response }
    });
    let (running, channel) = start_padded(&node, Padding::Paced, TICKS).await;
    let now = Clock::system().now();
    let key = channel.node().sealing_key(now).unwrap();
    let date = httpdate::fmt_http_date(now);
    let statement = channel.node().statement_digest().to_string();
    let (id, authorization) = (RequestId::generate().to_string(), format!("Bearer {KEY}"));
    let head = RequestHead {
        path: "/v1/completions",
        fields: &[
            ("content-type", "application/json"),
            ("date", &date),
            ("sealgate-statement", &statement),
            ("sealgate-request-id", &id),
            ("sealgate-padding", "paced"),
            ("authorization", &authorization),
        ],
    };
    let sealed = seal_request(&key, now, &head, STREAM_BODY.as_bytes(), Padding::Paced);
    let (sealed, mut opener) = sealed.unwrap();
    let response = running
        .begin_as(
            KEY,
            "/.well-known/ohttp-gateway",
            REQUEST_MEDIA_TYPE,
            sealed,
        )
        .await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut content = Vec::new();
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.unwrap();
        let Some(frame) = frame else { break };
        opener.push(frame.unwrap().into_data().unwrap()).unwrap();
        while let Some(part) = opener.next_part().unwrap() {
            if let ReplyPart::Content(more) = part {
                content.extend_from_slice(&more);
            }
        }
        if content.windows(7).any(|it| it == b"choices") {
            running.shared.cut.cancel();
        }
    }
    let last = opener.finish().unwrap();
    assert_eq!(last.trailers.incomplete.as_deref(), Some("cancelled"));
    let usage = last.trailers.usage.unwrap();
    let usage = Usage::from_json(usage.as_bytes()).unwrap();
    assert!(usage.completion_tokens < 1000, "{usage:?}");
}
