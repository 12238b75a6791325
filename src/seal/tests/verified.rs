//! Sealing as callers do it: to a key that came out of verification.

use std::time::{Duration, SystemTime};

use attestation::{
    Answer, Bundle, Nonce, Policy, StatementDigest, VerifiedKey, binding,
    software_root::{SoftwareRoot, SoftwareSigner},
    verify,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::seal::{SealError, seal_request};

const POLICY: &str = r#"
version = 1
appraisal_max_age_s = 600

[sev_snp]
amd_roots = false
products = ["genoa"]
software_roots = ["ark.pem"]
measurements = ["{measurement}"]
vmpl = 0

[sev_snp.minimum_tcb.genoa]
bootloader = 0
tee = 0
snp = 0
microcode = 0
"#;

/// The node's key, verified under a software root made for this test.
fn verified(node: &Node, now: SystemTime) -> VerifiedKey {
    let root = SoftwareRoot::generate(now).unwrap();
    let signer =
        SoftwareSigner::from_pem(root.vcek_key_pem(), root.vcek_pem(), root.ask_pem()).unwrap();
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let statement = serde_json::json!({
        "version": 1,
        "node_id": "node-a",
        "keys": [{
            "key_id": KEY_ID,
            "suite": match node.public_key {
                PublicKey::X25519(_) => "x25519",
                PublicKey::XWing(_) => "x-wing",
            },
            "public_key": STANDARD.encode(node.public_key.as_bytes()),
            "not_before": seconds,
            "not_after": seconds + 86_400,
        }],
        "receipt_key": STANDARD.encode([0; 32]),
        "models": ["m"],
        "engine": "local",
        "config_sha256": "00".repeat(32),
        "software": {"name": "sealgate", "version": "0", "commit": ""},
    });
    let statement = statement.to_string().into_bytes();
    let nonce = Nonce::from([9; 32]);
    let report_data = binding::report_data(&StatementDigest::of(&statement), &nonce, &[]);
    let evidence = vec![signer.evidence(report_data, [1; 48]).unwrap()];
    let answer = Answer {
        statement,
        nonce,
        evidence,
    };
    let policy = POLICY.replace("{measurement}", &"01".repeat(48));
    let ark = root.ark_pem().as_bytes().to_vec();
    let policy = Policy::from_toml(&policy, &mut |_| Ok(ark.clone())).unwrap();
    verify(&answer, &policy, &Bundle::empty(), &nonce, now)
        .unwrap()
        .sealing_key(now)
        .unwrap()
}

#[test]
fn a_verified_key_seals_until_its_appraisal_ends() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    let node = Node::of(Kem::XWing);
    let key = verified(&node, now);
    let (request, _) = seal_request(&key, now, &HEAD, b"{}", Padding::Bucket).unwrap();
    assert_eq!(request[..7], [KEY_ID, 0x64, 0x7a, 0, 1, 0, 2], "X-Wing");
    assert_eq!(node.open([&request[..]]).unwrap().0.content, &b"{}"[..]);

    let node = Node::new();
    let key = verified(&node, now);
    let (request, _) = seal_request(&key, now, &HEAD, b"{}", Padding::Bucket).unwrap();
    assert_eq!(request[..7], [KEY_ID, 0, 0x20, 0, 1, 0, 2], "AES-256-GCM");
    assert_eq!(node.open([&request[..]]).unwrap().0.content, &b"{}"[..]);

    let (again, _) = seal_request(&key, now, &HEAD, b"{}", Padding::Bucket).unwrap();
    assert_ne!(request[7..39], again[7..39], "every encapsulation is fresh");

    for (later, sealed) in [(599, true), (600, false), (100_000, false)] {
        let at = now + Duration::from_secs(later);
        let error = seal_request(&key, at, &HEAD, b"{}", Padding::Bucket)
            .map(|_| ())
            .err();
        assert_eq!(error, (!sealed).then_some(SealError::KeyExpired), "{later}");
    }
}
