//! A report and its certificates, up to the checks that need no policy.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use attestation::sev_snp::{REPORT_LEN, appraise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let (report, certificate) = bytes.split_at(bytes.len().min(REPORT_LEN));
    let appraisal = appraise(report, &[certificate.to_vec()], None, None, now);
    assert!(!appraisal.accepted(), "accepted without a policy");
});
