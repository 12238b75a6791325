//! Which node a request may go to, and how much one node gets.

use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{
    appraisals::until,
    fake::{FakeNode, folder},
    harness::{BODY, Got, Running},
};
use crate::clock::Clock;

type Fields<'a> = &'a [(&'a str, &'a str)];
/// The node, or the error.
type Expected<'a> = Result<&'a str, (u16, &'a str)>;

/// A body to the gateway as the holder of a key, with fields.
async fn post(gateway: &Running, key: &str, fields: Fields<'_>) -> Got {
    let mut request = gateway
        .request("POST", "/v1/completions")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {key}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let body = http_body_util::Full::new(BODY.into());
    gateway.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn a_request_goes_where_its_key_and_its_fields_allow() {
    let (eu, us) = (FakeNode::start("eu-1").await, FakeNode::start("us-1").await);
    let key = |name: &str, more: &str| {
        let digest = hex::encode(Sha256::digest(name));
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{more}\n")
    };
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
    }
    let keys = [
        key("all", ""),
        key("in-eu", "regions = [\"eu\"]"),
        key("on-h200", "tags = [\"h200\"]"),
    ];
    std::fs::write(dir.path().join("keys.toml"), keys.concat()).unwrap();
    let tables = format!(
        "keys_file = \"keys.toml\"\n\
         [[node]]\nurl = \"http://{}\"\nregion = \"eu\"\ntags = [\"h100\"]\n\
         [[node]]\nurl = \"http://{}\"\nregion = \"us\"\ntags = [\"h100\", \"h200\"]\n",
        eu.address, us.address
    );
    let gateway = Running::start_in(dir.path(), &[], &tables, Clock::system()).await;
    gateway.until_ready().await;
    while gateway.shared.nodes.snapshot().nodes().count() < 2 {
        tokio::task::yield_now().await;
    }
    let cases: [(&str, Fields<'_>, Expected<'_>); 10] = [
        ("in-eu", &[], Ok("eu-1")),
        ("on-h200", &[], Ok("us-1")),
        ("all", &[("sealgate-region", "us")], Ok("us-1")),
        ("all", &[("sealgate-tags", "h100, h200")], Ok("us-1")),
        ("in-eu", &[("sealgate-tags", "h100")], Ok("eu-1")),
        ("in-eu", &[("sealgate-region", "eu,us")], Ok("eu-1")),
        (
            "in-eu",
            &[("sealgate-region", "us")],
            Err((503, "no_attested_node")),
        ),
        (
            "on-h200",
            &[("sealgate-region", "eu")],
            Err((503, "no_attested_node")),
        ),
        (
            "all",
            &[("sealgate-region", "mars")],
            Err((400, "invalid_request")),
        ),
        (
            "all",
            &[("sealgate-tags", "")],
            Err((400, "invalid_request")),
        ),
    ];
    for (key, fields, expected) in cases {
        for _ in 0..4 {
            let got = post(&gateway, key, fields).await;
            match expected {
                Ok(node) => assert_eq!(got.headers["sealgate-node"], node, "{key} {fields:?}"),
                Err((status, code)) => assert_eq!(got.code(), (status, code.to_owned()), "{key}"),
            }
        }
    }
    // A key that is held to a region finds no node of another to seal to either.
    let got = gateway.get_as("in-eu", "/v1/nodes/us-1/ohttp-keys").await;
    assert_eq!(got.code(), (404, "node_not_found".to_owned()));
}

#[tokio::test]
async fn a_node_gets_no_more_at_once_than_it_may_hold() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let described = [(&one, "max_in_flight = 1"), (&two, "max_in_flight = 2")];
    let gateway = Running::start_described(&described, "").await;
    let gate = watch::Sender::new(false);
    for node in [&one, &two] {
        let gate = gate.clone();
        node.play(move |asked| {
            let mut opened = gate.subscribe();
            async move {
                opened.wait_for(|open| *open).await.unwrap();
                asked.json(200, r#"{"object":"text_completion"}"#)
            }
        });
    }
    let three = join_all((0..3).map(|_| gateway.post(BODY)));
    let fourth = async {
        until("both nodes are full", || one.asked() + two.asked() == 3).await;
        assert_eq!((one.asked(), two.asked()), (1, 2));
        let got = gateway.post(BODY).await;
        assert_eq!(got.code(), (503, "no_node_available".to_owned()));
        assert_eq!(got.headers["retry-after"], "1");
        gate.send_replace(true);
    };
    let (answers, ()) = tokio::join!(three, fourth);
    for got in answers {
        assert_eq!(got.status, 200);
    }
    assert_eq!(
        gateway.post(BODY).await.status,
        200,
        "the places are free again"
    );
}
