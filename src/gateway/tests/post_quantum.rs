//! Who requires a post-quantum key while nodes come by one and lose it.

use std::time::Duration;

use attestation::statement::Suite;
use sha2::{Digest as _, Sha256};

use super::{
    fake::{FakeNode, folder},
    harness::{BODY, Got, Running},
};
use crate::{clock::Clock, gateway::node::Reattested};

const CAREFUL: &str = "careful";

async fn careful(gateway: &Running) -> Got {
    let request = gateway
        .request("POST", "/v1/completions")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {CAREFUL}"));
    let body = http_body_util::Full::new(BODY.into());
    gateway.send(request.body(body).unwrap()).await
}

fn text(got: &Got) -> &str {
    std::str::from_utf8(&got.body).unwrap()
}

/// A gateway before one node, with a key that requires X-Wing.
async fn gateway(node: &FakeNode, dir: &std::path::Path) -> Running {
    for file in std::fs::read_dir(folder()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
    }
    let digest = hex::encode(Sha256::digest(CAREFUL));
    let keys = format!("[[key]]\nname = \"careful\"\nsha256 = \"{digest}\"\nrequire_pq = true\n");
    std::fs::write(dir.join("keys.toml"), keys).unwrap();
    let urls = [format!("http://{}", node.address)];
    let rest = "keys_file = \"keys.toml\"\n";
    let gateway = Running::start_in(dir, &urls, rest, Clock::system()).await;
    gateway.until_ready().await;
    gateway
}

/// The list of those who have such a key follows the statements.
#[tokio::test]
async fn a_node_that_comes_by_a_post_quantum_key_is_asked_at_once() {
    let (node, dir) = (FakeNode::start("one").await, tempfile::tempdir().unwrap());
    let gateway = gateway(&node, dir.path()).await;
    let refused = careful(&gateway).await;
    assert_eq!(refused.status, 503);
    assert!(text(&refused).contains("x-wing"), "{}", text(&refused));
    node.restart_with(Suite::XWing);
    let known = gateway.shared.nodes.all()[0].clone();
    let again = known.refresh(Duration::from_secs(20)).await;
    assert!(matches!(again, Reattested::Passed), "{again:?}");
    assert_eq!(careful(&gateway).await.status, 200);
}

/// Nor is less sealed to where the gateway finds out by the request itself.
#[tokio::test]
async fn a_node_that_lost_its_post_quantum_key_gets_nothing_less() {
    let (node, dir) = (FakeNode::start("one").await, tempfile::tempdir().unwrap());
    node.restart_with(Suite::XWing);
    let gateway = gateway(&node, dir.path()).await;
    assert_eq!(careful(&gateway).await.status, 200);
    node.restart_with(Suite::X25519);
    let attested = node.attested();
    let refused = careful(&gateway).await;
    assert_eq!(refused.status, 503, "{}", text(&refused));
    assert!(
        node.attested() > attested,
        "it has said that it has another"
    );
}
