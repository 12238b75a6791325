//! An NVIDIA device's report and its certificates. Beside arbitrary bytes stands a genuine
//! counterpart, so that each parser is reached without the other's form.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use attestation::nvidia::Report;
use attestation::{Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item};
use libfuzzer_sys::fuzz_target;

const REPORT: &[u8] = include_bytes!("../../attestation/tests/data/nvidia/hopper/report.bin");

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = Report::parse(bytes) {
        let parts = [report.signed, report.signature].concat();
        assert_eq!(
            parts, bytes,
            "something beside the signed bytes and the signature"
        );
    }
    for kind in [EvidenceKind::NvidiaGpu, EvidenceKind::NvidiaNvswitch] {
        for (report, certificate) in [(bytes, REPORT), (REPORT, bytes)] {
            let item = EvidenceItem {
                kind,
                report: report.to_vec(),
                certificates: vec![certificate.to_vec(); 4],
                collateral: Collateral::default(),
            };
            let now = UNIX_EPOCH + Duration::from_secs(1_755_777_600);
            let expected = Expected::default();
            let appraisal = appraise_item(&item, None, &Bundle::empty(), expected, now);
            assert!(!appraisal.accepted(), "accepted without a policy");
        }
    }
});
