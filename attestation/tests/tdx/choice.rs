//! Which of several pieces of collateral counts.

use std::time::{Duration, SystemTime};

use attestation::bundle::{BundleItem, BundleKey, ItemKind, Manifest};
use attestation::{Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use crate::platform::{DAY, Platform, REPORT_DATA, now};
use crate::policy;

/// Collateral of a number, issued some hours later than usual.
fn piece(number: u32, hours: u32) -> Vec<u8> {
    let mut platform = Platform::default();
    platform.tcb_info["tcbEvaluationDataNumber"] = json!(number);
    platform.qe_identity["tcbEvaluationDataNumber"] = json!(number);
    let hour = Duration::from_secs(3600);
    for window in [&mut platform.root_crl, &mut platform.pck_crl] {
        window.0 += hour * hours;
        window.1 += hour * hours;
    }
    platform.collateral().to_string().into_bytes()
}

fn bundle(pieces: &[Vec<u8>]) -> Bundle {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| (piece.clone(), now() + DAY))
        .collect();
    bundle_until(&pieces)
}

/// Of pieces, and when each ends.
pub(crate) fn bundle_until(pieces: &[(Vec<u8>, SystemTime)]) -> Bundle {
    let item = |(at, (content, valid_until)): (usize, &(Vec<u8>, SystemTime))| BundleItem {
        path: format!("intel/{at}.json"),
        kind: ItemKind::TdxCollateral,
        sha256: digest(&SHA256, content).as_ref().try_into().unwrap(),
        source: "a test".to_owned(),
        fetched_at: now() - DAY,
        valid_until: *valid_until,
    };
    let manifest = Manifest {
        created: now() - DAY,
        valid_until: now() + DAY,
        items: pieces.iter().enumerate().map(item).collect(),
    };
    let manifest = manifest.to_json().unwrap();
    let (key, _) = BundleKey::generate().unwrap();
    let mut files = pieces.iter();
    let mut read = |_: &str| Ok(files.next().unwrap().0.clone());
    let signature = key.sign(&manifest);
    Bundle::load(
        &manifest,
        signature.as_bytes(),
        &[key.public_key()],
        &mut read,
    )
    .unwrap()
}

/// What the check says of the piece that was chosen.
fn chosen(own: &[Vec<u8>], delivered: &[Vec<u8>]) -> (String, String) {
    let item = EvidenceItem {
        kind: EvidenceKind::Tdx,
        report: Platform::default().quote(),
        certificates: vec![],
        collateral: Collateral {
            tdx: delivered.to_vec(),
            ..Collateral::default()
        },
    };
    let expected = Expected {
        report_data: Some(REPORT_DATA),
        nonce: None,
    };
    let policy = policy("minimum_tcb_evaluation_number = 1");
    let appraisal = appraise_item(&item, Some(&policy), &bundle(own), expected, now());
    let seen = |name| {
        let mut checks = appraisal.checks().iter();
        let check = checks.find(|check| check.name == name);
        check.map(|check| check.seen.clone()).unwrap_or_default()
    };
    let piece = seen("collateral");
    let piece = piece.split(',').next().unwrap().to_owned();
    (piece, seen("TCB evaluation number"))
}

#[test]
fn ones_own_piece_counts_before_the_nodes_and_the_newest_of_several() {
    let (old, new) = (piece(17, 0), piece(18, 0));
    let (early, late) = (piece(18, 1), piece(18, 2));
    let said = |piece: &str, number: &str| (piece.to_owned(), number.to_owned());
    let all = |pieces: &[&Vec<u8>]| pieces.iter().map(|it| (*it).clone()).collect::<Vec<_>>();
    let cases = [
        ("one delivered", vec![], all(&[&old]), said("piece 1", "17")),
        (
            "the higher number, last",
            vec![],
            all(&[&old, &new]),
            said("piece 2", "18"),
        ),
        (
            "the higher number, first",
            vec![],
            all(&[&new, &old]),
            said("piece 1", "18"),
        ),
        (
            "the later of one number",
            vec![],
            all(&[&early, &late]),
            said("piece 2", "18"),
        ),
        (
            "the same, first",
            vec![],
            all(&[&late, &early]),
            said("piece 1", "18"),
        ),
        (
            "equals: the first",
            vec![],
            all(&[&new, &new]),
            said("piece 1", "18"),
        ),
        (
            "one's own",
            all(&[&old]),
            all(&[&new]),
            said("piece 1", "17"),
        ),
        (
            "the newest of one's own",
            all(&[&old, &new]),
            all(&[&late]),
            said("piece 2", "18"),
        ),
        (
            "none of one's own fits",
            all(&[&b"{}".to_vec()]),
            all(&[&old, &new]),
            said("piece 3", "18"),
        ),
    ];
    for (name, own, delivered, expected) in cases {
        assert_eq!(chosen(&own, &delivered), expected, "{name}");
    }
}
