use serde_json::Value;

use super::*;

fn vector() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/receipt.json")).unwrap()
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

fn bytes(vector: &Value, name: &str) -> [u8; 32] {
    hex::decode(text(vector, name)).unwrap().try_into().unwrap()
}

fn key() -> ReceiptKey {
    ReceiptKey::from_seed(&bytes(&vector(), "seed")).unwrap()
}

fn receipt() -> Receipt {
    Receipt {
        request_id: [0x11; 16],
        statement: StatementDigest::of(b"statement"),
        key_id: 7,
        path: "/v1/completions".to_owned(),
        model: "m".to_owned(),
        status: 200,
        usage: Some(r#"{"total_tokens":3}"#.to_owned()),
        iat: 1_764_115_200,
        content: None,
    }
}

/// A payload under a header, signed by the right key.
fn signed(header: &str, payload: &str) -> String {
    key().signed(header, payload.as_bytes()).unwrap()
}

fn verified(jws: &str) -> Result<Receipt, ReceiptError> {
    Receipt::verify(jws, &key().public_key().unwrap())
}

#[test]
fn what_another_implementation_signed_is_the_same_here() {
    let vector = vector();
    assert_eq!(key().public_key().unwrap(), bytes(&vector, "receiptKey"));
    let salts: Salts = text(&vector, "salts").parse().unwrap();
    assert_eq!(salts.to_string(), text(&vector, "salts"));
    let receipts = vector["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), 2);
    for one in receipts {
        let receipt = verified(text(one, "jws")).unwrap();
        let payload = payload::to_json(&receipt).unwrap();
        assert_eq!(payload, text(one, "payload").as_bytes());
        assert_eq!(key().sign(&receipt).unwrap(), text(one, "jws"));
        let Some(content) = receipt.content else {
            assert_eq!((receipt.status, receipt.usage), (400, None));
            continue;
        };
        let request = text(&vector, "request").as_bytes();
        let events = text(&vector, "content").as_bytes();
        let of_events = |salt| {
            let mut committer = Committer::of_events(salt);
            committer.update(events);
            committer.commitment()
        };
        assert_eq!(salts.request.commit(request), content.request);
        assert_eq!(of_events(&salts.response), content.response);
        assert_ne!(salts.response.commit(request), content.request);
        assert_ne!(of_events(&salts.request), content.response);
        assert_ne!(salts.response.commit(events), content.response);
    }
}

#[test]
fn no_byte_of_a_receipt_can_be_another() {
    let jws = key().sign(&receipt()).unwrap();
    assert_eq!(verified(&jws), Ok(receipt()));
    for at in 0..jws.len() {
        for flip in [1, 2, 0x10, 0x20] {
            let mut changed = jws.clone().into_bytes();
            changed[at] ^= flip;
            if let Ok(changed) = String::from_utf8(changed) {
                assert!(verified(&changed).is_err(), "{at} {flip}");
            }
        }
    }
    let other = ReceiptKey::generate().unwrap().public_key().unwrap();
    assert_eq!(Receipt::verify(&jws, &other), Err(ReceiptError::Signature));
}

#[test]
fn only_the_one_text_of_a_receipt_is_taken() {
    let good = String::from_utf8(payload::to_json(&receipt()).unwrap()).unwrap();
    let jws = signed(HEADER, &good);
    assert_eq!(verified(&jws), Ok(receipt()));
    let (head, rest) = jws.split_once('.').unwrap();
    let forms = [
        ("", ReceiptError::Parts),
        ("a.b", ReceiptError::Parts),
        (&format!("{jws}.a"), ReceiptError::Parts),
        (&format!("{head}=.{rest}"), ReceiptError::Encoding),
        (&format!("{jws}="), ReceiptError::Encoding),
        (&format!("{jws}\n"), ReceiptError::Encoding),
        (
            &"a".repeat(MAX_RECEIPT + 1),
            ReceiptError::TooLong {
                len: MAX_RECEIPT + 1,
                max: MAX_RECEIPT,
            },
        ),
        (
            &signed(r#"{"typ":"sealgate-receipt+jwt","alg":"Ed25519"}"#, &good),
            ReceiptError::Header,
        ),
        (&signed(r#"{"alg":"none"}"#, &good), ReceiptError::Header),
    ];
    for (jws, expected) in forms {
        assert_eq!(verified(jws), Err(expected), "{jws}");
    }
    let payloads = [
        ("a blank", good.replacen(':', ": ", 1)),
        ("a line feed", format!("{good}\n")),
        ("an unknown member", good.replacen('{', r#"{"jti":"a","#, 1)),
        ("a member twice", good.replacen('{', r#"{"key_id":7,"#, 1)),
        ("another order", {
            let moved = good.replace(r#","iat":1764115200"#, "");
            moved.replacen('{', r#"{"iat":1764115200,"#, 1)
        }),
        ("a member less", good.replace(r#""key_id":7,"#, "")),
        ("no usage", {
            let usage = r#""usage":{"total_tokens":3},"#;
            good.replace(usage, "")
        }),
        ("a number as text", good.replace(":7,", r#":"7","#)),
        ("a fraction", good.replace(":7,", ":7.0,")),
        ("beyond a byte", good.replace(":7,", ":256,")),
        ("an escape", good.replace("\"m\"", r#""\u006d""#)),
        ("a blank in a name", good.replace("\"m\"", "\"m m\"")),
        ("no name", good.replace("\"m\"", "\"\"")),
        (
            "upper case",
            good.replace(&"11".repeat(16), &"AA".repeat(16)),
        ),
        ("a short id", good.replace(&"11".repeat(16), "11")),
        ("a status below", good.replace(":200,", ":199,")),
        (
            "a usage of another kind",
            good.replace(r#"{"total_tokens":3}"#, "[3]"),
        ),
        ("a blank in the usage", good.replace(":3}", ": 3}")),
        (
            "one commitment",
            good.replace("00}", r#"00,"request":"AA"}"#),
        ),
        ("short commitments", {
            good.replace("00}", r#"00,"request":"AA","response":"AA"}"#)
        }),
        ("a null commitment", {
            good.replace("00}", r#"00,"request":null,"response":null}"#)
        }),
        ("no object", "[]".to_owned()),
    ];
    for (name, payload) in payloads {
        assert_ne!(payload, good, "{name}");
        let refused = verified(&signed(HEADER, &payload));
        assert!(
            matches!(
                refused,
                Err(ReceiptError::Payload | ReceiptError::Member(_))
            ),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn what_no_reader_takes_is_not_signed() {
    type Change = fn(&mut Receipt);
    let changes: [(&str, Change); 5] = [
        ("path", |it| it.path = "/a b".to_owned()),
        ("model", |it| it.model = "m".repeat(257)),
        ("model", |it| it.model = "é".to_owned()),
        ("status", |it| it.status = 102),
        ("usage", |it| it.usage = Some("{ }".to_owned())),
    ];
    for (name, change) in changes {
        let mut receipt = receipt();
        change(&mut receipt);
        assert_eq!(key().sign(&receipt), Err(ReceiptError::Member(name)));
    }
    let longest = Receipt {
        path: "/".repeat(256),
        model: "\"".repeat(256),
        content: Some(Commitments {
            request: Commitment::from([255; 32]),
            response: Commitment::from([255; 32]),
        }),
        iat: u64::MAX,
        usage: Some(format!("{{\"a\":\"{}\"}}", "1".repeat(600))),
        ..receipt()
    };
    assert_eq!(verified(&key().sign(&longest).unwrap()), Ok(longest));
}

#[test]
fn comments_of_an_event_stream_are_no_content_wherever_it_is_split() {
    let cases = [
        (
            "data: {}\n\n:   \ndata: [DONE]\n\n",
            "data: {}\n\ndata: [DONE]\n\n",
        ),
        (":\n", ""),
        ("", ""),
        ("data: a:b\n", "data: a:b\n"),
        ("data: {\"a", "data: {\"a"),
        (":a", ""),
        ("\n:usage {}\n\n", "\n\n"),
    ];
    for (content, kept) in cases {
        let salt = Salts::generate().unwrap().response;
        let expected = salt.commit(kept.as_bytes());
        for size in [1, 2, 3, 1000] {
            let mut committer = Committer::of_events(&salt);
            content
                .as_bytes()
                .chunks(size)
                .for_each(|piece| committer.update(piece));
            assert_eq!(committer.commitment(), expected, "{content:?} by {size}");
        }
        let mut all = Committer::of_bytes(&salt);
        all.update(content.as_bytes());
        assert_eq!(all.commitment(), salt.commit(content.as_bytes()));
    }
}

#[test]
fn salts_are_fresh_and_have_one_text() {
    let salts = Salts::generate().unwrap();
    assert_ne!(salts.request, salts.response);
    assert_ne!(salts, Salts::generate().unwrap());
    let text = salts.to_string();
    assert_eq!(text.parse(), Ok(salts.clone()));
    assert_eq!(text.len(), 87);
    for wrong in [
        String::new(),
        text.replace('.', ""),
        format!("{text}="),
        format!("{text}.a"),
        format!(" {text}"),
        text[1..].to_owned(),
        // The last digit has four bits that stand for nothing.
        format!("{}B", &text[..86]),
    ] {
        assert_eq!(wrong.parse::<Salts>(), Err(InvalidSalts), "{wrong}");
    }
    assert_eq!(format!("{salts:?}"), "Salts(..)");
}
