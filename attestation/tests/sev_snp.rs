//! Genuine reports verify in their time, and nothing changed about them does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use attestation::sev_snp::{self, Report, SIGNED_LEN};
use attestation::time::from_rfc3339;
use attestation::{
    Appraisal, Bundle, Check, Collateral, EvidenceItem, EvidenceKind, Expected, Policy, Root,
    appraise_item,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A recorded report, and what a policy must say to accept it.
struct Sample {
    name: &'static str,
    report: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    /// When the leaf's validity begins and ends; AMD's authorities hold longer.
    window: (&'static str, &'static str),
    product: &'static str,
    extra: &'static str,
}

/// Accepts Milan and Genoa of any TCB, and nothing that the samples do not need. No revocation list
/// of AMD's was recorded.
fn policy(product: &str, measurement: &[u8], extra: &str) -> Policy {
    let revocation = match extra.contains("revocation") {
        true => "",
        false => "revocation = \"off\"",
    };
    let text = format!(
        "version = 1\n[sev_snp]\namd_roots = true\nproducts = [\"{product}\"]\n\
         measurements = [\"{}\"]\n{extra}\n{revocation}\n[sev_snp.minimum_tcb.{product}]\n\
         bootloader = 3\ntee = 0\nsnp = 8\nmicrocode = 84\n",
        hex::encode(measurement)
    );
    Policy::from_toml(&text, &mut |_| unreachable!("no files")).unwrap()
}

fn appraise(
    report: &[u8],
    certificates: &[Vec<u8>],
    policy: Option<&Policy>,
    report_data: Option<&[u8; 64]>,
    now: SystemTime,
) -> Appraisal {
    let item = EvidenceItem {
        kind: EvidenceKind::SevSnp,
        report: report.to_vec(),
        certificates: certificates.to_vec(),
        collateral: Collateral::default(),
    };
    let expected = Expected {
        report_data: report_data.copied(),
        nonce: None,
    };
    appraise_item(&item, policy, &Bundle::empty(), expected, now)
}

impl Sample {
    fn policy(&self) -> Policy {
        let measurement = Report::parse(&self.report).unwrap().measurement;
        policy(self.product, &measurement, self.extra)
    }

    fn report_data(&self) -> [u8; 64] {
        Report::parse(&self.report).unwrap().report_data
    }

    fn appraise_at(&self, now: SystemTime) -> Appraisal {
        let (policy, data) = (self.policy(), self.report_data());
        appraise(
            &self.report,
            &self.certificates,
            Some(&policy),
            Some(&data),
            now,
        )
    }
}

fn data(path: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    fs::read(root.join(path)).unwrap()
}

fn pem(path: &str) -> Vec<u8> {
    let text = String::from_utf8(data(path)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

fn at(time: &str) -> SystemTime {
    from_rfc3339(time).unwrap()
}

fn samples() -> [Sample; 6] {
    const NO_ALIAS_CHECK: &str = "required_platform_info = []";
    let hex_report = String::from_utf8(data("milan-v2/report.hex")).unwrap();
    let (azure_report, azure_vcek) = azure();
    [
        Sample {
            name: "milan",
            report: data("milan/report.bin"),
            certificates: vec![pem("milan/vcek.pem"), pem("milan/ask.pem")],
            window: ("2026-02-05T02:03:30Z", "2033-02-05T02:03:30Z"),
            product: "milan",
            extra: "",
        },
        Sample {
            name: "genoa, serial number 0",
            report: data("genoa/report.bin"),
            certificates: vec![pem("genoa/vcek.pem"), pem("genoa/ask.pem")],
            window: ("2026-02-05T02:05:07Z", "2033-02-05T02:05:07Z"),
            product: "genoa",
            extra: "",
        },
        Sample {
            name: "milan version 2, built-in ASK",
            report: hex::decode(hex_report.trim()).unwrap(),
            certificates: vec![data("milan-v2/vcek.der")],
            window: ("2023-04-03T21:26:48Z", "2030-04-03T21:26:48Z"),
            product: "milan",
            extra: NO_ALIAS_CHECK,
        },
        Sample {
            name: "trustee, provisional firmware",
            report: data("trustee/test-report.bin"),
            certificates: vec![data("trustee/test-vcek.der")],
            window: ("2023-01-24T17:58:26Z", "2030-01-24T17:58:26Z"),
            product: "milan",
            extra: "required_platform_info = []\nallow_provisional_firmware = true",
        },
        Sample {
            name: "trustee VLEK, built-in ASVK",
            report: data("trustee/test-vlek-report.bin"),
            certificates: vec![data("trustee/test-vlek.der")],
            window: ("2024-12-10T22:14:21Z", "2025-12-10T22:14:21Z"),
            product: "milan",
            extra: "vmpl = 1\nallow_provisional_firmware = true\n\
                    vlek_csp_ids = [\"CN=cc-us-east-2.amazonaws.com\"]",
        },
        Sample {
            name: "azure",
            report: azure_report,
            certificates: vec![azure_vcek],
            window: ("2025-01-28T00:00:00Z", "2032-01-28T00:00:00Z"),
            product: "milan",
            extra: NO_ALIAS_CHECK,
        },
    ]
}

fn azure() -> (Vec<u8>, Vec<u8>) {
    let json: serde_json::Value = serde_json::from_slice(&data("azure/evidence-v1.json")).unwrap();
    let bytes =
        |name: &str| URL_SAFE_NO_PAD.decode(json[name].as_str().unwrap().trim_end_matches('='));
    let hcl_report = bytes("hcl_report").unwrap();
    (hcl_report[32..][..1184].to_vec(), bytes("vcek").unwrap())
}

fn failures(appraisal: &Appraisal) -> Vec<&Check> {
    appraisal
        .checks()
        .iter()
        .filter(|check| !check.passed())
        .collect()
}

#[test]
fn genuine_reports_verify_in_their_time_and_no_day_outside() {
    for sample in samples() {
        let (from, to) = (at(sample.window.0), at(sample.window.1));
        for now in [from + DAY, from + 180 * DAY, to - DAY] {
            let appraisal = sample.appraise_at(now);
            assert!(
                appraisal.accepted(),
                "{}: {:?}",
                sample.name,
                failures(&appraisal)
            );
            assert_eq!(appraisal.root(), Some(Root::Amd));
        }
        for now in [from - DAY, to + DAY] {
            let appraisal = sample.appraise_at(now);
            let failed = failures(&appraisal);
            assert_eq!(failed.len(), 1, "{}: {failed:?}", sample.name);
            assert_eq!(failed[0].name, "certificate validity");
        }
    }
}

/// Also outside the signed region: no single bit of the 1,184 bytes can be changed unseen.
#[test]
fn every_flipped_bit_of_milan_is_refused() {
    refuses_every_flipped_bit(&samples()[0]);
}

#[test]
fn every_flipped_bit_of_genoa_is_refused() {
    refuses_every_flipped_bit(&samples()[1]);
}

fn refuses_every_flipped_bit(sample: &Sample) {
    let now = at(sample.window.0) + DAY;
    let (policy, data) = (sample.policy(), sample.report_data());
    let mut report = sample.report.clone();
    let mut signed = 0;
    for bit in 0..report.len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        report[byte] ^= mask;
        let appraisal = appraise(
            &report,
            &sample.certificates,
            Some(&policy),
            Some(&data),
            now,
        );
        let failed = failures(&appraisal);
        // The fields that were changed may be noticed too; the signature must be in any case.
        let by_signature = failed.iter().any(|check| check.name == "report signature");
        let by_version = failed.iter().any(|check| check.name == "report");
        assert!(
            by_signature || by_version,
            "byte {byte:#x}, mask {mask:#x}: {failed:?}"
        );
        assert!(!appraisal.accepted());
        signed += u32::from(byte < SIGNED_LEN);
        report[byte] ^= mask;
    }
    assert_eq!(signed, 5376);
}

#[test]
fn a_report_of_another_length_is_refused() {
    let sample = &samples()[0];
    let now = at(sample.window.0) + DAY;
    for len in [0, 1, SIGNED_LEN, 1183, 1185, 2368] {
        let mut report = sample.report.clone();
        report.resize(len, 0);
        let policy = sample.policy();
        let appraisal = appraise(&report, &sample.certificates, Some(&policy), None, now);
        assert_eq!(appraisal.refusal().unwrap().check, "report", "{len}");
    }
}

#[test]
fn other_certificates_are_refused() {
    let [milan, genoa, v2, trustee, vlek, _] = samples();
    let now = at("2025-06-01T00:00:00Z");
    let invalid = |name: &str| vec![data(&format!("trustee/test-vcek-invalid-{name}.der"))];
    let ark = attestation_root("milan-ark.der");
    let cases = [
        (
            "invalid VCEK, legacy",
            invalid("legacy"),
            "leaf certificate",
        ),
        ("invalid VCEK, new", invalid("new"), "leaf certificate"),
        (
            "another chip's",
            v2.certificates.clone(),
            "report signature",
        ),
        ("a VLEK", vlek.certificates.clone(), "report signature"),
        ("none", vec![], "certificates"),
        (
            "no leaf",
            vec![milan.certificates[1].clone()],
            "certificates",
        ),
        (
            "the leaf twice",
            [trustee.certificates.clone(), trustee.certificates.clone()].concat(),
            "leaf certificate",
        ),
        (
            "another line's ASK",
            vec![
                trustee.certificates[0].clone(),
                genoa.certificates[1].clone(),
            ],
            "leaf certificate",
        ),
        (
            "the root too",
            vec![
                trustee.certificates[0].clone(),
                milan.certificates[1].clone(),
                ark,
            ],
            "certificates",
        ),
        ("garbage", vec![vec![0x30, 0x03, 1, 2, 3]], "certificates"),
    ];
    let (policy, report_data) = (trustee.policy(), trustee.report_data());
    for (name, certificates, check) in cases {
        let appraisal = appraise(
            &trustee.report,
            &certificates,
            Some(&policy),
            Some(&report_data),
            now,
        );
        assert_eq!(appraisal.refusal().map(|r| r.check), Some(check), "{name}");
    }
}

fn attestation_root(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/sev_snp/roots");
    fs::read(root.join(name)).unwrap()
}

#[test]
fn what_the_samples_need_is_refused_by_default() {
    let [_, _, v2, trustee, vlek, _] = samples();
    let cases = [
        (&v2, "platform info", "2026-06-01T00:00:00Z"),
        (&trustee, "firmware", "2026-06-01T00:00:00Z"),
        (&vlek, "VMPL", "2025-06-01T00:00:00Z"),
        (&vlek, "VLEK provider", "2025-06-01T00:00:00Z"),
    ];
    for (sample, check, now) in cases {
        let measurement = Report::parse(&sample.report).unwrap().measurement;
        let strict = policy(sample.product, &measurement, "");
        let data = sample.report_data();
        let appraisal = appraise(
            &sample.report,
            &sample.certificates,
            Some(&strict),
            Some(&data),
            at(now),
        );
        let failed: Vec<_> = failures(&appraisal)
            .iter()
            .map(|check| check.name)
            .collect();
        assert!(failed.contains(&check), "{}: {failed:?}", sample.name);
    }
}

#[test]
fn without_policy_or_report_data_nothing_is_accepted() {
    for sample in samples() {
        let now = at(sample.window.0) + DAY;
        let appraisal = appraise(&sample.report, &sample.certificates, None, None, now);
        assert_eq!(appraisal.root(), Some(Root::Amd), "{}", sample.name);
        assert!(!appraisal.accepted());
        for check in failures(&appraisal) {
            assert_eq!(
                check.outcome,
                attestation::Outcome::NotChecked,
                "{}: {check:?}",
                sample.name
            );
        }
        let policy = sample.policy();
        let appraisal = appraise(
            &sample.report,
            &sample.certificates,
            Some(&policy),
            None,
            now,
        );
        assert_eq!(appraisal.refusal().unwrap().check, "report data");
    }
}

#[test]
fn certificates_found_in_files_are_put_in_order() {
    let [milan, ..] = samples();
    let [vcek, ask] = [&milan.certificates[0], &milan.certificates[1]].map(Clone::clone);
    let ark = attestation_root("milan-ark.der");
    let stranger = attestation_root("genoa-ask.der");
    let found = [ark, stranger, ask.clone(), vcek.clone()];
    assert_eq!(sev_snp::order_certificates(&found), [vcek, ask]);
    assert!(sev_snp::order_certificates(&found[..3]).is_empty());
}

/// AMD publishes lists for its roots, so a policy that says nothing asks for them.
#[test]
fn without_a_revocation_list_genuine_reports_are_refused() {
    let [milan, genoa, v2, trustee, vlek, azure] = samples();
    for sample in [milan, genoa, v2, trustee, vlek, azure] {
        for (setting, refused) in [
            ("# revocation", true),
            ("revocation = \"required\"", true),
            ("revocation = \"if-present\"", false),
        ] {
            let measurement = Report::parse(&sample.report).unwrap().measurement;
            let extra = format!("{}\n{setting}", sample.extra);
            let policy = policy(sample.product, &measurement, &extra);
            let appraisal = appraise(
                &sample.report,
                &sample.certificates,
                Some(&policy),
                Some(&sample.report_data()),
                at(sample.window.0) + DAY,
            );
            let failed = failures(&appraisal)
                .iter()
                .map(|it| it.name)
                .collect::<Vec<_>>();
            let expected: &[_] = if refused { &["revocation list"] } else { &[] };
            assert_eq!(failed, expected, "{}: {setting}", sample.name);
        }
    }
}

/// A verifier's own copies, for nodes that deliver no certificates: the one that fits is taken.
#[test]
fn certificates_are_found_in_collateral() {
    let [milan, genoa, v2, trustee, vlek, _] = samples();
    let now = at("2026-06-01T00:00:00Z");
    let leaf = |sample: &Sample| sample.certificates[0].clone();
    let mut forged_ask = milan.certificates[1].clone();
    *forged_ask.last_mut().unwrap() ^= 1;
    let kept = vec![
        b"no certificate".to_vec(),
        leaf(&vlek),
        forged_ask,
        leaf(&genoa),
        leaf(&milan),
        leaf(&v2),
        leaf(&trustee),
    ];
    let appraise = |sample: &Sample, kept: Vec<Vec<u8>>| {
        let item = EvidenceItem {
            kind: EvidenceKind::SevSnp,
            report: sample.report.clone(),
            certificates: Vec::new(),
            collateral: Collateral {
                amd_certificates: kept,
                ..Collateral::default()
            },
        };
        let expected = Expected {
            report_data: Some(sample.report_data()),
            nonce: None,
        };
        appraise_item(
            &item,
            Some(&sample.policy()),
            &Bundle::empty(),
            expected,
            now,
        )
    };
    for sample in [&milan, &genoa, &v2, &trustee] {
        let appraisal = appraise(sample, kept.clone());
        assert!(
            appraisal.accepted(),
            "{}: {:?}",
            sample.name,
            failures(&appraisal)
        );
        let others = kept.iter().filter(|der| **der != sample.certificates[0]);
        let appraisal = appraise(sample, others.cloned().collect());
        assert_eq!(appraisal.refusal().unwrap().check, "certificates");
    }
}
