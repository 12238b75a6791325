//! What is tried again, and what never is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::net::TcpListener;

use super::{
    fake::{FakeNode, body, outside},
    harness::{BODY, Running},
};

#[tokio::test]
async fn a_node_that_restarted_is_attested_again_unseen_by_callers() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    assert_eq!(gateway.post(BODY).await.status, 200);
    node.restart();
    let replies = futures_util::future::join_all((0..16).map(|_| gateway.post(BODY))).await;
    for got in replies {
        assert_eq!(got.status, 200);
    }
    assert_eq!(node.attested(), 2, "once for all of them");
    node.restart();
    let got = gateway.post(BODY).await;
    assert_eq!(
        got.code(),
        (503, "no_node_available".to_owned()),
        "too soon for another"
    );
    assert_eq!(node.attested(), 2);
}

#[tokio::test]
async fn another_node_takes_what_one_cannot() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], "").await;
    for kind in ["overloaded", "draining", "engine-unreachable"] {
        one.play(move |asked| async move { asked.problem(503, kind) });
        for _ in 0..8 {
            let got = gateway.post(BODY).await;
            assert_eq!(
                (got.status.as_u16(), &got.headers["sealgate-node"]),
                (200, &"two".parse().unwrap()),
                "{kind}"
            );
        }
    }
    one.play(|_| async { outside() });
    for _ in 0..8 {
        assert_eq!(gateway.post(BODY).await.status, 200);
    }
}

#[tokio::test]
async fn a_dead_node_is_passed_over() {
    let one = FakeNode::start("one").await;
    let two = FakeNode::start("two").await;
    let gateway = Running::start(&[&one, &two], "").await;
    drop(one);
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..16 {
        assert_eq!(gateway.post(BODY).await.headers["sealgate-node"], "two");
    }
}

#[tokio::test]
async fn what_may_have_run_is_never_sent_twice() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], "").await;
    let both = |kind: &'static str, status| {
        for node in [&one, &two] {
            node.play(move |asked| async move { asked.problem(status, kind) });
        }
    };
    let cases = [
        ("replayed", 409, "upstream_truncated"),
        ("engine-failed", 502, "engine_error"),
        ("of-the-future", 503, "engine_error"),
    ];
    for (kind, status, code) in cases {
        both(kind, status);
        let before = one.asked() + two.asked();
        let got = gateway.post(BODY).await;
        assert_eq!(got.code(), (502, code.to_owned()), "{kind}");
        assert_eq!(got.should_retry(), Some("false"), "{kind}");
        assert_eq!(one.asked() + two.asked(), before + 1, "{kind}");
    }
    both("overloaded", 503);
    let before = one.asked() + two.asked();
    let got = gateway.post(BODY).await;
    assert_eq!(got.code(), (503, "no_node_available".to_owned()));
    assert_eq!(got.should_retry(), None);
    assert_eq!(one.asked() + two.asked(), before + 2, "each node once");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_not_asked_for_again() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    for node in [&one, &two] {
        node.play(|_| async {
            let (writer, body) = body();
            writer.send(Err(super::fake::Broken)).await.unwrap();
            let media_type = "message/ohttp-chunked-res";
            http::Response::builder()
                .header("content-type", media_type)
                .body(body)
                .unwrap()
        });
    }
    let gateway = Running::start(&[&one, &two], "").await;
    let got = gateway.post(BODY).await;
    assert_eq!(got.code(), (502, "upstream_truncated".to_owned()));
    assert_eq!(one.asked() + two.asked(), 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let node = FakeNode::start("one").await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let (count, target) = (Arc::clone(&accepted), node.address);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = proxy.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let gateway = Running::start_before(&[format!("http://{address}")], "").await;
    gateway.until_ready().await;
    for _ in 0..8 {
        assert_eq!(gateway.post(BODY).await.status, 200);
    }
    assert_eq!(
        accepted.load(Ordering::Relaxed),
        2,
        "one for evidence, one for requests"
    );
}
