//! OCSP responses about a genuine certificate, long after the genuine response about it ended.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use attestation::ocsp;
use libfuzzer_sys::fuzz_target;

const CERTIFICATE: &[u8] = include_bytes!("../seeds/attestation_ocsp/device.der");
const ISSUER: &[u8] = include_bytes!("../seeds/attestation_ocsp/provisioner.der");

fuzz_target!(|bytes: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let status = ocsp::check([bytes], CERTIFICATE, ISSUER, now);
    assert!(status.is_err(), "good by a response that has ended");
    let _ = ocsp::request(bytes, ISSUER);
});
