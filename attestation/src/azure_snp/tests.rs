//! The parsers against one flaw each; whole captures are in `tests/azure_snp.rs`.

#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails its test")]

use proptest::prelude::*;

use super::*;

const CAPTURE: &[u8] = include_bytes!("../../tests/data/azure/evidence-v1.json");
const HCL: &[u8] = include_bytes!("../../tests/data/azure/hcl-report.bin");
const QUOTE: &[u8] = include_bytes!("../../tests/data/azure/tpm-quote.msg");

#[test]
fn a_quote_is_read_field_by_field() {
    let quote = Quote::parse(QUOTE).unwrap();
    assert_eq!(quote.extra_data, b"challenge");
    assert_eq!(*quote.pcr_digest, QUOTE[90..]);
    // The selection is ff 40 00.
    assert!(quote.selected().eq([0, 1, 2, 3, 4, 5, 6, 7, 14]));
    let mut last = QUOTE.to_vec();
    last[87] = 0x81;
    let quote = Quote::parse(&last).unwrap();
    assert!(quote.selected().eq([0, 1, 2, 3, 4, 5, 6, 7, 14, 16, 23]));
}

#[test]
fn one_flaw_in_a_quote_refuses_it() {
    use QuoteError::{Field, NoRegister, Trailing, Truncated};
    type Case = (&'static str, fn(&mut Vec<u8>), QuoteError);
    let cases: [Case; 19] = [
        ("magic", |q| q[0] = 0, Field("magic")),
        ("magic's end", |q| q[3] ^= 1, Field("magic")),
        ("certify", |q| q[5] = 0x17, Field("type")),
        ("type", |q| q[4] = 0, Field("type")),
        ("long name", |q| q[7] = 67, Field("signer's name")),
        ("very long name", |q| q[6] = 1, Field("signer's name")),
        ("long extra data", |q| q[43] = 65, Field("extra data")),
        ("safe 2", |q| q[69] = 2, Field("clock's safety")),
        ("no bank", |q| q[81] = 0, Field("number of banks")),
        ("two banks", |q| q[81] = 2, Field("number of banks")),
        ("SHA-1", |q| q[83] = 4, Field("bank")),
        ("bank", |q| q[82] = 1, Field("bank")),
        (
            "2 bytes of selection",
            |q| q[84] = 2,
            Field("selection's length"),
        ),
        ("31 bytes of digest", |q| q[89] = 31, Field("digest")),
        ("33 bytes of digest", |q| q[89] = 33, Field("digest")),
        ("no register", |q| q[85..88].fill(0), NoRegister),
        ("a byte less", |q| q.truncate(121), Truncated),
        ("a byte more", |q| q.push(0), Trailing(1)),
        ("nothing", Vec::clear, Truncated),
    ];
    for (name, flaw, expected) in cases {
        let mut quote = QUOTE.to_vec();
        flaw(&mut quote);
        assert_eq!(Quote::parse(&quote), Err(expected), "{name}");
    }
    for len in 0..QUOTE.len() {
        assert_eq!(Quote::parse(&QUOTE[..len]), Err(Truncated), "{len}");
    }
    // The longest name and extra data, and either clock.
    let longest = [
        &QUOTE[..6],
        &[0, 66],
        &[7; 66],
        &[0, 64],
        &[8; 64],
        &QUOTE[53..],
    ]
    .concat();
    assert_eq!(Quote::parse(&longest).unwrap().extra_data, [8; 64]);
    let mut safe = QUOTE.to_vec();
    for value in [0, 1] {
        safe[69] = value;
        assert!(Quote::parse(&safe).is_ok());
    }
}

#[test]
fn one_flaw_in_a_paravisors_report_refuses_it() {
    let report = HclReport::parse(HCL).unwrap();
    assert_eq!(report.report, &HCL[32..1216]);
    assert_eq!(report.runtime_data, &HCL[1236..2346]);
    let number = |at: usize, value: u32| {
        let mut bytes = HCL.to_vec();
        bytes[at..][..4].copy_from_slice(&value.to_le_bytes());
        HclReport::parse(&bytes)
            .err()
            .map(|error| error.to_string())
    };
    let cases = [
        (0, 0, "magic is another"),
        (4, 2, "version is another"),
        (8, 2345, "size is another"),
        (8, 2347, "size is another"),
        (12, 1, "request type is another"),
        (16, 1, "status is another"),
        (20, 1, "reserved part is another"),
        (28, 1 << 31, "reserved part is another"),
        (1216, 1129, "runtime size is another"),
        (1216, 1131, "runtime size is another"),
        (1220, 2, "runtime version is another"),
        (1224, 4, "report type is another"),
        (1228, 2, "hash is another"),
        (1232, 1109, "runtime size is another"),
        (1232, u32::MAX, "runtime size is another"),
        (2346, 1, "bytes set after the runtime data"),
        (2596, 1 << 31, "bytes set after the runtime data"),
    ];
    for (at, value, expected) in cases {
        assert_eq!(number(at, value).as_deref(), Some(expected), "{at}");
    }
    let of = |len: usize| {
        let mut bytes = HCL.to_vec();
        bytes.resize(len, 0);
        HclReport::parse(&bytes)
            .err()
            .map(|error| error.to_string())
    };
    for len in [0, 3, 31, 1215, 1235, 2345] {
        assert_eq!(of(len).as_deref(), Some("ends early"), "{len}");
    }
    assert_eq!(of(2346), None);
    assert_eq!(of(16 * 1024), None);
    assert_eq!(of(16 * 1024 + 1).as_deref(), Some("16385 bytes"));
}

#[test]
fn one_flaw_in_the_runtime_data_refuses_its_key() {
    let runtime_data = HclReport::parse(HCL).unwrap().runtime_data;
    let text = str::from_utf8(runtime_data).unwrap();
    let n = attestation_n(text);
    let key = hcl::attestation_key(runtime_data).unwrap();
    assert_eq!(key[..4], [0xa9, 0x1e, 0xcb, 0xa8]);
    // 7f in place of the first byte, a9; the same key in 255 and 257 bytes.
    let small = n.replacen("qR", "fx", 1);
    let (short, long) = (n[..340].to_owned(), format!("{n}AA"));
    let cases = [
        ("HCLAkPub\"", "HCLAkPob\"", "0 keys of that name"),
        ("HCLEkPub\"", "HCLAkPub\"", "2 keys of that name"),
        (
            "\"kty\":\"RSA\"",
            "\"kty\":\"EC\"",
            "`kty` of the key is another",
        ),
        (
            "[\"sign\"]",
            "[\"encrypt\"]",
            "`key_ops` of the key is another",
        ),
        (
            "[\"sign\"]",
            "[\"sign\",\"x\"]",
            "`key_ops` of the key is another",
        ),
        ("[\"sign\"]", "[]", "`key_ops` of the key is another"),
        ("[\"sign\"]", "[1]", "`key_ops` of the key is another"),
        ("AQAB", "AwAA", "`e` of the key is another"),
        (n, &small, "`n` of the key is another"),
        (n, &short, "`n` of the key is another"),
        (n, &long, "`n` of the key is another"),
        (n, "qR 7", "`n` of the key is another"),
        ("\"n\":", "\"m\":", "member `n` is missing"),
        ("\"keys\"", "\"kees\"", "member `keys` is missing"),
        ("\"e\":", "\"kid\":\"HCLAkPub\",\"e\":", "duplicate member"),
        ("{\"keys\"", "[{\"keys\"", "invalid JSON"),
    ];
    for (from, to, expected) in cases {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let error = hcl::attestation_key(changed.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
}

/// The attestation key comes first in the recorded runtime data.
fn attestation_n(runtime_data: &str) -> &str {
    let (_, n) = runtime_data.split_once("\"n\":\"").unwrap();
    n.split_once('"').unwrap().0
}

#[test]
fn one_flaw_in_a_capture_refuses_it() {
    let text = str::from_utf8(CAPTURE).unwrap();
    assert!(Capture::parse(CAPTURE).is_ok());
    let value = |name: &str| {
        let (_, value) = text.split_once(&format!("\"{name}\"")).unwrap();
        value.split('"').nth(1).unwrap()
    };
    let (signature, message, hcl) = (value("signature"), value("message"), value("hcl_report"));
    let changed = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{to}");
        Capture::parse(changed.as_bytes())
            .err()
            .map(|error| error.to_string())
    };
    let encoding = |member: &str, form: &str| Some(format!("`{member}` is not {form}"));
    let hex = "lower-case hex of its length";
    let cases = [
        (signature, &signature[2..], encoding("signature", hex)),
        (
            signature,
            &signature.to_uppercase(),
            encoding("signature", hex),
        ),
        (
            message,
            &message[1..],
            encoding("message", "lower-case hex"),
        ),
        (
            message,
            &message.to_uppercase(),
            encoding("message", "lower-case hex"),
        ),
        (
            hcl,
            &hcl[1..],
            encoding("hcl_report", "base64url with padding"),
        ),
        (
            hcl,
            hcl.trim_end_matches('='),
            encoding("hcl_report", "base64url with padding"),
        ),
        (
            "\"vcek\": \"",
            "\"vcek\": \"+",
            encoding("vcek", "base64url with padding"),
        ),
        (
            "\"version\": 1",
            "\"version\": 2",
            Some("version 2".to_owned()),
        ),
        (
            "\"version\": 1",
            "\"version\": 1, \"more\": 1",
            Some("an unknown member".to_owned()),
        ),
        (
            "\"signature\"",
            "\"more\": 1, \"signature\"",
            Some("an unknown member".to_owned()),
        ),
        (
            "\"tpm_quote\"",
            "\"quote\"",
            Some("member `tpm_quote` is missing".to_owned()),
        ),
        ("\"vcek\"", "\"cert\"", Some("an unknown member".to_owned())),
    ];
    for (from, to, expected) in cases {
        assert_eq!(changed(from, to), expected, "{to:.40}");
    }

    let mut value: serde_json::Value = serde_json::from_slice(CAPTURE).unwrap();
    let mut with_pcrs = |pcrs: serde_json::Value| {
        value["tpm_quote"]["pcrs"] = pcrs;
        let error = Capture::parse(&serde_json::to_vec(&value).unwrap()).err();
        error.map(|error| error.to_string())
    };
    let zeros = "0".repeat(64);
    assert_eq!(with_pcrs(vec![zeros.as_str(); 24].into()), None);
    let many = with_pcrs(vec![zeros.as_str(); 25].into());
    assert_eq!(many.as_deref(), Some("25 registers"));
    assert_eq!(with_pcrs(vec![&zeros[2..]].into()), encoding("pcrs", hex));

    let mut padded = CAPTURE.to_vec();
    padded.resize(MAX_CAPTURE, b' ');
    assert!(Capture::parse(&padded).is_ok());
    padded.push(b' ');
    let error = Capture::parse(&padded).err().unwrap().to_string();
    assert_eq!(error, "65537 bytes");
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        drop(Capture::parse(&bytes));
        drop(HclReport::parse(&bytes));
        drop(Quote::parse(&bytes));
        drop(hcl::attestation_key(&bytes));
    }

    #[test]
    fn never_panics_on_almost_reports(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = HCL.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(report) = HclReport::parse(&bytes) {
            drop(hcl::attestation_key(report.runtime_data));
        }
    }
}
