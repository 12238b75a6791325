//! Which lists revoke, of all that lie in the verifier's bundle and come with the evidence.

use std::time::SystemTime;

use attestation::{Collateral, EvidenceItem, EvidenceKind, Expected, appraise_item};
use serde_json::json;

use crate::choice::bundle_until;
use crate::platform::{CA_SERIAL, DAY, KEYS, PCK_SERIAL, Platform, REPORT_DATA, TCB_SERIAL, now};
use crate::{policy, refusal};

/// Where a piece lies beside the one that is chosen.
#[derive(Clone, Copy, Debug)]
enum Place {
    Delivered,
    DeliveredBesideOwn,
    Own,
    OwnPastItsDate,
}

const PLACES: [Place; 4] = [
    Place::Delivered,
    Place::DeliveredBesideOwn,
    Place::Own,
    Place::OwnPastItsDate,
];

/// What is refused, and why, where `other` lies beside a newer piece that lists nobody.
fn with(other: &[u8], place: Place) -> (Vec<&'static str>, String) {
    let mut newer = Platform::default();
    newer.tcb_info["tcbEvaluationDataNumber"] = json!(18);
    newer.qe_identity["tcbEvaluationDataNumber"] = json!(18);
    let newer = newer.collateral().to_string().into_bytes();
    let other = other.to_vec();
    let tomorrow: SystemTime = now() + DAY;
    let (own, delivered) = match place {
        Place::Delivered => (vec![], vec![other, newer]),
        Place::DeliveredBesideOwn => (vec![(newer, tomorrow)], vec![other]),
        Place::Own => (vec![(other, tomorrow), (newer, tomorrow)], vec![]),
        Place::OwnPastItsDate => (vec![(other, now()), (newer, tomorrow)], vec![]),
    };
    let item = EvidenceItem {
        kind: EvidenceKind::Tdx,
        report: Platform::default().quote(),
        certificates: vec![],
        collateral: Collateral {
            tdx: delivered,
            ..Collateral::default()
        },
    };
    let expected = Expected {
        report_data: Some(REPORT_DATA),
        nonce: None,
    };
    let bundle = bundle_until(&own);
    let appraisal = appraise_item(&item, Some(&policy("")), &bundle, expected, now());
    refusal(&appraisal)
}

/// A name, how the other piece differs from the chosen one, and who is seen on its list.
type Case = (&'static str, fn(&mut Platform), Option<&'static str>);

const PLATFORM: Option<&str> = Some("Test PCK Certificate");

const CASES: [Case; 15] = [
    ("no one", |_| {}, None),
    ("others", |p| p.revoked_by_authority = vec![77], None),
    (
        "the platform",
        |p| p.revoked_by_authority = vec![77, PCK_SERIAL],
        PLATFORM,
    ),
    (
        "its authority",
        |p| p.revoked_by_root = vec![CA_SERIAL],
        Some("Test PCK Platform CA"),
    ),
    (
        "who signed the collateral",
        |p| p.revoked_by_root = vec![TCB_SERIAL],
        Some("Test TCB Signing"),
    ),
    (
        "the platform, long ago",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.pck_crl = (now() - 90 * DAY, now() - 60 * DAY);
        },
        PLATFORM,
    ),
    (
        "the platform, from later on",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.pck_crl = (now() + DAY, now() + 30 * DAY);
        },
        PLATFORM,
    ),
    (
        "the platform, beside TCB info of another family",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.tcb_info["fmspc"] = json!("000000000000");
        },
        PLATFORM,
    ),
    (
        "the platform, beside TCB info that nobody believes",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.signs_tcb_info = &KEYS.stranger;
        },
        PLATFORM,
    ),
    (
        "the platform's number, by the root",
        |p| p.revoked_by_root = vec![PCK_SERIAL],
        None,
    ),
    (
        "the others' numbers, by the authority",
        |p| p.revoked_by_authority = vec![CA_SERIAL, TCB_SERIAL],
        None,
    ),
    (
        "the platform, by a stranger",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.signs_pck_crl = &KEYS.stranger;
        },
        None,
    ),
    (
        "the platform, by itself",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.signs_pck_crl = &KEYS.pck;
        },
        None,
    ),
    (
        "the platform, by the root in the authority's name",
        |p| {
            p.revoked_by_authority = vec![PCK_SERIAL];
            p.signs_pck_crl = &KEYS.root;
        },
        None,
    ),
    (
        "the authority, by itself in the root's name",
        |p| {
            p.revoked_by_root = vec![CA_SERIAL];
            p.signs_root_crl = &KEYS.authority;
        },
        None,
    ),
];

#[test]
fn a_list_revokes_wherever_it_lies_if_its_issuer_signed_it() {
    for (name, change, on_list) in CASES {
        let mut other = Platform::default();
        change(&mut other);
        let other = other.collateral().to_string().into_bytes();
        for place in PLACES {
            let (failed, seen) = with(&other, place);
            match on_list {
                Some(who) => {
                    assert_eq!(failed, ["platform revocation"], "{name}, {place:?}");
                    let said = format!("{who} is on one from ");
                    assert!(seen.starts_with(&said), "{name}, {place:?}: {seen}");
                }
                None => assert_eq!(failed, Vec::<&str>::new(), "{name}, {place:?}: {seen}"),
            }
        }
    }
}

/// A list counts by its signature, not by the member that it stands in.
#[test]
fn a_list_in_the_others_place_counts() {
    let other = Platform {
        revoked_by_authority: vec![PCK_SERIAL],
        ..Platform::default()
    };
    let mut piece = other.collateral();
    piece["root_ca_crl"] = piece["pck_crl"].take();
    for place in PLACES {
        let (failed, _) = with(piece.to_string().as_bytes(), place);
        assert_eq!(failed, ["platform revocation"], "{place:?}");
    }
}

#[test]
fn what_is_no_list_changes_nothing() {
    let listing = Platform {
        revoked_by_authority: vec![PCK_SERIAL],
        ..Platform::default()
    };
    let listing = listing.collateral();
    let changed = |hex: &str| {
        let mut piece = listing.clone();
        piece["pck_crl"] = json!(hex);
        piece.to_string().into_bytes()
    };
    let list = listing["pck_crl"].as_str().unwrap();
    let cases = [
        ("nothing", vec![]),
        ("no JSON", b"list".to_vec()),
        ("no member", b"{}".to_vec()),
        ("no hex", changed("zz")),
        ("no list", changed("3000")),
        ("cut", changed(&list[..list.len() - 2])),
        ("more behind it", changed(&format!("{list}00"))),
    ];
    for (name, piece) in cases {
        for place in PLACES {
            let (failed, seen) = with(&piece, place);
            assert_eq!(failed, Vec::<&str>::new(), "{name}, {place:?}: {seen}");
        }
    }
    let too_long = " ".repeat(attestation::tdx::MAX_TDX_COLLATERAL);
    let too_long = format!("{listing}{too_long}");
    let (failed, _) = with(too_long.as_bytes(), Place::Delivered);
    assert_eq!(failed, Vec::<&str>::new(), "too long");
}
