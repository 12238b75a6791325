//! The policies in `docs/policy.md` are policies.

#![allow(clippy::unwrap_used, reason = "a failed helper fails its test")]

use attestation::Policy;
use attestation::software_root::SoftwareRoot;
use std::time::{Duration, UNIX_EPOCH};

const PAGE: &str = include_str!("../../docs/policy.md");

#[test]
fn the_documented_policies_load() {
    let now = UNIX_EPOCH + Duration::from_secs(1_780_272_000);
    let root = SoftwareRoot::generate(now).unwrap();
    let blocks = PAGE.split("```toml\n").skip(1);
    let policies: Vec<_> = blocks
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(policies.len() > 2);
    for text in policies {
        let mut asked = Vec::new();
        let policy = Policy::from_toml(text, &mut |path| {
            asked.push(path.to_owned());
            Ok(root.ark_pem().as_bytes().to_vec())
        });
        policy.unwrap();
        let expected: &[&str] = if text.contains("software_roots") {
            &["software-root/ark.pem"]
        } else {
            &[]
        };
        assert_eq!(asked, expected);
    }
}

/// Every key that a policy can have is on the page.
#[test]
fn every_key_is_documented() {
    let names = |section: &str| {
        let text = format!("version = 1\n{section}\nunknown = 1\n");
        let error = Policy::from_toml(&text, &mut |_| unreachable!())
            .unwrap_err()
            .to_string();
        let (_, names) = error.split_once("expected one of ").unwrap();
        names.lines().next().unwrap().to_owned()
    };
    for section in [
        "",
        "[sev_snp]",
        "[sev_snp.minimum_tcb.genoa]",
        "[tdx]",
        "[nitro]",
        "[nvidia]",
    ] {
        for name in names(section).split(", ") {
            assert!(PAGE.contains(name.trim()), "{name} is not documented");
        }
    }
}
