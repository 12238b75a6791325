//! Published vectors, byte for byte.

use std::convert::Infallible;

use hpke::{Kem as _, Serializable as _};
use rand::rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;

use super::*;
use crate::seal::{
    FormError,
    chunks::OpenChunkAt,
    context::{OpenChunk as _, ReplySecret, RequestOpening, RequestSealing},
    enc::Enc,
    kem::X25519HkdfSha256,
    labels,
    suite::Header,
};

/// A source of the very bytes that a vector was made from.
pub(super) struct Fixed(pub(super) Vec<u8>);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unimplemented!("vectors give bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unimplemented!("vectors give bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for to in out {
            *to = self.0[0];
            self.0.rotate_left(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

pub(super) fn vector(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

pub(super) fn bytes(vector: &Value, name: &str) -> Vec<u8> {
    hex::decode(vector[name].as_str().unwrap()).unwrap()
}

pub(super) fn array<const N: usize>(vector: &Value, name: &str) -> [u8; N] {
    bytes(vector, name).try_into().unwrap()
}

fn draft() -> Value {
    vector(include_str!("../../../tests/vectors/chunked-ohttp-08.json"))
}

fn opener_keys(vector: &Value) -> OpeningKeys {
    let mut keys = OpeningKeys::new();
    keys.insert(
        1,
        NodeSecret::fixed(Kem::X25519, &array(vector, "skR")).unwrap(),
    );
    keys
}

#[test]
fn draft_08_request_opens_chunk_by_chunk() {
    let draft = draft();
    let body = bytes(&draft, "encapsulatedRequest");
    let header: [u8; 7] = body[..7].try_into().unwrap();
    let enc = Enc::X25519(array(&draft, "enc"));
    assert_eq!(enc.as_bytes(), &body[7..39]);
    let suite = Suite::X25519(Aead::Aes128Gcm);
    assert_eq!(Header::decode(&header), (1, Some(suite)));
    let secret = NodeSecret::fixed(Kem::X25519, &array(&draft, "skR")).unwrap();
    let info = labels::request_info(&header);
    let mut context = RequestOpening::setup(suite, &secret, &enc, &info).unwrap();

    let mut request = Vec::new();
    let lens = [12, 13, 0];
    for ((place, chunk), len) in chunks(&body, 39).iter().zip(lens) {
        let sealed = BytesMut::from(&chunk[varint::len_from(chunk[0])..]);
        let plaintext = context.open(sealed, *place).unwrap();
        assert_eq!(plaintext.len(), len);
        request.extend_from_slice(&plaintext);
    }
    assert_eq!(request, bytes(&draft, "request"));
    assert_eq!(
        context
            .reply_secret(enc, labels::RESPONSE_EXPORT_LABEL)
            .unwrap()
            .as_bytes(),
        bytes(&draft, "secret")
    );

    // Its Binary HTTP message leaves its last sections out, which this project's readers refuse.
    let mut opener = RequestOpener::new(RequestLimits::default());
    opener.push(&opener_keys(&draft), owned(&body)).unwrap();
    let (refused, _sealer) = opener.finish_or_refuse().unwrap();
    assert_eq!(refused.unwrap_err(), FormError::Incomplete);
}

fn draft_secret(draft: &Value) -> ReplySecret {
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(&bytes(draft, "secret"));
    ReplySecret::fixed(Aead::Aes128Gcm, secret, array(draft, "enc"))
}

#[test]
fn draft_08_response_is_sealed_and_opened() {
    let draft = draft();
    let whole = bytes(&draft, "encapsulatedResponse");
    let mut rng = Fixed(bytes(&draft, "responseNonce"));
    let (nonce, mut sealing) = ReplySealer::new(draft_secret(&draft))
        .begin(&mut rng)
        .unwrap();
    let mut out = BytesMut::from(nonce.as_bytes());
    let parts = [
        (&[1][..], Place::Middle),
        (&[0x40, 0xc8], Place::Middle),
        (&[], Place::Final),
    ];
    for (plaintext, place) in parts {
        let chunk = OpenChunkAt::begin(&mut out, plaintext.len(), place).unwrap();
        out.extend_from_slice(plaintext);
        chunk.end(&mut out, &mut sealing).unwrap();
    }
    assert_eq!(out[..], whole);

    let (nonce, rest) = whole.split_at(16);
    let mut opening = draft_secret(&draft).opening(nonce).unwrap();
    let mut response = Vec::new();
    for (place, chunk) in chunks(rest, 0) {
        let sealed = BytesMut::from(&chunk[varint::len_from(chunk[0])..]);
        response.extend_from_slice(&opening.open(sealed, place).unwrap());
    }
    assert_eq!(response, bytes(&draft, "response"));
}

#[test]
fn rfc_9458_appendix_a_agrees_where_the_unchunked_form_is_the_same() {
    let rfc = vector(include_str!("../../../tests/vectors/rfc9458.json"));
    let body = bytes(&rfc, "encapsulatedRequest");
    let enc = Enc::X25519(array(&rfc, "enc"));
    assert_eq!(enc.as_bytes(), &body[7..39]);
    let suite = Header::decode(&body[..7].try_into().unwrap()).1.unwrap();
    let secret = NodeSecret::fixed(Kem::X25519, &array(&rfc, "skR")).unwrap();
    // The RFC's key configuration: key id, KEM, then the public key.
    assert_eq!(
        secret.public_key().as_bytes(),
        &bytes(&rfc, "keyConfig")[3..35]
    );
    let info = bytes(&rfc, "info");
    let mut context = RequestOpening::setup(suite, &secret, &enc, &info).unwrap();
    let request = context
        .open(BytesMut::from(&body[39..]), Place::Middle)
        .unwrap();
    assert_eq!(request[..], bytes(&rfc, "request"));

    let mut exported = [0; 32];
    let RequestOpening::Aes128Gcm(context) = &context else {
        panic!("AES-128-GCM")
    };
    context
        .export(b"message/bhttp response", &mut exported[..16])
        .unwrap();
    assert_eq!(exported[..16], bytes(&rfc, "secret"));
    let secret = ReplySecret::fixed(Aead::Aes128Gcm, exported, array(&rfc, "enc"));
    let whole = bytes(&rfc, "encapsulatedResponse");
    let (nonce, sealed) = whole.split_at(16);
    assert_eq!(nonce, bytes(&rfc, "responseNonce"));
    let mut opening = secret.opening(nonce).unwrap();
    let response = opening.open(BytesMut::from(sealed), Place::Middle).unwrap();
    assert_eq!(response[..], bytes(&rfc, "response"));
}

#[test]
fn rfc_9180_base_mode_for_our_suite() {
    let rfc = vector(include_str!(
        "../../../tests/vectors/rfc9180-x25519-sha256-aes256gcm.json"
    ));
    let (secret, public) = X25519HkdfSha256::derive_keypair(&bytes(&rfc, "ikmR"));
    assert_eq!(secret.to_bytes()[..], clamped(array(&rfc, "skRm")));
    assert_eq!(public.to_bytes()[..], bytes(&rfc, "pkRm"));
    let info = bytes(&rfc, "info");
    let mut rng = Fixed(bytes(&rfc, "ikmE"));
    let (enc, sealing, _) =
        RequestSealing::setup(X25519, &bytes(&rfc, "pkRm"), &info, &mut rng).unwrap();
    assert_eq!(enc, Enc::X25519(array(&rfc, "enc")));
    let RequestSealing::Aes256Gcm(mut sealing) = sealing else {
        panic!("AES-256-GCM")
    };
    let secret = NodeSecret::fixed(Kem::X25519, &array(&rfc, "skRm")).unwrap();
    let opening = RequestOpening::setup(X25519, &secret, &enc, &info).unwrap();
    let RequestOpening::Aes256Gcm(mut opening) = opening else {
        panic!("AES-256-GCM")
    };

    let encryptions = rfc["encryptions"].as_array().unwrap();
    assert_eq!(encryptions.len(), 257);
    for encryption in encryptions {
        let [aad, plaintext, ciphertext] = ["aad", "pt", "ct"].map(|name| bytes(encryption, name));
        assert_eq!(sealing.seal(&plaintext, &aad).unwrap(), ciphertext);
        assert_eq!(opening.open(&ciphertext, &aad).unwrap(), plaintext);
    }
    for export in rfc["exports"].as_array().unwrap() {
        let mut exported = vec![0; usize::try_from(export["L"].as_u64().unwrap()).unwrap()];
        sealing
            .export(&bytes(export, "exporter_context"), &mut exported)
            .unwrap();
        assert_eq!(exported, bytes(export, "exported_value"));
    }
}

/// The library clamps a secret before it writes it (RFC 7748 section 5); the vectors do not.
fn clamped(mut secret: [u8; 32]) -> [u8; 32] {
    secret[0] &= 0xf8;
    secret[31] = secret[31] & 0x7f | 0x40;
    secret
}
