//! Recorded documents of AWS's: the genuine one verifies in its time, and nothing changed does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{
    Appraisal, Bundle, Check, Collateral, EvidenceItem, EvidenceKind, Expected, Outcome, Policy,
    Root, appraise_item,
};

const DAY: u64 = 24 * 60 * 60;
/// When each document was recorded.
const EU_CENTRAL: u64 = 1_736_179_625;
const DEBUG: u64 = 1_665_582_607;
const ZERO_PCR: u64 = 1_695_049_411;

/// What the enclave in eu-central-1 measured.
const PCRS: [&str; 5] = [
    "8bb159f202bb95d6d4d98e0e103918246cea734f1d57cd263e4fd56075ed53f6fa8c68854817a32749a241e11874c26b",
    "3b4a7e1b5f13c5a1000b3ed32ef8995ee13e9876329f9bc72650b918329ef9cf4e2e4d1e1e37375dab0ba56ba0974d03",
    "f4e86b12ad3df5f9fea962ff706c23ee190b463740a32f1a679a3cd1070a7731ddd83328fe3db5e8143ea94344b6fb95",
    "957daeb0196a044bd93133dc03d41017db77bacb95d21c410906f0207960f63e86d08a5a5160bdacf30a8297154eaeaa",
    "5ecf4fb14c100ccc62999e094c99819ce9e51dd7c9497602d1cdf68b98cba25c153406046d9f9096f9d059211c7cbca3",
];

fn data(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/nitro");
    fs::read(root.join(name)).unwrap()
}

fn at(unix: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix)
}

fn policy(pcrs: [&str; 3], extra: &str) -> Policy {
    let [pcr0, pcr1, pcr2] = pcrs;
    let text = format!(
        "version = 1\n[nitro]\naws_root = true\npcr0 = [\"{pcr0}\"]\npcr1 = [\"{pcr1}\"]\n\
         pcr2 = [\"{pcr2}\"]\n{extra}\n"
    );
    Policy::from_toml(&text, &mut |_| unreachable!("no files")).unwrap()
}

/// Accepts the enclave of eu-central-1, however old its document is.
fn eu_central() -> Policy {
    let [pcr0, pcr1, pcr2, pcr3, pcr4] = PCRS;
    let extra = format!(
        "maximum_age_s = 172800\npcr3 = [\"{pcr3}\"]\npcr4 = [\"{pcr4}\"]\n\
         module_ids = [\"i-0bee92034f3d60691-enc01943c5eaab3ad6a\"]"
    );
    policy([pcr0, pcr1, pcr2], &extra)
}

fn appraise(
    report: &[u8],
    policy: Option<&Policy>,
    expected: Expected,
    now: SystemTime,
) -> Appraisal {
    let item = EvidenceItem {
        kind: EvidenceKind::Nitro,
        report: report.to_vec(),
        certificates: Vec::new(),
        collateral: Collateral::default(),
    };
    appraise_item(&item, policy, &Bundle::empty(), expected, now)
}

fn not_passed(appraisal: &Appraisal) -> Vec<(&'static str, Outcome)> {
    let checks = appraisal.checks().iter().filter(|check| !check.passed());
    checks.map(|check| (check.name, check.outcome)).collect()
}

fn failed(appraisal: &Appraisal) -> Vec<&'static str> {
    let failed = |check: &&Check| check.outcome == Outcome::Failed;
    let checks = appraisal.checks().iter().filter(failed);
    checks.map(|check| check.name).collect()
}

/// It answers no question of ours: it carries neither user data nor a nonce, and what it carries
/// passes.
#[test]
fn a_genuine_document_passes_every_check_but_that_of_its_freshness() {
    let (report, policy) = (data("eu-central-1.cose"), eu_central());
    let appraisal = appraise(&report, Some(&policy), Expected::default(), at(EU_CENTRAL));
    let unchecked = |name| (name, Outcome::NotChecked);
    assert_eq!(
        not_passed(&appraisal),
        ["report data", "nonce"].map(unchecked)
    );
    assert_eq!(appraisal.root(), Some(Root::Aws));

    let asked = Expected {
        report_data: None,
        nonce: Some([7; 32].into()),
    };
    let appraisal = appraise(&report, Some(&policy), asked, at(EU_CENTRAL));
    assert_eq!(failed(&appraisal), ["nonce"]);
    assert!(!appraisal.accepted());
}

#[test]
fn a_day_outside_its_time_it_is_refused() {
    let (report, policy) = (data("eu-central-1.cose"), eu_central());
    for now in [EU_CENTRAL - DAY, EU_CENTRAL + DAY] {
        let appraisal = appraise(&report, Some(&policy), Expected::default(), at(now));
        assert_eq!(failed(&appraisal), ["certificate validity"], "{now}");
    }
    let [pcr0, pcr1, pcr2, ..] = PCRS;
    let strict = self::policy([pcr0, pcr1, pcr2], "maximum_age_s = 2");
    for now in [EU_CENTRAL - 2, EU_CENTRAL + 3] {
        let appraisal = appraise(&report, Some(&strict), Expected::default(), at(now));
        assert_eq!(failed(&appraisal), ["timestamp"], "{now}");
    }
}

#[test]
fn documents_of_debug_mode_are_refused() {
    let zeros = "0".repeat(96);
    let policy = policy([&zeros, &zeros, &zeros], "");
    let cases = [
        ("evervault-debug.cose", DEBUG),
        ("evervault-zero-pcr.cose", ZERO_PCR),
    ];
    for (name, now) in cases {
        let appraisal = appraise(&data(name), Some(&policy), Expected::default(), at(now));
        assert_eq!(failed(&appraisal), ["debug"], "{name}");
        assert_eq!(appraisal.root(), Some(Root::Aws));
        let appraisal = appraise(&data(name), None, Expected::default(), at(now));
        assert_eq!(failed(&appraisal), ["debug"], "{name}");
    }
}

#[test]
fn without_a_policy_nothing_is_accepted() {
    let report = data("eu-central-1.cose");
    let appraisal = appraise(&report, None, Expected::default(), at(EU_CENTRAL));
    assert_eq!(appraisal.root(), Some(Root::Aws));
    assert_eq!(failed(&appraisal), [""; 0]);
    assert!(!appraisal.accepted());
    let names: Vec<_> = not_passed(&appraisal).iter().map(|it| it.0).collect();
    assert_eq!(
        names,
        [
            "PCR0",
            "PCR1",
            "PCR2",
            "PCR3",
            "PCR4",
            "PCR8",
            "module id",
            "timestamp",
            "report data",
            "nonce"
        ]
    );
}

/// The whole document counts: a changed byte is refused by more than the missing freshness.
#[test]
fn every_changed_byte_is_refused() {
    let (mut report, policy) = (data("eu-central-1.cose"), eu_central());
    assert_eq!(report.len(), 4781);
    for at_byte in 0..report.len() {
        report[at_byte] ^= 1 << (at_byte % 8);
        let appraisal = appraise(&report, Some(&policy), Expected::default(), at(EU_CENTRAL));
        assert!(!failed(&appraisal).is_empty(), "byte {at_byte}");
        report[at_byte] ^= 1 << (at_byte % 8);
    }
}

#[test]
fn another_length_is_no_document() {
    let report = data("eu-central-1.cose");
    for len in [0, 1, 4780, 4782] {
        let mut report = report.clone();
        report.resize(len, 0);
        let appraisal = appraise(&report, None, Expected::default(), at(EU_CENTRAL));
        assert_eq!(failed(&appraisal), ["document"], "{len}");
    }
}
