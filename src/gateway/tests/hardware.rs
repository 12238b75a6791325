//! Keys that demand hardware, before a node whose evidence shows SEV-SNP and no GPU.

use http::header::RETRY_AFTER;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    fake::{FakeNode, folder, plain},
    harness::{BODY, Got, Running, read},
};
use crate::{clock::Clock, seal::REQUEST_MEDIA_TYPE};

/// Keys, what each demands, and whether the node has it.
const KEYS: [(&str, &str, bool); 6] = [
    ("any", "", true),
    ("snp", "tees = [\"sev-snp\"]", true),
    ("cpus", "tees = [\"tdx\", \"sev-snp\"]", true),
    ("tdx", "tees = [\"tdx\"]", false),
    ("gpu", "require_gpu = true", false),
    ("both", "tees = [\"sev-snp\"]\nrequire_gpu = true", false),
];

async fn gateway(node: &FakeNode, dir: &std::path::Path) -> Running {
    for file in std::fs::read_dir(folder()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
    }
    let keys = KEYS.map(|(name, demands, _)| {
        let digest = hex::encode(Sha256::digest(name));
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{demands}\n")
    });
    std::fs::write(dir.join("keys.toml"), keys.concat()).unwrap();
    let urls = [format!("http://{}", node.address)];
    let rest = "keys_file = \"keys.toml\"\n";
    let gateway = Running::start_in(dir, &urls, rest, Clock::system()).await;
    gateway.until_ready().await;
    gateway
}

/// Whether it was let through; else it was refused with this status and code, and told why.
fn is_let_through(got: &Got, refused: (u16, &str), name: &str) -> bool {
    if got.status.is_success() {
        return true;
    }
    assert_eq!(got.code(), (refused.0, refused.1.to_owned()), "{name}");
    let text = std::str::from_utf8(&got.body).unwrap();
    assert!(text.contains("`tees`, `require_gpu`"), "{name}: {text}");
    assert_eq!(got.headers.contains_key(RETRY_AFTER), refused.0 == 503);
    false
}

#[tokio::test]
async fn a_key_s_requests_go_to_nodes_alone_whose_evidence_shows_what_it_demands() {
    let (node, dir) = (FakeNode::start("one").await, tempfile::tempdir().unwrap());
    let gateway = gateway(&node, dir.path()).await;
    let none = (503, "no_attested_node");
    for (name, _, fits) in KEYS {
        let got = gateway.post_as(name, "/v1/completions", BODY).await;
        assert_eq!(is_let_through(&got, none, name), fits, "{name}");
        let got = gateway.get_as(name, "/v1/nodes/one/ohttp-keys").await;
        assert_eq!(is_let_through(&got, none, name), fits, "{name}: keys");
        let lock = json!({"model": "m"}).to_string();
        let got = gateway.post_as(name, "/v1/nodes/lock", lock).await;
        assert_eq!(is_let_through(&got, none, name), fits, "{name}: lock");
    }
    let fitting = KEYS.iter().filter(|(.., fits)| *fits).count();
    assert_eq!(node.asked(), fitting, "nothing else was sent");
}

#[tokio::test]
async fn what_is_sealed_by_others_is_bound_to_a_key_of_the_evidence() {
    let (node, dir) = (FakeNode::start("one").await, tempfile::tempdir().unwrap());
    node.carry(async |carried| plain(200, "application/x-sealed", carried.body));
    let gateway = gateway(&node, dir.path()).await;
    // Its key's id, and one that is not in its statement.
    for (id, is_its_own) in [(3_u8, true), (9, false)] {
        for (name, demands, fits) in KEYS {
            let sealed = [id, 0, 0x20, 0, 1, 0, 2, 7, 7, 7].to_vec();
            let path = "/v1/nodes/one/ohttp";
            let got = read(
                gateway
                    .begin_as(name, path, REQUEST_MEDIA_TYPE, sealed)
                    .await,
            )
            .await;
            let expected = demands.is_empty() || (fits && is_its_own);
            let refused = (403, "relay_not_allowed");
            assert_eq!(is_let_through(&got, refused, name), expected, "{name} {id}");
        }
    }
}

/// What is known of a node that is verified no more shows nothing.
#[tokio::test]
async fn without_verified_evidence_there_is_no_hardware() {
    let (node, dir) = (FakeNode::start("one").await, tempfile::tempdir().unwrap());
    let gateway = gateway(&node, dir.path()).await;
    let known = gateway.shared.nodes.all()[0].clone();
    let demanded = |name: &'static str| {
        let headers = http::HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            format!("Bearer {name}").parse().unwrap(),
        )]);
        let callers = std::sync::Arc::clone(&gateway.shared.callers);
        async move {
            let caller = callers.authenticate(&headers).await.unwrap();
            caller.wish.hardware()
        }
    };
    for (name, _, fits) in KEYS {
        assert_eq!(known.is_on(demanded(name).await), fits, "{name}");
    }
    assert!(known.distrust());
    for (name, demands, _) in KEYS {
        let is_on = known.is_on(demanded(name).await);
        assert_eq!(is_on, demands.is_empty(), "{name}");
    }
}
