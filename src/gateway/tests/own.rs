//! What the gateway's own statement says when what it covers changes under requests.

use std::{path::Path, sync::Arc};

use attestation::{Statement, StatementDigest, bundle::BundleKey};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    fake::{self, FakeNode},
    harness::{PATIENCE, Running},
    sealed::own_table,
};
use crate::{
    attester::{problem::Refusal, request::Form},
    clock::Clock,
    config::{self, gateway::GatewayConfig},
    gateway::{
        Shared,
        own::Own,
        rules::{bundle, folder, with_signer},
    },
};

/// As if `more` were in the configuration now.
fn reconfigured(before: &Shared, more: &str) -> Shared {
    let text = format!(
        "policy = \"policy.toml\"\nauth = \"open\"\n[[node]]\nurl = \"http://a\"\n{}{more}",
        own_table()
    );
    let path = Path::new("gateway.toml");
    let config = config::parse::<GatewayConfig>(path, &text, std::iter::empty()).unwrap();
    let own = before.own.as_ref().unwrap();
    Shared {
        effective: own.effective(&config.value),
        ..before.clone()
    }
}

fn current(own: &Own) -> StatementDigest {
    own.identity.current().digest
}

/// Whether a request that began under `shared` is let in, sealed under `statement`.
fn let_in(shared: &Shared, one: u8, statement: StatementDigest) -> Result<(), Refusal> {
    let own = shared.own.as_ref().unwrap();
    let form = Form::sealed(own.clock.unix_now(), statement);
    own.let_in(
        shared,
        [one; 32],
        &form,
        std::net::IpAddr::from([127, 0, 0, 1]).into(),
    )
    .map(|_| ())
}

#[tokio::test]
async fn a_configuration_of_before_never_comes_back_and_lets_nobody_in() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], &own_table()).await;
    let before = Arc::clone(&gateway.shared);
    let own = before.own.as_ref().unwrap();
    before.renew_own();
    let first = current(own);
    assert_eq!(let_in(&before, 1, first), Ok(()));

    let after = reconfigured(&before, "[models]\nfast = \"m\"\n");
    after.supersede();
    let second = current(own);
    assert_ne!(second, first);
    for (one, shared, statement, expected) in [
        (2, &*before, first, Err(Refusal::Statement)),
        (3, &*before, second, Err(Refusal::Statement)),
        (4, &after, first, Err(Refusal::Statement)),
        (5, &after, second, Ok(())),
        (5, &after, second, Err(Refusal::Replayed)),
    ] {
        assert_eq!(let_in(shared, one, statement), expected, "{one}");
        assert_eq!(current(own), second, "{one}");
    }
    before.renew_own();
    before.supersede();
    assert_eq!(current(own), second);
    assert_eq!(let_in(&after, 6, second), Ok(()));
}

/// SHA-256 of what docs/wire.md puts together.
fn digest_of(config: &str, policy: &str, bundle: &str) -> [u8; 32] {
    let config = config::parse::<GatewayConfig>(Path::new("g"), config, std::iter::empty());
    let effective = config::gateway::effective(&config.unwrap().value).unwrap();
    let text =
        format!(r#"{{"gateway":{effective},"policy_sha256":"{policy}","bundle_sha256":{bundle}}}"#);
    Sha256::digest(text).into()
}

#[tokio::test]
async fn another_bundle_is_another_configuration_to_who_seals() {
    let node = FakeNode::start("one").await;
    let (dir, key) = (folder(), BundleKey::generate().unwrap().0);
    let (file, place) = (dir.path().join("policy.toml"), dir.path().join("bundle"));
    let without = std::fs::read_to_string(&file).unwrap();
    let policy = with_signer(&without, &key);
    std::fs::write(&file, &policy).unwrap();
    let first = bundle(&place, &key, "first");
    let config = format!(
        "policy = \"policy.toml\"\nauth = \"open\"\nbundle = \"bundle\"\n\
         [[node]]\nurl = \"http://{}\"\n{}",
        node.address,
        own_table()
    );
    let rest = config.split_once("auth = \"open\"\n").unwrap().1;
    let gateway = Running::start_in(dir.path(), &[], rest, Clock::system()).await;
    gateway.until_ready().await;
    let (shared, mut rules) = (&gateway.shared, gateway.shared.rules.clone());
    let own = shared.own.as_ref().unwrap();
    let said = || {
        let text = own.identity.current();
        *Statement::parse(&text.bytes).unwrap().config_sha256()
    };
    let expected = |bundle: &str| {
        let policy = &shared.rules.borrow().policy_digest;
        digest_of(&config, policy, bundle)
    };
    let quoted = |digest: &str| format!("\"{digest}\"");
    shared.renew_own();
    assert_eq!(said(), expected(&quoted(&first)));
    let before = current(own);
    assert_eq!(let_in(shared, 1, before), Ok(()));

    let second = bundle(&place, &key, "second");
    let taken = async {
        gateway.reload.now().await;
        rules
            .wait_for(|rules| rules.bundle_digest.as_ref() == Some(&second))
            .await
            .unwrap();
    };
    timeout(PATIENCE, taken).await.unwrap();
    // Nobody has asked for the statement since: who seals under that of before is refused nevertheless.
    assert_eq!(let_in(shared, 2, before), Err(Refusal::Statement));
    assert_eq!(said(), expected(&quoted(&second)));
    assert_eq!(let_in(shared, 3, current(own)), Ok(()));

    // A policy that believes nobody's bundle, where there was one.
    std::fs::write(&file, &without).unwrap();
    let taken = async {
        gateway.reload.now().await;
        rules
            .wait_for(|rules| rules.bundle_digest.is_none())
            .await
            .unwrap();
    };
    timeout(PATIENCE, taken).await.unwrap();
    shared.renew_own();
    assert_eq!(said(), expected("null"));
}

#[tokio::test]
async fn the_statement_names_the_tls_key_whatever_it_says_next() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], &own_table()).await;
    let own = gateway.shared.own.as_ref().unwrap();
    let pin = || {
        let text = own.identity.current();
        let statement = Statement::parse(&text.bytes).unwrap();
        statement.tls_spki_sha256().copied()
    };
    gateway.shared.renew_own();
    assert_eq!(pin(), None);
    own.end_tls_at([7; 32]);
    assert_eq!(pin(), Some([7; 32]));
    // As if that statement could not be made.
    let lost = |facts: &mut crate::attester::statement::Facts| facts.tls_spki_sha256 = None;
    own.identity.restate(own.clock.unix_now(), lost).unwrap();
    own.end_tls_at([8; 32]);
    own.identity.restate(own.clock.unix_now(), lost).unwrap();
    assert_eq!(pin(), None);
    gateway.shared.renew_own();
    assert_eq!(pin(), Some([8; 32]), "it is repaired");
}

#[tokio::test]
async fn a_gateway_is_no_node_whatever_the_policy_allows() {
    let folder = fake::folder().join("behind");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ark.pem"), fake::root().ark_pem()).unwrap();
    let policy = std::fs::read_to_string(fake::folder().join("policy.toml")).unwrap();
    let policy = format!("allow_attested_engine = true\n{policy}");
    std::fs::write(folder.join("policy.toml"), policy).unwrap();
    for (name, verified) in [("one", 1), (fake::A_GATEWAY, 0)] {
        let node = FakeNode::start(name).await;
        let urls = [format!("http://{}", node.address)];
        let gateway = Running::start_in(&folder, &urls, "", Clock::system()).await;
        let nodes = &gateway.shared.nodes;
        nodes.settled(PATIENCE).await;
        if verified > 0 {
            gateway.until_ready().await;
        }
        assert!(node.attested() > 0);
        assert_eq!(nodes.snapshot().nodes().count(), verified, "{name}");
    }
}
