//! Vendors' files, as a bundle's maker looks at each by itself.

#![allow(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::time::SystemTime;

use attestation::bundle::{ItemKind, MAX_FILE, inspect};
use attestation::time::{from_rfc3339, to_rfc3339};

const COLLATERAL: &str = include_str!("data/tdx/v4-uptodate/collateral.json");
const OCSP: &[u8] = include_bytes!("data/nvidia/hopper/ocsp-l2.der");
const VCEK: &[u8] = include_bytes!("data/milan-v2/vcek.der");
const TURIN: &[u8] = include_bytes!("data/turin/vcek.der");
const VLEK: &[u8] = include_bytes!("data/trustee/test-vlek.der");
const UNSIGNED: &[u8] = include_bytes!("data/trustee/test-vcek-invalid-new.der");

const THEN: &str = "2025-06-21T10:00:00Z";

fn at(text: &str) -> SystemTime {
    from_rfc3339(text).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    inspect(bytes, at(THEN)).unwrap_err().to_string()
}

#[test]
fn each_kind_is_known_and_its_end() {
    use ItemKind::{AmdCertificate, Ocsp, TdxCollateral};
    let cases = [
        (
            VCEK,
            AmdCertificate,
            "certificate of SEV-VCEK",
            "2030-04-03T19:23:43Z",
        ),
        (
            TURIN,
            AmdCertificate,
            "certificate of SEV-VCEK",
            "2031-11-06T21:14:00Z",
        ),
        (
            VLEK,
            AmdCertificate,
            "certificate of SEV-VLEK",
            "2025-12-10T22:14:21Z",
        ),
        (OCSP, Ocsp, "OCSP response", "2025-08-22T06:47:08Z"),
        (
            COLLATERAL.as_bytes(),
            TdxCollateral,
            "Intel's collateral",
            "2025-07-19T10:00:35Z",
        ),
    ];
    for (bytes, kind, what, end) in cases {
        let found = inspect(bytes, at(THEN)).unwrap();
        assert_eq!((found.kind, found.what.as_str()), (kind, what));
        assert_eq!(to_rfc3339(found.valid_until), end, "{what}");
    }
}

/// Each date of Intel's collateral can be the first to end.
#[test]
fn intels_collateral_ends_with_the_first_of_its_parts() {
    let changed = |from: &str, to: &str| {
        let text = COLLATERAL.replacen(from, to, 1);
        assert_ne!(text, COLLATERAL, "{from}");
        let found = inspect(text.as_bytes(), at(THEN)).unwrap();
        to_rfc3339(found.valid_until)
    };
    let tcb = "\\\"nextUpdate\\\":\\\"2025-07-19T10:16:03Z\\\"";
    let qe = "\\\"nextUpdate\\\":\\\"2025-07-19T10:32:27Z\\\"";
    for date in [tcb, qe] {
        let earlier = date.replace("2025-07-19", "2025-07-01");
        let expected = earlier.split("\\\"").nth(3).unwrap();
        assert_eq!(changed(date, &earlier), expected);
    }
}

#[test]
fn what_is_no_piece_of_a_bundle_is_refused() {
    let without = |member: &str| {
        let text = COLLATERAL.replacen(&format!("\"{member}\""), "\"other\"", 1);
        refusal(text.as_bytes())
    };
    let members = [
        "pck_crl_issuer_chain",
        "root_ca_crl",
        "pck_crl",
        "tcb_info_issuer_chain",
        "tcb_info",
        "tcb_info_signature",
        "qe_identity_issuer_chain",
        "qe_identity",
        "qe_identity_signature",
    ];
    for member in members {
        let expected = format!("Intel's collateral: member `{member}` is missing");
        assert_eq!(without(member), expected);
    }
    let broken = [
        (
            "\"root_ca_crl\": \"30",
            "\"root_ca_crl\": \"31",
            "root_ca_crl",
        ),
        ("\"pck_crl\": \"30", "\"pck_crl\": \"3", "pck_crl"),
        (
            "\"pck_crl_issuer_chain\": \"-----BEGIN",
            "\"pck_crl_issuer_chain\": \"-----BEGAN",
            "pck_crl_issuer_chain",
        ),
        (
            "\"tcb_info_signature\": \"",
            "\"tcb_info_signature\": \"g",
            "tcb_info_signature",
        ),
        (
            "nextUpdate\\\":\\\"2025",
            "nextUpdate\\\":\\\"25",
            "tcb_info",
        ),
    ];
    for (from, to, part) in broken {
        let text = COLLATERAL.replacen(from, to, 1);
        assert_ne!(text, COLLATERAL, "{part}");
        let expected = format!("Intel's collateral: `{part}` cannot be read");
        assert_eq!(refusal(text.as_bytes()), expected);
    }
    assert!(refusal(b"{").starts_with("Intel's collateral: invalid JSON"));
    assert!(refusal(UNSIGNED).starts_with("a certificate, but not of an AMD chip's key: "));
    let early = inspect(VCEK, at("2023-04-03T00:00:00Z"))
        .unwrap_err()
        .to_string();
    assert!(early.contains("certificate validity failed"), "{early}");
    for bytes in [b"".as_slice(), b"-----BEGIN", &OCSP[..OCSP.len() - 1]] {
        let refused = refusal(bytes);
        assert!(
            refused.starts_with("no revocation list, no certificate"),
            "{refused}"
        );
    }
    let long = vec![b'{'; MAX_FILE + 1];
    assert_eq!(
        refusal(&long),
        "file of 262145 bytes exceeds the limit of 262144"
    );
    assert!(!refusal(&long[1..]).contains("limit"));
}

/// A response of several answers ends with the first of them, and one without an end is none.
#[test]
fn an_ocsp_response_without_an_end_is_refused() {
    let next_update = b"\xa0\x11\x18\x0f20250822064708Z";
    let at_byte = OCSP
        .windows(next_update.len())
        .position(|it| it == next_update);
    let mut changed = OCSP.to_vec();
    // The time as an extension of the answer: no next update is left.
    if let Some(tag) = at_byte.and_then(|at| changed.get_mut(at)) {
        *tag = 0xa1;
    }
    assert_ne!(changed, OCSP);
    assert!(refusal(&changed).ends_with("OCSP response has expired"));
}
