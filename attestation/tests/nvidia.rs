//! NVIDIA devices: genuine evidence, the report's form, OCSP responses, and machines of several
//! devices under one CPU's report.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

#[path = "common/nvidia.rs"]
mod maker;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use attestation::nvidia::report::{MAX_REPORT, Report, ReportError};
use attestation::ocsp::{self, Good, MAX_RESPONSE, OcspError};
use attestation::software_root::{SoftwareRoot, SoftwareSigner};
use attestation::statement::{ClaimedKey, Draft, EngineLocation, PublicKey, Software, Suite};
use attestation::time::from_rfc3339;
use attestation::{
    Answer, Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Nonce, Policy,
    PolicyError, Refusal, Root, StatementDigest, VerifiedNode, appraise, appraise_item, binding,
    verify,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maker::*;

const SAMPLE_NONCE: &str = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";
const LAB: &str = "revocation = \"off\"\nmeasurements = \"off\"\n";

fn pem(text: &str) -> Vec<Vec<u8>> {
    let blocks = text.split_inclusive("-----END CERTIFICATE-----");
    let blocks = blocks.filter(|block| block.contains("BEGIN"));
    blocks
        .map(|block| {
            x509_cert::der::pem::decode_vec(block.trim().as_bytes())
                .unwrap()
                .1
        })
        .collect()
}

fn sample(kind: EvidenceKind, report: Vec<u8>, certificates: &str) -> EvidenceItem {
    EvidenceItem {
        kind,
        report,
        certificates: pem(certificates),
        collateral: Collateral::default(),
    }
}

fn hopper() -> EvidenceItem {
    let report = include_bytes!("data/nvidia/hopper/report.bin").to_vec();
    let chain = include_str!("data/nvidia/hopper/cert_chain.pem");
    sample(EvidenceKind::NvidiaGpu, report, chain)
}

fn blackwell() -> EvidenceItem {
    let report = hex::decode(include_str!("data/nvidia/blackwell/report.hex").trim()).unwrap();
    let chain = include_str!("data/nvidia/blackwell/cert_chain.pem");
    sample(EvidenceKind::NvidiaGpu, report, chain)
}

/// The form of NVIDIA's own tools: a list of one.
fn serialized(kind: EvidenceKind, json: &str) -> EvidenceItem {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let decode = |member: &str| STANDARD.decode(json[0][member].as_str().unwrap()).unwrap();
    let chain = String::from_utf8(decode("certificate")).unwrap();
    sample(kind, decode("evidence"), &chain)
}

fn hopper_ppcie() -> EvidenceItem {
    let json = include_str!("data/nvidia/hopper-ppcie.json");
    serialized(EvidenceKind::NvidiaGpu, json)
}

fn switch_ls10() -> EvidenceItem {
    let json = include_str!("data/nvidia/switch-ls10.json");
    serialized(EvidenceKind::NvidiaNvswitch, json)
}

fn invalid_signature() -> EvidenceItem {
    let report = include_str!("data/nvidia/invalid-signature.hex").trim();
    let report = hex::decode(report).unwrap();
    let chain = include_str!("data/nvidia/invalid-signature.pem");
    sample(EvidenceKind::NvidiaGpu, report, chain)
}

fn nvidia_policy(settings: &str) -> Policy {
    let text = format!("version = 1\n[nvidia]\nnvidia_root = true\nminimum_gpus = 0\n{settings}");
    Policy::from_toml(&text, &mut |_| unreachable!()).unwrap()
}

fn appraise_sample(item: &EvidenceItem, policy: &Policy, nonce: &str) -> Appraisal {
    let expected = Expected {
        nonce: Some(nonce.parse().unwrap()),
        report_data: None,
    };
    let now = from_rfc3339("2025-08-21T12:00:00Z").unwrap();
    appraise_item(item, Some(policy), &Bundle::empty(), expected, now)
}

#[test]
fn genuine_devices_pass_or_are_refused_for_their_reason() {
    const PPCIE_NONCE: &str = "e97b23a1718095a0e9e35edca810768c70a6a5a389b705e753b197912bc11576";
    let hopper_only = "architectures = [\"GH100\"]\n";
    let any = "architectures = [\"GH100\", \"GB100\", \"LS_10\"]\n";
    let unrevoked = "measurements = \"off\"\n";
    let unmeasured = "revocation = \"off\"\n";
    let ppcie = "modes = [\"ppcie\"]\n";
    type Case = (
        &'static str,
        EvidenceItem,
        &'static str,
        Vec<&'static str>,
        Option<&'static str>,
    );
    let cases: [Case; 12] = [
        (
            "Hopper",
            hopper(),
            SAMPLE_NONCE,
            vec![hopper_only, LAB],
            None,
        ),
        ("Blackwell", blackwell(), SAMPLE_NONCE, vec![any, LAB], None),
        ("switch", switch_ls10(), SAMPLE_NONCE, vec![any, LAB], None),
        (
            "protected PCIe",
            hopper_ppcie(),
            PPCIE_NONCE,
            vec![any, LAB, ppcie],
            None,
        ),
        (
            "protected PCIe where one GPU is asked for",
            hopper_ppcie(),
            PPCIE_NONCE,
            vec![any, LAB],
            Some("mode"),
        ),
        (
            "Blackwell where Hopper is asked for",
            blackwell(),
            SAMPLE_NONCE,
            vec![hopper_only, LAB],
            Some("architecture"),
        ),
        (
            "signature of another report",
            invalid_signature(),
            SAMPLE_NONCE,
            vec![any, LAB, ppcie],
            Some("report signature"),
        ),
        (
            "stale",
            hopper(),
            PPCIE_NONCE,
            vec![any, LAB],
            Some("report nonce"),
        ),
        (
            "no status",
            hopper(),
            SAMPLE_NONCE,
            vec![any, unrevoked],
            Some("revocation"),
        ),
        (
            "no golden measurements",
            hopper(),
            SAMPLE_NONCE,
            vec![any, unmeasured],
            Some("driver measurements"),
        ),
        (
            "no golden measurements of a switch",
            switch_ls10(),
            SAMPLE_NONCE,
            vec![any, unmeasured],
            Some("VBIOS measurements"),
        ),
        (
            "switch as a GPU",
            EvidenceItem {
                kind: EvidenceKind::NvidiaGpu,
                ..switch_ls10()
            },
            SAMPLE_NONCE,
            vec![any, LAB],
            Some("device data"),
        ),
    ];
    for (name, item, nonce, settings, expected) in cases {
        let appraisal = appraise_sample(&item, &nvidia_policy(&settings.concat()), nonce);
        let refusal = appraisal.refusal();
        assert_eq!(refusal.map(|it| it.check), expected, "{name}: {refusal:?}");
        assert_eq!(
            appraisal.root(),
            (expected != Some("device data")).then_some(Root::Nvidia)
        );
    }
}

#[test]
fn manifests_are_asked_for_by_the_ids_of_nvidia() {
    let any = "architectures = [\"GH100\", \"GB100\", \"LS_10\"]\n";
    let policy = nvidia_policy(any);
    let cases = [
        (
            hopper(),
            vec![
                "golden measurements as in NV_GPU_DRIVER_GH100_550.90.07",
                "golden measurements as in NV_GPU_VBIOS_1010_0200_882_96009F0001",
            ],
        ),
        (
            blackwell(),
            vec![
                "golden measurements as in NV_GPU_CC_DRIVER_GB100_575.32",
                "golden measurements as in NV_GPU_VBIOS_G525_0220_886_970088000F",
            ],
        ),
        (
            switch_ls10(),
            vec!["golden measurements as in NV_SWITCH_BIOS_5612_0002_890_9610550001"],
        ),
    ];
    for (item, expected) in cases {
        let appraisal = appraise_sample(&item, &policy, SAMPLE_NONCE);
        let ids = appraisal
            .checks()
            .iter()
            .filter(|it| it.name.ends_with(" measurements"));
        let ids: Vec<_> = ids.map(|it| it.expected.as_str()).collect();
        assert_eq!(ids, expected);
    }
}

/// Every byte is changed where the chain is verified once, in the crate's own tests.
#[test]
fn changed_bytes_of_a_genuine_report_are_refused() {
    let policy = nvidia_policy(&format!("architectures = [\"GH100\"]\n{LAB}"));
    let mut item = hopper();
    for at in (0..item.report.len()).step_by(37) {
        item.report[at] ^= 0x40;
        let refused = appraise_sample(&item, &policy, SAMPLE_NONCE);
        let refused = refused
            .checks()
            .iter()
            .any(|it| !it.passed() && ["report", "report signature"].contains(&it.name));
        assert!(refused, "byte {at}");
        item.report[at] ^= 0x40;
    }
    assert!(appraise_sample(&item, &policy, SAMPLE_NONCE).accepted());
}

#[test]
fn a_report_is_read_whole_or_not_at_all() {
    let good = hopper().report;
    let report = Report::parse(&good).unwrap();
    assert_eq!(report.measurements.len(), 64);
    assert_eq!(report.measurements[63].index, 64);
    assert_eq!(report.measurement(1), Some([0; 48].as_slice()));
    assert_eq!(report.measurement(65), None);
    assert_eq!(report.record(3), Some(b"550.90.07\0".as_slice()));
    assert_eq!(report.record(36), None);
    assert_eq!(hex::encode(report.nonce), SAMPLE_NONCE);
    assert_eq!([report.signed, report.signature].concat(), good);
    assert_eq!(report.opaque.len(), 14);
    assert_eq!(report.responder_nonce[..2], [0xb4, 0xb8]);
    for len in 0..good.len() {
        let truncated = Report::parse(&good[..len]);
        assert!(matches!(truncated, Err(ReportError::Truncated(_))), "{len}");
    }

    type Bend = fn(&mut Vec<u8>);
    let (first, second) = (45, 100);
    assert_eq!((good[first], good[second]), (1, 2));
    let cases: [(&str, Bend, ReportError); 14] = [
        (
            "request's version",
            |it| it[0] = 0x10,
            ReportError::Unexpected("request"),
        ),
        (
            "request's code",
            |it| it[1] = 0xe1,
            ReportError::Unexpected("request"),
        ),
        (
            "no signature wanted",
            |it| it[2] = 0,
            ReportError::Unexpected("request"),
        ),
        (
            "some measurements",
            |it| it[3] = 1,
            ReportError::Unexpected("request"),
        ),
        ("slot", |it| it[36] = 1, ReportError::Unexpected("request")),
        (
            "response's version",
            |it| it[37] = 0x12,
            ReportError::Unexpected("response"),
        ),
        (
            "response's code",
            |it| it[38] = 0x7f,
            ReportError::Unexpected("response"),
        ),
        (
            "response's slot",
            |it| it[40] = 1,
            ReportError::Unexpected("response"),
        ),
        ("index zero", |it| it[45] = 0, ReportError::Index(0)),
        ("index twice", |it| it[100] = 1, ReportError::Index(1)),
        (
            "specification",
            |it| it[46] = 2,
            ReportError::Unexpected("measurement specification"),
        ),
        ("sizes disagree", |it| it[47] = 50, ReportError::Blocks),
        ("a block too few", |it| it[41] = 63, ReportError::Blocks),
        ("a byte too many", |it| it.push(0), ReportError::Trailing(1)),
    ];
    for (name, bend, expected) in cases {
        let mut bytes = good.clone();
        bend(&mut bytes);
        assert_eq!(Report::parse(&bytes), Err(expected), "{name}");
    }
    let mut bytes = good.clone();
    bytes[41] = 65;
    assert_eq!(
        Report::parse(&bytes),
        Err(ReportError::Truncated("measurement blocks"))
    );
    let mut twice = Device::gpu([0; 32]);
    twice.opaque.push((3, vec![b'1']));
    assert_eq!(
        Report::parse(&twice.report()),
        Err(ReportError::DuplicateRecord(3))
    );
    let mut crowded = Device::gpu([0; 32]);
    let free = (0..).filter(|kind| crowded.opaque.iter().all(|it| it.0 != *kind));
    let more: Vec<_> = free.take(256 - crowded.opaque.len()).collect();
    let record = |kind| (kind, Vec::new());
    crowded.opaque.extend(more.into_iter().map(record));
    assert!(Report::parse(&crowded.report()).is_ok());
    crowded.opaque.push(record(u16::MAX));
    assert_eq!(
        Report::parse(&crowded.report()),
        Err(ReportError::TooManyRecords)
    );
    let mut longest = Device::gpu([0; 32]);
    let room = MAX_REPORT - longest.report().len() - 4;
    longest.opaque.push((99, vec![0; room]));
    let longest = longest.report();
    assert_eq!(longest.len(), MAX_REPORT);
    assert!(Report::parse(&longest).is_ok());
    let len = MAX_REPORT + 1;
    assert_eq!(
        Report::parse(&vec![0; len]),
        Err(ReportError::TooLong { len })
    );
}

static GPU: LazyLock<Device> = LazyLock::new(|| Device::gpu([0x5a; 32]));

/// One response about the device's certificate, signed by its provisioner or for it.
struct Status {
    ocsp: Ocsp,
    now: u64,
    bend: fn(Vec<u8>) -> Vec<Vec<u8>>,
}

impl Status {
    fn check(&self) -> Result<Good, OcspError> {
        let response = self
            .ocsp
            .response(&GPU.levels[DEVICE], &GPU.levels[PROVISIONER]);
        check_device((self.bend)(response), at(self.now))
    }
}

fn check_device(responses: Vec<Vec<u8>>, now: SystemTime) -> Result<Good, OcspError> {
    let certificates = GPU.certificates();
    let responses = responses.iter().map(Vec::as_slice);
    let (certificate, issuer) = (&certificates[DEVICE], &certificates[PROVISIONER]);
    ocsp::check(responses, certificate, issuer, now)
}

fn good(next_update: u64) -> Result<Good, OcspError> {
    Ok(Good {
        this_update: at(NOW - HOUR),
        not_after: at(next_update),
    })
}

#[test]
fn a_response_counts_if_it_is_about_the_certificate_and_signed_and_in_date() {
    type Bend = fn(&mut Status);
    let end = NOW + 23 * HOUR;
    let cases: Vec<(&str, Bend, Result<Good, OcspError>)> = vec![
        ("good", |_| {}, good(end)),
        ("by SHA-256", |it| it.ocsp.hash = SHA256_ID, good(end)),
        (
            "by SHA-1",
            |it| it.ocsp.hash = SHA1_ID,
            Err(OcspError::Missing),
        ),
        ("none", |it| it.bend = |_| vec![], Err(OcspError::Missing)),
        (
            "another serial",
            |it| it.ocsp.serial = Some(vec![0x40, 0x77]),
            Err(OcspError::Missing),
        ),
        (
            "another issuer's name",
            |it| it.ocsp.issuer_name = Some(GPU.levels[IDENTITY].name()),
            Err(OcspError::Missing),
        ),
        (
            "another issuer's key",
            |it| it.ocsp.issuer_key = Some(GPU.levels[IDENTITY].key.public()),
            Err(OcspError::Missing),
        ),
        (
            "revoked",
            |it| it.ocsp.status = Ocsp::revoked(None),
            Err(OcspError::Revoked(0)),
        ),
        (
            "stolen",
            |it| it.ocsp.status = Ocsp::revoked(Some(1)),
            Err(OcspError::Revoked(1)),
        ),
        (
            "on hold",
            |it| it.ocsp.status = Ocsp::revoked(Some(6)),
            Err(OcspError::Revoked(6)),
        ),
        (
            "unknown",
            |it| it.ocsp.status = UNKNOWN.to_vec(),
            Err(OcspError::Unknown),
        ),
        (
            "other status",
            |it| it.ocsp.status = vec![0x83, 0],
            Err(OcspError::Malformed),
        ),
        (
            "good of one byte",
            |it| it.ocsp.status = vec![0x80, 1, 0],
            Err(OcspError::Malformed),
        ),
        ("first second", |it| it.now = NOW - HOUR, good(end)),
        (
            "too early",
            |it| it.now = NOW - HOUR - 1,
            Err(OcspError::NotYetValid),
        ),
        ("last second", |it| it.now = NOW + 23 * HOUR, good(end)),
        (
            "too late",
            |it| it.now = NOW + 23 * HOUR + 1,
            Err(OcspError::Expired),
        ),
        (
            "no end",
            |it| it.ocsp.next_update = None,
            Err(OcspError::Expired),
        ),
        (
            "no end but an extension",
            |it| {
                it.ocsp.next_update = None;
                it.ocsp.extensions[0] = Some(false);
            },
            Err(OcspError::Expired),
        ),
        (
            "response status of another type",
            |it| {
                it.bend = |mut it| {
                    // Behind the outer header of four bytes.
                    assert_eq!(it[4..7], [0x0a, 1, 0]);
                    it[4] = 0x02;
                    vec![it]
                };
            },
            Err(OcspError::Malformed),
        ),
        (
            "too late to be revoked",
            |it| {
                it.ocsp.status = UNKNOWN.to_vec();
                it.now = NOW + 24 * HOUR;
            },
            Err(OcspError::Expired),
        ),
        ("by the issuer", |it| it.ocsp.responder = None, good(end)),
        (
            "by a stranger",
            |it| it.ocsp.signer = Some(Key::generate()),
            Err(OcspError::Signature),
        ),
        (
            "by a stranger, no responder",
            |it| {
                it.ocsp.signer = Some(Key::generate());
                it.ocsp.responder = None;
            },
            Err(OcspError::Signature),
        ),
        (
            "another algorithm",
            |it| it.ocsp.signature_algorithm = "1.2.840.10045.4.3.2",
            Err(OcspError::Signature),
        ),
        (
            "responder of another issuer",
            |it| responder(it).signer = Some(GPU.levels[IDENTITY].key.clone()),
            Err(OcspError::Signature),
        ),
        (
            "responder of another issuer's name",
            |it| responder(it).issuer_name = Some("Other".to_owned()),
            Err(OcspError::Signature),
        ),
        (
            "responder without the purpose",
            |it| responder(it).remove_extension(EXTENDED_KEY_USAGE),
            Err(OcspError::Signature),
        ),
        (
            "responder of another purpose",
            |it| {
                let purpose = seq(&[&oid("1.3.6.1.5.5.7.3.8")]);
                responder(it).set_extension(EXTENDED_KEY_USAGE, purpose);
            },
            Err(OcspError::Signature),
        ),
        (
            "responder of several purposes",
            |it| {
                let purposes = seq(&[&oid("1.3.6.1.5.5.7.3.8"), &oid(OCSP_SIGNING)]);
                responder(it).set_extension(EXTENDED_KEY_USAGE, purposes);
            },
            good(end),
        ),
        (
            "responder that may not sign",
            |it| responder(it).set_extension(KEY_USAGE, key_usage(KEY_CERT_SIGN)),
            Err(OcspError::Signature),
        ),
        (
            "responder that is an authority",
            |it| {
                let extension = (BASIC_CONSTRAINTS, true, constraints(None));
                responder(it).extensions.push(extension);
            },
            Err(OcspError::Signature),
        ),
        (
            "responder ended",
            |it| responder(it).not_after = NOW - 1,
            Err(OcspError::Signature),
        ),
        (
            "responder ends first",
            |it| responder(it).not_after = NOW + 1,
            good(NOW + 1),
        ),
        (
            "responder not begun",
            |it| responder(it).not_before = NOW + 1,
            Err(OcspError::Signature),
        ),
        (
            "responder that could be revoked",
            |it| responder(it).remove_extension(OCSP_NO_CHECK),
            Err(OcspError::Signature),
        ),
        (
            "responder that cannot be revoked, among its purposes",
            |it| {
                let purposes = seq(&[&oid(OCSP_SIGNING), &oid(OCSP_NO_CHECK)]);
                responder(it).set_extension(EXTENDED_KEY_USAGE, purposes);
                responder(it).remove_extension(OCSP_NO_CHECK);
            },
            good(end),
        ),
        (
            "responder by name",
            |it| it.ocsp.responder_id = Some(tlv(0xa1, &responder(it).name())),
            good(end),
        ),
        (
            "issuer by name",
            |it| {
                it.ocsp.responder = None;
                it.ocsp.responder_id = Some(tlv(0xa1, &GPU.levels[PROVISIONER].name()));
            },
            good(end),
        ),
        (
            "responder by another name",
            |it| it.ocsp.responder_id = Some(tlv(0xa1, &GPU.levels[PROVISIONER].name())),
            Err(OcspError::Signature),
        ),
        (
            "responder by another key",
            |it| it.ocsp.responder_id = Some(tlv(0xa2, &tlv(4, &[7; 20]))),
            Err(OcspError::Signature),
        ),
        (
            "responder by nothing",
            |it| it.ocsp.responder_id = Some(tlv(0xa2, &[])),
            Err(OcspError::Signature),
        ),
        (
            "responder by a third choice",
            |it| it.ocsp.responder_id = Some(tlv(0xa3, &tlv(4, &[7; 20]))),
            Err(OcspError::Malformed),
        ),
        (
            "most certificates",
            |it| it.ocsp.certificates = 3,
            good(end),
        ),
        (
            "more certificates",
            |it| it.ocsp.certificates = 4,
            Err(OcspError::Malformed),
        ),
        (
            "extension",
            |it| it.ocsp.extensions = [Some(false); 2],
            good(end),
        ),
        (
            "critical extension",
            |it| it.ocsp.extensions[0] = Some(true),
            Err(OcspError::Malformed),
        ),
        (
            "critical extension of all",
            |it| it.ocsp.extensions[1] = Some(true),
            Err(OcspError::Malformed),
        ),
        (
            "made at no time",
            |it| it.ocsp.produced_at = Some(vec![5, 0]),
            Err(OcspError::Malformed),
        ),
        (
            "single response with more",
            |it| it.ocsp.rests[0] = vec![5, 0],
            Err(OcspError::Malformed),
        ),
        (
            "data with more",
            |it| it.ocsp.rests[1] = vec![5, 0],
            Err(OcspError::Malformed),
        ),
        (
            "response with more",
            |it| it.ocsp.rests[2] = vec![5, 0],
            Err(OcspError::Malformed),
        ),
        (
            "status with a response",
            |it| it.ocsp.response_status = 3,
            Err(OcspError::Malformed),
        ),
        (
            "status alone",
            |it| it.bend = |_| vec![seq(&[&tlv(0x0a, &[6])])],
            Err(OcspError::Unsuccessful(6)),
        ),
        (
            "status of two bytes alone",
            |it| it.bend = |_| vec![seq(&[&tlv(0x0a, &[0, 6])])],
            Err(OcspError::Malformed),
        ),
        (
            "a byte more",
            |it| it.bend = |it| vec![[it, vec![0]].concat()],
            Err(OcspError::Malformed),
        ),
        (
            "too long",
            |it| it.bend = |_| vec![vec![0; MAX_RESPONSE + 1]],
            Err(OcspError::TooLong {
                len: MAX_RESPONSE + 1,
            }),
        ),
        (
            "as long as may be",
            |it| it.bend = |_| vec![vec![0; MAX_RESPONSE]],
            Err(OcspError::Malformed),
        ),
        (
            "behind one that is none",
            |it| it.bend = |it| vec![vec![0x30], it],
            good(end),
        ),
        (
            "before one that is none",
            |it| it.bend = |it| vec![it, vec![0x30]],
            good(end),
        ),
    ];
    for (name, bend, expected) in cases {
        let mut status = Status {
            ocsp: Ocsp::good(),
            now: NOW,
            bend: |response| vec![response],
        };
        bend(&mut status);
        assert_eq!(status.check(), expected, "{name}");
    }
}

fn responder(status: &mut Status) -> &mut Level {
    status.ocsp.responder.as_mut().unwrap()
}

#[test]
fn of_several_responses_the_worst_counts_and_then_the_longest() {
    let (device, provisioner) = (&GPU.levels[DEVICE], &GPU.levels[PROVISIONER]);
    let of = |next_update, status: &[u8]| {
        let mut ocsp = Ocsp::good();
        ocsp.next_update = Some(next_update);
        ocsp.status = status.to_vec();
        ocsp
    };
    let response = |next, status: &[u8]| of(next, status).response(device, provisioner);
    let (short, long) = (response(NOW + 1, &GOOD), response(NOW + 2, &GOOD));
    let revoked = response(NOW + 1, &Ocsp::revoked(Some(1)));
    let expired = response(NOW - 1, &GOOD);
    let held = response(NOW - 1, &Ocsp::revoked(Some(6)));
    let outdated = response(NOW - 1, &Ocsp::revoked(Some(1)));
    for (responses, expected) in [
        (vec![&short, &long], good(NOW + 2)),
        (vec![&long, &short], good(NOW + 2)),
        (vec![&long, &revoked], Err(OcspError::Revoked(1))),
        (vec![&revoked, &long], Err(OcspError::Revoked(1))),
        (vec![&long, &expired], good(NOW + 2)),
        (vec![&held, &long], good(NOW + 2)),
        (vec![&outdated, &long], Err(OcspError::Revoked(1))),
        (vec![&long, &outdated], Err(OcspError::Revoked(1))),
    ] {
        let responses = responses.into_iter().cloned().collect();
        assert_eq!(check_device(responses, at(NOW)), expected);
    }

    let other = GPU.sibling();
    let singles = |status: &[u8]| {
        [
            of(NOW + 1, &Ocsp::revoked(None)).single(&other.levels[DEVICE], provisioner),
            of(NOW + 1, &GOOD).single(device, provisioner),
            of(NOW + 1, status).single(device, provisioner),
        ]
    };
    let both = |status: &[u8]| Ocsp::good().response_of(&singles(status), provisioner);
    assert_eq!(check_device(vec![both(&GOOD)], at(NOW)), good(NOW + 1));
    let refused = check_device(vec![both(&UNKNOWN)], at(NOW));
    assert_eq!(refused, Err(OcspError::Unknown));
}

/// The responses of the sample are signed by responders of each authority's own.
#[test]
fn every_changed_byte_of_a_genuine_response_is_refused() {
    let certificates = hopper().certificates;
    let mut response = include_bytes!("data/nvidia/hopper/ocsp-l4.der").to_vec();
    let now = from_rfc3339("2025-08-21T12:00:00Z").unwrap();
    let check = |response: &[u8]| ocsp::check([response], &certificates[1], &certificates[2], now);
    let good = check(&response).unwrap();
    let this_update = from_rfc3339("2025-08-21T06:47:07Z").unwrap();
    assert_eq!(good.this_update, this_update);
    assert_eq!(good.not_after, this_update + Duration::from_secs(DAY));
    for at in 0..response.len() {
        response[at] ^= 0x04;
        assert!(check(&response).is_err(), "byte {at}");
        response[at] ^= 0x04;
    }
}

#[test]
fn a_request_names_the_certificate_as_a_response_does() {
    let certificates = GPU.certificates();
    let request =
        |level: usize, issuer: usize| ocsp::request(&certificates[level], &certificates[issuer]);
    let single = Ocsp::good().single(&GPU.levels[DEVICE], &GPU.levels[PROVISIONER]);
    let id = &single[3..3 + 2 + usize::from(single[4])];
    let expected = seq(&[&seq(&[&seq(&[&seq(&[id])])])]);
    assert_eq!(request(DEVICE, PROVISIONER), Ok(expected));
    let error = request(DEVICE, IDENTITY).unwrap_err();
    assert!(matches!(error, OcspError::Certificate(_)));
    let none = ocsp::check([], &certificates[DEVICE], &certificates[IDENTITY], at(NOW));
    assert!(matches!(none, Err(OcspError::Certificate(_))));

    // The three parts of a genuine name, behind the algorithm, whose parameters are optional.
    let genuine = hopper().certificates;
    let responses = [
        include_bytes!("data/nvidia/hopper/ocsp-l4.der").as_slice(),
        include_bytes!("data/nvidia/hopper/ocsp-l3.der"),
        include_bytes!("data/nvidia/hopper/ocsp-l2.der"),
    ];
    for (level, response) in (1..).zip(responses) {
        let request = ocsp::request(&genuine[level], &genuine[level + 1]).unwrap();
        let at = request
            .windows(2)
            .position(|it| it == [0x04, 0x30])
            .unwrap();
        let name = &request[at..];
        let found = response.windows(name.len()).any(|it| it == name);
        assert!(found, "level {level}");
    }
}

// Machines

const MEASUREMENT: [u8; 48] = [0x11; 48];

static CPU: LazyLock<SoftwareRoot> = LazyLock::new(|| SoftwareRoot::generate(at(NOW)).unwrap());

fn nonce() -> Nonce {
    Nonce::from([0x77; 32])
}

fn statement() -> Vec<u8> {
    let key = ClaimedKey {
        key_id: 20,
        suite: Suite::X25519,
        public_key: PublicKey::X25519([9; 32]),
        not_before: NOW - HOUR,
        not_after: NOW + 7 * DAY - HOUR,
    };
    let draft = Draft {
        node_id: "node-1".to_owned(),
        keys: vec![key],
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
    draft.to_json().unwrap()
}

fn gpu_nonce() -> [u8; 32] {
    binding::gpu_nonce(&StatementDigest::of(&statement()), &nonce())
}

static BOUND_GPU: LazyLock<Device> = LazyLock::new(|| Device::gpu(gpu_nonce()));

fn gpus(count: usize) -> Vec<Device> {
    let others = (1..count).map(|_| BOUND_GPU.sibling());
    [BOUND_GPU.clone()].into_iter().chain(others).collect()
}

/// Protected PCIe: each GPU is linked to the switches named.
fn linked(mut gpu: Device, switches: &[[u8; 8]]) -> Device {
    gpu.set_record(21, &[0xaa]);
    gpu.set_record(36, &[2, 0]);
    gpu.set_record(22, &switches.concat());
    gpu
}

fn switch(id: [u8; 8]) -> Device {
    let mut switch = BOUND_GPU.switch();
    switch.set_record(22, &id);
    switch.levels[DEVICE].subject_serial = format!("50{}", hex::encode_upper(id));
    switch
}

/// What an honest node answers.
fn answer(devices: &[Device]) -> Answer {
    answer_of(devices.iter().map(Device::item).collect())
}

fn answer_of(devices: Vec<EvidenceItem>) -> Answer {
    let statement = statement();
    let reports: Vec<_> = devices.iter().map(|it| it.report.as_slice()).collect();
    let data = binding::report_data(&StatementDigest::of(&statement), &nonce(), &reports);
    let signer = SoftwareSigner::from_pem(CPU.vcek_key_pem(), CPU.vcek_pem(), CPU.ask_pem());
    let mut evidence = vec![signer.unwrap().evidence(data, MEASUREMENT).unwrap()];
    evidence.extend(devices);
    Answer {
        statement,
        nonce: nonce(),
        evidence,
    }
}

fn machine_policy(settings: &str) -> Policy {
    let gpus = match settings.contains("minimum_gpus") {
        true => "",
        false => "minimum_gpus = 0\n",
    };
    let text = format!(
        "version = 1\nappraisal_max_age_s = 604800\n[sev_snp]\nsoftware_roots = [\"ark.pem\"]\n\
         products = [\"genoa\"]\nmeasurements = [\"{}\"]\n[sev_snp.minimum_tcb.genoa]\n\
         bootloader = 10\ntee = 0\nsnp = 23\nmicrocode = 84\n[nvidia]\n\
         software_roots = [\"root.der\"]\narchitectures = [\"GH100\", \"LS_10\"]\n\
         measurements = \"off\"\n{gpus}{settings}\n",
        hex::encode(MEASUREMENT)
    );
    let read = &mut |path: &str| match path {
        "ark.pem" => Ok(CPU.ark_pem().as_bytes().to_vec()),
        _ => Ok(BOUND_GPU.root()),
    };
    Policy::from_toml(&text, read).unwrap()
}

fn verify_machine(answer: &Answer, settings: &str) -> Result<VerifiedNode, Refusal> {
    let policy = machine_policy(settings);
    // Over the wire and back, as a gateway gets it.
    let answer = Answer::from_json(&answer.to_json().unwrap()).unwrap();
    verify(&answer, &policy, &Bundle::empty(), &nonce(), at(NOW))
}

#[test]
fn eight_gpus_under_one_cpu_make_a_node() {
    let devices = gpus(8);
    let node = verify_machine(&answer(&devices), "minimum_gpus = 8").unwrap();
    let claims = node.claims();
    assert_eq!(claims.devices.len(), 8);
    assert_eq!(node.root(), Root::Software);
    // The first of the OCSP responses ends before all else.
    assert_eq!(node.expires_at(), at(NOW + 23 * HOUR));
    let first = &claims.devices[0];
    assert_eq!(first.kind, EvidenceKind::NvidiaGpu);
    assert_eq!(first.architecture, "GH100");
    assert_eq!(first.driver.as_deref(), Some("550.90.07"));
    assert_eq!(first.vbios, "96.00.9f.00.01");
    assert_eq!(
        first.mode.map(|mode| mode.to_string()).as_deref(),
        Some("spt")
    );
    assert_eq!(first.device_key, devices[0].levels[DEVICE].key.sha256());
    assert_eq!(first.leaf_key, devices[0].levels[LEAF].key.sha256());
    assert_eq!(first.switches, Vec::<[u8; 8]>::new());
}

#[test]
fn a_device_whose_chain_does_not_hold_is_missed() {
    let mut devices = gpus(2);
    devices[1].levels[LEAF].signer = Some(Key::generate());
    let policy = machine_policy("");
    let answer = answer(&devices);
    let appraisal = appraise(&answer, &policy, &Bundle::empty(), None, at(NOW));
    let missed = appraisal.checks().iter().find(|it| it.name == "devices");
    let missed = missed.unwrap();
    assert!(!missed.passed());
    assert_eq!((missed.device, missed.seen.as_str()), (None, "1"));
}

#[test]
fn a_gpu_names_each_of_its_switches_once() {
    let other = [9; 8];
    let links = [SWITCH_ID, other, other, SWITCH_ID];
    let machine = answer(&[
        linked(BOUND_GPU.clone(), &links),
        switch(SWITCH_ID),
        switch(other),
    ]);
    let node = verify_machine(&machine, "modes = [\"ppcie\"]").unwrap();
    assert_eq!(node.claims().devices[0].switches, [other, SWITCH_ID]);
}

#[test]
fn the_earliest_end_of_a_device_counts() {
    let mut devices = gpus(2);
    devices[1].ocsp[2].as_mut().unwrap().next_update = Some(NOW + 60);
    let node = verify_machine(&answer(&devices), "").unwrap();
    assert_eq!(node.expires_at(), at(NOW + 60));
    devices[1].levels[LEAF].not_after = NOW + 30;
    let node = verify_machine(&answer(&devices), "").unwrap();
    assert_eq!(node.expires_at(), at(NOW + 30));
    let node = verify_machine(&answer(&devices), "revocation = \"off\"").unwrap();
    assert_eq!(node.expires_at(), at(NOW + 30));
}

#[test]
fn machines_with_one_flaw() {
    type Case = (
        &'static str,
        &'static str,
        fn() -> Answer,
        Option<(&'static str, Option<usize>)>,
    );
    const PPCIE: &str = "modes = [\"ppcie\"]";
    const OTHER: [u8; 8] = [9; 8];
    let cases: [Case; 22] = [
        ("no GPU", "", || answer(&[]), None),
        (
            "no GPU where one is asked for",
            "minimum_gpus = 1",
            || answer(&[]),
            Some(("GPU count", None)),
        ),
        (
            "a GPU too few",
            "minimum_gpus = 3",
            || answer(&gpus(2)),
            Some(("GPU count", None)),
        ),
        (
            "a switch is no GPU",
            "minimum_gpus = 2",
            || answer(&[gpus(1).remove(0), switch(SWITCH_ID)]),
            Some(("GPU count", None)),
        ),
        (
            "one GPU with two leaf keys",
            "",
            || {
                let mut again = BOUND_GPU.clone();
                again.levels[LEAF].key = Key::generate();
                answer(&[BOUND_GPU.clone(), again])
            },
            Some(("distinct devices", None)),
        ),
        (
            "one leaf key in two certificates",
            "",
            || {
                let mut again = BOUND_GPU.sibling();
                again.levels[LEAF].key = BOUND_GPU.levels[LEAF].key.clone();
                answer(&[BOUND_GPU.clone(), again])
            },
            Some(("distinct devices", None)),
        ),
        (
            "a GPU with another nonce",
            "",
            || {
                let mut devices = gpus(3);
                devices[1].nonce = *nonce().as_bytes();
                answer(&devices)
            },
            Some(("report nonce", Some(2))),
        ),
        (
            "a report swapped afterwards",
            "",
            || {
                let devices = gpus(3);
                let mut answer = answer(&devices[..2]);
                answer.evidence[2] = devices[2].item();
                answer
            },
            Some(("report data", None)),
        ),
        (
            "the same report signed again",
            "",
            || {
                let devices = gpus(2);
                let mut answer = answer(&devices);
                answer.evidence[1].report = devices[0].report();
                answer
            },
            Some(("report data", None)),
        ),
        (
            "a device left out",
            "",
            || {
                let mut answer = answer(&gpus(2));
                answer.evidence.pop();
                answer
            },
            Some(("report data", None)),
        ),
        (
            "a device added",
            "",
            || {
                let devices = gpus(2);
                let mut answer = answer(&devices[..1]);
                answer.evidence.push(devices[1].item());
                answer
            },
            Some(("report data", None)),
        ),
        (
            "devices in another order",
            "",
            || {
                let mut answer = answer(&gpus(2));
                answer.evidence.swap(1, 2);
                answer
            },
            Some(("report data", None)),
        ),
        (
            "a device of another root",
            "",
            || answer(&[BOUND_GPU.clone(), Device::gpu(gpu_nonce())]),
            Some(("root", Some(2))),
        ),
        (
            "a device whose report is none",
            "",
            || {
                let mut item = BOUND_GPU.item();
                item.report.clear();
                answer_of(vec![item])
            },
            Some(("report", Some(1))),
        ),
        (
            "drivers differ",
            "",
            || {
                let mut devices = gpus(2);
                devices[1].set_record(3, b"550.90.08\0");
                answer(&devices)
            },
            Some(("uniform GPUs", None)),
        ),
        (
            "modes differ",
            "modes = [\"spt\", \"mpt\"]",
            || {
                let mut devices = gpus(2);
                devices[1].set_record(36, &[1, 0]);
                answer(&devices)
            },
            Some(("uniform GPUs", None)),
        ),
        (
            "drivers may differ",
            "require_uniform_gpus = false",
            || {
                let mut devices = gpus(2);
                devices[1].set_record(3, b"550.90.08\0");
                answer(&devices)
            },
            None,
        ),
        (
            "protected PCIe with every switch",
            PPCIE,
            || {
                let links = [SWITCH_ID, OTHER, OTHER, SWITCH_ID];
                let [one, two]: [Device; 2] = gpus(2).try_into().ok().unwrap();
                answer(&[
                    linked(one, &links),
                    linked(two, &[SWITCH_ID, OTHER]),
                    switch(SWITCH_ID),
                    switch(OTHER),
                ])
            },
            None,
        ),
        (
            "protected PCIe without a switch",
            PPCIE,
            || answer(&[linked(BOUND_GPU.clone(), &[SWITCH_ID])]),
            Some(("switches", None)),
        ),
        (
            "protected PCIe, one switch missing",
            PPCIE,
            || {
                let gpu = linked(BOUND_GPU.clone(), &[SWITCH_ID, OTHER]);
                answer(&[gpu, switch(SWITCH_ID)])
            },
            Some(("switches", None)),
        ),
        (
            "a switch that no GPU is linked to",
            "",
            || answer(&[BOUND_GPU.clone(), switch(SWITCH_ID)]),
            None,
        ),
        (
            "one switch twice",
            PPCIE,
            || {
                let gpu = linked(BOUND_GPU.clone(), &[SWITCH_ID]);
                let one = switch(SWITCH_ID);
                let mut two = one.clone();
                two.levels[LEAF].key = Key::generate();
                answer(&[gpu, one, two])
            },
            Some(("distinct devices", None)),
        ),
    ];
    for (name, settings, answer, expected) in cases {
        let refusal = verify_machine(&answer(), settings).err();
        let check = refusal.as_ref().map(|it| (it.check, it.device));
        assert_eq!(check, expected, "{name}: {refusal:?}");
    }
}

/// An answer that holds one certificate twice is no answer. A device that signs itself a second
/// certificate for the same key gets further, and is told by the key.
#[test]
fn one_gpu_reported_twice_is_refused() {
    let item = BOUND_GPU.item();
    let twice = answer_of(vec![item.clone(), item]);
    assert!(Answer::from_json(&twice.to_json().unwrap()).is_err());
    let refusal = verify(
        &twice,
        &machine_policy(""),
        &Bundle::empty(),
        &nonce(),
        at(NOW),
    );
    assert_eq!(refusal.unwrap_err().check, "distinct devices");

    let again = answer(&[BOUND_GPU.clone(), BOUND_GPU.clone()]);
    assert_ne!(
        again.evidence[1].certificates[0],
        again.evidence[2].certificates[0]
    );
    let refusal = verify_machine(&again, "").unwrap_err();
    assert_eq!(refusal.check, "distinct devices");
}

#[test]
fn policies_that_are_refused() {
    let root = GPU.root();
    let load = |settings: &str, file: Vec<u8>| {
        let gpus = if settings.contains("minimum_gpus") {
            ""
        } else {
            "minimum_gpus = 0\n"
        };
        let text = format!("version = 1\n[nvidia]\narchitectures = []\n{gpus}{settings}");
        Policy::from_toml(&text, &mut |_| Ok(file.clone())).map(drop)
    };
    let software = "software_roots = [\"root.der\"]\n";
    let nvidia = pem(include_str!("data/nvidia/hopper/cert_chain.pem")).remove(4);
    assert!(load(software, root.clone()).is_ok());
    assert!(load("nvidia_root = true", vec![]).is_ok());
    assert!(matches!(load("", vec![]), Err(PolicyError::NoNvidiaRoot)));
    assert!(
        matches!(load(software, nvidia), Err(PolicyError::NvidiaAsSoftware { path }) if path == "root.der")
    );
    let mut stranger = GPU.clone();
    stranger.levels[ROOT].signer = Some(Key::generate());
    let mut shallow = GPU.clone();
    shallow.levels[ROOT].set_extension(BASIC_CONSTRAINTS, constraints(Some(2)));
    for file in [
        stranger.root(),
        shallow.root(),
        GPU.certificates().remove(0),
        vec![],
    ] {
        assert!(matches!(
            load(software, file),
            Err(PolicyError::RootCertificate { .. })
        ));
    }
    let many = |count| format!("software_roots = {:?}\n", vec!["root.der"; count]);
    assert!(load(&many(16), root.clone()).is_ok());
    assert!(matches!(
        load(&many(17), root),
        Err(PolicyError::OutOfRange { .. })
    ));
    for setting in [
        "modes = [\"cc\"]",
        "revocation = \"optional\"",
        "measurements = true",
        "minimum_driver = \"550.x\"",
        "vbios_versions = [\"96.00.9F.00.01\"]",
        "minimum_gpus = 256",
        "denied_devices = [\"ab\"]",
        "unknown = 1",
    ] {
        let settings = format!("nvidia_root = true\n{setting}");
        assert!(
            matches!(load(&settings, vec![]), Err(PolicyError::Toml(_))),
            "{setting}"
        );
    }
}
