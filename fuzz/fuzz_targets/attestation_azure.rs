//! A capture of Azure's, as it is and as the paravisor's report or the quote in one that is well formed.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use attestation::{Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use libfuzzer_sys::fuzz_target;

const HCL_REPORT: &[u8] = include_bytes!("../../attestation/tests/data/azure/hcl-report.bin");

fuzz_target!(|bytes: &[u8]| {
    let captures = [
        bytes.to_vec(),
        capture(bytes, &[]),
        capture(HCL_REPORT, bytes),
    ];
    for report in captures {
        let item = EvidenceItem {
            kind: EvidenceKind::AzureSnp,
            report,
            certificates: Vec::new(),
            collateral: Collateral::default(),
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_780_272_000);
        let appraisal = appraise_item(&item, None, &Bundle::empty(), Expected::default(), now);
        assert!(!appraisal.accepted(), "accepted without a policy");
    }
});

fn capture(hcl_report: &[u8], message: &[u8]) -> Vec<u8> {
    let hcl_report = URL_SAFE.encode(hcl_report);
    let message: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = "01".repeat(256);
    let quote = format!(r#"{{"message":"{message}","signature":"{signature}"}}"#);
    format!(r#"{{"version":1,"hcl_report":"{hcl_report}","tpm_quote":{quote}}}"#).into_bytes()
}
