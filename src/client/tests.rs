//! A client before nodes of the gateway's tests, whose connections have certificates.

use std::{fs, sync::atomic::Ordering};

use super::*;
use crate::gateway::tests::{
    fake::{self, FakeNode},
    tls::{Front, spki_sha256},
};

const BODY: &str = r#"{"model":"m","prompt":"x"}"#;

fn policy() -> Policy {
    let folder = fake::folder();
    let text = fs::read_to_string(folder.join("policy.toml")).unwrap();
    Policy::from_toml(&text, &mut |name| fs::read(folder.join(name))).unwrap()
}

async fn verify(url: &str) -> Result<Channel, VerifyError> {
    let client = Client::at_node(url, policy()).build().unwrap();
    client.verify("m").await
}

#[tokio::test]
async fn a_connection_ends_at_the_certificate_that_the_evidence_names() {
    let node = FakeNode::start_pinned("one", Some(spki_sha256())).await;
    let front = Front::start(node.address).await;
    let channel = verify(&front.url).await.unwrap();
    for asked in 1..=2 {
        let reply = channel.request(Endpoint::Completions, BODY).await.unwrap();
        assert!(matches!(reply, Reply::Whole(_)), "{reply:?}");
        assert_eq!(node.asked(), asked);
    }
    let handshakes = front.handshakes.load(Ordering::Relaxed);
    assert_eq!(handshakes, 2, "one for evidence, one for requests");
}

#[tokio::test]
async fn nothing_is_sent_to_another_certificate() {
    for pin in [Some([0; 32]), None] {
        let node = FakeNode::start_pinned("one", pin).await;
        let front = Front::start(node.address).await;
        let channel = verify(&front.url).await.unwrap();
        let error = channel.request(Endpoint::Completions, BODY).await;
        let error = error.unwrap_err();
        let AskError::Exchange(ExchangeError::Send(send)) = &error else {
            panic!("{pin:?}: {error}");
        };
        let expected = match pin {
            Some(_) => matches!(send, SendError::OtherCertificate),
            None => matches!(send, SendError::Connect(_)),
        };
        assert!(expected, "{pin:?}: {send}");
        assert!(!error.may_have_run(), "{pin:?}");
        assert_eq!(node.asked(), 0, "{pin:?}");
    }
}

#[tokio::test]
async fn a_node_that_names_its_certificate_is_refused_over_plain_http() {
    let node = FakeNode::start_pinned("one", Some(spki_sha256())).await;
    let refused = verify(&format!("http://{}", node.address)).await;
    assert!(
        matches!(refused, Err(VerifyError::TlsRequired)),
        "{refused:?}"
    );
    assert_eq!(node.asked(), 0);
}

#[tokio::test]
async fn no_api_key_is_sealed_to_a_node_in_place_of_a_gateway() {
    let node = FakeNode::start("one").await;
    let url = format!("http://{}", node.address);
    let (as_node, as_gateway) = (
        Client::at_node(&url, policy()),
        Client::at_attested_gateway(&url, policy()).api_key("sk-1"),
    );
    let genuine = as_node.build().unwrap().verify("m").await;
    assert!(genuine.is_ok(), "{genuine:?}");
    let refused = as_gateway.build().unwrap().verify("m").await;
    assert!(
        matches!(refused, Err(VerifyError::NotAttestedGateway)),
        "{refused:?}"
    );
    assert_eq!(node.asked(), 0);
}
