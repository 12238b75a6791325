//! Recorded quotes of real machines.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::tdx::Quote;
use attestation::time::from_rfc3339;
use attestation::{Appraisal, Policy, Root};

use crate::platform::{DAY, appraise};
use crate::{failed, refusal};

fn data(path: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tdx");
    fs::read(root.join(path)).unwrap()
}

fn at(time: &str) -> SystemTime {
    from_rfc3339(time).unwrap()
}

/// Accepts the TD of a quote on a platform of any age.
fn policy(quote: &[u8], changes: &str) -> Policy {
    let report = Quote::parse(quote).unwrap().report;
    let any = ["rtmr1", "rtmr2"].map(|key| match changes.contains(key) {
        true => String::new(),
        false => format!("{key} = \"any\"\n"),
    });
    let any = any.concat();
    let text = format!(
        "version = 1\n[tdx]\nintel_root = true\nminimum_tcb_evaluation_number = 17\n\
         mrseam = [\"{}\"]\nmrtd = [\"{}\"]\n{any}{changes}\n",
        hex::encode(report.mrseam),
        hex::encode(report.mrtd),
    );
    Policy::from_toml(&text, &mut |_| unreachable!("no files")).unwrap()
}

fn appraise_genuine(changes: &str, now: SystemTime) -> Appraisal {
    let quote = data("v4-uptodate/quote.bin");
    let policy = policy(&quote, changes);
    let data_of_quote = Quote::parse(&quote).unwrap().report.report_data;
    let pieces = [data("v4-uptodate/collateral.json")];
    appraise(&quote, &pieces, Some(&policy), Some(data_of_quote), now)
}

#[test]
fn a_genuine_quote_is_accepted_while_its_collateral_is_in_date() {
    let now = UNIX_EPOCH + Duration::from_secs(1_750_500_000);
    let begin = at("2025-06-19T10:32:27Z");
    let end = at("2025-07-19T10:00:35Z");
    let second = Duration::from_secs(1);
    for now in [now, begin, end - second] {
        let appraisal = appraise_genuine("", now);
        assert_eq!(refusal(&appraisal), (vec![], String::new()));
        assert_eq!(appraisal.root(), Some(Root::Intel));
    }
    for (now, seen) in [
        (begin - second, "piece 1: begins 2025-06-19T10:32:27Z"),
        (begin - DAY, "piece 1: begins 2025-06-19T10:32:27Z"),
        (end, "piece 1: ended 2025-07-19T10:00:35Z"),
        (end + DAY, "piece 1: ended 2025-07-19T10:00:35Z"),
    ] {
        let appraisal = appraise_genuine("", now);
        assert_eq!(refusal(&appraisal), (vec!["collateral"], seen.to_owned()));
        assert_eq!(appraisal.root(), None);
    }
}

#[test]
fn a_genuine_quote_meets_what_a_policy_pins() {
    let now = UNIX_EPOCH + Duration::from_secs(1_750_500_000);
    let rtmr3 = format!("rtmr3 = [\"{}\"]", "00".repeat(48));
    let cases = [
        (rtmr3.as_str(), vec![]),
        ("fmspcs = [\"b0c06f000000\"]", vec![]),
        ("allowed_xfam = 0x602e7", vec![]),
        ("allowed_xfam = 0x602e6", vec!["XFAM"]),
        (
            "minimum_tee_tcb_svn = \"06010300000000000000000000000000\"",
            vec![],
        ),
        (
            "minimum_tee_tcb_svn = \"07010300000000000000000000000000\"",
            vec!["TEE TCB SVN"],
        ),
        ("rtmr0 = []", vec!["RTMR0"]),
    ];
    for (changes, expected) in cases {
        assert_eq!(
            failed(&appraise_genuine(changes, now)),
            expected,
            "{changes}"
        );
    }
}

/// Not one byte of header, body, signature and attestation key can be changed.
#[test]
fn every_changed_byte_of_what_is_signed_is_refused() {
    let mut quote = data("v4-uptodate/quote.bin");
    let policy = policy(&quote, "");
    let report_data = Some(Quote::parse(&quote).unwrap().report.report_data);
    let now = UNIX_EPOCH + Duration::from_secs(1_750_500_000);
    let pieces = [data("v4-uptodate/collateral.json")];
    let signed = 48 + 584;
    for byte in 0..signed + 4 + 64 + 64 {
        quote[byte] ^= 1 << (byte % 8);
        let appraisal = appraise(&quote, &pieces, Some(&policy), report_data, now);
        let failed = failed(&appraisal);
        let seen = ["quote signature", "quote"]
            .iter()
            .any(|it| failed.contains(it));
        assert!(seen, "byte {byte}: {failed:?}");
        quote[byte] ^= 1 << (byte % 8);
    }
}

#[test]
fn an_sgx_quote_is_refused_by_its_type() {
    let quote = data("sgx/quote.bin");
    let genuine = data("v4-uptodate/quote.bin");
    let pieces = [data("sgx/collateral.json")];
    let now = UNIX_EPOCH + Duration::from_secs(1_750_500_000);
    let appraisal = appraise(&quote, &pieces, Some(&policy(&genuine, "")), None, now);
    let expected = vec!["TEE type", "quote version", "quote"];
    assert_eq!(refusal(&appraisal), (expected, "0x0 (SGX)".to_owned()));
}

#[test]
fn collateral_for_another_platform_is_not_used() {
    let quote = data("v4-uptodate/quote.bin");
    let policy = policy(&quote, "");
    let report_data = Some(Quote::parse(&quote).unwrap().report.report_data);
    let now = UNIX_EPOCH + Duration::from_secs(1_750_500_000);
    let sgx = data("sgx/collateral.json");
    let genuine = data("v4-uptodate/collateral.json");
    let appraise = |pieces: &[Vec<u8>]| appraise(&quote, pieces, Some(&policy), report_data, now);
    let (failed, seen) = refusal(&appraise(std::slice::from_ref(&sgx)));
    assert_eq!(
        (failed, seen.as_str()),
        (vec!["collateral"], "piece 1: TCB info for SGX")
    );
    let (failed, seen) = refusal(&appraise(&[]));
    assert_eq!((failed, seen.as_str()), (vec!["collateral"], "none"));
    assert!(appraise(&[sgx, b"{}".to_vec(), genuine]).accepted());
}

#[test]
fn the_recorded_td_in_debug_mode_is_refused_for_it() {
    let quote = data("trustee/tdx_quote_4.dat");
    let appraisal = appraise(
        &quote,
        &[],
        Some(&policy(&quote, "")),
        None,
        at("2025-06-01T00:00:00Z"),
    );
    assert_eq!(failed(&appraisal), ["debug", "collateral", "report data"]);
    assert_eq!(appraisal.refusal().unwrap().seen, "on");
}

/// Nobody recorded collateral for it, so all but the platform is looked at.
#[test]
fn a_recorded_quote_of_version_5_is_read_and_its_td_judged() {
    let quote = data("trustee/tdx_quote_5.dat");
    let report = Quote::parse(&quote).unwrap().report;
    let current = report.current.as_ref().unwrap();
    assert_eq!(current.tee_tcb_svn2, report.tee_tcb_svn);
    assert_eq!(hex::encode(&current.mrservicetd[..4]), "383c87d3");
    let now = at("2025-06-01T00:00:00Z");
    let policy = policy(&quote, "");
    let appraisal = appraise(&quote, &[], Some(&policy), Some(report.report_data), now);
    assert_eq!(failed(&appraisal), ["MRSERVICETD", "collateral"]);
    let checks = appraisal.checks().iter();
    let signature = checks.clone().find(|check| check.name == "quote signature");
    assert!(signature.unwrap().passed());
}

/// The recording ends with text that its collector left there.
#[test]
fn a_field_policy_judges_the_recorded_quote_of_2023() {
    let recorded = data("gcp-2023/tdx_prod_quote_SPR_E4.dat");
    let now = at("2023-07-01T00:00:00Z");
    let quote = &recorded[..recorded.len() - 39];
    let report = Quote::parse(quote).unwrap().report;
    let judge = |bytes: &[u8], changes: &str| {
        appraise(
            bytes,
            &[],
            Some(&policy(quote, changes)),
            Some(report.report_data),
            now,
        )
    };
    let (names, seen) = refusal(&judge(&recorded, ""));
    assert_eq!(
        (names, seen.as_str()),
        (
            vec!["quote"],
            "bytes after the signature data that are not zero"
        )
    );
    let expected = ["SEPT_VE_DISABLE", "collateral", "PKS"];
    assert_eq!(failed(&judge(quote, "")), expected);
    assert_eq!(failed(&judge(quote, "allow_pks = true")), expected[..2]);
    let padded = [quote, &[0; 100]].concat();
    assert_eq!(failed(&judge(&padded, "allow_pks = true")), expected[..2]);
}
