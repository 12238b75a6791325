//! What is tried again, and what never is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    fake::{Asked, FakeBody, FakeNode, body, outside, plain},
    harness::{BODY, PATIENCE, Running},
};

/// A way to a node that counts connections and can cut them all.
struct Way {
    url: String,
    accepted: Arc<AtomicUsize>,
    cut: Arc<Notify>,
}

impl Way {
    async fn to(node: &FakeNode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            accepted: Arc::default(),
            cut: Arc::default(),
        };
        let (accepted, cut) = (Arc::clone(&way.accepted), Arc::clone(&way.cut));
        let target = node.address;
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let cut = Arc::clone(&cut);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        way
    }
}

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
    sleep(Duration::from_millis(100)).await;
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
async fn an_error_from_between_proves_nothing() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], "").await;
    for status in [302, 404, 408, 500, 502, 504] {
        for node in [&one, &two] {
            node.play(move |_| async move { plain(status, "text/html", "a proxy".into()) });
        }
        let before = one.asked() + two.asked();
        let got = gateway.post(BODY).await;
        assert_eq!(got.code(), (502, "node_reply_invalid".to_owned()));
        assert_eq!(got.should_retry(), Some("false"), "{status}");
        assert_eq!(one.asked() + two.asked(), before + 1, "{status}");
    }
}

#[tokio::test]
async fn an_error_that_anybody_may_have_sent_is_no_proof_where_the_setting_says_so() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "retry_unauthenticated = false\n").await;
    node.restart();
    let got = gateway.post(BODY).await;
    assert_eq!(got.code(), (502, "node_reply_invalid".to_owned()));
    assert_eq!(got.should_retry(), Some("false"));
    assert_eq!(node.asked(), 1, "not sealed again");
    let attested = async {
        while node.attested() < 2 || gateway.post(BODY).await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, attested)
        .await
        .expect("attested again for the next");
}

/// What a node says of a second copy, when the connection broke under the first.
type Second = fn(Asked) -> Response<FakeBody>;

#[tokio::test]
async fn what_is_said_of_a_second_copy_proves_nothing_of_the_first() {
    let node = FakeNode::start("one").await;
    let way = Way::to(&node).await;
    let gateway = Running::start_before(std::slice::from_ref(&way.url), "").await;
    gateway.until_ready().await;
    let truncated = (502, "upstream_truncated");
    let cases: [(&str, Second, (u16, &str)); 4] = [
        ("full", |_| outside(), truncated),
        ("late", |asked| asked.problem(400, "date"), truncated),
        ("a copy", |asked| asked.problem(409, "replayed"), truncated),
        (
            "no copy before",
            |asked| asked.problem(503, "overloaded"),
            (503, "no_node_available"),
        ),
    ];
    for (name, second, (status, code)) in cases {
        node.play(|asked| async { asked.json(200, "{}") });
        assert_eq!(gateway.post(BODY).await.status, 200, "{name}: pools");
        let (asked_before, cut) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&way.cut));
        node.play(move |asked| {
            let is_first = asked_before.fetch_add(1, Ordering::Relaxed) == 0;
            let cut = Arc::clone(&cut);
            async move {
                if is_first {
                    cut.notify_waiters();
                    return std::future::pending().await;
                }
                second(asked)
            }
        });
        let before = node.asked();
        let got = gateway.post(BODY).await;
        assert_eq!(got.code(), (status, code.to_owned()), "{name}");
        assert_eq!(node.asked(), before + 2, "{name}");
    }
}

#[tokio::test]
async fn a_node_that_restarts_under_a_request_is_not_asked_for_it_again() {
    let node = Arc::new(FakeNode::start("one").await);
    let way = Way::to(&node).await;
    let gateway = Running::start_before(std::slice::from_ref(&way.url), "").await;
    gateway.until_ready().await;
    assert_eq!(gateway.post(BODY).await.status, 200);
    let (restarted, cut) = (Arc::downgrade(&node), Arc::clone(&way.cut));
    node.play(move |_| {
        if let Some(node) = restarted.upgrade() {
            node.restart();
        }
        cut.notify_waiters();
        std::future::pending()
    });
    let before = node.asked();
    let got = gateway.post(BODY).await;
    assert_eq!(got.code(), (502, "upstream_truncated".to_owned()));
    assert_eq!(node.asked(), before + 2);
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_not_asked_for_again() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    for node in [&one, &two] {
        node.play(|_| async {
            let (writer, body) = body();
            writer.send(Err(super::fake::Broken)).await.unwrap();
            let media_type = "message/ohttp-chunked-res";
            Response::builder()
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
    let node = FakeNode::start("one").await;
    let way = Way::to(&node).await;
    let gateway = Running::start_before(std::slice::from_ref(&way.url), "").await;
    gateway.until_ready().await;
    for _ in 0..8 {
        assert_eq!(gateway.post(BODY).await.status, 200);
    }
    assert_eq!(
        way.accepted.load(Ordering::Relaxed),
        2,
        "one for evidence, one for requests"
    );
}
