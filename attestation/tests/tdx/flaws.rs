//! One flaw, one check.

use attestation::time::from_rfc3339;
use serde_json::json;

use crate::platform::{
    CA_SERIAL, DAY, KEYS, MRCONFIGID, MROWNER, MROWNERCONFIG, MRSEAM, MRSERVICETD, MRSIGNERSEAM,
    MRTD, PCK_SERIAL, Platform, QE_ATTRIBUTES, QE_ISVPRODID, QE_ISVSVN, QE_MRSIGNER, RTMR0,
    SEAM_ATTRIBUTES, TCB_SERIAL, TD_ATTRIBUTES, TEE_TCB_SVN, TEE_TCB_SVN2, XFAM, appraise, now,
    to_pem,
};
use crate::{failed, policy, refusal};

/// A flaw, what the policy says about it, and the checks that must fail, in order.
type Case = (
    &'static str,
    fn(&mut Platform),
    &'static str,
    &'static [&'static str],
);

fn assert_cases(new: fn() -> Platform, cases: &[Case]) {
    for (name, flaw, changes, expected) in cases {
        let mut platform = new();
        flaw(&mut platform);
        let appraisal = platform.appraise(&policy(changes), now());
        let (failed, seen) = refusal(&appraisal);
        assert_eq!(failed, *expected, "{name}: {seen}");
    }
}

/// Whatever Intel's verification also refuses shows there too, after the check that is for it.
#[test]
fn flaws_of_the_quote() {
    assert_cases(
        Platform::default,
        &[
            (
                "version 3",
                |p| p.header[0] = 3,
                "",
                &["quote version", "quote"],
            ),
            (
                "version 6",
                |p| p.header[0] = 6,
                "",
                &["quote version", "quote"],
            ),
            (
                "version 4 + 256",
                |p| p.header[1] = 1,
                "",
                &["quote version", "quote"],
            ),
            (
                "key type 3",
                |p| p.header[2] = 3,
                "",
                &["attestation key type", "endorsements"],
            ),
            (
                "SGX's type",
                |p| p.header[4] = 0,
                "",
                &["TEE type", "quote"],
            ),
            (
                "another TEE",
                |p| p.header[7] = 1,
                "",
                &["TEE type", "quote"],
            ),
            (
                "QE vendor",
                |p| p.header[27] ^= 1,
                "",
                &["QE vendor", "endorsements"],
            ),
            ("padding", |p| p.padding = vec![0; 70], "", &[]),
            ("trailing", |p| p.padding = vec![0, 1], "", &["quote"]),
            ("no root in the quote", |p| p.root_in_quote = false, "", &[]),
            ("no NUL", |p| p.nul = false, "", &[]),
            (
                "signed by another key",
                |p| p.signs_qe_report = &KEYS.stranger,
                "",
                &["endorsements"],
            ),
        ],
    );
}

#[test]
fn td_attributes_bit_by_bit() {
    for bit in 0..64u32 {
        let (name, endorsed) = match bit {
            0 => ("debug", false),
            1..=6 => ("TD under debug", false),
            7 => ("TD under debug", false),
            28 => continue,
            29 => ("migratable", false),
            30 => ("PKS", true),
            31 => ("KL", true),
            63 => ("PERFMON", true),
            // Known to Intel's verification, but to no check of ours.
            16 | 18..=22 | 27 | 62 => ("TD attributes", true),
            _ => ("TD attributes", false),
        };
        let mut platform = Platform::default();
        let attributes = 0x1000_0000u64 | 1 << bit;
        platform.body[TD_ATTRIBUTES..][..8].copy_from_slice(&attributes.to_le_bytes());
        let appraisal = platform.appraise(&policy(""), now());
        let also: &[&str] = if endorsed { &[] } else { &["endorsements"] };
        let expected = [&[name], also].concat();
        assert_eq!(failed(&appraisal), expected, "bit {bit}");
    }
    let mut platform = Platform::default();
    platform.body[TD_ATTRIBUTES..][..8].fill(0);
    let appraisal = platform.appraise(&policy(""), now());
    assert_eq!(failed(&appraisal), ["SEPT_VE_DISABLE", "endorsements"]);
}

#[test]
fn xfam_bit_by_bit() {
    for bit in 0..64u32 {
        let xfam = |value: u64| {
            let mut platform = Platform::default();
            platform.body[XFAM..][..8].copy_from_slice(&value.to_le_bytes());
            let appraisal = platform.appraise(&policy(""), now());
            failed(&appraisal)
        };
        let possible = 0x6_dbe7u64 & (1 << bit) != 0;
        let expected: &[&str] = if possible { &[] } else { &["XFAM"] };
        assert_eq!(xfam(0b11 | 1 << bit), expected, "bit {bit}");
        let always = bit < 2;
        let expected: &[&str] = if always { &["XFAM"] } else { &[] };
        assert_eq!(xfam(0x6_dbe7 & !(1 << bit)), expected, "without bit {bit}");
    }
}

#[test]
fn flaws_of_the_td() {
    const PKS: fn(&mut Platform) = |p| p.body[TD_ATTRIBUTES + 3] |= 0x40;
    const KL: fn(&mut Platform) = |p| p.body[TD_ATTRIBUTES + 3] |= 0x80;
    const NONE: fn(&mut Platform) = |_| {};
    const B2: &str = "rtmr2 = [\"b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2\"]";
    assert_cases(
        Platform::default,
        &[
            ("PKS allowed", PKS, "allow_pks = true", &[]),
            ("PKS, KL allowed", PKS, "allow_kl = true", &["PKS"]),
            ("KL allowed", KL, "allow_kl = true", &[]),
            ("KL, PKS allowed", KL, "allow_pks = true", &["KL"]),
            ("narrow XFAM", NONE, "allowed_xfam = 0x602e7", &[]),
            ("narrower XFAM", NONE, "allowed_xfam = 0x202e7", &["XFAM"]),
            ("MRSEAM", |p| p.body[MRSEAM + 47] ^= 1, "", &["MRSEAM"]),
            ("no MRSEAM", NONE, "mrseam = []", &["MRSEAM"]),
            (
                "MRSIGNERSEAM",
                |p| p.body[MRSIGNERSEAM + 47] = 1,
                "",
                &["MRSIGNERSEAM", "endorsements"],
            ),
            (
                "SEAM attributes",
                |p| p.body[SEAM_ATTRIBUTES + 7] = 1,
                "",
                &["SEAM attributes", "endorsements"],
            ),
            ("MRTD", |p| p.body[MRTD] ^= 1, "", &["MRTD"]),
            ("no MRTD", NONE, "mrtd = []", &["MRTD"]),
            ("any RTMR", |p| p.body[RTMR0..][..192].fill(9), "", &[]),
            ("RTMR0", NONE, "rtmr0 = []", &["RTMR0"]),
            ("RTMR1", NONE, "rtmr1 = []", &["RTMR1"]),
            ("RTMR2", NONE, "rtmr2 = []", &["RTMR2"]),
            ("RTMR3", NONE, "rtmr3 = []", &["RTMR3"]),
            ("listed RTMR2", NONE, B2, &[]),
            (
                "RTMR2 not as listed",
                |p| p.body[RTMR0 + 96] ^= 1,
                B2,
                &["RTMR2"],
            ),
            (
                "MRCONFIGID",
                |p| p.body[MRCONFIGID] = 1,
                "",
                &["MRCONFIGID"],
            ),
            ("MROWNER", |p| p.body[MROWNER + 47] = 1, "", &["MROWNER"]),
            (
                "MROWNERCONFIG",
                |p| p.body[MROWNERCONFIG] = 1,
                "",
                &["MROWNERCONFIG"],
            ),
            (
                "zero, none listed",
                NONE,
                "mrconfigid = []",
                &["MRCONFIGID"],
            ),
            ("zero, no owner listed", NONE, "mrowner = []", &["MROWNER"]),
            (
                "zero, no owner's listed",
                NONE,
                "mrownerconfig = []",
                &["MROWNERCONFIG"],
            ),
            (
                "SVN met",
                NONE,
                "minimum_tee_tcb_svn = \"06010300000000000000000000000000\"",
                &[],
            ),
            (
                "SVN byte 0",
                NONE,
                "minimum_tee_tcb_svn = \"07010300000000000000000000000000\"",
                &["TEE TCB SVN"],
            ),
            (
                "SVN byte 15",
                NONE,
                "minimum_tee_tcb_svn = \"00000000000000000000000000000001\"",
                &["TEE TCB SVN"],
            ),
        ],
    );
    for (key, at, check) in [
        ("mrconfigid", MRCONFIGID, "MRCONFIGID"),
        ("mrowner", MROWNER, "MROWNER"),
        ("mrownerconfig", MROWNERCONFIG, "MROWNERCONFIG"),
    ] {
        let mut platform = Platform::default();
        platform.body[at..][..48].fill(0x11);
        let listed = |byte: &str| format!("{key} = [\"{}\"]", byte.repeat(48));
        let judge = |changes: &str| failed(&platform.appraise(&policy(changes), now()));
        assert_eq!(judge(&listed("11")), [""; 0], "{key}");
        assert_eq!(judge(&listed("12")), [check]);
    }
}

#[test]
fn flaws_of_version_5() {
    const NONE: fn(&mut Platform) = |_| {};
    assert_cases(
        Platform::version_5,
        &[
            (
                "report 1.0",
                |p| {
                    p.descriptor = vec![2, 0, 0x48, 2, 0, 0];
                    p.body.truncate(584);
                },
                "",
                &[],
            ),
            ("body type 1", |p| p.descriptor[0] = 1, "", &["quote"]),
            ("body type 4", |p| p.descriptor[0] = 4, "", &["quote"]),
            ("body size", |p| p.descriptor[2] = 0x87, "", &["quote"]),
            (
                "MRSERVICETD",
                |p| p.body[MRSERVICETD + 47] = 1,
                "",
                &["MRSERVICETD", "endorsements"],
            ),
            (
                "SVN2 met",
                NONE,
                "minimum_tee_tcb_svn = \"06010300000000000000000000000000\"",
                &[],
            ),
            (
                "SVN2",
                |p| p.body[TEE_TCB_SVN2] = 5,
                "minimum_tee_tcb_svn = \"06010300000000000000000000000000\"",
                &["current TEE TCB SVN"],
            ),
            (
                "SVN at launch",
                |p| p.body[TEE_TCB_SVN] = 5,
                "minimum_tee_tcb_svn = \"06010300000000000000000000000000\"",
                &["TEE TCB SVN"],
            ),
            (
                "an old module runs now",
                |p| p.body[TEE_TCB_SVN2] = 3,
                "",
                &["current TCB status"],
            ),
            (
                "launched by an old module",
                |p| p.body[TEE_TCB_SVN] = 3,
                "",
                &["TCB status"],
            ),
            (
                "an advisory for what runs now",
                |p| {
                    p.body[TEE_TCB_SVN] = 6;
                    p.body[TEE_TCB_SVN2] = 5;
                    let levels = &mut p.tcb_info["tdxModuleIdentities"][0]["tcbLevels"];
                    levels[0]["tcb"]["isvsvn"] = json!(6);
                    levels[1]["tcb"]["isvsvn"] = json!(5);
                    levels[1]["tcbStatus"] = json!("UpToDate");
                    levels[1]["advisoryIDs"] = json!(["INTEL-SA-00001"]);
                },
                "",
                &["TCB advisories"],
            ),
        ],
    );
}

#[test]
fn flaws_of_the_certificates() {
    let past = |p: &mut Platform| p.pck_window = (now() - 9 * DAY, now() - DAY);
    let cases: &[Case] = &[
        (
            "PCK ended",
            past,
            "",
            &["certificate validity", "endorsements"],
        ),
        (
            "PCK not begun",
            |p| p.pck_window = (now() + DAY, now() + 9 * DAY),
            "",
            &["certificate validity", "endorsements"],
        ),
        (
            "authority ended",
            |p| p.authority_window = (now() - 9 * DAY, now() - DAY),
            "",
            &["certificate validity", "endorsements"],
        ),
        (
            "TCB signer ended",
            |p| p.tcb_window = (now() - 9 * DAY, now() - DAY),
            "",
            &["endorsements"],
        ),
        (
            "PCK by a stranger",
            |p| p.signs_pck = &KEYS.stranger,
            "",
            &["endorsements"],
        ),
        (
            "authority by a stranger",
            |p| p.signs_authority = &KEYS.stranger,
            "",
            &["root"],
        ),
        (
            "PCK revoked",
            |p| p.revoked_by_authority = vec![PCK_SERIAL],
            "",
            &["endorsements"],
        ),
        (
            "another PCK revoked",
            |p| p.revoked_by_authority = vec![PCK_SERIAL + 1],
            "",
            &[],
        ),
        (
            "authority revoked",
            |p| p.revoked_by_root = vec![CA_SERIAL],
            "",
            &["endorsements"],
        ),
        (
            "TCB signer revoked",
            |p| p.revoked_by_root = vec![TCB_SERIAL],
            "",
            &["endorsements"],
        ),
        (
            "root revoked",
            |p| p.revoked_by_root = vec![1],
            "",
            &["endorsements"],
        ),
        (
            "root's list by a stranger",
            |p| p.signs_root_crl = &KEYS.stranger,
            "",
            &["endorsements"],
        ),
        (
            "PCK list by a stranger",
            |p| p.signs_pck_crl = &KEYS.stranger,
            "",
            &["endorsements"],
        ),
    ];
    assert_cases(Platform::default, cases);
    let platform = Platform {
        revoked_by_authority: vec![PCK_SERIAL],
        ..Platform::default()
    };
    let (_, seen) = refusal(&platform.appraise(&policy(""), now()));
    assert!(seen.contains("CertRevoked"), "{seen}");
}

/// The root itself must be valid too, which no path builder looks at.
#[test]
fn an_expired_root_is_refused() {
    let platform = Platform::default();
    let end = now() + 400 * DAY;
    let pieces = [platform.collateral().to_string().into_bytes()];
    let appraisal = appraise(
        &platform.quote(),
        &pieces,
        Some(&policy("")),
        None,
        end + DAY,
    );
    assert_eq!(
        failed(&appraisal),
        ["certificate validity", "collateral", "report data"]
    );
}

#[test]
fn the_pem_in_a_quote_is_read_strictly() {
    let platform = Platform::default();
    let pieces = [platform.collateral().to_string().into_bytes()];
    let [leaf, authority, root] = platform.certificates();
    let [leaf, authority, root] = [leaf, authority, root].map(|der| to_pem(&der));
    let cases = [
        (
            "as it is",
            [&leaf, &authority, &root].map(String::as_str).concat(),
            None,
        ),
        ("without the root", leaf.clone() + &authority, None),
        ("one", leaf.clone(), Some("1 certificates")),
        ("none", String::new(), Some("0 certificates")),
        (
            "four",
            [&leaf, &authority, &root, &root]
                .map(String::as_str)
                .concat(),
            Some("4 certificates"),
        ),
        (
            "another label",
            leaf.clone() + &authority.replace(" CERTIFICATE", " EC PARAMETERS"),
            Some("something between"),
        ),
        (
            "a line before",
            format!("\n{leaf}{authority}"),
            Some("something between"),
        ),
        (
            "a line between",
            format!("{leaf}\n{authority}"),
            Some("something between"),
        ),
        (
            "two NULs",
            format!("{leaf}{authority}\0"),
            Some("something between"),
        ),
        (
            "no base64",
            leaf.clone() + &authority.replace('M', "!"),
            Some("no PEM"),
        ),
        (
            "no end",
            leaf.clone() + authority.trim_end_matches("-----\n"),
            Some("no PEM"),
        ),
        (
            "the authority twice",
            format!("{authority}{authority}"),
            Some("Intel extension not found"),
        ),
        (
            "no certificate",
            leaf.clone() + &to_pem(b"no certificate"),
            Some("not one DER certificate"),
        ),
    ];
    for (name, pem, expected) in cases {
        let quote = platform.quote_with_chain(&[pem.as_bytes(), &[0]].concat());
        let appraisal = appraise(&quote, &pieces, Some(&policy("")), None, now());
        let certificates = appraisal.checks().iter();
        let check = certificates
            .clone()
            .find(|it| it.name == "certificates")
            .unwrap();
        assert_eq!(check.passed(), expected.is_none(), "{name}: {}", check.seen);
        assert!(
            check.seen.contains(expected.unwrap_or("")),
            "{name}: {}",
            check.seen
        );
    }
    let quote = platform.quote_with_chain(&[0xff, 0xfe]);
    let appraisal = appraise(&quote, &pieces, Some(&policy("")), None, now());
    assert_eq!(appraisal.refusal().unwrap().seen, "no text");
}

#[test]
fn flaws_of_the_tcb() {
    const NONE: fn(&mut Platform) = |_| {};
    const HARDENING: fn(&mut Platform) = |p| {
        p.tcb_info["tcbLevels"][0]["tcbStatus"] = json!("SWHardeningNeeded");
        p.tcb_info["tcbLevels"][0]["advisoryIDs"] = json!(["INTEL-SA-00001", "INTEL-SA-00002"]);
    };
    const ACCEPT_HARDENING: &str = "accepted_tcb_statuses = [\"SWHardeningNeeded\"]\n\
        accepted_advisories = [\"INTEL-SA-00001\", \"INTEL-SA-00002\"]";
    const CONFIGURATION: fn(&mut Platform) =
        |p| p.tcb_info["tcbLevels"][0]["tcbStatus"] = json!("ConfigurationNeeded");
    const QE_CONFIGURATION: fn(&mut Platform) =
        |p| p.qe_identity["tcbLevels"][0]["tcbStatus"] = json!("ConfigurationNeeded");
    const ALL: &str = "accepted_tcb_statuses = [\"UpToDate\", \"SWHardeningNeeded\", \
        \"ConfigurationNeeded\", \"ConfigurationAndSWHardeningNeeded\"]\n\
        accepted_advisories = [\"INTEL-SA-00001\"]";
    assert_cases(
        Platform::default,
        &[
            (
                "hardening",
                HARDENING,
                "",
                &["TCB status", "TCB advisories"],
            ),
            (
                "hardening accepted, QE up to date is not",
                HARDENING,
                ACCEPT_HARDENING,
                &["QE TCB status"],
            ),
            ("one advisory missing", HARDENING, ALL, &["TCB advisories"]),
            (
                "another status listed",
                HARDENING,
                "accepted_tcb_statuses = [\"UpToDate\", \"ConfigurationNeeded\"]\n\
                 accepted_advisories = [\"INTEL-SA-00001\", \"INTEL-SA-00002\"]",
                &["TCB status"],
            ),
            (
                "an advisory of a platform that is up to date",
                |p| p.tcb_info["tcbLevels"][0]["advisoryIDs"] = json!(["INTEL-SA-00001"]),
                "",
                &["TCB advisories"],
            ),
            (
                "an advisory of the QE",
                |p| p.qe_identity["tcbLevels"][0]["advisoryIDs"] = json!(["INTEL-SA-00001"]),
                "",
                &["TCB advisories"],
            ),
            ("configuration", CONFIGURATION, "", &["TCB status"]),
            ("configuration accepted", CONFIGURATION, ALL, &[]),
            (
                "QE's configuration",
                QE_CONFIGURATION,
                "",
                &["QE TCB status"],
            ),
            ("QE's configuration accepted", QE_CONFIGURATION, ALL, &[]),
            (
                "both",
                |p| {
                    p.tcb_info["tcbLevels"][0]["tcbStatus"] =
                        json!("ConfigurationAndSWHardeningNeeded")
                },
                "",
                &["TCB status"],
            ),
            (
                "both accepted",
                |p| {
                    p.tcb_info["tcbLevels"][0]["tcbStatus"] =
                        json!("ConfigurationAndSWHardeningNeeded")
                },
                ALL,
                &[],
            ),
            (
                "an old PCE",
                |p| p.tcb_info["tcbLevels"][0]["tcb"]["pcesvn"] = json!(12),
                ALL,
                &["TCB status"],
            ),
            (
                "old and to be configured",
                |p| p.tcb_info["tcbLevels"][0]["tcbStatus"] = json!("OutOfDateConfigurationNeeded"),
                ALL,
                &["TCB status"],
            ),
            (
                "an old QE",
                |p| p.qe_identity["tcbLevels"][0]["tcbStatus"] = json!("OutOfDate"),
                ALL,
                &["TCB status", "QE TCB status"],
            ),
            (
                "an old module",
                |p| p.body[TEE_TCB_SVN] = 3,
                ALL,
                &["TCB status"],
            ),
            (
                "revoked",
                |p| p.tcb_info["tcbLevels"][0]["tcbStatus"] = json!("Revoked"),
                ALL,
                &["endorsements"],
            ),
            (
                "QE revoked",
                |p| p.qe_identity["tcbLevels"][0]["tcbStatus"] = json!("Revoked"),
                ALL,
                &["endorsements"],
            ),
            (
                "no level met",
                |p| p.tcb_info["tcbLevels"] = json!([]),
                "",
                &["endorsements"],
            ),
            (
                "number at the edge",
                NONE,
                "minimum_tcb_evaluation_number = 17",
                &[],
            ),
            (
                "number below",
                NONE,
                "minimum_tcb_evaluation_number = 18",
                &["TCB evaluation number"],
            ),
            (
                "QE identity's number below",
                |p| p.qe_identity["tcbEvaluationDataNumber"] = json!(16),
                "",
                &["TCB evaluation number"],
            ),
        ],
    );
    let mut platform = Platform::default();
    HARDENING(&mut platform);
    let both = ACCEPT_HARDENING.replace("[\"SW", "[\"UpToDate\", \"SW");
    assert!(platform.appraise(&policy(&both), now()).accepted());
}

#[test]
fn flaws_of_the_collateral() {
    assert_cases(
        Platform::default,
        &[
            (
                "TCB info by a stranger",
                |p| p.signs_tcb_info = &KEYS.stranger,
                "",
                &["endorsements"],
            ),
            (
                "QE identity by a stranger",
                |p| p.signs_qe_identity = &KEYS.stranger,
                "",
                &["endorsements"],
            ),
            (
                "SGX's TCB info",
                |p| p.tcb_info["id"] = json!("SGX"),
                "",
                &["collateral"],
            ),
            (
                "SGX's QE identity",
                |p| p.qe_identity["id"] = json!("QE"),
                "",
                &["endorsements"],
            ),
            (
                "another FMSPC",
                |p| p.tcb_info["fmspc"] = json!("B0C06F000001"),
                "",
                &["collateral"],
            ),
            (
                "FMSPC too short",
                |p| p.tcb_info["fmspc"] = json!("B0C06F0000"),
                "",
                &["collateral"],
            ),
            (
                "another authority's list",
                |p| p.issuer = "Test PCK Processor CA",
                "",
                &["collateral"],
            ),
            (
                "QE's signer",
                |p| p.qe_report[QE_MRSIGNER] ^= 1,
                "",
                &["endorsements"],
            ),
            (
                "QE's product",
                |p| p.qe_report[QE_ISVPRODID] = 1,
                "",
                &["endorsements"],
            ),
            (
                "QE's version",
                |p| p.qe_report[QE_ISVSVN] = 3,
                "",
                &["endorsements"],
            ),
            (
                "QE in debug mode",
                |p| p.qe_report[QE_ATTRIBUTES] |= 2,
                "",
                &["endorsements"],
            ),
            (
                "another TDX module's signer",
                |p| p.tcb_info["tdxModuleIdentities"][0]["mrsigner"] = json!("1".repeat(96)),
                "",
                &["endorsements"],
            ),
        ],
    );
}

/// Each of the four dated parts closes the window at both ends, to the second.
#[test]
fn collateral_is_used_from_its_last_begin_to_before_its_first_end() {
    let begin = now() - DAY;
    let end = now() + DAY;
    let second = std::time::Duration::from_secs(1);
    let text = attestation::time::to_rfc3339;
    let parts: [fn(&mut Platform, &str, &str); 4] = [
        |p, from, to| {
            p.tcb_info["issueDate"] = json!(from);
            p.tcb_info["nextUpdate"] = json!(to);
        },
        |p, from, to| {
            p.qe_identity["issueDate"] = json!(from);
            p.qe_identity["nextUpdate"] = json!(to);
        },
        |p, from, to| p.root_crl = (from_rfc3339(from).unwrap(), from_rfc3339(to).unwrap()),
        |p, from, to| p.pck_crl = (from_rfc3339(from).unwrap(), from_rfc3339(to).unwrap()),
    ];
    for (number, set) in parts.iter().enumerate() {
        let mut platform = Platform::default();
        set(&mut platform, &text(begin), &text(end));
        for at in [begin, end - second] {
            let appraisal = platform.appraise(&policy(""), at);
            assert_eq!(
                refusal(&appraisal),
                (vec![], String::new()),
                "part {number}"
            );
        }
        let (failed, seen) = refusal(&platform.appraise(&policy(""), begin - second));
        assert_eq!(failed, ["collateral"], "part {number}");
        assert_eq!(seen, format!("piece 1: begins {}", text(begin)));
        let (failed, seen) = refusal(&platform.appraise(&policy(""), end));
        assert_eq!(failed, ["collateral"], "part {number}");
        assert_eq!(seen, format!("piece 1: ended {}", text(end)));
    }
}

#[test]
fn what_is_no_collateral_is_passed_over() {
    let platform = Platform::default();
    let good = platform.collateral();
    let members = good
        .as_object()
        .unwrap()
        .keys()
        .filter(|it| *it != "pck_crl_issuer_chain");
    let mut cases = vec![
        ("no JSON".to_owned(), b"{".to_vec(), "invalid JSON"),
        (
            "an array".to_owned(),
            b"[]".to_vec(),
            "`document` is not an object",
        ),
    ];
    for member in members {
        let mut missing = good.clone();
        missing.as_object_mut().unwrap().shift_remove(member);
        cases.push((
            format!("no {member}"),
            missing.to_string().into_bytes(),
            "is missing",
        ));
    }
    for (member, value, expected) in [
        ("pck_crl", json!("0"), "`pck_crl` is not lower-case hex"),
        (
            "pck_crl",
            json!("00"),
            "`pck_crl` is not a DER certificate revocation list",
        ),
        ("root_ca_crl", json!(""), "`root_ca_crl` is not a DER"),
        (
            "tcb_info_signature",
            json!("AB"),
            "`tcb_info_signature` is not lower-case hex",
        ),
        ("tcb_info", json!({}), "`tcb_info` is not a string"),
        ("tcb_info", json!("{}"), "member `issueDate` is missing"),
        (
            "qe_identity",
            json!("{\"issueDate\":\"yesterday\"}"),
            "`issueDate` is not a time in UTC",
        ),
    ] {
        let mut changed = good.clone();
        changed[member] = value;
        cases.push((
            member.to_owned(),
            changed.to_string().into_bytes(),
            expected,
        ));
    }
    let text = good.to_string().into_bytes();
    let mut full = text.clone();
    full.resize(256 * 1024, b' ');
    let mut long = full.clone();
    long.push(b' ');
    cases.push((
        "too long".to_owned(),
        long,
        "262145 bytes exceed the limit of 262144",
    ));
    let quote = platform.quote();
    let policy = policy("");
    let judge = |pieces: &[Vec<u8>]| {
        appraise(
            &quote,
            pieces,
            Some(&policy),
            Some(crate::REPORT_DATA),
            now(),
        )
    };
    for (name, piece, expected) in cases {
        let (failed, seen) = refusal(&judge(std::slice::from_ref(&piece)));
        assert_eq!(failed, ["collateral"], "{name}");
        assert!(seen.contains(expected), "{name}: {seen}");
        assert!(judge(&[piece, text.clone()]).accepted(), "{name}");
    }
    assert!(judge(&[full]).accepted());
}

/// A PCK chain in collateral is not looked at: it comes from the quote.
#[test]
fn collateral_brings_no_certificates_for_the_platform() {
    let mut platform = Platform::default();
    let mut collateral = platform.collateral();
    let [leaf, authority, _] = platform.certificates();
    collateral["pck_certificate_chain"] = json!(to_pem(&leaf) + &to_pem(&authority));
    platform.signs_pck = &KEYS.stranger;
    let pieces = [collateral.to_string().into_bytes()];
    let appraisal = appraise(
        &platform.quote(),
        &pieces,
        Some(&policy("")),
        Some(crate::REPORT_DATA),
        now(),
    );
    assert_eq!(failed(&appraisal), ["endorsements"]);
}
