//! How long a node is trusted, and how often it is asked.

use std::{fs, time::Duration};

use attestation::{SelfTest, SelfTestFailure};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::{
    fake::{FakeNode, folder},
    harness::{BODY, PATIENCE, Running, STREAM_BODY, read_stream},
};
use crate::{
    clock::Clock,
    config,
    gateway::{Gateway, StartError},
};

/// Looks until it is so.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect(what);
}

#[tokio::test]
async fn a_hundred_nodes_are_each_verified_once_for_a_thousand_waiting_callers() {
    const CALLERS: usize = 1000;
    let names: Vec<_> = (0..100).map(|i| format!("node-{i}")).collect();
    let nodes = join_all(names.iter().map(|name| FakeNode::start(name))).await;
    nodes.iter().for_each(|node| node.give(false));
    let all: Vec<_> = nodes.iter().collect();
    let rest = "[timeouts]\nattest_ms = 60000\nfirst_byte_ms = 60000\n";
    let gateway = Running::start_unready(&all, rest).await;
    let calls = join_all((0..CALLERS).map(|_| gateway.post(BODY)));
    let waiting = async {
        until("every caller waits and every node is asked", || {
            gateway.shared.admission.in_flight() == CALLERS
                && nodes.iter().all(|node| node.attested() == 1)
        })
        .await;
        assert_eq!(nodes.iter().map(FakeNode::asked).sum::<usize>(), 0);
        nodes.iter().for_each(|node| node.give(true));
    };
    let (answers, ()) = tokio::join!(calls, waiting);
    assert_eq!(answers.len(), CALLERS);
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert!(nodes.iter().all(|node| node.attested() == 1));
    assert_eq!(nodes.iter().map(FakeNode::asked).sum::<usize>(), CALLERS);
}

#[tokio::test]
async fn an_appraisal_serves_until_its_end_and_its_streams_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder().join("policy.toml")).unwrap();
    let policy = text.replace("version = 1\n", "version = 1\nappraisal_max_age_s = 60\n");
    fs::write(dir.path().join("policy.toml"), policy).unwrap();
    fs::copy(folder().join("ark.pem"), dir.path().join("ark.pem")).unwrap();
    let (clock, node) = (Clock::tokio(), FakeNode::start("one").await);
    let url = format!("http://{}", node.address);
    let gateway = Running::start_in(dir.path(), &[url], "", clock).await;
    gateway.until_ready().await;
    node.play(|asked| {
        let (mut sealer, writer, response) = asked.stream();
        let event = sealer.chunk(b"data: {\"a\":1}\n\n").unwrap();
        tokio::spawn(async move {
            writer.send(Ok(event)).await.unwrap();
            writer.closed().await;
        });
        std::future::ready(response)
    });
    let stream = gateway.begin(STREAM_BODY).await;
    node.lie();

    let known = &gateway.shared.nodes.all()[0];
    let verified = known.verified().unwrap();
    let end = verified.node.expires_at();
    let left = || end.duration_since(clock.now()).unwrap();
    tokio::time::pause();
    sleep(left() - Duration::from_secs(1)).await;
    assert!(node.attested() > 1, "the renewal was tried and refused");
    assert!(known.verified().is_some());
    assert!(verified.node.sealing_key(clock.now()).is_ok());
    assert!(gateway.shared.nodes.snapshot().is_ready());
    assert_eq!(gateway.shared.admission.in_flight(), 1);
    sleep(left()).await;
    assert!(verified.node.sealing_key(clock.now()).is_err());
    sleep(Duration::from_millis(100)).await;
    assert!(known.verified().is_none());
    assert!(!gateway.shared.nodes.snapshot().is_ready());
    assert_eq!(
        gateway.shared.admission.in_flight(),
        0,
        "the stream's place"
    );
    tokio::time::resume();
    let (text, aborted) = read_stream(stream).await;
    assert!(aborted && text.contains("upstream_truncated"), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
    assert_eq!(
        gateway.post(BODY).await.code(),
        (503, "no_attested_node".to_owned())
    );
}

#[tokio::test]
async fn a_verifier_that_fails_its_test_never_starts() {
    let text = "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\nauth = \"open\"\n\
                [[node]]\nurl = \"http://127.0.0.1:1\"\n";
    let path = folder().join("gateway.toml");
    let config = config::parse(&path, text, std::iter::empty()).unwrap();
    let fails = || {
        Err::<SelfTest, _>(SelfTestFailure::Accepted {
            sample: "a sample",
            change: "a forged signature",
        })
    };
    let error = Gateway::bind_with(<_>::default(), config, Clock::system(), fails)
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::SelfTest(_)), "{error}");
    assert!(error.to_string().contains("a forged signature"), "{error}");
}

#[tokio::test]
async fn a_verifier_that_fails_its_test_later_serves_no_more() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    assert_eq!(gateway.post(BODY).await.status, StatusCode::OK);
    gateway.shared.halted.cancel();
    until("no node counts as verified", || {
        !gateway.shared.nodes.snapshot().is_ready()
    })
    .await;
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let text = String::from_utf8_lossy(&ready.body);
    assert!(text.contains("self-test"), "{text}");
    let (attested, asked) = (node.attested(), node.asked());
    let refused = gateway.post(BODY).await;
    assert_eq!(refused.code(), (503, "no_attested_node".to_owned()));
    assert_eq!((node.attested(), node.asked()), (attested, asked));
}
