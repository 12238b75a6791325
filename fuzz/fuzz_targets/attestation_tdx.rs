//! A TDX quote and its collateral, up to the checks that need no policy. Beside arbitrary bytes
//! stands a genuine counterpart, so that each parser is reached without the other's form.

#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{
    Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item,
};
use libfuzzer_sys::fuzz_target;

const QUOTE: &[u8] = include_bytes!("../../attestation/tests/data/tdx/v4-uptodate/quote.bin");
const COLLATERAL: &[u8] =
    include_bytes!("../../attestation/tests/data/tdx/v4-uptodate/collateral.json");

fuzz_target!(|bytes: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_750_500_000);
    let of_quote = appraise(bytes, COLLATERAL, now);
    let of_collateral = appraise(QUOTE, bytes, now);
    for appraisal in [of_quote, of_collateral] {
        assert!(!appraisal.accepted(), "accepted without a policy");
    }
});

fn appraise(quote: &[u8], collateral: &[u8], now: SystemTime) -> Appraisal {
    let item = EvidenceItem {
        kind: EvidenceKind::Tdx,
        report: quote.to_vec(),
        certificates: vec![],
        collateral: Collateral {
            tdx: vec![collateral.to_vec()],
            ..Collateral::default()
        },
    };
    appraise_item(&item, None, &Bundle::empty(), Expected::default(), now)
}
