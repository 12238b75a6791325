//! The verifier against evidence with one flaw each, made under a software root.

#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails its test")]

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::RSA_PSS_SHA384;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

use super::*;
use crate::certificate::signed_bytes;
use crate::check::Checks;
use crate::input::{Context, Input};
use crate::sev_snp::endorsement as amd;
use crate::sev_snp::report::{
    POLICY_CXL, POLICY_DEBUG, POLICY_MIGRATE_MA, POLICY_SINGLE_SOCKET, POLICY_SMT,
};
use crate::sev_snp::{self, Product};
use crate::time::{from_rfc3339, to_rfc3339};
use crate::{Appraisal, Bundle, Expected, Policy, PolicyError, Root, appraise_item};

const MEASUREMENT: [u8; 48] = [0x11; 48];
const REPORT_DATA: [u8; 64] = [0x22; 64];
const CHIP_ID: [u8; 64] = [0x33; 64];
const CSP: &str = "CN=cloud.example";

/// Keys made once: they take seconds.
struct Keys {
    ark: Vec<u8>,
    ask: Vec<u8>,
    vcek: Vec<u8>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let rsa = |size| {
        let key = RsaKeyPair::generate(size).unwrap();
        key.as_der().unwrap().as_ref().to_vec()
    };
    let vcek = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    Keys {
        ark: rsa(KeySize::Rsa4096),
        ask: rsa(KeySize::Rsa4096),
        vcek: vcek.to_pkcs8v1().unwrap().as_ref().to_vec(),
    }
});

/// The root as a policy gets it: signatures are salted, so each one issued differs.
static ARK: LazyLock<Vec<u8>> = LazyLock::new(|| issuer().ark().unwrap());

fn now() -> SystemTime {
    from_rfc3339("2026-06-01T00:00:00Z").unwrap()
}

fn issuer_of(ark: &[u8], ask: &[u8]) -> Issuer {
    let rsa = |der| RsaKeyPair::from_pkcs8(der).unwrap();
    Issuer::new(rsa(ark), rsa(ask), now() - BACKDATE, now() + VALIDITY)
}

fn issuer() -> Issuer {
    issuer_of(&KEYS.ark, &KEYS.ask)
}

fn vcek_key() -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &KEYS.vcek).unwrap()
}

fn signer() -> SoftwareSigner {
    SoftwareSigner {
        key: vcek_key(),
        chip_id: CHIP_ID,
        certificates: certificates(|_| {}),
    }
}

/// VCEK and ASK, the VCEK changed by `flaw`.
fn certificates(flaw: impl FnOnce(&mut Leaf<'_>)) -> Vec<Vec<u8>> {
    let key = vcek_key();
    let mut leaf = Leaf::genoa(key.public_key().as_ref(), &TCB, &CHIP_ID);
    flaw(&mut leaf);
    vec![issuer().leaf(&leaf).unwrap(), issuer().ask().unwrap()]
}

fn report() -> Report {
    signer().report(REPORT_DATA, MEASUREMENT)
}

const POLICY: &str = r#"
version = 1
[sev_snp]
software_roots = ["ark.pem"]
products = ["genoa"]
measurements = ["111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"]
[sev_snp.minimum_tcb.genoa]
bootloader = 10
tee = 0
snp = 23
microcode = 84
"#;

/// The policy with `extra` keys, which replace those of the same name.
fn policy(extra: &str) -> Policy {
    let mut text = POLICY.to_owned();
    for line in extra.lines() {
        let key = line.split('=').next().unwrap();
        let old = POLICY.lines().find(|line| line.starts_with(key));
        text = match old {
            Some(old) => text.replace(old, line),
            None => text.replace("[sev_snp]", &format!("[sev_snp]\n{line}")),
        };
    }
    from_toml(&text).unwrap()
}

fn from_toml(text: &str) -> Result<Policy, PolicyError> {
    Policy::from_toml(text, &mut |path| match path {
        "ark.pem" => Ok(ARK.clone()),
        other => panic!("{other} was asked for"),
    })
}

fn appraise(report: &Report, certificates: &[Vec<u8>], policy: &Policy) -> Appraisal {
    appraise_at(report, certificates, policy, now())
}

fn appraise_at(
    report: &Report,
    certificates: &[Vec<u8>],
    policy: &Policy,
    now: SystemTime,
) -> Appraisal {
    let item = item(report, certificates, Collateral::default());
    appraise_item_at(&item, policy, now)
}

fn item(report: &Report, certificates: &[Vec<u8>], collateral: Collateral) -> EvidenceItem {
    EvidenceItem {
        kind: EvidenceKind::SevSnp,
        report: signer().sign(report).unwrap(),
        certificates: certificates.to_vec(),
        collateral,
    }
}

fn appraise_item_at(item: &EvidenceItem, policy: &Policy, now: SystemTime) -> Appraisal {
    let expected = Expected {
        report_data: Some(REPORT_DATA),
        nonce: None,
    };
    appraise_item(item, Some(policy), &Bundle::empty(), expected, now)
}

fn context(bundle: &Bundle) -> Context<'_> {
    Context {
        policy: None,
        bundle,
        now: now(),
        asked: now(),
    }
}

/// The names of the checks that did not pass.
fn failed(appraisal: &Appraisal) -> Vec<&'static str> {
    let checks = appraisal.checks().iter().filter(|check| !check.passed());
    let failed: Vec<_> = checks.map(|check| check.name).collect();
    assert_eq!(
        appraisal.refusal().map(|refusal| refusal.check),
        failed.first().copied()
    );
    failed
}

#[test]
fn software_evidence_passes_the_same_checks_and_is_called_by_its_name() {
    let appraisal = appraise(&report(), &certificates(|_| {}), &policy(""));
    assert_eq!(failed(&appraisal), [""; 0]);
    assert_eq!(appraisal.root(), Some(Root::Software));
    let root = appraisal
        .checks()
        .iter()
        .find(|check| check.name == "root")
        .unwrap();
    assert!(root.seen.contains("software root"), "{root:?}");
}

#[test]
fn one_flaw_in_the_report_fails_its_check_alone() {
    type Case = (&'static str, fn(&mut Report), &'static [&'static str]);
    let cases: [Case; 35] = [
        ("version 1", |r| r.version = 1, &["report"]),
        ("version 6", |r| r.version = 6, &["report"]),
        ("version 4", |r| r.version = 4, &[]),
        ("version 5", |r| r.version = 5, &[]),
        ("version 2", |r| (r.version, r.cpuid) = (2, [0; 3]), &[]),
        ("version 2 with CPUID", |r| r.version = 2, &["product name"]),
        ("no CPUID", |r| r.cpuid = [0; 3], &["product name"]),
        (
            "Milan's CPUID",
            |r| r.cpuid = [0x19, 0x01, 0x01],
            &["product name"],
        ),
        ("Bergamo's CPUID", |r| r.cpuid = [0x19, 0xa0, 0x02], &[]),
        (
            "algorithm",
            |r| r.signature_algorithm = 2,
            &["signature algorithm"],
        ),
        ("says VLEK", |r| r.flags = 1 << 2, &["signing key"]),
        ("says no key", |r| r.flags = 7 << 2, &["signing key"]),
        ("masked", |r| r.flags = 1 << 1, &["chip key mask"]),
        ("author key", |r| r.flags = 1, &[]),
        (
            "bootloader above",
            |r| r.reported_tcb[0] += 1,
            &["certified TCB"],
        ),
        ("tee above", |r| r.reported_tcb[1] += 1, &["certified TCB"]),
        ("snp above", |r| r.reported_tcb[6] += 1, &["certified TCB"]),
        (
            "microcode above",
            |r| r.reported_tcb[7] += 1,
            &["certified TCB"],
        ),
        (
            "reserved TCB byte",
            |r| r.reported_tcb[3] = 1,
            &["certified TCB", "reported TCB"],
        ),
        ("another chip", |r| r.chip_id[63] ^= 1, &["hardware id"]),
        ("no chip id", |r| r.chip_id = [0; 64], &["hardware id"]),
        ("debug", |r| r.policy |= POLICY_DEBUG, &["debug"]),
        (
            "migration",
            |r| r.policy |= POLICY_MIGRATE_MA,
            &["migration agent"],
        ),
        (
            "bit 17",
            |r| r.policy &= !POLICY_RESERVED_ONE,
            &["guest policy"],
        ),
        ("bit 25", |r| r.policy |= 1 << 25, &["guest policy"]),
        ("bit 63", |r| r.policy |= 1 << 63, &["guest policy"]),
        ("cxl", |r| r.policy |= POLICY_CXL, &["CXL memory"]),
        ("vmpl 1", |r| r.vmpl = 1, &["VMPL"]),
        ("asked by the host", |r| r.vmpl = u32::MAX, &["VMPL"]),
        (
            "aliases unchecked",
            |r| r.platform_info = 0x05,
            &["platform info"],
        ),
        (
            "committed below",
            |r| (r.committed_tcb[6], r.current_tcb[6]) = (22, 22),
            &["committed TCB"],
        ),
        ("launch below", |r| r.launch_tcb[7] = 83, &["launch TCB"]),
        ("provisional TCB", |r| r.current_tcb[6] = 24, &["firmware"]),
        (
            "provisional version",
            |r| r.current_version[0] += 1,
            &["firmware"],
        ),
        ("measurement", |r| r.measurement[47] ^= 1, &["measurement"]),
    ];
    let (certificates, policy) = (certificates(|_| {}), policy(""));
    for (name, flaw, expected) in cases {
        let mut report = report();
        flaw(&mut report);
        let appraisal = appraise(&report, &certificates, &policy);
        assert_eq!(failed(&appraisal), expected, "{name}");
    }
}

#[test]
fn all_64_bytes_of_report_data_count() {
    let (certificates, policy) = (certificates(|_| {}), policy(""));
    for at in 0..64 {
        let mut report = report();
        report.report_data[at] ^= 0x80;
        let appraisal = appraise(&report, &certificates, &policy);
        assert_eq!(failed(&appraisal), ["report data"], "byte {at}");
    }
}

#[test]
fn one_flaw_in_the_certificate_fails_its_check() {
    type Case = (&'static str, fn(&mut Leaf<'_>), &'static [&'static str]);
    let cases: [Case; 22] = [
        (
            "product with a stepping",
            |l| set(l, amd::PRODUCT_NAME, ia5("Genoa-B1")),
            &[],
        ),
        (
            "another product",
            |l| set(l, amd::PRODUCT_NAME, ia5("Milan")),
            &[
                "product name",
                "product",
                "reported TCB",
                "committed TCB",
                "launch TCB",
            ],
        ),
        (
            "a longer product",
            |l| set(l, amd::PRODUCT_NAME, ia5("GenoaX")),
            &["product name"],
        ),
        (
            "product no IA5String",
            |l| set(l, amd::PRODUCT_NAME, b"Genoa".to_vec()),
            &["product name"],
        ),
        (
            "no product",
            |l| remove(l, amd::PRODUCT_NAME),
            &["product name"],
        ),
        (
            "no bootloader",
            |l| remove(l, amd::BOOTLOADER),
            &["certified TCB"],
        ),
        ("no tee", |l| remove(l, amd::TEE), &["certified TCB"]),
        ("no snp", |l| remove(l, amd::SNP), &["certified TCB"]),
        (
            "no microcode",
            |l| remove(l, amd::MICROCODE),
            &["certified TCB"],
        ),
        (
            "snp above",
            |l| set(l, amd::SNP, der::integer(24)),
            &["certified TCB"],
        ),
        (
            "snp below",
            |l| set(l, amd::SNP, der::integer(22)),
            &["certified TCB"],
        ),
        (
            "snp with the right prefix",
            |l| set(l, amd::SNP, vec![2, 1, 23, 0]),
            &["certified TCB"],
        ),
        (
            "snp in two bytes",
            |l| set(l, amd::SNP, vec![2, 2, 0, 23]),
            &["certified TCB"],
        ),
        (
            "snp as raw byte",
            |l| set(l, amd::SNP, vec![23]),
            &["certified TCB"],
        ),
        (
            "reserved set",
            |l| set(l, amd::RESERVED[1], der::integer(1)),
            &["certified TCB"],
        ),
        (
            "no reserved",
            |l| amd::RESERVED.into_iter().for_each(|id| remove(l, id)),
            &[],
        ),
        ("no hardware id", |l| remove(l, HWID), &["hardware id"]),
        (
            "another hardware id",
            |l| set(l, HWID, vec![0x34; 64]),
            &["hardware id"],
        ),
        (
            "hardware id cut short",
            |l| set(l, HWID, vec![0x33; 63]),
            &["hardware id"],
        ),
        (
            "hardware id wrapped",
            |l| set(l, HWID, [&[4, 64], &CHIP_ID[..]].concat()),
            &["hardware id"],
        ),
        (
            "another name",
            |l| l.common_name = "SEV-XXXX",
            &["signing key", "hardware id"],
        ),
        (
            "an extension twice",
            |l| l.extensions.push((HWID, CHIP_ID.to_vec())),
            &["certificates"],
        ),
    ];
    let (report, policy) = (report(), policy(""));
    for (name, flaw, expected) in cases {
        let failed = failed(&appraise(&report, &certificates(flaw), &policy));
        let seen = failed.get(..expected.len()).unwrap_or(&failed);
        assert_eq!(seen, expected, "{name}");
        assert_eq!(failed.is_empty(), expected.is_empty(), "{name}: {failed:?}");
    }
}

fn set(leaf: &mut Leaf<'_>, id: ObjectIdentifier, content: Vec<u8>) {
    let mut extensions = leaf.extensions.iter_mut();
    extensions.find(|extension| extension.0 == id).unwrap().1 = content;
}

fn remove(leaf: &mut Leaf<'_>, id: ObjectIdentifier) {
    leaf.extensions.retain(|extension| extension.0 != id);
}

fn ia5(text: &str) -> Vec<u8> {
    der::ia5_string(text)
}

#[test]
fn a_policy_that_asks_for_more_refuses() {
    let host_data =
        "host_data = [\"0000000000000000000000000000000000000000000000000000000000000000\"]";
    let zeros = "0".repeat(96);
    let cases = [
        (
            "nothing measured",
            "measurements = []",
            &["measurement"][..],
        ),
        ("no product", "products = []", &["product"]),
        (
            "bootloader",
            "bootloader = 11",
            &["reported TCB", "committed TCB", "launch TCB"],
        ),
        (
            "tee",
            "tee = 1",
            &["reported TCB", "committed TCB", "launch TCB"],
        ),
        (
            "snp",
            "snp = 24",
            &["reported TCB", "committed TCB", "launch TCB"],
        ),
        (
            "microcode",
            "microcode = 85",
            &["reported TCB", "committed TCB", "launch TCB"],
        ),
        ("vmpl", "vmpl = 2", &["VMPL"]),
        ("guest svn", "minimum_guest_svn = 1", &["guest SVN"]),
        ("no SMT", "allow_smt = false", &["SMT"]),
        (
            "single socket",
            "require_single_socket = true",
            &["single socket"],
        ),
        (
            "tsme",
            "required_platform_info = [\"tsme\"]",
            &["platform info"],
        ),
        (
            "several",
            "required_platform_info = [\"ecc\", \"ciphertext-hiding\"]",
            &["platform info"],
        ),
        ("host data listed", host_data, &[]),
        ("host data", "host_data = []", &["host data"]),
        (
            "ID key listed",
            &format!("id_key_digests = [\"{zeros}\"]"),
            &[],
        ),
        ("ID key", "id_key_digests = []", &["ID key digest"]),
        (
            "author key",
            "author_key_digests = []",
            &["author key digest"],
        ),
        (
            "chip listed",
            &format!("chip_ids = [\"{}\"]", "33".repeat(64)),
            &[],
        ),
        (
            "chip",
            &format!("chip_ids = [\"{}\"]", "34".repeat(64)),
            &["chip id"],
        ),
        (
            "chip denied",
            &format!(
                "denied_chip_ids = [\"{}\", \"{}\"]",
                "34".repeat(64),
                "33".repeat(64)
            ),
            &["denied chip"],
        ),
        (
            "another chip denied",
            &format!("denied_chip_ids = [\"{}\"]", "34".repeat(64)),
            &[],
        ),
        (
            "launch mitigations",
            "minimum_launch_mitigations = 1",
            &["launch mitigations"],
        ),
        (
            "current mitigations",
            "minimum_current_mitigations = 1",
            &["current mitigations"],
        ),
    ];
    let (report, certificates) = (report(), certificates(|_| {}));
    for (name, extra, expected) in cases {
        let appraisal = appraise(&report, &certificates, &policy(extra));
        assert_eq!(failed(&appraisal), expected, "{name}");
    }
    let mut one_thread = report;
    one_thread.policy &= !POLICY_SMT;
    let appraisal = appraise(&one_thread, &certificates, &policy("allow_smt = false"));
    assert_eq!(failed(&appraisal), [""; 0], "no SMT, and none there");
}

/// SEV-SNP ABI, `PLATFORM_INFO` of the attestation report: one bit each.
#[test]
fn each_platform_feature_is_its_own_bit() {
    let certificates = certificates(|_| {});
    let features = [
        ("tsme", 1),
        ("ecc", 2),
        ("rapl-disabled", 3),
        ("ciphertext-hiding", 4),
        ("alias-check-complete", 5),
    ];
    for (name, bit) in features {
        let policy = policy(&format!("required_platform_info = [\"{name}\"]"));
        for set in 0..8 {
            let mut report = report();
            report.platform_info = 1 << set;
            let appraisal = appraise(&report, &certificates, &policy);
            let expected: &[&str] = if set == bit { &[] } else { &["platform info"] };
            assert_eq!(failed(&appraisal), expected, "{name}, bit {set}");
        }
    }
}

#[test]
fn settings_that_allow_more_allow_it() {
    type Case = (fn(&mut Report), &'static str);
    let cases: [Case; 4] = [
        (|r| r.policy |= POLICY_CXL, "allow_cxl = true"),
        (
            |r| r.policy |= POLICY_SINGLE_SOCKET,
            "require_single_socket = true",
        ),
        (
            |r| r.current_version[0] += 1,
            "allow_provisional_firmware = true",
        ),
        (|r| r.vmpl = 3, "vmpl = 3"),
    ];
    let certificates = certificates(|_| {});
    for (change, extra) in cases {
        let mut report = report();
        change(&mut report);
        let appraisal = appraise(&report, &certificates, &policy(extra));
        assert_eq!(failed(&appraisal), [""; 0], "{extra}");
    }
}

/// Every bit that is asked for must be set, and only version 5 tells them.
#[test]
fn mitigations_are_asked_of_version_5() {
    let settings = "minimum_launch_mitigations = 6\nminimum_current_mitigations = 9";
    let cases = [
        (5, 6, 9, &[][..]),
        (5, 7, 0x8000_0000_0000_0009, &[]),
        (5, 2, 9, &["launch mitigations"]),
        (5, 6, 8, &["current mitigations"]),
        (5, 9, 6, &["launch mitigations", "current mitigations"]),
        (4, 6, 9, &["launch mitigations", "current mitigations"]),
    ];
    let certificates = certificates(|_| {});
    for (version, launch, current, expected) in cases {
        let mut report = report();
        report.version = version;
        (report.launch_mitigations, report.current_mitigations) = (launch, current);
        let appraisal = appraise(&report, &certificates, &policy(settings));
        assert_eq!(failed(&appraisal), expected, "{version} {launch} {current}");
        let appraisal = appraise(&report, &certificates, &policy(""));
        assert_eq!(failed(&appraisal), [""; 0]);
    }
}

#[test]
fn a_vlek_is_accepted_from_a_listed_provider_only() {
    let vlek = |leaf: &mut Leaf<'_>| {
        leaf.common_name = "SEV-VLEK";
        remove(leaf, HWID);
        leaf.extensions.push((amd::CSP_ID, ia5(CSP)));
    };
    let mut report = report();
    (report.flags, report.chip_id) = (1 << 2, [0; 64]);
    let listed = policy(&format!("vlek_csp_ids = [\"{CSP}\"]"));
    let accepted = appraise(&report, &certificates(vlek), &listed);
    assert_eq!(failed(&accepted), [""; 0]);
    let unlisted = appraise(&report, &certificates(vlek), &policy(""));
    assert_eq!(failed(&unlisted), ["VLEK provider"]);

    // Any chip can be behind it, so also one that is denied.
    let denying = policy(&format!(
        "vlek_csp_ids = [\"{CSP}\"]\ndenied_chip_ids = [\"{}\"]",
        "34".repeat(64)
    ));
    let hidden = appraise(&report, &certificates(vlek), &denying);
    assert_eq!(failed(&hidden), ["denied chip"]);

    report.chip_id = CHIP_ID;
    let with_chip = appraise(&report, &certificates(vlek), &listed);
    assert_eq!(failed(&with_chip), ["hardware id"]);
    report.flags = 0;
    let claims_vcek = appraise(&report, &certificates(vlek), &listed);
    assert_eq!(failed(&claims_vcek), ["signing key", "hardware id"]);
}

/// Turin lays out its TCB in another order, has one more part, and a hardware id of 8 bytes.
mod turin {
    use super::*;

    const WORD: [u8; 8] = [1, 2, 3, 4, 0, 0, 0, 84];

    fn leaf(leaf: &mut Leaf<'_>) {
        set(leaf, amd::PRODUCT_NAME, ia5("Turin"));
        set(leaf, amd::BOOTLOADER, der::integer(2));
        set(leaf, amd::TEE, der::integer(3));
        set(leaf, amd::SNP, der::integer(4));
        set(leaf, HWID, CHIP_ID[..8].to_vec());
        remove(leaf, amd::RESERVED[0]);
        leaf.extensions.push((amd::FMC, der::integer(1)));
    }

    fn report() -> Report {
        let mut report = super::report();
        report.cpuid = [0x1a, 0x02, 0x01];
        report.chip_id[8..].fill(0);
        for tcb in [
            &mut report.current_tcb,
            &mut report.reported_tcb,
            &mut report.committed_tcb,
            &mut report.launch_tcb,
        ] {
            *tcb = WORD;
        }
        report
    }

    /// A policy with the least TCB of [`WORD`], one part of it replaced.
    fn policy(part: &str) -> Policy {
        let minimum = "fmc = 1\nbootloader = 2\ntee = 3\nsnp = 4\nmicrocode = 84\n";
        let name = part.split('=').next().unwrap();
        let old = minimum.lines().find(|line| line.starts_with(name));
        let minimum = minimum.replace(old.unwrap(), part);
        let (above, _) = POLICY.split_once("bootloader").unwrap();
        let text = above.replace("genoa", "turin") + &minimum;
        from_toml(&text).unwrap()
    }

    #[test]
    fn each_part_of_its_tcb_stands_in_its_own_byte() {
        let certificates = certificates(leaf);
        let appraise = |minimum| appraise(&report(), &certificates, &policy(minimum));
        assert_eq!(failed(&appraise("fmc = 1")), [""; 0]);
        for above in [
            "fmc = 2",
            "bootloader = 3",
            "tee = 4",
            "snp = 5",
            "microcode = 85",
        ] {
            let expected = ["reported TCB", "committed TCB", "launch TCB"];
            assert_eq!(failed(&appraise(above)), expected, "{above}");
        }
    }

    #[test]
    fn one_flaw_fails_its_check() {
        type Case = (
            &'static str,
            fn(&mut Report),
            fn(&mut Leaf<'_>),
            &'static str,
        );
        let cases: [Case; 8] = [
            ("no fmc", |_| {}, |l| remove(l, amd::FMC), "certified TCB"),
            (
                "another fmc",
                |_| {},
                |l| set(l, amd::FMC, der::integer(2)),
                "certified TCB",
            ),
            (
                "Genoa's order",
                |r| r.reported_tcb = [2, 3, 0, 0, 0, 0, 4, 84],
                |_| {},
                "certified TCB",
            ),
            (
                "a reserved byte",
                |r| r.reported_tcb[4] = 1,
                |_| {},
                "certified TCB",
            ),
            (
                "64 bytes of hardware id",
                |_| {},
                |l| set(l, HWID, CHIP_ID.to_vec()),
                "hardware id",
            ),
            (
                "more of a chip id",
                |r| r.chip_id[8] = 1,
                |_| {},
                "hardware id",
            ),
            ("another chip", |r| r.chip_id[7] ^= 1, |_| {}, "hardware id"),
            ("Genoa's CPUID", |r| r.cpuid = CPUID, |_| {}, "product name"),
        ];
        for (name, in_report, in_leaf, check) in cases {
            let mut report = report();
            in_report(&mut report);
            let certificates = certificates(|l| {
                leaf(l);
                in_leaf(l);
            });
            let appraisal = appraise(&report, &certificates, &policy("fmc = 1"));
            assert_eq!(failed(&appraisal).first(), Some(&check), "{name}");
        }
    }
}

/// Version 2 does not carry CPUID, so that the root alone tells the generation.
#[test]
fn a_root_vouches_for_its_own_generation_only() {
    let leaf = Certificate::parse(&certificates(|_| {})[0]).unwrap();
    let mut report = report();
    (report.version, report.cpuid) = (2, [0; 3]);
    for (of_root, refused_by) in [
        (Some(Product::Genoa), None),
        (Some(Product::Milan), Some("product name")),
        (Some(Product::Turin), Some("product name")),
    ] {
        let mut checks = Checks::default();
        amd::verify(&mut checks, &leaf, of_root, &report);
        assert_eq!(checks.refusal().map(|refusal| refusal.check), refused_by);
    }
}

#[test]
fn chains_that_lead_elsewhere_are_refused() {
    let policy = policy("");
    let good = certificates(|_| {});
    let stranger = issuer_of(&KEYS.ask, &KEYS.ark);
    let small = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let small = issuer_of(&KEYS.ark, small.as_der().unwrap().as_ref());
    let key = vcek_key();
    let leaf = Leaf::genoa(key.public_key().as_ref(), &TCB, &CHIP_ID);
    let ark = issuer().ark().unwrap();
    let mut authority_as_leaf = Leaf::genoa(key.public_key().as_ref(), &TCB, &CHIP_ID);
    let basic_constraints = ObjectIdentifier::new_unwrap("2.5.29.19");
    let constraints = der::authority_constraints(None);
    authority_as_leaf
        .extensions
        .push((basic_constraints, constraints));

    let cases = [
        (
            "same names, other keys",
            vec![stranger.leaf(&leaf).unwrap(), stranger.ask().unwrap()],
            "root",
        ),
        (
            "ASK of another",
            vec![good[0].clone(), stranger.ask().unwrap()],
            "leaf certificate",
        ),
        (
            "ASK with a small key",
            vec![small.leaf(&leaf).unwrap(), small.ask().unwrap()],
            "leaf certificate",
        ),
        (
            "root as authority",
            vec![good[0].clone(), ark.clone()],
            "leaf certificate",
        ),
        (
            "root in the evidence",
            vec![good[0].clone(), good[1].clone(), ark],
            "certificates",
        ),
        ("no authority", vec![good[0].clone()], "certificates"),
        (
            "leaf that is an authority",
            vec![issuer().leaf(&authority_as_leaf).unwrap(), good[1].clone()],
            "leaf certificate",
        ),
        (
            "leaf whose key signs certificates only",
            certificates(|leaf| {
                let usage = der::named_bits(2, 0b0000_0100);
                leaf.extensions
                    .push((ObjectIdentifier::new_unwrap("2.5.29.15"), usage));
            }),
            "leaf certificate",
        ),
    ];
    for (name, certificates, check) in cases {
        let appraisal = appraise(&report(), &certificates, &policy);
        assert_eq!(failed(&appraisal).first(), Some(&check), "{name}");
        assert_eq!(appraisal.root(), None, "{name}");
    }
}

#[test]
fn amds_roots_do_not_vouch_for_software() {
    let text = POLICY.replace("software_roots = [\"ark.pem\"]", "amd_roots = true");
    let policy = from_toml(&text).unwrap();
    let appraisal = appraise(&report(), &certificates(|_| {}), &policy);
    assert_eq!(failed(&appraisal).first(), Some(&"root"));
}

#[test]
fn certificates_outside_their_time_are_refused() {
    let (certificates, policy) = (certificates(|_| {}), policy(""));
    let second = Duration::from_secs(1);
    let (from, to) = (now() - BACKDATE, now() + VALIDITY);
    let cases = [
        (from - second, false),
        (from, true),
        (to, true),
        (to + second, false),
    ];
    for (time, valid) in cases {
        let appraisal = appraise_at(&report(), &certificates, &policy, time);
        let expected: &[_] = if valid {
            &[]
        } else {
            &["certificate validity"]
        };
        assert_eq!(failed(&appraisal), expected, "{time:?}");
    }
}

#[test]
fn files_belong_together() {
    let pem = |label, der: &[u8]| to_pem(label, der).unwrap();
    let [vcek, ask] = &certificates(|_| {})[..] else {
        unreachable!()
    };
    let (key, vcek, ask) = (
        pem(KEY_LABEL, &KEYS.vcek),
        pem(CERTIFICATE_LABEL, vcek),
        pem(CERTIFICATE_LABEL, ask),
    );
    let signer = SoftwareSigner::from_pem(&key, &vcek, &ask).unwrap();
    assert_eq!(signer.chip_id, CHIP_ID);
    assert_eq!(signer.certificates(), certificates_of(&[&vcek, &ask]));

    let other = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let other = pem(KEY_LABEL, other.to_pkcs8v1().unwrap().as_ref());
    let cases = [
        (
            &other,
            &vcek,
            &ask,
            "private key does not belong to the certificate",
        ),
        (&vcek, &vcek, &ask, "vcek.key is not the PEM expected"),
        (&key, &key, &ask, "vcek.pem is not the PEM expected"),
        (
            &key,
            &ask,
            &ask,
            "certificate rejected: issuer's name differs",
        ),
        (
            &key,
            &vcek,
            &vcek,
            "certificate rejected: issuer's name differs",
        ),
    ];
    for (key, vcek, ask, expected) in cases {
        let error = SoftwareSigner::from_pem(key, vcek, ask).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

fn certificates_of(pems: &[&str]) -> Vec<Vec<u8>> {
    let decode = |text: &&str| from_pem(CERTIFICATE_LABEL, text, "a certificate").unwrap();
    pems.iter().map(decode).collect()
}

#[test]
fn policies_are_strict() {
    let digest = |text: &str| *from_toml(text).unwrap().digest();
    assert_eq!(digest(POLICY), digest(POLICY));
    assert_ne!(
        digest(POLICY),
        digest(&POLICY.replace("tee = 0", "tee = 1"))
    );

    let cases = [
        (
            "unknown key",
            "version = 1",
            "version = 1\nallow_debug = true",
            "unknown field `allow_debug`",
        ),
        (
            "unknown key below",
            "tee = 0",
            "tee = 0\nucode = 1",
            "unknown field `ucode`",
        ),
        (
            "version",
            "version = 1",
            "version = 2",
            "policy version 2 is unknown",
        ),
        ("no version", "version = 1", "", "missing field `version`"),
        (
            "age zero",
            "version = 1",
            "version = 1\nappraisal_max_age_s = 0",
            "`appraisal_max_age_s` is not 1 to 604800",
        ),
        (
            "age over a week",
            "version = 1",
            "version = 1\nappraisal_max_age_s = 604801",
            "`appraisal_max_age_s` is not 1 to 604800",
        ),
        (
            "no root",
            "software_roots = [\"ark.pem\"]",
            "",
            "`sev_snp` trusts no root",
        ),
        (
            "no minimum",
            "products = [\"genoa\"]",
            "products = [\"genoa\", \"turin\"]",
            "`sev_snp.minimum_tcb.turin` is missing",
        ),
        (
            "fmc",
            "tee = 0",
            "tee = 0\nfmc = 1",
            "`sev_snp.minimum_tcb.genoa`: turin has `fmc`",
        ),
        (
            "product",
            "products = [\"genoa\"]",
            "products = [\"rome\"]",
            "unknown variant `rome`",
        ),
        (
            "no measurements",
            "measurements",
            "# measurements",
            "missing field `measurements`",
        ),
        (
            "short measurement",
            "[\"11",
            "[\"",
            "not 48 bytes of lower-case hex",
        ),
        (
            "upper measurement",
            "[\"11",
            "[\"AA",
            "not 48 bytes of lower-case hex",
        ),
        (
            "vmpl",
            "products",
            "vmpl = 4\nproducts",
            "`sev_snp.vmpl` is not 0 to 3",
        ),
    ];
    for (name, from, to, expected) in cases {
        let error = from_toml(&POLICY.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_policys_root_files_hold_roots() {
    let load = |bytes: &[u8]| Policy::from_toml(POLICY, &mut |_| Ok(bytes.to_vec()));
    let ark = issuer().ark().unwrap();
    let [vcek, ask] = &certificates(|_| {})[..] else {
        unreachable!()
    };
    assert!(load(&ark).is_ok());
    let pem = to_pem(CERTIFICATE_LABEL, &ark).unwrap();
    assert!(load(pem.as_bytes()).is_ok());
    assert!(matches!(
        load(ask),
        Err(PolicyError::RootCertificate { .. })
    ));
    assert!(matches!(
        load(vcek),
        Err(PolicyError::RootCertificate { .. })
    ));
    assert!(matches!(
        load(b"ark"),
        Err(PolicyError::RootCertificate { .. })
    ));
    assert!(matches!(
        load(&KEYS.ark),
        Err(PolicyError::RootCertificate { .. })
    ));
    let amd = include_bytes!("../sev_snp/roots/genoa-ark.der");
    assert!(matches!(load(amd), Err(PolicyError::AmdAsSoftware { .. })));
    let missing = Policy::from_toml(POLICY, &mut |_| Err(std::io::ErrorKind::NotFound.into()));
    assert!(matches!(missing, Err(PolicyError::Read { path, .. }) if path == "ark.pem"));
}

/// AMD's revocation lists, as a software root's ARK would sign them.
mod revocation {
    use super::*;

    /// Longest list that is read.
    const MAX_CRL: usize = 256 * 1024;

    struct List {
        key: &'static [u8],
        issuer: Vec<u8>,
        /// Inside of what is signed, and beside it.
        algorithms: [Vec<u8>; 2],
        this_update: SystemTime,
        next_update: Option<SystemTime>,
        serials: Vec<Vec<u8>>,
        /// Whether it is critical, and its length.
        extension: Option<(bool, usize)>,
    }

    fn subject(certificate: &[u8]) -> Vec<u8> {
        let certificate = x509_cert::Certificate::from_der(certificate).unwrap();
        certificate.tbs_certificate().subject().to_der().unwrap()
    }

    fn serial(certificate: &[u8]) -> Vec<u8> {
        Certificate::parse(certificate).unwrap().serial().to_vec()
    }

    fn list(serials: &[&[u8]]) -> List {
        List {
            key: &KEYS.ark,
            issuer: subject(&ARK),
            algorithms: [der::rsa_pss_sha384(), der::rsa_pss_sha384()],
            this_update: now() - DAY,
            next_update: Some(now() + DAY),
            serials: serials.iter().map(|serial| serial.to_vec()).collect(),
            extension: Some((false, 1)),
        }
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const SECOND: Duration = Duration::from_secs(1);

    impl List {
        fn issue(&self) -> Vec<u8> {
            let time = |time| der::time(&to_rfc3339(time));
            let entry = |serial: &Vec<u8>| {
                der::sequence(&[&der::tlv(0x02, &[serial]), &time(self.this_update)])
            };
            let entries: Vec<_> = self.serials.iter().map(entry).collect();
            let entries = match entries.as_slice() {
                [] => Vec::new(),
                entries => der::sequence(&[&entries.concat()]),
            };
            let extension = self.extension.map_or_else(Vec::new, |(critical, len)| {
                let id = ObjectIdentifier::new_unwrap("2.5.29.20");
                let extension = der::extension(id, critical, &vec![7; len]);
                der::explicit(0, &der::sequence(&[&extension]))
            });
            let [inner, outer] = &self.algorithms;
            let body = der::sequence(&[
                &der::integer(1),
                inner,
                &self.issuer,
                &time(self.this_update),
                &self.next_update.map(time).unwrap_or_default(),
                &entries,
                &extension,
            ]);
            sign(self.key, &body, outer)
        }
    }

    /// The body with its algorithm and signature.
    fn sign(key: &[u8], body: &[u8], algorithm: &[u8]) -> Vec<u8> {
        let key = RsaKeyPair::from_pkcs8(key).unwrap();
        let mut signature = vec![0; key.public_modulus_len()];
        let random = SystemRandom::new();
        key.sign(&RSA_PSS_SHA384, &random, body, &mut signature)
            .unwrap();
        der::sequence(&[body, algorithm, &der::bit_string(&signature)])
    }

    /// sha384WithRSAEncryption.
    fn pkcs1() -> Vec<u8> {
        der::with_null(ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"))
    }

    fn with(certificates: &[Vec<u8>], lists: Vec<Vec<u8>>) -> EvidenceItem {
        let collateral = Collateral {
            amd_crls: lists,
            ..Collateral::default()
        };
        item(&report(), certificates, collateral)
    }

    fn required() -> Policy {
        policy("revocation = \"required\"")
    }

    /// As a bundle's maker looks at a list by itself.
    #[test]
    fn a_list_ends_when_its_root_says() {
        use crate::sev_snp::revocation::{signed_by_amd, signed_until};
        let issued = list(&[]).issue();
        let ark = Certificate::parse(&ARK).unwrap();
        let ask = Certificate::parse(&issuer().ask().unwrap()).unwrap();
        assert_eq!(signed_until(&ark, &issued), Some(now() + DAY));
        assert_eq!(signed_until(&ask, &issued), None);
        assert_eq!(signed_by_amd(&issued), None);
        let refused = crate::bundle::inspect(&issued, now())
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "a revocation list that none of AMD's roots signed");
    }

    #[test]
    fn one_flaw_in_a_list_fails_its_check_alone() {
        let certificates = certificates(|_| {});
        let [leaf, ask] = [&certificates[0], &certificates[1]].map(|der| serial(der));
        let stranger = [0x55; 16];
        let edit = |edit: fn(&mut List)| {
            let mut list = list(&[]);
            edit(&mut list);
            list.issue()
        };
        let no_list = &["revocation list"][..];
        let mut cut = list(&[]).issue();
        cut.pop();
        let mut flipped = list(&[]).issue();
        *flipped.last_mut().unwrap() ^= 1;
        let cases = [
            ("nothing listed", list(&[]).issue(), &[][..]),
            ("a stranger listed", list(&[&stranger, &[0]]).issue(), &[]),
            (
                "ASK listed",
                list(&[&stranger, &ask]).issue(),
                &["revocation"],
            ),
            (
                "VCEK listed",
                list(&[&leaf, &stranger]).issue(),
                &["revocation"],
            ),
            ("VCEK's first bytes", list(&[&leaf[..15]]).issue(), &[]),
            ("no extension", edit(|l| l.extension = None), &[]),
            (
                "critical extension",
                edit(|l| l.extension = Some((true, 1))),
                no_list,
            ),
            ("signed by the ASK", edit(|l| l.key = &KEYS.ask), no_list),
            (
                "another issuer",
                edit(|l| l.issuer = subject(&issuer().ask().unwrap())),
                no_list,
            ),
            (
                "two algorithms",
                edit(|l| l.algorithms[0] = pkcs1()),
                no_list,
            ),
            (
                "another algorithm",
                edit(|l| l.algorithms = [pkcs1(), pkcs1()]),
                no_list,
            ),
            ("no end", edit(|l| l.next_update = None), no_list),
            ("ended", edit(|l| l.next_update = Some(now())), no_list),
            (
                "ends in a second",
                edit(|l| l.next_update = Some(now() + SECOND)),
                &[],
            ),
            ("begins now", edit(|l| l.this_update = now()), &[]),
            (
                "not begun",
                edit(|l| l.this_update = now() + SECOND),
                no_list,
            ),
            ("a byte less", cut, no_list),
            (
                "a byte more",
                [&list(&[]).issue()[..], &[0]].concat(),
                no_list,
            ),
            ("signature changed", flipped, no_list),
            ("a certificate", ARK.clone(), no_list),
        ];
        let policy = required();
        for (name, list, expected) in cases {
            let item = with(&certificates, vec![list]);
            let appraisal = appraise_item_at(&item, &policy, now());
            assert_eq!(failed(&appraisal), expected, "{name}");
        }
    }

    #[test]
    fn every_list_of_the_root_can_revoke() {
        let certificates = certificates(|_| {});
        let leaf = serial(&certificates[0]);
        let good = || list(&[]).issue();
        let mut ended = list(&[&leaf]);
        ended.next_update = Some(now() - SECOND);
        let mut others = list(&[&leaf]);
        others.key = &KEYS.ask;
        let cases = [
            ("none", vec![], &["revocation list"][..]),
            ("garbage before", vec![vec![0x30], good()], &[]),
            (
                "an old one that lists",
                vec![good(), ended.issue()],
                &["revocation"],
            ),
            ("another's that lists", vec![others.issue(), good()], &[]),
        ];
        for (name, lists, expected) in cases {
            let appraisal = appraise_item_at(&with(&certificates, lists), &required(), now());
            assert_eq!(failed(&appraisal), expected, "{name}");
        }
    }

    #[test]
    fn a_policy_says_how_much_is_asked() {
        let certificates = certificates(|_| {});
        let leaf = serial(&certificates[0]);
        let mut ended = list(&[]);
        ended.next_update = Some(now());
        let mut others = list(&[&leaf]);
        others.key = &KEYS.ask;
        let lists = [
            vec![],
            vec![list(&[]).issue()],
            vec![list(&[&leaf]).issue()],
            vec![ended.issue()],
            vec![others.issue()],
        ];
        let (ok, none, revoked) = (&[][..], &["revocation list"][..], &["revocation"][..]);
        let cases = [
            ("revocation = \"required\"", [none, ok, revoked, none, none]),
            ("revocation = \"if-present\"", [ok, ok, revoked, none, ok]),
            ("revocation = \"off\"", [ok; 5]),
            // A software root has no lists.
            ("", [ok; 5]),
        ];
        for (setting, expected) in cases {
            for (lists, expected) in lists.iter().zip(expected) {
                let item = with(&certificates, lists.clone());
                let appraisal = appraise_item_at(&item, &policy(setting), now());
                assert_eq!(failed(&appraisal), expected, "{setting}");
            }
        }
    }

    #[test]
    fn a_list_has_a_longest_length() {
        let certificates = certificates(|_| {});
        let of_len = |len| {
            let mut list = list(&[]);
            list.extension = Some((false, len));
            list.issue()
        };
        let rest = of_len(100_000).len() - 100_000;
        for (len, expected) in [(MAX_CRL, &[][..]), (MAX_CRL + 1, &["revocation list"])] {
            let list = of_len(len - rest);
            assert_eq!(list.len(), len);
            let appraisal = appraise_item_at(&with(&certificates, vec![list]), &required(), now());
            assert_eq!(failed(&appraisal), expected);
        }
    }

    /// A root whose certificate does not say that it signs lists.
    #[test]
    fn a_root_that_may_not_sign_lists_signs_none() {
        let mut body = signed_bytes(&ARK).unwrap().to_vec();
        let usage = [0x03, 0x02, 0x01, 0x06];
        let at = body.windows(4).position(|bytes| bytes == usage).unwrap();
        body[at..][..4].copy_from_slice(&[0x03, 0x02, 0x02, 0x04]);
        let root = sign(&KEYS.ark, &body, &der::rsa_pss_sha384());
        let text = POLICY.replace("[sev_snp]", "[sev_snp]\nrevocation = \"required\"");
        let policy = Policy::from_toml(&text, &mut |_| Ok(root.clone())).unwrap();
        let item = with(&certificates(|_| {}), vec![list(&[]).issue()]);
        let appraisal = appraise_item_at(&item, &policy, now());
        assert_eq!(failed(&appraisal), ["revocation list"]);
    }

    /// The newest list counts, and an appraisal that used it ends with it.
    #[test]
    fn an_appraisal_ends_with_the_list_that_it_used() {
        let certificates = certificates(|_| {});
        let mut older = list(&[]);
        older.this_update = now() - 2 * DAY;
        older.next_update = Some(now() + 9 * DAY);
        let lists = vec![older.issue(), list(&[]).issue()];
        let certificates_end = now() + VALIDITY;
        for (setting, expected) in [
            ("revocation = \"required\"", now() + DAY),
            ("revocation = \"if-present\"", now() + DAY),
            ("revocation = \"off\"", certificates_end),
        ] {
            let mut lists = lists.clone();
            for _ in 0..2 {
                lists.reverse();
                let item = with(&certificates, lists.clone());
                let bundle = Bundle::empty();
                let input = Input::of(&item, &context(&bundle), Expected::default());
                let policy = policy(setting);
                let claims = sev_snp::run(&mut Checks::default(), &input, policy.sev_snp());
                assert_eq!(claims.unwrap().not_after, expected, "{setting}");
            }
        }
        let mut long = list(&[]);
        long.next_update = Some(certificates_end + DAY);
        let item = with(&certificates, vec![long.issue()]);
        let bundle = Bundle::empty();
        let input = Input::of(&item, &context(&bundle), Expected::default());
        let claims = sev_snp::run(&mut Checks::default(), &input, required().sev_snp());
        assert_eq!(claims.unwrap().not_after, certificates_end);
    }
}

/// Certificates from collateral, under a root that has no built-in authority.
mod kept {
    use super::*;

    fn appraise(kept: Vec<Vec<u8>>) -> Vec<&'static str> {
        let collateral = Collateral {
            amd_certificates: kept,
            ..Collateral::default()
        };
        let item = item(&report(), &[], collateral);
        failed(&appraise_item_at(&item, &policy(""), now()))
    }

    #[test]
    fn the_leaf_that_fits_is_taken() {
        let [leaf, ask] = <[_; 2]>::try_from(certificates(|_| {})).unwrap();
        let other = |flaw: fn(&mut Leaf<'_>)| certificates(flaw).remove(0);
        let others = [
            other(|l| set(l, HWID, vec![0x34; 64])),
            other(|l| set(l, amd::SNP, der::integer(22))),
            other(|l| l.common_name = "SEV-VLEK"),
            other(|l| remove(l, amd::PRODUCT_NAME)),
        ];
        let with = |more: &[Vec<u8>]| [&others[..], more].concat();
        assert_eq!(appraise(with(&[leaf.clone(), ask.clone()])), [""; 0]);
        assert_eq!(appraise(with(&[ask.clone(), leaf.clone()])), [""; 0]);
        assert_eq!(appraise(with(&[leaf])), ["certificates"]);
        assert_eq!(appraise(with(&[ask])), ["certificates"]);
    }

    /// What a node delivers is used, not what fits better.
    #[test]
    fn delivered_certificates_come_first() {
        let collateral = Collateral {
            amd_certificates: certificates(|_| {}),
            ..Collateral::default()
        };
        let delivered = certificates(|leaf| set(leaf, amd::SNP, der::integer(22)));
        let item = item(&report(), &delivered, collateral);
        let appraisal = appraise_item_at(&item, &policy(""), now());
        assert_eq!(failed(&appraisal), ["certified TCB"]);
    }
}
