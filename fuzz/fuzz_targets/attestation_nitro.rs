//! A Nitro document, as it is and as the payload of an envelope that is well formed.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use attestation::{Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for report in [bytes.to_vec(), envelope(bytes)] {
        let item = EvidenceItem {
            kind: EvidenceKind::Nitro,
            report,
            certificates: Vec::new(),
            collateral: Collateral::default(),
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_736_179_625);
        let appraisal = appraise_item(&item, None, &Bundle::empty(), Expected::default(), now);
        assert!(!appraisal.accepted(), "accepted without a policy");
    }
});

/// ES384, no unprotected header, the payload with a length of two bytes, a signature of 96.
fn envelope(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0, 0x59];
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    bytes.extend(len.to_be_bytes());
    bytes.extend(payload);
    bytes.extend([0x58, 0x60]);
    bytes.extend([1; 96]);
    bytes
}
