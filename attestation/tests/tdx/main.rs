//! Genuine quotes are judged as they deserve; and on a platform of our own, each flaw is seen by the
//! check that is there for it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

mod choice;
mod der;
mod flaws;
mod life;
mod platform;
mod revocation;
mod samples;

use std::io;

use attestation::{Appraisal, Outcome, Policy, PolicyError, Root};
use platform::{DAY, FMSPC, KEYS, PPID, Platform, REPORT_DATA, now};

const INTEL_ROOT: &[u8] = include_bytes!("../../src/tdx/roots/intel-sgx-root-ca.der");

/// What the platform of our own needs; `changes` replace a key's line or come at the end.
fn policy_text(changes: &str) -> String {
    let mrtd = "3d".repeat(48);
    let mrseam = "5e".repeat(48);
    let lines = [
        "software_roots = [\"root.der\"]".to_owned(),
        "minimum_tcb_evaluation_number = 17".to_owned(),
        format!("mrseam = [\"{mrseam}\"]"),
        format!("mrtd = [\"{mrtd}\"]"),
        "rtmr1 = \"any\"".to_owned(),
        "rtmr2 = \"any\"".to_owned(),
    ];
    let key = |line: &str| line.split(' ').next().unwrap().to_owned();
    let changed: Vec<_> = changes.lines().map(key).collect();
    let kept = lines
        .into_iter()
        .filter(|line| !changed.contains(&key(line)));
    let kept: Vec<_> = kept.collect();
    format!("version = 1\n[tdx]\n{}\n{changes}\n", kept.join("\n"))
}

fn load(changes: &str) -> Result<Policy, PolicyError> {
    Policy::from_toml(&policy_text(changes), &mut |path| match path {
        "root.der" => Ok(Platform::root()),
        "root.pem" => Ok(platform::to_pem(&Platform::root()).into_bytes()),
        "intel.der" => Ok(INTEL_ROOT.to_vec()),
        "intel.pem" => Ok(platform::to_pem(INTEL_ROOT).into_bytes()),
        "leaf.der" => Ok(leaf()),
        "forged.der" => Ok(forged_root()),
        _ => Err(io::Error::other("no such file")),
    })
}

fn policy(changes: &str) -> Policy {
    load(changes).unwrap()
}

fn window() -> platform::Window {
    (now() - DAY, now() + DAY)
}

/// Signs itself, but is no authority.
fn leaf() -> Vec<u8> {
    platform::certificate(&KEYS.root, (1, window()), ("leaf", "leaf"), &KEYS.root, &[])
}

/// Names itself as its issuer, but another key signed it.
fn forged_root() -> Vec<u8> {
    let names = ("forged", "forged");
    let extensions = platform::authority();
    platform::certificate(
        &KEYS.stranger,
        (1, window()),
        names,
        &KEYS.root,
        &extensions,
    )
}

fn failed(appraisal: &Appraisal) -> Vec<&'static str> {
    let checks = appraisal.checks().iter();
    let failed = checks.filter(|check| !check.passed());
    failed.map(|check| check.name).collect()
}

/// The names of the checks that failed, with what was seen by the first.
fn refusal(appraisal: &Appraisal) -> (Vec<&'static str>, String) {
    let seen = appraisal.refusal().map(|refusal| refusal.seen.clone());
    (failed(appraisal), seen.unwrap_or_default())
}

#[test]
fn a_platform_of_our_own_is_accepted_under_its_root() {
    for (name, platform) in [
        ("version 4", Platform::default()),
        ("version 5", Platform::version_5()),
    ] {
        for changes in ["", "software_roots = [\"root.pem\"]", "intel_root = true"] {
            let appraisal = platform.appraise(&policy(changes), now());
            assert_eq!(refusal(&appraisal), (vec![], String::new()), "{name}");
            assert_eq!(appraisal.root(), Some(Root::Software));
        }
        let by_intel = policy("software_roots = []\nintel_root = true");
        let appraisal = platform.appraise(&by_intel, now());
        let (failed, seen) = refusal(&appraisal);
        assert_eq!(failed, ["root"]);
        assert_eq!(seen, "Test PCK Platform CA is signed by none of them");
    }
}

#[test]
fn without_a_policy_intels_root_counts_and_nothing_is_accepted() {
    let platform = Platform::version_5();
    let pieces = [platform.collateral().to_string().into_bytes()];
    let appraisal = platform::appraise(&platform.quote(), &pieces, None, None, now());
    let checks = appraisal.checks().iter();
    let by_outcome = |outcome| {
        let names = checks.clone().filter(move |check| check.outcome == outcome);
        names.map(|check| check.name).collect::<Vec<_>>()
    };
    assert_eq!(by_outcome(Outcome::Failed), ["root"]);
    let not_checked = [
        "PKS",
        "KL",
        "XFAM",
        "TEE TCB SVN",
        "current TEE TCB SVN",
        "MRSEAM",
        "MRTD",
        "RTMR0",
        "RTMR1",
        "RTMR2",
        "RTMR3",
        "MRCONFIGID",
        "MROWNER",
        "MROWNERCONFIG",
        "report data",
    ];
    assert_eq!(by_outcome(Outcome::NotChecked), not_checked);
}

#[test]
fn report_data_is_compared_whole() {
    let platform = Platform::default();
    let pieces = [platform.collateral().to_string().into_bytes()];
    for at in [0, 31, 32, 63] {
        let mut other = REPORT_DATA;
        other[at] ^= 1;
        let policy = policy("");
        let appraisal = platform::appraise(
            &platform.quote(),
            &pieces,
            Some(&policy),
            Some(other),
            now(),
        );
        assert_eq!(failed(&appraisal), ["report data"]);
        let appraisal = platform::appraise(&platform.quote(), &pieces, Some(&policy), None, now());
        assert_eq!(failed(&appraisal), ["report data"]);
    }
}

#[test]
fn what_a_policy_cannot_say_is_refused() {
    let hex = |byte: &str, len: usize| byte.repeat(len);
    let cases = [
        (
            "no root",
            "software_roots = []".to_owned(),
            "`tdx` trusts no root",
        ),
        (
            "intel as software",
            "software_roots = [\"intel.der\"]".to_owned(),
            "`intel.der` is Intel's own root: use `intel_root = true`",
        ),
        (
            "intel as software, PEM",
            "software_roots = [\"intel.pem\"]".to_owned(),
            "`intel.pem` is Intel's own root: use `intel_root = true`",
        ),
        (
            "no authority",
            "software_roots = [\"leaf.der\"]".to_owned(),
            "`leaf.der` holds no root certificate: not allowed to be an authority",
        ),
        (
            "not self-signed",
            "software_roots = [\"forged.der\"]".to_owned(),
            "`forged.der` holds no root certificate: issuer's signature does not verify",
        ),
        (
            "no file",
            "software_roots = [\"none\"]".to_owned(),
            "cannot read `none`: no such file",
        ),
        (
            "too many roots",
            format!("software_roots = [{}]", "\"root.der\", ".repeat(17)),
            "`tdx.software_roots` is not at most 16 files",
        ),
        (
            "hardening without advisories",
            "accepted_tcb_statuses = [\"SWHardeningNeeded\"]".to_owned(),
            "`tdx.accepted_advisories` is not the list",
        ),
        (
            "both needs without advisories",
            "accepted_tcb_statuses = [\"ConfigurationAndSWHardeningNeeded\"]".to_owned(),
            "`tdx.accepted_advisories` is not the list",
        ),
        (
            "short MRTD",
            format!("mrtd = [\"{}\"]", hex("3d", 47)),
            "not 48 bytes",
        ),
        (
            "upper case",
            format!("mrtd = [\"{}\"]", hex("3D", 48)),
            "not 48 bytes",
        ),
        (
            "unknown key",
            "mrtds = []".to_owned(),
            "unknown field `mrtds`",
        ),
    ];
    for (name, changes, expected) in cases {
        let error = load(&changes).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    for status in [
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
        "TDRelaunchAdvised",
        "TdRelaunchAdvised",
        "TDRelaunchAdvisedConfigurationNeeded",
        "Revoked",
        "uptodate",
    ] {
        let error = load(&format!("accepted_tcb_statuses = [\"{status}\"]")).unwrap_err();
        assert!(
            error.to_string().contains("unknown variant"),
            "{status}: {error}"
        );
    }
    for key in [
        "minimum_tcb_evaluation_number = 17\n",
        "mrseam = [",
        "mrtd = [",
        "rtmr1 = ",
        "rtmr2 = ",
    ] {
        let text = policy_text("");
        let line = text
            .lines()
            .find(|line| line.starts_with(key.trim_end()))
            .unwrap();
        let error = Policy::from_toml(&text.replace(line, ""), &mut |_| Ok(Platform::root()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("missing field"), "{key}: {error}");
    }
    assert!(
        load(&format!(
            "software_roots = [{}]",
            "\"root.der\", ".repeat(16)
        ))
        .is_ok()
    );
    let digests = [
        "software_roots = [\"root.der\"]",
        "software_roots = [\"root.pem\"]",
    ];
    let [one, other] = digests.map(|changes| *policy(changes).digest());
    assert_ne!(one, other, "their texts differ");
}

#[test]
fn a_policys_digest_is_that_of_its_root_too() {
    let text = policy_text("");
    let other = platform::certificate(
        &KEYS.stranger,
        (1, window()),
        ("other", "other"),
        &KEYS.stranger,
        &platform::authority(),
    );
    let digest = |root: &Vec<u8>| {
        *Policy::from_toml(&text, &mut |_| Ok(root.clone()))
            .unwrap()
            .digest()
    };
    assert_ne!(digest(&Platform::root()), digest(&other));
}

#[test]
fn the_platform_is_known_by_its_lists() {
    let fmspc = hex::encode(FMSPC);
    let ppid = hex::encode(PPID);
    let cases = [
        (
            format!("fmspcs = [\"{fmspc}\"]\nppids = [\"{ppid}\"]"),
            vec![],
        ),
        ("fmspcs = []".to_owned(), vec!["FMSPC"]),
        ("ppids = []".to_owned(), vec!["PPID"]),
        (format!("fmspcs = [\"{}\"]", "00".repeat(6)), vec!["FMSPC"]),
        (format!("ppids = [\"{}\"]", "00".repeat(16)), vec!["PPID"]),
        (format!("denied_fmspcs = [\"{}\"]", "00".repeat(6)), vec![]),
        (format!("denied_fmspcs = [\"{fmspc}\"]"), vec!["FMSPC"]),
        (format!("denied_ppids = [\"{ppid}\"]"), vec!["PPID"]),
        (
            format!("fmspcs = [\"{fmspc}\"]\ndenied_fmspcs = [\"{fmspc}\"]"),
            vec!["FMSPC"],
        ),
    ];
    for (changes, expected) in cases {
        let appraisal = Platform::default().appraise(&policy(&changes), now());
        assert_eq!(failed(&appraisal), expected, "{changes}");
    }
}

/// A person reads what would pass and what is there.
#[test]
fn checks_say_what_they_expect_and_see() {
    let mut hardening = Platform::version_5();
    let level = &mut hardening.tcb_info["tcbLevels"][0];
    level["tcbStatus"] = serde_json::json!("ConfigurationAndSWHardeningNeeded");
    level["advisoryIDs"] = serde_json::json!(["INTEL-SA-00001", "INTEL-SA-00002"]);
    let plain = Platform::version_5();
    let (fmspc, ppid, zeros) = (hex::encode(FMSPC), hex::encode(PPID), "00".repeat(48));
    let svn = "minimum_tee_tcb_svn = \"06010300000000000000000000000000\"";
    let listed = format!("denied_fmspcs = [\"{}\"]", "00".repeat(6));
    let two = format!("rtmr0 = [\"{zeros}\", \"{}\"]", "b0".repeat(48));
    let cases = [
        (
            &plain,
            "",
            "root",
            "a root that the policy trusts: Test SGX Root CA, a software root",
            "Test SGX Root CA, a software root",
        ),
        (
            &plain,
            "intel_root = true",
            "root",
            "a root that the policy trusts: Intel SGX Root CA; Test SGX Root CA, a software root",
            "Test SGX Root CA, a software root",
        ),
        (
            &plain,
            "",
            "certificate validity",
            "every certificate valid at 2026-06-01T00:00:00Z",
            "Test PCK Certificate 2025-04-27T00:00:00Z to 2027-07-06T00:00:00Z",
        ),
        (
            &plain,
            "",
            "certificates",
            "the platform's, its authority's and at most a copy of the root, in PEM",
            "Test PCK Certificate of FMSPC b0c06f000000, Test PCK Platform CA",
        ),
        (
            &plain,
            "",
            "collateral",
            "a piece for TDX, FMSPC b0c06f000000, the authority of the certificate, and 2026-06-01T00:00:00Z",
            "piece 1, 2026-05-22T00:00:00Z to 2026-06-19T00:00:00Z",
        ),
        (
            &plain,
            "",
            "endorsements",
            "certificates, revocation lists, TCB info and QE identity vouch for the quote",
            "77777777777777777777777777777777, TCB of 2025-03-12T00:00:00Z",
        ),
        (
            &plain,
            "",
            "platform revocation",
            "no list, current or not, has the platform, its authority or who signed the collateral",
            "on none of 2 lists",
        ),
        (&plain, "", "TCB status", "UpToDate", "UpToDate"),
        (&plain, "", "TCB advisories", "none", "none"),
        (
            &hardening,
            "",
            "TCB status",
            "UpToDate",
            "ConfigurationAndSWHardeningNeeded",
        ),
        (
            &hardening,
            "accepted_tcb_statuses = []",
            "current TCB status",
            "nothing: the policy's list is empty",
            "ConfigurationAndSWHardeningNeeded",
        ),
        (
            &hardening,
            "accepted_tcb_statuses = [\"UpToDate\", \"SWHardeningNeeded\", \"ConfigurationNeeded\"]\naccepted_advisories = [\"INTEL-SA-00001\", \"INTEL-SA-00003\"]",
            "TCB advisories",
            "none but INTEL-SA-00001, INTEL-SA-00003",
            "INTEL-SA-00001, INTEL-SA-00002",
        ),
        (
            &hardening,
            "accepted_tcb_statuses = [\"UpToDate\", \"ConfigurationNeeded\"]",
            "QE TCB status",
            "one of UpToDate, ConfigurationNeeded",
            "UpToDate",
        ),
        (&plain, "", "TCB evaluation number", "at least 17", "17"),
        (&plain, "", "FMSPC", "any", &fmspc),
        (&plain, &listed, "FMSPC", "any; not 000000000000", &fmspc),
        (
            &plain,
            "ppids = []",
            "PPID",
            "nothing: the policy's list is empty",
            &ppid,
        ),
        (
            &plain,
            svn,
            "TEE TCB SVN",
            "each byte at least that of 06010300000000000000000000000000",
            "06010300000000000000000000000000",
        ),
        (
            &plain,
            "",
            "current TEE TCB SVN",
            "any",
            "06010300000000000000000000000000",
        ),
        (&plain, "", "MRCONFIGID", "zero", &zeros),
        (&plain, "", "RTMR0", "any", &"b0".repeat(48)),
        (
            &plain,
            &two,
            "RTMR0",
            &format!("one of {zeros}, {}", "b0".repeat(48)),
            &"b0".repeat(48),
        ),
        (
            &plain,
            "",
            "XFAM",
            "0x3, and no bit outside 0x6dbe7",
            "0x602e7",
        ),
        (&plain, "", "PKS", "off", "off"),
        (&plain, "allow_kl = true", "KL", "either", "off"),
        (&plain, "", "SEPT_VE_DISABLE", "on", "on"),
        (
            &plain,
            "",
            "TD attributes",
            "no bit but those with a name",
            "0x0000000010000000",
        ),
        (
            &plain,
            "",
            "quote",
            "TD report and signature data, each of its exact length",
            "TD report 1.5",
        ),
        (&plain, "", "quote signature", "verifies", "verifies"),
    ];
    for (platform, changes, name, expected, seen) in cases {
        let appraisal = platform.appraise(&policy(changes), now());
        let mut checks = appraisal.checks().iter();
        let check = checks.find(|check| check.name == name).unwrap();
        // A quote's length depends on its signatures, which differ each time.
        let said = match name {
            "quote" => check.seen.split(", ").last().unwrap(),
            _ => check.seen.as_str(),
        };
        assert_eq!(
            (check.expected.as_str(), said),
            (expected, seen),
            "{name}, {changes}"
        );
    }
}

/// Each status that Intel's verification lets through has its word.
#[test]
fn every_status_has_its_word() {
    type Set = fn(&mut Platform);
    let launched_by_an_old_module: Set = |p| p.body[platform::TEE_TCB_SVN] = 3;
    let cases: [(&str, Set, &str); 8] = [
        ("UpToDate", |_| {}, "UpToDate"),
        ("SWHardeningNeeded", |_| {}, "SWHardeningNeeded"),
        ("ConfigurationNeeded", |_| {}, "ConfigurationNeeded"),
        (
            "ConfigurationAndSWHardeningNeeded",
            |_| {},
            "ConfigurationAndSWHardeningNeeded",
        ),
        ("OutOfDate", |_| {}, "OutOfDate"),
        (
            "OutOfDateConfigurationNeeded",
            |_| {},
            "OutOfDateConfigurationNeeded",
        ),
        ("UpToDate", launched_by_an_old_module, "TDRelaunchAdvised"),
        (
            "ConfigurationNeeded",
            launched_by_an_old_module,
            "TDRelaunchAdvisedConfigurationNeeded",
        ),
    ];
    for (status, set, expected) in cases {
        let mut platform = Platform::version_5();
        set(&mut platform);
        platform.tcb_info["tcbLevels"][0]["tcbStatus"] = serde_json::json!(status);
        let appraisal = platform.appraise(&policy(""), now());
        let mut checks = appraisal.checks().iter();
        let check = checks.find(|check| check.name == "TCB status").unwrap();
        let accepted = expected == "UpToDate";
        assert_eq!((check.seen.as_str(), check.passed()), (expected, accepted));
    }
}
