//! A report, its certificates and its collateral, up to the checks that need no policy. Beside arbitrary bytes
//! stands a genuine counterpart, so that each parser is reached without the other's form.

#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::sev_snp::REPORT_LEN;
use attestation::{
    Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item,
};
use libfuzzer_sys::fuzz_target;

const REPORT: &[u8] = include_bytes!("../../attestation/tests/data/trustee/test-report.bin");
const VCEK: &[u8] = include_bytes!("../../attestation/tests/data/trustee/test-vcek.der");

fuzz_target!(|bytes: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let mut report = [0; REPORT_LEN];
    for (to, from) in report.iter_mut().zip(bytes) {
        *to = *from;
    }
    let none = Collateral::default();
    let of_collateral = Collateral {
        amd_crls: vec![bytes.to_vec()],
        amd_certificates: vec![bytes.to_vec()],
        ..Collateral::default()
    };
    for appraisal in [
        appraise(&report, vec![VCEK.to_vec()], none.clone(), now),
        appraise(REPORT, vec![bytes.to_vec()], none, now),
        appraise(REPORT, vec![VCEK.to_vec()], of_collateral.clone(), now),
        appraise(REPORT, vec![], of_collateral, now),
    ] {
        assert!(!appraisal.accepted(), "accepted without a policy");
    }
});

fn appraise(
    report: &[u8],
    certificates: Vec<Vec<u8>>,
    collateral: Collateral,
    now: SystemTime,
) -> Appraisal {
    let item = EvidenceItem {
        kind: EvidenceKind::SevSnp,
        report: report.to_vec(),
        certificates,
        collateral,
    };
    appraise_item(&item, None, &Bundle::empty(), Expected::default(), now)
}
