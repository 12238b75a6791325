//! An asker that leaves, and a node that stops.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{
    STREAM_BODY,
    harness::{Asked, FakeEngine, PATIENCE, Running, Sent},
};
use crate::seal::REQUEST_MEDIA_TYPE;

const EVENT: &str = "data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\
    \"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"one\",\"finish_reason\":null}]}\n\n";

/// A sealed request on a connection of its own.
async fn post(node: &Running, content: &str) -> TcpStream {
    let (request, _) = node
        .seal(Sent {
            content,
            ..Sent::default()
        })
        .await;
    let sealed: Bytes = request.into_body().collect().await.unwrap().to_bytes();
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = format!(
        "POST /.well-known/ohttp-gateway HTTP/1.1\r\nhost: a\r\n\
         content-type: {REQUEST_MEDIA_TYPE}\r\ncontent-length: {}\r\n\r\n",
        sealed.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&sealed).await.unwrap();
    stream
}

/// How far the engine is when the asker leaves.
#[derive(Clone, Copy, Debug)]
enum Phase {
    BeforeHead,
    AfterHead,
    AfterFirstEvent,
}

async fn play(asked: &mut Asked, phase: Phase) {
    if matches!(phase, Phase::AfterHead | Phase::AfterFirstEvent) {
        asked.begin_stream().await;
    }
    if matches!(phase, Phase::AfterFirstEvent) {
        asked.write(EVENT).await;
    }
}

#[tokio::test]
async fn the_engine_stops_within_a_second_of_the_asker_leaving_in_every_phase() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let cases = [
        (super::BODY, Phase::BeforeHead),
        (super::BODY, Phase::AfterHead),
        (STREAM_BODY, Phase::BeforeHead),
        (STREAM_BODY, Phase::AfterHead),
        (STREAM_BODY, Phase::AfterFirstEvent),
    ];
    for (content, phase) in cases {
        for half in [false, true] {
            let mut asker = post(&node, content).await;
            let mut asked = engine.asked().await;
            play(&mut asked, phase).await;
            let held = if half {
                asker.shutdown().await.unwrap();
                Some(asker)
            } else {
                drop(asker);
                None
            };
            asked.closed().await;
            drop(held);
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_on_http_2_stops_its_engine_alone() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await.over_http_2();
    for (content, phase) in [
        (super::BODY, Phase::BeforeHead),
        (STREAM_BODY, Phase::BeforeHead),
        (STREAM_BODY, Phase::AfterFirstEvent),
    ] {
        let (request, _) = node
            .seal(Sent {
                content,
                ..Sent::default()
            })
            .await;
        let mut asked = {
            let reply = node.send(request);
            let played = async {
                let mut asked = engine.asked().await;
                play(&mut asked, phase).await;
                asked
            };
            tokio::select! {
                _ = reply => panic!("the engine has not answered"),
                asked = played => asked,
            }
        };
        asked.closed().await;
        assert_eq!(node.get("/health").await.0, 200);
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
