//! The verifier against documents with one flaw each, made under a root of the test's own.

#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails its test")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use proptest::prelude::*;
use x509_cert::der::asn1::ObjectIdentifier;

use super::*;
use crate::answer::{Answer, EvidenceItem, EvidenceKind};
use crate::binding;
use crate::digest::{Nonce, StatementDigest};
use crate::software_root::der;
use crate::statement::{self, ClaimedKey, EngineLocation, PublicKey, Software, Suite};
use crate::time::{from_rfc3339, to_rfc3339};
use crate::{
    Appraisal, Bundle, Collateral, CpuClaims, Expected, Policy, PolicyError, appraise_item, verify,
};

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// Unused bits and bits of a key usage: digitalSignature, keyCertSign.
const SIGNS: (u8, u8) = (7, 0b1000_0000);
const SIGNS_CERTIFICATES: (u8, u8) = (2, 0b0000_0100);

const REPORT_DATA: [u8; 64] = [0x22; 64];
const NONCE: [u8; 32] = [0x44; 32];
const MODULE: &str = "i-0123456789abcdef0-enc0123456789abcdef";
const NOW: &str = "2026-06-01T12:00:00Z";
const NOW_MS: u64 = 1_780_315_200_000;

/// Keys of root, region, instance, leaf and of a stranger.
static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let key = |_| {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        key.to_pkcs8v1().unwrap().as_ref().to_vec()
    };
    (0..5).map(key).collect()
});
const ROOT: usize = 0;
const LEAF: usize = 3;
const STRANGER: usize = 4;

/// The root as a policy gets it: signatures are salted, so each one issued differs.
static ROOT_DER: LazyLock<Vec<u8>> = LazyLock::new(|| chain()[ROOT].issue());

fn public_key(key: usize) -> Vec<u8> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &KEYS[key]).unwrap();
    key.public_key().as_ref().to_vec()
}

/// A certificate to be made.
#[derive(Clone)]
struct Draft {
    issuer: &'static str,
    subject: &'static str,
    validity: (&'static str, &'static str),
    curve: ObjectIdentifier,
    point: Vec<u8>,
    signed_by: usize,
    /// `None` leaves basic constraints out; the inner one is the path length of an authority.
    authority: Option<Option<u8>>,
    usage: (u8, u8),
}

impl Draft {
    fn issue(&self) -> Vec<u8> {
        let algorithm = der::sequence(&[&der::oid(ECDSA_WITH_SHA384)]);
        let name = |name| der::name(&[(COMMON_NAME, name)]);
        let validity = [self.validity.0, self.validity.1].map(der::time);
        let curve = der::sequence(&[&der::oid(EC_PUBLIC_KEY), &der::oid(self.curve)]);
        let constraints = self.authority.map_or_else(Vec::new, |path_len| {
            let content = der::authority_constraints(path_len);
            der::extension(BASIC_CONSTRAINTS, true, &content)
        });
        let usage = der::named_bits(self.usage.0, self.usage.1);
        let extensions = [constraints, der::extension(KEY_USAGE, true, &usage)].concat();
        let body = der::sequence(&[
            &der::explicit(0, &der::integer(2)),
            &der::integer(1),
            &algorithm,
            &name(self.issuer),
            &der::sequence(&[&validity.concat()]),
            &name(self.subject),
            &der::sequence(&[&curve, &der::bit_string(&self.point)]),
            &der::explicit(3, &der::sequence(&[&extensions])),
        ]);
        let key = &KEYS[self.signed_by];
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, key).unwrap();
        let signature = key.sign(&SystemRandom::new(), &body).unwrap();
        der::sequence(&[&body, &algorithm, &der::bit_string(signature.as_ref())])
    }
}

/// Root, region, instance, leaf: a level less than AWS's, with the same path lengths.
fn chain() -> [Draft; 4] {
    let authority = |number: usize, names: (&'static str, &'static str), path_len| Draft {
        issuer: names.0,
        subject: names.1,
        validity: ("2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        curve: SECP384R1,
        point: public_key(number),
        signed_by: number.saturating_sub(1),
        authority: Some(path_len),
        usage: SIGNS_CERTIFICATES,
    };
    let leaf = Draft {
        validity: ("2026-06-01T11:00:00Z", "2026-06-01T14:00:00Z"),
        authority: None,
        usage: SIGNS,
        ..authority(LEAF, ("instance", "leaf"), None)
    };
    [
        authority(ROOT, ("root", "root"), None),
        authority(1, ("root", "region"), Some(1)),
        authority(2, ("region", "instance"), Some(0)),
        leaf,
    ]
}

/// A document to be made.
struct Document {
    tag: Vec<u8>,
    protected: Vec<u8>,
    unprotected: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    digest: &'static str,
    timestamp_ms: u64,
    module_id: &'static str,
    pcrs: Vec<(u64, Vec<u8>)>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    signed_by: usize,
    /// Changes the fields once they are CBOR.
    edit: fn(&mut Vec<(&'static str, Vec<u8>)>),
    /// Goes behind the payload's map.
    after_payload: Vec<u8>,
}

/// What an enclave says whose policy is [`POLICY`].
fn document() -> Document {
    let pcr = |number: u64| (number, vec![u8::try_from(number).unwrap() + 0x10; 48]);
    let mut certificates: Vec<_> = chain().iter().map(Draft::issue).collect();
    certificates[ROOT] = ROOT_DER.clone();
    Document {
        tag: Vec::new(),
        protected: ES384.to_vec(),
        unprotected: vec![0xa0],
        certificates,
        digest: "SHA384",
        timestamp_ms: NOW_MS,
        module_id: MODULE,
        pcrs: [0, 1, 2, 3, 4, 8].map(pcr).to_vec(),
        public_key: None,
        user_data: Some(REPORT_DATA.to_vec()),
        nonce: Some(NONCE.to_vec()),
        signed_by: LEAF,
        edit: |_| {},
        after_payload: Vec::new(),
    }
}

/// A document with certificates changed by `flaw`.
fn with_chain(flaw: impl FnOnce(&mut [Draft; 4])) -> Document {
    let mut drafts = chain();
    flaw(&mut drafts);
    let mut document = document();
    for (der, draft) in document.certificates.iter_mut().zip(&drafts).skip(1) {
        *der = draft.issue();
    }
    document
}

impl Document {
    fn payload(&self) -> Vec<u8> {
        let (leaf, authorities) = self.certificates.split_last().unwrap();
        let bytes_or_null = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => cbor_bytes(bytes),
            None => vec![0xf6],
        };
        let pcrs = self.pcrs.iter();
        let pcrs: Vec<_> = pcrs
            .flat_map(|(number, value)| [cbor_head(0, *number), cbor_bytes(value)])
            .collect();
        let authorities: Vec<_> = authorities.iter().map(|der| cbor_bytes(der)).collect();
        let mut fields = vec![
            ("module_id", cbor_text(self.module_id)),
            ("digest", cbor_text(self.digest)),
            ("timestamp", cbor_head(0, self.timestamp_ms)),
            (
                "pcrs",
                [cbor_head(5, count(&self.pcrs)), pcrs.concat()].concat(),
            ),
            ("certificate", cbor_bytes(leaf)),
            (
                "cabundle",
                [cbor_head(4, count(&authorities)), authorities.concat()].concat(),
            ),
            ("public_key", bytes_or_null(&self.public_key)),
            ("user_data", bytes_or_null(&self.user_data)),
            ("nonce", bytes_or_null(&self.nonce)),
        ];
        (self.edit)(&mut fields);
        let mut payload = cbor_head(5, count(&fields));
        for (name, value) in fields {
            payload.extend(cbor_text(name));
            payload.extend(value);
        }
        payload.extend(&self.after_payload);
        payload
    }

    fn sign(&self) -> Vec<u8> {
        let payload = self.payload();
        let message = [
            cbor_head(4, 4),
            cbor_text("Signature1"),
            cbor_bytes(&self.protected),
            cbor_bytes(&[]),
            cbor_bytes(&payload),
        ]
        .concat();
        let key = &KEYS[self.signed_by];
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key).unwrap();
        let signature = key.sign(&SystemRandom::new(), &message).unwrap();
        [
            self.tag.clone(),
            cbor_head(4, 4),
            cbor_bytes(&self.protected),
            self.unprotected.clone(),
            cbor_bytes(&payload),
            cbor_bytes(signature.as_ref()),
        ]
        .concat()
    }
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap()
}

/// Major type and number in the shortest form.
fn cbor_head(major: u8, number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let (additional, tail) = match number {
        0..24 => (bytes[7], &[][..]),
        24..0x100 => (24, &bytes[7..]),
        0x100..0x1_0000 => (25, &bytes[6..]),
        0x1_0000..0x1_0000_0000 => (26, &bytes[4..]),
        _ => (27, &bytes[..]),
    };
    [&[major << 5 | additional], tail].concat()
}

fn cbor_bytes(bytes: &[u8]) -> Vec<u8> {
    [&cbor_head(2, count(bytes)), bytes].concat()
}

fn cbor_text(text: &str) -> Vec<u8> {
    [&cbor_head(3, count(text.as_bytes())), text.as_bytes()].concat()
}

fn policy_text(extra: &str) -> String {
    let pcr = |number: u8| format!("pcr{number} = [\"{}\"]\n", hex::encode([number + 0x10; 48]));
    let mut text = "version = 1\n[nitro]\nsoftware_roots = [\"root.pem\"]\n".to_owned();
    for number in 0..3 {
        let key = format!("pcr{number} =");
        if !extra.contains(&key) {
            text.push_str(&pcr(number));
        }
    }
    text + extra
}

fn from_toml(text: &str) -> Result<Policy, PolicyError> {
    Policy::from_toml(text, &mut |path| match path {
        "root.pem" => Ok(ROOT_DER.clone()),
        other => panic!("{other} was asked for"),
    })
}

fn policy(extra: &str) -> Policy {
    from_toml(&policy_text(extra)).unwrap()
}

fn item(report: Vec<u8>) -> EvidenceItem {
    EvidenceItem {
        kind: EvidenceKind::Nitro,
        report,
        certificates: Vec::new(),
        collateral: Collateral::default(),
    }
}

fn appraise_bytes(report: Vec<u8>, policy: &Policy, now: SystemTime) -> Appraisal {
    let expected = Expected {
        report_data: Some(REPORT_DATA),
        nonce: Some(NONCE.into()),
    };
    appraise_item(&item(report), Some(policy), &Bundle::empty(), expected, now)
}

fn appraise(document: &Document, policy: &Policy) -> Appraisal {
    appraise_bytes(document.sign(), policy, from_rfc3339(NOW).unwrap())
}

/// The names of the checks that did not pass.
fn failed(appraisal: &Appraisal) -> Vec<&'static str> {
    let checks = appraisal.checks().iter().filter(|check| !check.passed());
    checks.map(|check| check.name).collect()
}

#[test]
fn a_good_document_is_accepted_and_called_by_its_root() {
    let policy = policy("");
    let appraisal = appraise(&document(), &policy);
    assert_eq!(failed(&appraisal), [""; 0]);
    assert_eq!(appraisal.root(), Some(Root::Software));
    let checks = appraisal.checks();
    let root = checks.iter().find(|check| check.name == "root").unwrap();
    assert!(root.seen.contains("software root"), "{root:?}");
    let names: BTreeSet<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), checks.len());

    let mut tagged = document();
    tagged.tag = vec![0xd2];
    assert_eq!(failed(&appraise(&tagged, &policy)), [""; 0]);
}

#[test]
fn every_changed_byte_of_an_accepted_document_is_refused() {
    let (policy, now) = (policy(""), from_rfc3339(NOW).unwrap());
    let document = document().sign();
    assert!(appraise_bytes(document.clone(), &policy, now).accepted());
    for at in 0..document.len() {
        let mut changed = document.clone();
        changed[at] ^= 1;
        assert!(
            !appraise_bytes(changed, &policy, now).accepted(),
            "byte {at}"
        );
    }
}

#[test]
fn one_flaw_fails_its_check_alone() {
    type Case = (&'static str, fn(&mut Document), &'static [&'static str]);
    let cases: [Case; 33] = [
        ("a key too", |d| d.public_key = Some(vec![7; 294]), &[]),
        ("no PCR3", |d| d.pcrs.retain(|(n, _)| *n != 3), &[]),
        ("PCR31", |d| d.pcrs.push((31, vec![0; 48])), &[]),
        (
            "ES512",
            |d| d.protected = vec![0xa1, 0x01, 0x38, 0x23],
            &["signature algorithm"],
        ),
        (
            "no algorithm",
            |d| d.protected = vec![],
            &["signature algorithm"],
        ),
        (
            "a header more",
            |d| d.protected = vec![0xa2, 0x01, 0x38, 0x22, 0x03, 0x00],
            &["signature algorithm"],
        ),
        ("SHA512", |d| d.digest = "SHA512", &["digest"]),
        ("sha384", |d| d.digest = "sha384", &["digest"]),
        (
            "leaf no certificate",
            |d| d.certificates[LEAF] = vec![0x30, 0],
            &["certificates"],
        ),
        (
            "authority no certificate",
            |d| d.certificates[1] = vec![],
            &["certificates"],
        ),
        (
            "a byte more after the leaf",
            |d| d.certificates[LEAF].push(0),
            &["certificates"],
        ),
        (
            "another root of that name and key",
            |d| d.certificates[ROOT] = chain()[ROOT].issue(),
            &["root"],
        ),
        (
            "the root left out",
            |d| drop(d.certificates.remove(ROOT)),
            &["root"],
        ),
        (
            "the leaf alone",
            |d| drop(d.certificates.drain(..LEAF)),
            &["root"],
        ),
        (
            "the root last",
            |d| d.certificates[..LEAF].rotate_left(1),
            &["root"],
        ),
        (
            "an authority missing",
            |d| drop(d.certificates.remove(1)),
            &["certificate chain"],
        ),
        (
            "authorities in the other order",
            |d| d.certificates.swap(1, 2),
            &["certificate chain"],
        ),
        (
            "the root twice",
            |d| d.certificates.insert(0, ROOT_DER.clone()),
            &[],
        ),
        (
            "signed by another",
            |d| d.signed_by = STRANGER,
            &["document signature"],
        ),
        (
            "signed by an authority",
            |d| d.signed_by = 2,
            &["document signature"],
        ),
        ("no PCR0", |d| drop(d.pcrs.remove(0)), &["PCRs", "PCR0"]),
        ("no PCR1", |d| drop(d.pcrs.remove(1)), &["PCRs", "PCR1"]),
        ("no PCR2", |d| drop(d.pcrs.remove(2)), &["PCRs", "PCR2"]),
        (
            "PCR0 zero",
            |d| d.pcrs[0].1 = vec![0; 48],
            &["debug", "PCR0"],
        ),
        (
            "PCR1 zero",
            |d| d.pcrs[1].1 = vec![0; 48],
            &["debug", "PCR1"],
        ),
        (
            "PCR2 zero",
            |d| d.pcrs[2].1 = vec![0; 48],
            &["debug", "PCR2"],
        ),
        ("PCR0", |d| d.pcrs[0].1[47] ^= 1, &["PCR0"]),
        ("PCR1", |d| d.pcrs[1].1[0] ^= 1, &["PCR1"]),
        ("PCR2", |d| d.pcrs[2].1[20] ^= 1, &["PCR2"]),
        ("no user data", |d| d.user_data = None, &["report data"]),
        (
            "no user data at all",
            |d| d.edit = |fields| fields.retain(|(name, _)| *name != "user_data"),
            &["report data"],
        ),
        ("no nonce", |d| d.nonce = None, &["nonce"]),
        (
            "nonce longer",
            |d| d.nonce = Some(vec![0x44; 33]),
            &["nonce"],
        ),
    ];
    let policy = policy("");
    for (name, flaw, expected) in cases {
        let mut document = document();
        flaw(&mut document);
        let appraisal = appraise(&document, &policy);
        assert_eq!(failed(&appraisal), expected, "{name}");
    }
}

#[test]
fn one_flaw_in_a_certificate_fails_its_check_alone() {
    type Case = (&'static str, fn(&mut [Draft; 4]), &'static str);
    let chain = "certificate chain";
    let cases: [Case; 16] = [
        ("region of another", |c| c[1].signed_by = STRANGER, chain),
        ("instance of another", |c| c[2].signed_by = STRANGER, chain),
        ("leaf of another", |c| c[3].signed_by = STRANGER, chain),
        ("leaf signed by the root", |c| c[3].signed_by = ROOT, chain),
        ("leaf names another", |c| c[3].issuer = "region", chain),
        ("region names another", |c| c[1].issuer = "roots", chain),
        ("instance no authority", |c| c[2].authority = None, chain),
        ("region no authority", |c| c[1].authority = None, chain),
        ("path too short", |c| c[1].authority = Some(Some(0)), chain),
        ("instance's key signs data", |c| c[2].usage = SIGNS, chain),
        ("region's key signs data", |c| c[1].usage = SIGNS, chain),
        ("leaf an authority", |c| c[3].authority = Some(None), chain),
        (
            "leaf's key signs certificates",
            |c| c[3].usage = SIGNS_CERTIFICATES,
            chain,
        ),
        (
            "leaf on P-256",
            |c| {
                let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
                c[3].point = key.public_key().as_ref().to_vec();
                c[3].curve = PRIME256V1;
            },
            chain,
        ),
        (
            "instance expired",
            |c| c[2].validity.1 = "2026-06-01T11:59:59Z",
            "certificate validity",
        ),
        (
            "region not yet valid",
            |c| c[1].validity.0 = "2026-06-01T12:00:01Z",
            "certificate validity",
        ),
    ];
    let policy = policy("");
    for (name, flaw, expected) in cases {
        let appraisal = appraise(&with_chain(flaw), &policy);
        assert_eq!(failed(&appraisal), [expected], "{name}");
    }
    let longer = with_chain(|chain| chain[1].authority = Some(None));
    assert_eq!(failed(&appraise(&longer, &policy)), [""; 0]);
}

#[test]
fn certificates_beside_a_document_are_refused() {
    let mut item = item(document().sign());
    item.certificates = vec![ROOT_DER.clone()];
    let given = Expected {
        report_data: Some(REPORT_DATA),
        nonce: Some(NONCE.into()),
    };
    let now = from_rfc3339(NOW).unwrap();
    let appraisal = appraise_item(&item, Some(&policy("")), &Bundle::empty(), given, now);
    assert_eq!(failed(&appraisal), ["certificates"]);
}

#[test]
fn all_bytes_of_user_data_and_nonce_count() {
    let policy = policy("");
    for at in 0..64 {
        let mut document = document();
        document.user_data.as_mut().unwrap()[at] ^= 0x80;
        assert_eq!(failed(&appraise(&document, &policy)), ["report data"]);
    }
    for at in 0..32 {
        let mut document = document();
        document.nonce.as_mut().unwrap()[at] ^= 0x01;
        assert_eq!(failed(&appraise(&document, &policy)), ["nonce"]);
    }
    for len in [0, 63, 65] {
        let mut document = document();
        document.user_data = Some(vec![0x22; len]);
        assert_eq!(failed(&appraise(&document, &policy)), ["report data"]);
    }
}

#[test]
fn without_expected_values_nothing_is_accepted() {
    let (report, policy) = (document().sign(), policy(""));
    let (bundle, now) = (Bundle::empty(), from_rfc3339(NOW).unwrap());
    let cases = [
        (Some(REPORT_DATA), None, vec!["nonce"]),
        (None, Some(NONCE), vec!["report data"]),
        (None, None, vec!["report data", "nonce"]),
    ];
    for (report_data, nonce, expected) in cases {
        let given = Expected {
            report_data,
            nonce: nonce.map(Into::into),
        };
        let item = item(report.clone());
        let appraisal = appraise_item(&item, Some(&policy), &bundle, given, now);
        assert_eq!(failed(&appraisal), expected);
        assert_eq!(
            appraisal.refusal().unwrap().outcome,
            crate::Outcome::NotChecked
        );
    }
}

/// A window on both sides, to the millisecond.
#[test]
fn the_timestamp_lies_near_the_present() {
    let cases = [
        ("", NOW_MS - 300_000, true),
        ("", NOW_MS - 300_001, false),
        ("", NOW_MS + 300_000, true),
        ("", NOW_MS + 300_001, false),
        ("maximum_age_s = 1\n", NOW_MS - 1000, true),
        ("maximum_age_s = 1\n", NOW_MS - 1001, false),
        ("maximum_age_s = 604800\n", NOW_MS - 604_800_000, true),
        ("", 0, false),
        ("", u64::MAX, false),
    ];
    for (extra, timestamp_ms, passes) in cases {
        let mut document = document();
        document.timestamp_ms = timestamp_ms;
        let expected: &[_] = if passes { &[] } else { &["timestamp"] };
        let appraisal = appraise(&document, &policy(extra));
        assert_eq!(failed(&appraisal), expected, "{extra}{timestamp_ms}");
    }
}

#[test]
fn certificates_outside_their_time_are_refused() {
    let policy = policy("maximum_age_s = 604800\n");
    let report = document().sign();
    let cases = [
        ("2026-06-01T10:59:59Z", false),
        ("2026-06-01T11:00:00Z", true),
        ("2026-06-01T14:00:00Z", true),
        ("2026-06-01T14:00:01Z", false),
    ];
    for (time, valid) in cases {
        let now = from_rfc3339(time).unwrap();
        let appraisal = appraise_bytes(report.clone(), &policy, now);
        let expected: &[_] = if valid {
            &[]
        } else {
            &["certificate validity"]
        };
        assert_eq!(failed(&appraisal), expected, "{time}");
    }
}

#[test]
fn a_policys_lists_decide() {
    let listed = |name: &str, number: u8| {
        let hex = hex::encode([number + 0x10; 48]);
        format!("{name} = [\"{}\", \"{hex}\"]\n", "ee".repeat(48))
    };
    let cases = [
        (listed("pcr0", 0), &[][..]),
        ("pcr0 = []\n".to_owned(), &["PCR0"]),
        (listed("pcr0", 1), &["PCR0"]),
        ("pcr1 = []\n".to_owned(), &["PCR1"]),
        ("pcr2 = []\n".to_owned(), &["PCR2"]),
        (listed("pcr3", 3), &[]),
        (listed("pcr3", 4), &["PCR3"]),
        ("pcr3 = []\n".to_owned(), &["PCR3"]),
        (listed("pcr4", 4), &[]),
        (listed("pcr4", 8), &["PCR4"]),
        (listed("pcr8", 8), &[]),
        (listed("pcr8", 3), &["PCR8"]),
        (format!("module_ids = [\"other\", \"{MODULE}\"]\n"), &[]),
        ("module_ids = []\n".to_owned(), &["module id"]),
        (format!("module_ids = [\"{MODULE}0\"]\n"), &["module id"]),
    ];
    for (extra, expected) in cases {
        let appraisal = appraise(&document(), &policy(&extra));
        assert_eq!(failed(&appraisal), expected, "{extra}");
    }
    // What would pass is told in words.
    let expected = |extra: &str, name: &str| {
        let appraisal = appraise(&document(), &policy(extra));
        let mut checks = appraisal.checks().iter();
        checks
            .find(|check| check.name == name)
            .unwrap()
            .expected
            .clone()
    };
    let empty = "nothing: the policy's list is empty";
    assert_eq!(expected("pcr0 = []\n", "PCR0"), empty);
    assert_eq!(expected("", "PCR1"), "11".repeat(48));
    assert_eq!(expected("", "PCR3"), "any");
    let two = "module_ids = [\"a\", \"b\"]\n";
    assert_eq!(expected(two, "module id"), "one of a, b");
    // A register that is not there is on no list.
    let mut without = document();
    without.pcrs.truncate(3);
    let all = listed("pcr3", 3) + &listed("pcr4", 4) + &listed("pcr8", 8);
    let appraisal = appraise(&without, &policy(&all));
    assert_eq!(failed(&appraisal), ["PCR3", "PCR4", "PCR8"]);
}

/// A policy that lists the zeros of debug mode does not make it acceptable.
#[test]
fn debug_mode_is_refused_under_any_policy() {
    let zeros = "0".repeat(96);
    let lists = format!("pcr0 = [\"{zeros}\"]\npcr1 = [\"{zeros}\"]\npcr2 = [\"{zeros}\"]\n");
    let mut document = document();
    for (_, pcr) in &mut document.pcrs {
        *pcr = vec![0; 48];
    }
    let appraisal = appraise(&document, &policy(&lists));
    assert_eq!(failed(&appraisal), ["debug"]);
}

#[test]
fn awss_root_does_not_vouch_for_software() {
    let text = policy_text("").replace("software_roots = [\"root.pem\"]", "aws_root = true");
    let appraisal = appraise(&document(), &from_toml(&text).unwrap());
    assert_eq!(failed(&appraisal), ["root"]);
    assert_eq!(appraisal.root(), None);
    let text = policy_text("aws_root = true\n");
    let both = appraise(&document(), &from_toml(&text).unwrap());
    assert_eq!(both.root(), Some(Root::Software));
}

#[test]
fn policies_are_strict() {
    let cases = [
        (
            "unknown key",
            "allow_debug = true\n",
            "unknown field `allow_debug`",
        ),
        (
            "age zero",
            "maximum_age_s = 0\n",
            "`nitro.maximum_age_s` is not 1 to 604800",
        ),
        (
            "age over a week",
            "maximum_age_s = 604801\n",
            "is not 1 to 604800",
        ),
        (
            "short register",
            "pcr3 = [\"00\"]\n",
            "not 48 bytes of lower-case hex",
        ),
    ];
    for (name, extra, expected) in cases {
        let error = from_toml(&policy_text(extra)).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let whole = policy_text("");
    for key in ["pcr0", "pcr1", "pcr2"] {
        let line = whole.lines().find(|line| line.starts_with(key)).unwrap();
        let error = from_toml(&whole.replace(line, "")).unwrap_err().to_string();
        assert!(error.contains(&format!("missing field `{key}`")), "{error}");
    }
    let no_root = whole.replace("software_roots = [\"root.pem\"]", "software_roots = []");
    assert!(matches!(from_toml(&no_root), Err(PolicyError::NoAwsRoot)));
    let roots = |count| {
        let list = vec!["\"root.pem\""; count].join(", ");
        from_toml(&whole.replace("\"root.pem\"", &list))
    };
    assert!(roots(16).is_ok());
    assert!(matches!(roots(17), Err(PolicyError::OutOfRange { .. })));
    assert_ne!(policy("").digest(), policy("maximum_age_s = 9\n").digest());
}

#[test]
fn a_policys_root_files_hold_roots() {
    let load = |bytes: &[u8]| {
        Policy::from_toml(&policy_text(""), &mut |_| Ok(bytes.to_vec())).map(|it| *it.digest())
    };
    let other_root = chain()[ROOT].issue();
    assert_ne!(load(&ROOT_DER).unwrap(), load(&other_root).unwrap());
    let pem = x509_cert::der::pem::encode_string(
        "CERTIFICATE",
        x509_cert::der::pem::LineEnding::LF,
        &ROOT_DER,
    );
    assert_eq!(
        load(pem.unwrap().as_bytes()).unwrap(),
        load(&ROOT_DER).unwrap()
    );
    let [mut root, region, _, leaf] = chain();
    root.signed_by = STRANGER;
    let mut data = chain()[ROOT].clone();
    data.usage = SIGNS;
    for no_root in [
        root.issue(),
        region.issue(),
        leaf.issue(),
        data.issue(),
        b"root".to_vec(),
    ] {
        let error = load(&no_root);
        assert!(matches!(error, Err(PolicyError::RootCertificate { .. })));
    }
    let error = load(chain::AWS_ROOT);
    assert!(matches!(error, Err(PolicyError::AwsAsSoftware { path }) if path == "root.pem"));
    let missing = Policy::from_toml(&policy_text(""), &mut |_| {
        Err(std::io::ErrorKind::NotFound.into())
    });
    assert!(matches!(missing, Err(PolicyError::Read { path, .. }) if path == "root.pem"));
}

/// From a node's answer to its key: the document vouches for statement and nonce.
#[test]
fn a_nitro_node_is_verified_until_its_leaf_ends() {
    let now = from_rfc3339(NOW).unwrap();
    let unix = NOW_MS / 1000;
    let draft = statement::Draft {
        node_id: "node-1".to_owned(),
        keys: vec![ClaimedKey {
            key_id: 1,
            suite: Suite::X25519,
            public_key: PublicKey::X25519([9; 32]),
            not_before: unix,
            not_after: unix + 86_400,
        }],
        receipt_key: [3; 32],
        tls_spki_sha256: None,
        models: vec!["tiny".to_owned()],
        engine: EngineLocation::Local,
        config_sha256: [5; 32],
        software: Software {
            name: "sealgate".to_owned(),
            version: "0.1.0".to_owned(),
            commit: "abc".to_owned(),
        },
    };
    let statement = draft.to_json().unwrap();
    let nonce = Nonce::from(NONCE);
    let mut document = document();
    document.public_key = Some(vec![7; 8]);
    let data = binding::report_data(&StatementDigest::of(&statement), &nonce, &[]);
    document.user_data = Some(data.to_vec());
    let answer = Answer {
        statement,
        nonce,
        evidence: vec![item(document.sign())],
    };
    let answer = Answer::from_json(&answer.to_json().unwrap()).unwrap();
    let text = format!("appraisal_max_age_s = 604800\n{}", policy_text(""));
    let policy = from_toml(&text).unwrap();
    let node = verify(&answer, &policy, &Bundle::empty(), &nonce, now).unwrap();
    assert_eq!((node.tee(), node.root()), ("nitro", Root::Software));
    assert_eq!(to_rfc3339(node.expires_at()), "2026-06-01T14:00:00Z");
    let CpuClaims::Nitro(claims) = &node.claims().cpu else {
        unreachable!("the node's evidence is Nitro")
    };
    assert_eq!(claims.module_id, MODULE);
    assert_eq!(claims.pcrs[&8], [0x18; 48]);
    assert_eq!(claims.public_key.as_deref(), Some(&[7; 8][..]));
    assert_eq!(claims.timestamp, now);

    let other = Nonce::from([0x45; 32]);
    let mut stale = answer;
    stale.nonce = other;
    let refusal = verify(&stale, &policy, &Bundle::empty(), &other, now).unwrap_err();
    assert_eq!(refusal.check, "report data");
}

mod parsing {
    use super::*;
    use crate::nitro::document::Document as Parsed;

    fn error(bytes: &[u8]) -> Option<DocumentError> {
        Parsed::parse(bytes).err()
    }

    #[test]
    fn the_envelope_is_exactly_a_cose_sign1() {
        let parts = |parts: &[&[u8]]| error(&parts.concat());
        let payload = document().payload();
        let [protected, payload] = [&ES384[..], &payload].map(cbor_bytes);
        let signature = |len| cbor_bytes(&vec![1; len]);
        let whole = |array: &[u8]| parts(&[array, &protected, &[0xa0], &payload, &signature(96)]);
        assert_eq!(whole(&[0x84]), None);
        assert_eq!(whole(&[0xd2, 0x84]), None);
        assert_eq!(whole(&[0xd1, 0x84]), Some(DocumentError::Tag(17)));
        assert_eq!(whole(&[0xd8, 0x12, 0x84]), Some(CborError::Form.into()));
        let twice = CborError::Type("an array");
        assert_eq!(whole(&[0xd2, 0xd2, 0x84]), Some(twice.into()));
        assert_eq!(whole(&[0x83]), Some(DocumentError::Elements(3)));
        assert_eq!(whole(&[0x85]), Some(DocumentError::Elements(5)));
        assert_eq!(whole(&[0x98, 0x04]), Some(CborError::Form.into()));
        assert_eq!(whole(&[0x9f]), Some(CborError::Form.into()));

        let head = [&[0x84][..], &protected].concat();
        let unprotected: &[u8] = &[0xa1, 0x04, 0x41, 0x01];
        let error = parts(&[&head, unprotected, &payload, &signature(96)]);
        assert_eq!(error, Some(DocumentError::Unprotected));
        for len in [0, 95, 97] {
            let error = parts(&[&head, &[0xa0], &payload, &signature(len)]);
            assert_eq!(error, Some(DocumentError::Signature(len)));
        }
        let error = parts(&[&head, &[0xa0], &payload, &signature(96), &[0]]);
        assert_eq!(error, Some(CborError::Trailing(1).into()));
        let error = parts(&[&head, &[0xa0], &[0xf6], &signature(96)]);
        assert_eq!(error, Some(CborError::Type("a byte string").into()));
    }

    #[test]
    fn a_document_has_a_longest_length() {
        let mut document = document();
        let mut of_len = |len: usize| {
            document.public_key = Some(vec![7; len]);
            document.sign()
        };
        // Both lengths are written in two bytes, so that a byte more is a byte more.
        let rest = of_len(8000).len() - 8000;
        assert_eq!(error(&of_len(MAX_DOCUMENT - rest)), None);
        let over = error(&of_len(MAX_DOCUMENT - rest + 1));
        assert_eq!(over, Some(DocumentError::TooLong(MAX_DOCUMENT + 1)));
    }

    #[test]
    fn every_field_is_there_once_and_nothing_else() {
        type Edit = fn(&mut Vec<(&'static str, Vec<u8>)>);
        let edited = |edit: Edit| {
            let mut document = document();
            document.edit = edit;
            error(&document.sign())
        };
        let again: [(Edit, _); 9] = [
            (|f| f.push(f[0].clone()), "module_id"),
            (|f| f.push(f[1].clone()), "digest"),
            (|f| f.push(f[2].clone()), "timestamp"),
            (|f| f.push(f[3].clone()), "pcrs"),
            (|f| f.push(f[4].clone()), "certificate"),
            (|f| f.push(f[5].clone()), "cabundle"),
            (|f| f.push(f[6].clone()), "public_key"),
            (|f| f.push(("user_data", vec![0xf6])), "user_data"),
            (|f| f.insert(0, ("nonce", vec![0xf6])), "nonce"),
        ];
        for (edit, name) in again {
            assert_eq!(edited(edit), Some(DocumentError::Duplicate(name)));
        }
        let without: [(Edit, _); 6] = [
            (|f| drop(f.remove(0)), "module_id"),
            (|f| drop(f.remove(1)), "digest"),
            (|f| drop(f.remove(2)), "timestamp"),
            (|f| drop(f.remove(3)), "pcrs"),
            (|f| drop(f.remove(4)), "certificate"),
            (|f| drop(f.remove(5)), "cabundle"),
        ];
        for (edit, name) in without {
            assert_eq!(edited(edit), Some(DocumentError::Missing(name)));
        }
        assert_eq!(edited(|f| f.truncate(6)), None);
        assert_eq!(edited(|f| f.reverse()), None);
        let unknown = edited(|f| f.push(("more", vec![0xf6])));
        assert_eq!(unknown, Some(DocumentError::Unknown));
        let deep = edited(|f| f[0].1 = vec![0x81; 9000]);
        assert_eq!(deep, Some(CborError::Type("a text").into()));
        let negative = edited(|f| f[2].1 = vec![0x20]);
        assert_eq!(
            negative,
            Some(CborError::Type("an unsigned integer").into())
        );

        let mut longer = document();
        longer.after_payload = vec![0xf6];
        assert_eq!(error(&longer.sign()), Some(CborError::Trailing(1).into()));
    }

    #[test]
    fn registers_are_digests_by_number() {
        let with = |pcrs: Vec<(u64, Vec<u8>)>| {
            let mut document = document();
            document.pcrs = pcrs;
            error(&document.sign())
        };
        assert_eq!(with(vec![]), None);
        assert_eq!(with((0..32).map(|n| (n, vec![1; 48])).collect()), None);
        assert_eq!(with(vec![(32, vec![1; 48])]), Some(DocumentError::Pcr));
        for len in [0, 32, 47, 49, 64] {
            let error = with(vec![(0, vec![1; len])]);
            assert_eq!(error, Some(DocumentError::Pcr), "{len}");
        }
        let twice = with(vec![(3, vec![1; 48]), (3, vec![1; 48])]);
        assert_eq!(twice, Some(DocumentError::Duplicate("pcr")));
    }

    #[test]
    fn a_chain_has_a_longest_length() {
        let with = |count: u64| {
            let mut document = document();
            let count = usize::try_from(count).unwrap();
            document.certificates = vec![vec![]; count + 1];
            error(&document.sign())
        };
        assert_eq!(with(0), None);
        assert_eq!(with(8), None);
        assert_eq!(with(9), Some(DocumentError::Cabundle(9)));
    }

    /// RFC 9052 section 4.4, at every length of a head.
    #[test]
    fn what_is_signed_is_written_in_the_shortest_form() {
        for len in [0, 23, 24, 255, 256, 9000] {
            let mut document = document();
            document.protected = vec![0x55; len.min(300)];
            document.public_key = Some(vec![7; len]);
            let signed = document.sign();
            let parsed = Parsed::parse(&signed).unwrap();
            let expected = [
                vec![0x84],
                cbor_text("Signature1"),
                cbor_bytes(&document.protected),
                vec![0x40],
                cbor_bytes(&document.payload()),
            ];
            assert_eq!(parsed.signed_bytes(), expected.concat(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            drop(Parsed::parse(&bytes));
            let payload = cbor_bytes(&bytes);
            let document = [&[0x84, 0x40, 0xa0][..], &payload, &cbor_bytes(&[1; 96])].concat();
            drop(Parsed::parse(&document));
        }
    }
}
