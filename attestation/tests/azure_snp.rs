//! Captures of Azure's confidential VMs, recorded and made under a software root.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed helper fails its test"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::SystemTime;

use attestation::sev_snp::Report;
use attestation::software_root::{SoftwareRoot, SoftwareSigner};
use attestation::time::from_rfc3339;
use attestation::{
    Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Outcome, Policy, Root,
    appraise_item,
};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const NOW: &str = "2026-06-01T00:00:00Z";
const NONCE: [u8; 32] = [0x44; 32];

fn data(path: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/azure");
    fs::read(root.join(path)).unwrap()
}

fn recorded() -> Value {
    serde_json::from_slice(&data("evidence-v1.json")).unwrap()
}

/// The other recorded report and its certificate, in the form of the first.
fn other() -> Value {
    let chain = String::from_utf8(data("vcek.pem")).unwrap();
    let (leaf, _) = chain.split_once("-----END").unwrap();
    let lines = leaf.lines().filter(|line| !line.starts_with("-----"));
    let vcek = STANDARD.decode(lines.collect::<String>()).unwrap();
    json!({
        "version": 1,
        "hcl_report": URL_SAFE.encode(data("hcl-report.bin")),
        "vcek": URL_SAFE.encode(vcek),
        "tpm_quote": {
            "message": hex::encode(data("tpm-quote.msg")),
            "signature": hex::encode(data("tpm-quote.sig")),
        },
    })
}

fn hcl_of(capture: &Value) -> Vec<u8> {
    URL_SAFE
        .decode(capture["hcl_report"].as_str().unwrap())
        .unwrap()
}

/// Accepts what the paravisor of a capture measured, under AMD's roots.
fn policy_for(capture: &Value, extra: &str) -> Policy {
    let report = Report::parse(&hcl_of(capture)[32..1216]).unwrap();
    let text = format!(
        "version = 1\n[sev_snp]\namd_roots = true\nrevocation = \"off\"\nproducts = [\"milan\"]\n\
         required_platform_info = []\nmeasurements = [\"{}\"]\n{extra}\n\
         [sev_snp.minimum_tcb.milan]\nbootloader = 3\ntee = 0\nsnp = 8\nmicrocode = 84\n",
        hex::encode(report.measurement)
    );
    Policy::from_toml(&text, &mut |_| unreachable!("no files")).unwrap()
}

fn item(capture: &Value, certificates: Vec<Vec<u8>>) -> EvidenceItem {
    EvidenceItem {
        kind: EvidenceKind::AzureSnp,
        report: serde_json::to_vec(capture).unwrap(),
        certificates,
        collateral: Collateral::default(),
    }
}

fn at(time: &str) -> SystemTime {
    from_rfc3339(time).unwrap()
}

fn appraise(capture: &Value, policy: Option<&Policy>, nonce: Option<[u8; 32]>) -> Appraisal {
    let expected = Expected {
        report_data: None,
        nonce: nonce.map(Into::into),
    };
    let item = item(capture, Vec::new());
    appraise_item(&item, policy, &Bundle::empty(), expected, at(NOW))
}

fn with_outcome(appraisal: &Appraisal, outcome: Outcome) -> Vec<&'static str> {
    let checks = appraisal.checks().iter();
    let checks = checks.filter(|check| check.outcome == outcome);
    checks.map(|check| check.name).collect()
}

fn failed(appraisal: &Appraisal) -> Vec<&'static str> {
    with_outcome(appraisal, Outcome::Failed)
}

/// The quote answers a challenge of nine bytes, which no nonce of ours is.
#[test]
fn a_genuine_capture_passes_every_check_but_that_of_its_freshness() {
    let capture = recorded();
    let policy = policy_for(&capture, "");
    let appraisal = appraise(&capture, Some(&policy), None);
    assert_eq!(failed(&appraisal), [""; 0]);
    assert_eq!(with_outcome(&appraisal, Outcome::NotChecked), ["nonce"]);
    assert_eq!(appraisal.root(), Some(Root::Amd));
    let appraisal = appraise(&capture, Some(&policy), Some(NONCE));
    assert_eq!(failed(&appraisal), ["nonce"]);

    // The report is at VMPL 0, the paravisor's.
    let policy = policy_for(&capture, "vmpl = 1");
    let appraisal = appraise(&capture, Some(&policy), None);
    assert_eq!(failed(&appraisal), ["VMPL"]);
    let appraisal = appraise(&capture, None, None);
    assert_eq!(failed(&appraisal), [""; 0]);
    assert!(!appraisal.accepted());
    let none = Policy::from_toml("version = 1", &mut |_| unreachable!()).unwrap();
    let appraisal = appraise(&capture, Some(&none), None);
    assert_eq!(failed(&appraisal), ["policy section"]);
}

#[test]
fn a_day_outside_its_time_it_is_refused() {
    let capture = recorded();
    let policy = policy_for(&capture, "");
    for time in ["2025-01-27T00:00:00Z", "2032-01-29T00:00:00Z"] {
        let item = item(&capture, Vec::new());
        let bundle = Bundle::empty();
        let appraisal = appraise_item(&item, Some(&policy), &bundle, Expected::default(), at(time));
        assert_eq!(failed(&appraisal), ["certificate validity"], "{time}");
    }
}

/// That quote was signed by neither capture's key.
#[test]
fn a_quote_of_another_key_is_refused() {
    let other = other();
    let provisional = policy_for(&other, "allow_provisional_firmware = true");
    let appraisal = appraise(&other, Some(&provisional), None);
    assert_eq!(failed(&appraisal), ["quote signature"]);
    assert_eq!(appraisal.root(), Some(Root::Amd));

    let mut mixed = recorded();
    for member in ["message", "signature"] {
        mixed["tpm_quote"][member] = other["tpm_quote"][member].clone();
    }
    let appraisal = appraise(&mixed, Some(&policy_for(&mixed, "")), None);
    assert_eq!(failed(&appraisal), ["quote signature", "PCR digest"]);
}

/// Report, runtime data and padding; message and signature of the quote; certificate.
#[test]
fn every_changed_byte_is_refused() {
    let capture = recorded();
    let policy = policy_for(&capture, "");
    let quote = |member: &str| hex::decode(capture["tpm_quote"][member].as_str().unwrap());
    let changed_at = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    };
    let refuses = |capture: &Value, what: &str, at: usize| {
        let appraisal = appraise(capture, Some(&policy), None);
        assert!(!failed(&appraisal).is_empty(), "{what} {at}");
    };
    let hcl = hcl_of(&capture);
    for at in 0..hcl.len() {
        let mut changed = capture.clone();
        changed["hcl_report"] = URL_SAFE.encode(changed_at(&hcl, at)).into();
        refuses(&changed, "HCL report", at);
    }
    for member in ["message", "signature"] {
        let bytes = quote(member).unwrap();
        for at in 0..bytes.len() {
            let mut changed = capture.clone();
            changed["tpm_quote"][member] = hex::encode(changed_at(&bytes, at)).into();
            refuses(&changed, member, at);
        }
    }
    for at in 0..24 {
        let mut changed = capture.clone();
        let value = hex::decode(capture["tpm_quote"]["pcrs"][at].as_str().unwrap()).unwrap();
        changed["tpm_quote"]["pcrs"][at] = hex::encode(changed_at(&value, at)).into();
        let appraisal = appraise(&changed, Some(&policy), None);
        assert_eq!(failed(&appraisal), ["PCR digest"], "PCR{at}");
    }
}

/// A machine without a TEE, with a vTPM's key of its own.
struct Machine {
    root: SoftwareRoot,
    key: RsaKeyPair,
}

static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine {
    root: SoftwareRoot::generate(at(NOW)).unwrap(),
    key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
});

/// What a synthetic capture says; `None` stands for what an honest machine says.
#[derive(Default)]
struct Draft {
    report_data: Option<[u8; 64]>,
    vmpl: u32,
    extra_data: Option<Vec<u8>>,
    selection: Option<[u8; 3]>,
    digest: Option<[u8; 32]>,
    pcrs: Option<usize>,
    key: Option<RsaKeyPair>,
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn runtime_data() -> Vec<u8> {
    // An `RSAPublicKey` of 2048 bits: 256 bytes of modulus after two headers and a zero.
    let public = MACHINE.key.public_key().as_ref();
    let n = &public[9..265];
    let key = json!({
        "kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB",
        "n": URL_SAFE_NO_PAD.encode(n),
    });
    serde_json::to_vec(&json!({ "keys": [key], "user-data": "00" })).unwrap()
}

impl Draft {
    fn capture(self) -> (Value, Vec<Vec<u8>>) {
        let root = &MACHINE.root;
        let pems = (root.vcek_key_pem(), root.vcek_pem(), root.ask_pem());
        let signer = SoftwareSigner::from_pem(pems.0, pems.1, pems.2).unwrap();
        let runtime_data = runtime_data();
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(&sha256(&runtime_data));
        let mut report = signer.report(self.report_data.unwrap_or(report_data), [0x11; 48]);
        report.vmpl = self.vmpl;
        let len = u32::try_from(runtime_data.len()).unwrap();
        let numbers = |numbers: &[u32]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        };
        let hcl = [
            b"HCLA".to_vec(),
            numbers(&[1, 32 + 1184 + 20 + len, 2, 0, 0, 0, 0]),
            signer.sign(&report).unwrap(),
            numbers(&[20 + len, 1, 2, 1, len]),
            runtime_data,
            vec![0; 100],
        ];

        let values: Vec<[u8; 32]> = (0..24).map(|number| [number; 32]).collect();
        // PCR0, PCR2, PCR9 and PCR23.
        let selected = [values[0], values[2], values[9], values[23]].concat();
        let extra_data = self.extra_data.unwrap_or(NONCE.to_vec());
        let message = [
            &b"\xffTCG\x80\x18\x00\x02ab"[..],
            &u16::try_from(extra_data.len()).unwrap().to_be_bytes(),
            &extra_data,
            &[0; 16],
            &[1],
            &[0; 8],
            &[0, 0, 0, 1, 0, 0x0b, 3],
            &self.selection.unwrap_or([0b101, 0b10, 0x80]),
            &[0, 32],
            &self.digest.unwrap_or(sha256(&selected)),
        ]
        .concat();
        let key = self.key.as_ref().unwrap_or(&MACHINE.key);
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            &message,
            &mut signature,
        )
        .unwrap();
        let values = values.iter().take(self.pcrs.unwrap_or(24));
        let capture = json!({
            "version": 1,
            "hcl_report": URL_SAFE.encode(hcl.concat()),
            "vcek": URL_SAFE.encode(&signer.certificates()[0]),
            "tpm_quote": {
                "message": hex::encode(message),
                "signature": hex::encode(signature),
                "pcrs": values.map(hex::encode).collect::<Vec<_>>(),
            },
        });
        (capture, vec![signer.certificates()[1].clone()])
    }
}

fn software_policy() -> Policy {
    let text = format!(
        "version = 1\n[sev_snp]\nsoftware_roots = [\"ark.pem\"]\nproducts = [\"genoa\"]\n\
         measurements = [\"{}\"]\n[sev_snp.minimum_tcb.genoa]\nbootloader = 10\ntee = 0\n\
         snp = 23\nmicrocode = 84\n",
        "11".repeat(48)
    );
    Policy::from_toml(&text, &mut |_| {
        Ok(MACHINE.root.ark_pem().as_bytes().to_vec())
    })
    .unwrap()
}

#[test]
fn one_flaw_fails_its_check_alone() {
    let of_bytes = |bytes: &[u8]| Draft {
        extra_data: Some(bytes.to_vec()),
        ..Draft::default()
    };
    let report_data = |at: usize| {
        let mut data = [0; 64];
        data[..32].copy_from_slice(&sha256(&runtime_data()));
        data[at] ^= 1;
        Draft {
            report_data: Some(data),
            ..Draft::default()
        }
    };
    let mut almost = NONCE;
    almost[31] ^= 1;
    let cases = [
        ("none", Draft::default(), &[][..]),
        ("digest's first byte", report_data(0), &["report data"]),
        ("digest's last byte", report_data(31), &["report data"]),
        (
            "second half's first byte",
            report_data(32),
            &["report data"],
        ),
        ("second half's last byte", report_data(63), &["report data"]),
        (
            "not the paravisor",
            Draft {
                vmpl: 2,
                ..Draft::default()
            },
            &["VMPL"],
        ),
        ("another nonce", of_bytes(&almost), &["nonce"]),
        ("no nonce", of_bytes(&[]), &["nonce"]),
        ("nonce cut short", of_bytes(&NONCE[..31]), &["nonce"]),
        ("more than the nonce", of_bytes(&[0x44; 33]), &["nonce"]),
        (
            "other registers",
            Draft {
                selection: Some([0b101, 0b10, 0x40]),
                ..Draft::default()
            },
            &["PCR digest"],
        ),
        (
            "other values",
            Draft {
                digest: Some([7; 32]),
                ..Draft::default()
            },
            &["PCR digest"],
        ),
        (
            "no value for PCR23",
            Draft {
                pcrs: Some(23),
                ..Draft::default()
            },
            &["PCR digest"],
        ),
        (
            "no quote",
            Draft {
                selection: Some([0; 3]),
                ..Draft::default()
            },
            &["quote"],
        ),
        (
            "signed by another",
            Draft {
                key: Some(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
                ..Draft::default()
            },
            &["quote signature"],
        ),
    ];
    let policy = software_policy();
    for (name, draft, expected) in cases {
        let (capture, authority) = draft.capture();
        let expected_values = Expected {
            report_data: None,
            nonce: Some(NONCE.into()),
        };
        let item = item(&capture, authority);
        let bundle = Bundle::empty();
        let appraisal = appraise_item(&item, Some(&policy), &bundle, expected_values, at(NOW));
        assert_eq!(failed(&appraisal), expected, "{name}");
        assert_eq!(appraisal.accepted(), expected.is_empty(), "{name}");
        assert_eq!(appraisal.root(), Some(Root::Software));
    }
}

#[test]
fn what_is_left_out_is_not_taken_for_good() {
    let (capture, authority) = Draft::default().capture();
    let policy = software_policy();
    let bundle = Bundle::empty();
    let appraise = |capture: &Value, authority: &[Vec<u8>], report_data| {
        let expected = Expected {
            report_data,
            nonce: Some(NONCE.into()),
        };
        let item = item(capture, authority.to_vec());
        appraise_item(&item, Some(&policy), &bundle, expected, at(NOW))
    };
    let mut without_pcrs = capture.clone();
    without_pcrs["tpm_quote"]
        .as_object_mut()
        .unwrap()
        .remove("pcrs");
    let appraisal = appraise(&without_pcrs, &authority, None);
    assert_eq!(
        with_outcome(&appraisal, Outcome::NotChecked),
        ["PCR digest"]
    );
    assert!(!appraisal.accepted());

    let mut without_vcek = capture.clone();
    without_vcek.as_object_mut().unwrap().remove("vcek");
    let appraisal = appraise(&without_vcek, &[], None);
    assert_eq!(failed(&appraisal), ["certificates"]);
    let vcek = URL_SAFE.decode(capture["vcek"].as_str().unwrap()).unwrap();
    let both = [vec![vcek], authority.clone()].concat();
    assert!(appraise(&without_vcek, &both, None).accepted());

    // A quote has no field for report data, so it cannot be what somebody expects.
    let appraisal = appraise(&capture, &authority, Some([0; 64]));
    assert_eq!(failed(&appraisal), ["user data"]);
}
