//! A report and its certificates, up to the checks that need no policy. Beside arbitrary bytes
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
    let of_report = appraise(&report, VCEK, now);
    let of_certificate = appraise(REPORT, bytes, now);
    for appraisal in [of_report, of_certificate] {
        assert!(!appraisal.accepted(), "accepted without a policy");
    }
});

fn appraise(report: &[u8], certificate: &[u8], now: SystemTime) -> Appraisal {
    let item = EvidenceItem {
        kind: EvidenceKind::SevSnp,
        report: report.to_vec(),
        certificates: vec![certificate.to_vec()],
        collateral: Collateral::default(),
    };
    appraise_item(&item, None, &Bundle::empty(), Expected::default(), now)
}
