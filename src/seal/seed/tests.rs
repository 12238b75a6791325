use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::seal::RequestLimits;

const LIMITS: RequestLimits = RequestLimits {
    content_bytes: 1000,
};

fn vector() -> Value {
    serde_json::from_str(include_str!(
        "../../../tests/vectors/seed-confidential.json"
    ))
    .unwrap()
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

fn keys(vector: &Value) -> SeedKeys {
    let secret = hex::decode(text(vector, "node_secret")).unwrap();
    let mut keys = SeedKeys::new();
    keys.insert(3, SeedSecret::fixed(&secret.try_into().unwrap()).unwrap());
    keys
}

/// The vector's request with another value of a member.
fn request_with(vector: &Value, member: &str, value: Value) -> Vec<u8> {
    let mut request: Value = serde_json::from_str(text(vector, "request")).unwrap();
    request[member] = value;
    serde_json::to_vec(&request).unwrap()
}

fn open(keys: &SeedKeys, body: &[u8]) -> Result<(OpenedSeedRequest, SeedReplySealer), SeedError> {
    SeedEnvelope::parse(body, LIMITS)?.open(keys)
}

#[test]
fn another_implementations_request_opens_and_its_reply_comes_out_byte_for_byte() {
    let vector = vector();
    let opened = open(&keys(&vector), text(&vector, "request").as_bytes());
    let (request, mut sealer) = opened.unwrap();
    assert_eq!(request.content, text(&vector, "plaintext"));
    assert_eq!((request.key_id, request.stream), (3, true));
    assert_eq!(request.model_name, "echo");

    let nonce = hex::decode(text(&vector, "reply_nonce")).unwrap();
    let plaintext = text(&vector, "reply_plaintext").as_bytes();
    let message = sealer.seal_with(nonce.clone().try_into().unwrap(), plaintext, Some(b"{}"));
    let expected = format!(
        "{{\"ciphertext\":\"{}\",\"nonce\":\"{}\",\"response_hash\":null,\"signature\":null,\
         \"usage\":{{}}}}",
        text(&vector, "reply_ciphertext"),
        STANDARD.encode(nonce)
    );
    assert_eq!(String::from_utf8(message.unwrap()).unwrap(), expected);
}

#[test]
fn every_message_has_a_nonce_of_its_own_and_no_hash() {
    let vector = vector();
    let opened = open(&keys(&vector), text(&vector, "request").as_bytes());
    let (_, mut sealer) = opened.unwrap();
    let messages: Vec<Value> = (0..3)
        .map(|_| serde_json::from_slice(&sealer.seal(b"same", None).unwrap()).unwrap())
        .collect();
    for (n, message) in messages.iter().enumerate() {
        let members: Vec<_> = message.as_object().unwrap().keys().collect();
        assert_eq!(
            members,
            ["ciphertext", "nonce", "response_hash", "signature"]
        );
        assert!(message["response_hash"].is_null() && message["signature"].is_null());
        let others = messages.iter().skip(n + 1);
        for other in others {
            assert_ne!(message["nonce"], other["nonce"]);
            assert_ne!(message["ciphertext"], other["ciphertext"]);
        }
    }
}

/// One exchanged value has many client keys, and a copy of a request can come with any of them.
#[test]
fn a_copy_under_an_equivalent_client_key_is_known() {
    let vector = vector();
    let claim_of = |body: &[u8]| open(&keys(&vector), body).unwrap().0.claim;
    let first = claim_of(text(&vector, "request").as_bytes());
    let equivalents = vector["client_key_equivalents"].as_array().unwrap();
    assert_eq!(equivalents.len(), 2);
    for key in equivalents {
        let copy = request_with(&vector, "client_dh_public_key", key.clone());
        assert_eq!(claim_of(&copy), first, "{key}");
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let vector = vector();
    let keys = keys(&vector);
    let base64 = |member, len| SeedError::Base64 { member, len };
    let of = |bytes: &[u8]| json!(STANDARD.encode(bytes));
    let cases = [
        ("ciphertext", json!(""), SeedError::Ciphertext),
        ("ciphertext", of(&[0; 15]), SeedError::Ciphertext),
        ("ciphertext", of(&[0; 16]), SeedError::Decrypt),
        ("ciphertext", of(&[0; 1016]), SeedError::Decrypt),
        (
            "ciphertext",
            of(&[0; 1017]),
            SeedError::TooLarge { max: 1000 },
        ),
        (
            "ciphertext",
            of(&[0; 5000]),
            SeedError::TooLarge { max: 1000 },
        ),
        ("ciphertext", json!("*"), SeedError::Ciphertext),
        ("nonce", of(&[0; 11]), base64("nonce", 12)),
        ("nonce", of(&[0; 13]), base64("nonce", 12)),
        ("nonce", of(&[0; 12]), SeedError::Decrypt),
        ("salt", of(&[0; 15]), base64("salt", 16)),
        ("salt", json!("gIGCg4SFhoeIiYqLjI2Ojw"), base64("salt", 16)),
        (
            "salt",
            json!("gIGCg4SFhoeIiYqLjI2Ojx=="),
            base64("salt", 16),
        ),
        ("salt", of(&[0; 16]), SeedError::Decrypt),
        (
            "client_dh_public_key",
            of(&[9; 31]),
            base64("client_dh_public_key", 32),
        ),
        ("client_dh_public_key", of(&[0; 32]), SeedError::UnusableKey),
        ("client_dh_public_key", of(&[9; 32]), SeedError::Decrypt),
        (
            "node_dh_public_key",
            of(&[9; 33]),
            base64("node_dh_public_key", 32),
        ),
        ("node_dh_public_key", of(&[9; 32]), SeedError::UnknownKey),
        (
            "plaintext_body_hash",
            of(&[9; 64]),
            base64("plaintext_body_hash", 32),
        ),
        ("plaintext_body_hash", of(&[9; 32]), SeedError::BodyHash),
        ("plaintext_body_hash", json!(null), SeedError::Json),
        ("model_name", json!(7), SeedError::Json),
        ("stream", json!("true"), SeedError::Json),
        ("stack_small_id", json!(-1), SeedError::Json),
        ("num_compute_units", json!(1.5), SeedError::Json),
    ];
    for (member, value, expected) in cases {
        let body = request_with(&vector, member, value.clone());
        let error = open(&keys, &body).unwrap_err();
        assert_eq!(error, expected, "{member}: {value}");
    }
}

#[test]
fn a_body_is_one_object_of_these_members() {
    let vector = vector();
    let request = text(&vector, "request");
    let without = |member: &str| {
        let mut request: Value = serde_json::from_str(request).unwrap();
        request.as_object_mut().unwrap().remove(member);
        serde_json::to_vec(&request).unwrap()
    };
    for member in ["stream", "num_compute_units"] {
        let (opened, _) = open(&keys(&vector), &without(member)).expect(member);
        assert_eq!(opened.stream, member != "stream", "{member}");
        let (opened, _) =
            open(&keys(&vector), &request_with(&vector, member, json!(null))).unwrap();
        assert_eq!(opened.stream, member != "stream", "{member}");
    }
    let unknown = request_with(&vector, "more", json!({}));
    assert!(open(&keys(&vector), &unknown).is_ok());
    let values: Value = serde_json::from_str(request).unwrap();
    let values: Vec<_> = values.as_object().unwrap().values().collect();
    let cases = [
        ("nothing", Vec::new()),
        ("no JSON", b"{".to_vec()),
        ("more behind it", format!("{request}{{}}").into_bytes()),
        ("an array", serde_json::to_vec(&values).unwrap()),
        (
            "a member twice",
            request.replacen('{', "{\"salt\":\"\",", 1).into_bytes(),
        ),
        ("without salt", without("salt")),
        ("without a stack", without("stack_small_id")),
    ];
    for (name, body) in cases {
        assert_eq!(
            open(&keys(&vector), &body).unwrap_err(),
            SeedError::Json,
            "{name}"
        );
    }
}

#[test]
fn the_old_key_opens_until_it_is_forgotten() {
    let vector = vector();
    let mut keys = keys(&vector);
    keys.insert(4, SeedSecret::generate().unwrap());
    let request = text(&vector, "request").as_bytes();
    assert_eq!(open(&keys, request).unwrap().0.key_id, 3);
    keys.remove(3);
    assert_eq!(open(&keys, request).unwrap_err(), SeedError::UnknownKey);
}

#[test]
fn no_secret_is_shown() {
    let vector = vector();
    let envelope = SeedEnvelope::parse(text(&vector, "request").as_bytes(), LIMITS).unwrap();
    let shown = format!("{envelope:?}");
    let (opened, sealer) = envelope.open(&keys(&vector)).unwrap();
    let expected = "SeedEnvelope { ciphertext_len: 111, stream: true, .. } \
                    OpenedSeedRequest { key_id: 3, content_len: 95, .. } SeedReplySealer(..)";
    assert_eq!(format!("{shown} {opened:?} {sealer:?}"), expected);
}
