//! Against vectors of hpke-js, which tests/clients/hpke-js makes, and where it also asks a node.

use serde_json::Value;

use super::{
    known_answers::{Fixed, array, bytes, vector},
    *,
};
use crate::seal::{
    context::{RequestOpening, RequestSealing},
    enc::Enc,
    labels,
    suite::Header,
    x_wing::fixed,
};

#[test]
fn what_hpke_js_sealed_opens_and_what_is_sealed_here_is_the_same() {
    let file = vector(include_str!("../../../tests/vectors/hpke-js.json"));
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), KEMS.len());
    for (vector, kem) in vectors.iter().zip([Kem::XWing, Kem::X25519]) {
        assert_eq!(vector["suite"], kem.as_str());
        one(vector, kem);
    }
}

fn one(vector: &Value, kem: Kem) {
    let secret = || NodeSecret::fixed(kem, &array(vector, "skR")).unwrap();
    let public_key = secret().public_key();
    assert_eq!(public_key.as_bytes()[..], bytes(vector, "pkR"));
    let mut keys = OpeningKeys::new();
    keys.insert(KEY_ID, secret());
    let node = Node { public_key, keys };
    let body = bytes(vector, "encapsulatedRequest");
    let (opened, _) = node.open([&body[..]]).unwrap();
    assert_eq!(opened.path, HEAD.path);
    assert_eq!(opened.content, &br#"{"model":"m","prompt":"hpke-js"}"#[..]);

    let suite = node.recipient().suite;
    let header = Header {
        key_id: KEY_ID,
        suite,
    }
    .encode();
    assert_eq!(body[..7], header);
    let info = labels::request_info(&header);
    let enc = Enc::read(kem, &body[7..7 + kem.enc_len()]).unwrap();
    let context = RequestOpening::setup(suite, &secret(), &enc, &info).unwrap();
    let reply = context.reply_secret(enc.clone(), labels::RESPONSE_EXPORT_LABEL);
    assert_eq!(reply.unwrap().as_bytes(), bytes(vector, "secret"));

    let mut rng = Fixed(bytes(vector, "ekm"));
    let recipient = node.public_key.as_bytes();
    let sealed = fixed::with(|| RequestSealing::setup(suite, recipient, &info, &mut rng));
    let (ours, _, reply) = sealed.unwrap();
    assert_eq!(ours, enc);
    assert_eq!(reply.as_bytes(), bytes(vector, "secret"));
}
