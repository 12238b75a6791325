//! A node that asks for a credential, before real gateways that have it, have another, or have none.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Engine, KEY, Process, Setup, prompt,
    setup::{Files, error_of},
};

#[tokio::test]
async fn a_gateway_is_served_for_the_nodes_credential_alone() {
    const RIGHT: &str = "node-secret-0123456789abcdef";
    for (credential, status) in [(Some(RIGHT), 200), (Some("another"), 503), (None, 503)] {
        let (files, engine) = (Files::new(), Engine::start().await);
        let path = files.node("node-a", &engine, "");
        let text = std::fs::read_to_string(&path).unwrap();
        let digest = hex::encode(Sha256::digest(RIGHT));
        std::fs::write(&path, format!("credential_sha256 = \"{digest}\"\n{text}")).unwrap();
        let node = Process::start("node", &path).await;
        let more = credential.map_or("", |credential| {
            files.write("node.token", credential);
            "credential_file = \"node.token\"\n"
        });
        let config = files.gateway(&[&node.url], more);
        let setup = Setup {
            gateway: Process::start("gateway", &config).await,
            dir: files.dir,
            engine,
            node,
            client: reqwest::Client::new(),
        };
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), status, "{credential:?}");
        if status != 200 {
            let (_, error) = error_of(reply).await;
            assert_eq!(error["code"], "no_node_available", "{credential:?}");
        }
        let executed = setup.engine.received().len();
        assert_eq!(executed, usize::from(status == 200), "{credential:?}");
        for process in [&setup.node, &setup.gateway] {
            let log = process.log();
            for secret in [RIGHT, KEY] {
                assert!(!log.contains(secret), "{credential:?}: in a log");
            }
        }
    }
}
