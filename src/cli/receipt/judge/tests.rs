//! Texts as they are read, and when evidence is fresh.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::receipts::PolicyFolder;

#[test]
fn a_stream_is_the_same_as_it_was_sealed_and_as_it_was_got() {
    let content = "data: {\"a\":\": waiting\"}\n\ndata: [DONE]\n\n";
    let salts = Salts::generate().unwrap();
    let commitment = salts.response.commit(content.as_bytes());
    let cases = [
        (content.to_owned(), Some("as they are")),
        (
            format!(":   \n{content}"),
            Some("without its comments, which are not proved"),
        ),
        (
            format!(
                ": waiting\n\n{}",
                content.replacen("}\n\n", "}\n\n: waiting\n\n", 1)
            ),
            Some("without the gateway's signs of life"),
        ),
        (content.replace(": waiting", ": waitinG"), None),
        (content.replace("data: [DONE]\n\n", ""), None),
        (format!("{content}\n"), None),
    ];
    for (text, expected) in cases {
        let proved = proves(
            &commitment,
            &salts.response,
            text.as_bytes(),
            READINGS_OF_RESPONSE,
        );
        assert_eq!(proved, expected, "{text}");
        let of_request = proves(
            &commitment,
            &salts.response,
            text.as_bytes(),
            READINGS_OF_REQUEST,
        );
        assert_eq!(of_request.is_some(), text == content, "{text}");
    }
}

/// A document of a Nitro enclave says itself when it was made, and is fresh as of the question alone.
#[test]
fn evidence_is_as_fresh_as_when_it_was_asked_for_however_late_it_was_judged() {
    const MADE: u64 = 1_736_179_625;
    let report = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/attestation/tests/data/nitro/eu-central-1.cose"
    ));
    let answer = serde_json::json!({
        "statement": "e30=",
        "nonce": "00".repeat(32),
        "evidence": [{
            "type": "nitro",
            "report": STANDARD.encode(report.unwrap()),
            "certificates": [],
        }],
    });
    let text = "version = 1\n[nitro]\naws_root = true\npcr0 = [\"00\"]\npcr1 = [\"00\"]\n\
                pcr2 = [\"00\"]\nmaximum_age_s = 60\n";
    let text = text.replace("\"00\"", &format!("\"{}\"", "00".repeat(48)));
    let time = |seconds: u64| to_rfc3339(from_unix_seconds(seconds).unwrap());
    let timestamp = |asked: u64, judged: u64, at: Option<u64>| {
        let file = ReceiptFile {
            request_id: String::new(),
            receipt: String::new(),
            salts: None,
            node: String::new(),
            evidence: serde_json::to_vec(&answer).unwrap(),
            evidence_sha256: String::new(),
            nonce: "00".repeat(32),
            asked_at: time(asked),
            appraised_at: time(judged),
            policy: PolicyFolder {
                text: String::new(),
                files: Vec::new(),
            },
            policy_sha256: String::new(),
            bundle: None,
            bundle_sha256: None,
        };
        let inputs = Inputs {
            policy: Policy::from_toml(&text, &mut |_| unreachable!("no files")).unwrap(),
            is_given: true,
            at: at.map(|at| from_unix_seconds(at).unwrap()),
            request: None,
            response: None,
        };
        let judged = judge(&file, &inputs);
        let outcome = |name: &str| {
            let mut lines = judged.lines.iter();
            let line = lines.find(|line| line.name == name);
            line.map(|line| line.outcome == Outcome::Passed)
        };
        let at = judged.appraisal.as_ref().map(Appraisal::appraised_at);
        (
            outcome("evidence: timestamp"),
            outcome("time of asking"),
            at.map(unix_seconds),
        )
    };
    let (hour, day) = (3600, 86_400);
    let cases = [
        ("at once", timestamp(MADE + 1, MADE + 1, None), (true, true)),
        (
            "after a reload",
            timestamp(MADE + 1, MADE + hour, None),
            (true, true),
        ),
        (
            "stale",
            timestamp(MADE + hour, MADE + hour, None),
            (false, true),
        ),
        (
            "judged before it was asked for",
            timestamp(MADE + hour, MADE + 1, None),
            (false, false),
        ),
        (
            "at a time of the auditor's",
            timestamp(MADE + 1, MADE + 1, Some(MADE + day)),
            (true, true),
        ),
    ];
    for (name, (fresh, asked, _), expected) in cases {
        let expected = (Some(expected.0), Some(expected.1));
        assert_eq!((fresh, asked), expected, "{name}");
    }
    let judged = |at| timestamp(MADE, MADE + 5, at).2;
    assert_eq!(judged(None), Some(MADE + 5));
    assert_eq!(judged(Some(MADE + 9)), Some(MADE + 9));
}
