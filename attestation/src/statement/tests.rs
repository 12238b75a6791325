use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn draft() -> Draft {
    Draft {
        node_id: "node-1".to_owned(),
        keys: vec![ClaimedKey {
            key_id: 7,
            suite: Suite::X25519,
            public_key: PublicKey::X25519([9; 32]),
            not_before: 1000,
            not_after: 2000,
        }],
        receipt_key: [3; 32],
        tls_spki_sha256: Some([4; 32]),
        models: vec!["org/model:7b".to_owned()],
        engine: EngineLocation::Local,
        config_sha256: [5; 32],
        software: Software {
            name: "sealgate".to_owned(),
            version: "0.1.0".to_owned(),
            commit: String::new(),
        },
    }
}

fn text() -> String {
    String::from_utf8(draft().to_json().unwrap()).unwrap()
}

#[test]
fn reads_what_it_writes() {
    let bytes = draft().to_json().unwrap();
    let statement = Statement::parse(&bytes).unwrap();
    assert_eq!(statement.digest(), StatementDigest::of(&bytes));
    assert_eq!(statement.node_id(), "node-1");
    assert_eq!(statement.keys(), draft().keys);
    assert_eq!(statement.receipt_key(), &[3; 32]);
    assert_eq!(statement.tls_spki_sha256(), Some(&[4; 32]));
    assert_eq!(statement.models(), ["org/model:7b"]);
    assert_eq!(statement.engine(), EngineLocation::Local);
    assert_eq!(statement.config_sha256(), &[5; 32]);
    assert_eq!(statement.software(), &draft().software);
}

#[test]
fn keys_of_the_dialects_are_read_as_such() {
    let mut draft = draft();
    for (key_id, suite) in [(8, Suite::EhbpX25519), (9, Suite::SeedX25519)] {
        draft.keys.push(ClaimedKey {
            key_id,
            suite,
            ..draft.keys[0].clone()
        });
    }
    let text = String::from_utf8(draft.to_json().unwrap()).unwrap();
    assert!(text.contains(r#""key_id":8,"suite":"ehbp-x25519""#));
    assert!(text.contains(r#""key_id":9,"suite":"seed-x25519""#));
    let statement = Statement::parse(text.as_bytes()).unwrap();
    assert_eq!(statement.keys(), draft.keys);
}

/// An X-Wing key with these bytes at its ends and zeros between.
fn x_wing(first: [u8; 3], x25519: [u8; 32]) -> PublicKey {
    let mut key = [0; X_WING_KEY_LEN];
    key[..3].copy_from_slice(&first);
    key[X_WING_KEY_LEN - 32..].copy_from_slice(&x25519);
    PublicKey::XWing(Arc::new(key))
}

#[test]
fn x_wing_keys_are_read_whole_and_refused_by_either_half() {
    let with = |public_key: PublicKey| {
        let mut draft = draft();
        draft.keys[0].suite = Suite::XWing;
        draft.keys[0].public_key = public_key;
        draft
    };
    let good = with(x_wing([0x00, 0x0d, 0xd0], [9; 32]));
    let bytes = good.to_json().unwrap();
    assert_eq!(Statement::parse(&bytes).unwrap().keys(), good.keys);
    let text = String::from_utf8(bytes).unwrap();
    let key = STANDARD.encode(good.keys[0].public_key.as_bytes());
    assert_eq!(key.len(), 1624);
    assert!(text.contains(&format!(r#""suite":"x-wing","public_key":"{key}""#)));

    let length = "`public_key` is not canonical base64 of 1216 bytes";
    let cases = [
        (
            "first coefficient",
            x_wing([1, 0x0d, 0], [9; 32]),
            "key 7 has a coefficient that ML-KEM-768 does not have",
        ),
        (
            "second coefficient",
            x_wing([0, 0x10, 0xd0], [9; 32]),
            "key 7 has a coefficient that ML-KEM-768 does not have",
        ),
        (
            "low order",
            x_wing([0; 3], [0; 32]),
            "key 7 is an X25519 point of low order",
        ),
        ("X25519's length", PublicKey::X25519([9; 32]), length),
    ];
    for (name, key, expected) in cases {
        let error = with(key).to_json().unwrap_err();
        assert_eq!(error.to_string(), expected, "{name}");
    }
    for len in [1215, 1217] {
        let changed = text.replace(&key, &STANDARD.encode(vec![9; len]));
        let error = Statement::parse(changed.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), length, "{len}");
    }
    let x25519 = text.replace("x-wing", "x25519");
    let error = Statement::parse(x25519.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`public_key` is not canonical base64 of 32 bytes"
    );
}

#[test]
fn ignores_unknown_members_and_suites() {
    let other = r#""x":{"y":[1]},"keys":[{"key_id":1,"suite":"x-wing-2","public_key":"long"},"#;
    let statement = Statement::parse(text().replace("\"keys\":[", other).as_bytes()).unwrap();
    assert_eq!(statement.keys(), draft().keys);
}

#[test]
fn refuses_each_broken_rule() {
    let key = STANDARD.encode([9; 32]);
    let cases = [
        (
            "version",
            "\"version\":1",
            "\"version\":2",
            "statement version 2 is unknown",
        ),
        (
            "fraction",
            "\"version\":1",
            "\"version\":1.0",
            "`version` is not an unsigned integer",
        ),
        (
            "node id",
            "node-1",
            "Node",
            "`node_id` is not 1 to 64 of a-z, 0-9 and -",
        ),
        (
            "empty node id",
            "node-1",
            "",
            "`node_id` is not 1 to 64 of a-z, 0-9 and -",
        ),
        (
            "key id",
            "\"key_id\":7",
            "\"key_id\":256",
            "key id 256 exceeds 255",
        ),
        (
            "life",
            "\"not_after\":2000",
            "\"not_after\":1000",
            "key 7 ends before it begins",
        ),
        (
            "zero key",
            &key,
            &STANDARD.encode([0; 32]),
            "key 7 is an X25519 point of low order",
        ),
        (
            "short key",
            &key,
            &STANDARD.encode([9; 31]),
            "`public_key` is not canonical base64 of 32 bytes",
        ),
        (
            "no padding",
            &key,
            key.trim_end_matches('='),
            "`public_key` is not canonical base64 of 32 bytes",
        ),
        (
            "trailing bits",
            &key,
            &key.replace("k=", "l="),
            "`public_key` is not canonical base64 of 32 bytes",
        ),
        (
            "upper hex",
            &"04".repeat(32),
            &"AB".repeat(32),
            "`tls_spki_sha256` is not 32 bytes of lower-case hex",
        ),
        (
            "null",
            &format!("\"{}\"", "04".repeat(32)),
            "null",
            "`tls_spki_sha256` is not a string",
        ),
        (
            "model",
            "org/model:7b",
            "a b",
            "`models` is not visible ASCII",
        ),
        (
            "empty model",
            "org/model:7b",
            "",
            "`models` is not visible ASCII",
        ),
        (
            "engine",
            "\"local\"",
            "\"cloud\"",
            "`engine` is none of `local`, `remote` and `attested`",
        ),
        (
            "missing",
            "\"software\"",
            "\"hardware\"",
            "member `software` is missing",
        ),
        (
            "array for object",
            "{\"name\":\"sealgate\",\"version\":\"0.1.0\",\"commit\":\"\"}",
            "[]",
            "`software` is not an object",
        ),
    ];
    for (name, from, to, expected) in cases {
        let changed = text().replace(from, to);
        assert_ne!(changed, text(), "{name}");
        let error = Statement::parse(changed.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{name}");
    }
}

#[test]
fn refuses_repeated_ids_even_of_unknown_suites() {
    let repeated = "\"keys\":[{\"key_id\":7,\"suite\":\"other\"},";
    let error = Statement::parse(text().replace("\"keys\":[", repeated).as_bytes());
    assert!(matches!(error, Err(StatementError::DuplicateKeyId(7))));
}

#[test]
fn limits_hold_at_the_edge() {
    let mut edge = draft();
    edge.models = vec!["m".to_owned(); MAX_MODELS];
    edge.node_id = "n".repeat(MAX_NODE_ID);
    assert!(edge.to_json().is_ok());
    edge.models.push("m".to_owned());
    assert!(matches!(
        edge.to_json(),
        Err(StatementError::TooManyModels(257))
    ));

    let mut padded = text().into_bytes();
    padded.resize(MAX_STATEMENT, b' ');
    assert!(Statement::parse(&padded).is_ok());
    padded.push(b' ');
    let error = Statement::parse(&padded);
    assert!(matches!(error, Err(StatementError::TooLong { len }) if len == MAX_STATEMENT + 1));
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        drop(Statement::parse(&bytes));
    }

    #[test]
    fn never_panics_on_almost_statements(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(Statement::parse(&bytes));
    }
}
