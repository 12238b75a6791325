//! Nodes that fail, are put out, and come back.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    fake::{FakeNode, plain},
    harness::{BODY, Got, PATIENCE, Running},
};
use crate::gateway::health::Standing;

/// Looked at often, out for a short time, and no request shared by what is measured.
pub(super) const QUICK: &str =
    "health = { failures_in_row = 2, out_s = 1, probe_s = 1 }\nselection = { warm_up_s = 0 }\n";

fn breaks(node: &FakeNode) {
    node.play(|_| async { plain(502, "text/html", "a proxy".into()) });
}

fn works(node: &FakeNode) {
    node.play(|asked| async move { asked.json(200, r#"{"object":"text_completion"}"#) });
}

pub(super) fn standing(gateway: &Running, node: &str) -> Standing {
    gateway
        .shared
        .nodes
        .snapshot()
        .node(node)
        .unwrap()
        .standing()
}

/// Asks until it is so.
pub(super) async fn ask_until(gateway: &Running, is_so: impl Fn(&Got) -> bool) {
    let asking = async {
        while !is_so(&gateway.post(BODY).await) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap();
}

#[tokio::test]
async fn a_node_that_fails_again_and_again_is_put_out_and_tried_again_later() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], QUICK).await;
    breaks(&one);
    ask_until(&gateway, |_| standing(&gateway, "one") == Standing::Out).await;
    let before = one.asked();
    for _ in 0..8 {
        assert_eq!(gateway.post(BODY).await.status, 200);
    }
    // A trial can have come in between.
    assert!(one.asked() <= before + 1);
    works(&one);
    ask_until(&gateway, |got| {
        got.status == 200 && got.headers["sealgate-node"] == "one"
    })
    .await;
    assert_eq!(standing(&gateway, "one"), Standing::Good);
}

#[tokio::test]
async fn no_more_than_half_of_a_models_nodes_are_put_out() {
    let nodes = [
        FakeNode::start("one").await,
        FakeNode::start("two").await,
        FakeNode::start("three").await,
    ];
    let patient = QUICK.replace("out_s = 1", "out_s = 60");
    let gateway = Running::start(&[&nodes[0], &nodes[1], &nodes[2]], &patient).await;
    for node in &nodes {
        breaks(node);
    }
    let out = || {
        let names = ["one", "two", "three"].into_iter();
        names
            .filter(|name| standing(&gateway, name) == Standing::Out)
            .count()
    };
    ask_until(&gateway, |_| out() == 1).await;
    for _ in 0..16 {
        gateway.post(BODY).await;
        assert_eq!(out(), 1);
    }
    nodes.iter().for_each(works);
    ask_until(&gateway, |got| got.status == 200).await;
}

#[tokio::test]
async fn a_node_that_is_alone_is_never_put_out() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], QUICK).await;
    breaks(&node);
    for _ in 0..8 {
        assert_eq!(gateway.post(BODY).await.status, 502);
        assert_ne!(standing(&gateway, "one"), Standing::Out);
    }
    works(&node);
    assert_eq!(gateway.post(BODY).await.status, 200);
}

#[tokio::test]
async fn a_node_that_says_it_is_not_ready_gets_nothing_where_another_is() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], QUICK).await;
    one.be_ready(503);
    ask_until(&gateway, |_| standing(&gateway, "one") == Standing::Avoided).await;
    let before = one.asked();
    for _ in 0..8 {
        assert_eq!(gateway.post(BODY).await.headers["sealgate-node"], "two");
    }
    assert_eq!(one.asked(), before);
    two.be_ready(503);
    ask_until(&gateway, |_| standing(&gateway, "two") == Standing::Avoided).await;
    assert_eq!(gateway.post(BODY).await.status, 200, "better than none");
    one.be_ready(200);
    ask_until(&gateway, |_| standing(&gateway, "one") == Standing::Good).await;
}

#[tokio::test]
async fn a_node_that_answers_no_probe_is_put_out() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], QUICK).await;
    one.be_ready(500);
    let out = async {
        while standing(&gateway, "one") != Standing::Out {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, out).await.unwrap();
    one.be_ready(200);
    ask_until(&gateway, |got| got.headers["sealgate-node"] == "one").await;
}
