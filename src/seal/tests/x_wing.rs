//! X-Wing against what was made without the crates that do it here.
//!
//! The vectors were made in Python. The other side of the live exchanges is crate `x-wing`, with
//! RFC 9180's key schedule, written out below. What the draft gives randomness for is sealed with
//! `ml-kem`'s encapsulation in place of aws-lc's, and with all else as it is.

use ::x_wing::{
    self as other, Decapsulate as _, Decapsulator as _, Encapsulate as _, KeyExport as _,
};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use hpke::{Deserializable as _, HpkeError, Kem as _, Serializable as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    known_answers::{Fixed, array, bytes, vector},
    *,
};
use crate::seal::{
    SealError, bhttp,
    chunks::OpenChunkAt,
    context::RequestOpening,
    enc::Enc,
    labels,
    suite::Header,
    x_wing::{EncappedKey, PrivateKey, PublicKey, XWing, fixed},
};

const ENC: usize = 1120;
const HEADER: Header = Header {
    key_id: KEY_ID,
    suite: Suite::XWing,
};

fn chunked() -> Value {
    vector(include_str!(
        "../../../tests/vectors/x-wing-chunked-ohttp.json"
    ))
}

fn node_of(vector: &Value) -> Node {
    let secret = NodeSecret::fixed(Kem::XWing, &array(vector, "skR")).unwrap();
    let public_key = secret.public_key();
    let mut keys = OpeningKeys::new();
    keys.insert(KEY_ID, secret);
    Node { public_key, keys }
}

#[test]
fn the_kem_is_the_drafts() {
    let file = vector(include_str!("../../../tests/vectors/x-wing-kem.json"));
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let secret = PrivateKey::from_bytes(&bytes(vector, "seed")).unwrap();
        let public = XWing::sk_to_pk(&secret);
        assert_eq!(public.to_bytes()[..], bytes(vector, "pk"));
        let mut rng = Fixed(bytes(vector, "eseed"));
        let sealed = fixed::with(|| XWing::encap_with_rng(&public, None, &mut rng));
        let (shared, enc) = sealed.unwrap();
        assert_eq!(enc.to_bytes()[..], bytes(vector, "ct"));
        assert_eq!(shared.0[..], bytes(vector, "ss"));
        let enc = EncappedKey::from_bytes(&bytes(vector, "ct")).unwrap();
        let shared = XWing::decap(&secret, None, &enc).unwrap();
        assert_eq!(shared.0[..], bytes(vector, "ss"));
    }
}

#[test]
fn a_request_is_sealed_byte_for_byte() {
    let vector = chunked();
    let node = node_of(&vector);
    let config = crate::seal::encode_key_configs([(KEY_ID, &node.public_key)]);
    assert_eq!(config[2..], bytes(&vector, "keyConfig"));
    let content = br#"{"model":"m","prompt":"x-wing"}"#;
    let mut message = Vec::new();
    bhttp::request(&mut message, HEAD.path, HEAD.fields, content).unwrap();
    assert_eq!(message, bytes(&vector, "request"));
    let mut rng = Fixed(bytes(&vector, "randomness"));
    let sealed = fixed::with(|| seal_to(node.recipient(), &HEAD, content, Padding::Off, &mut rng));
    let (sealed, opener) = sealed.unwrap();
    assert_eq!(sealed, bytes(&vector, "encapsulatedRequest"));
    assert_eq!(
        format!("{opener:?}"),
        "ReplyOpener(..)",
        "nothing of a key is shown"
    );
}

#[test]
fn a_request_opens_and_its_reply_is_sealed_byte_for_byte() {
    let vector = chunked();
    let node = node_of(&vector);
    let (whole, chunked) = (
        bytes(&vector, "encapsulatedRequest"),
        bytes(&vector, "chunkedRequest"),
    );
    for body in [&whole, &chunked] {
        let (opened, _) = node.open(body.chunks(1)).unwrap();
        assert_eq!(opened.path, HEAD.path);
        assert_eq!(opened.content, &br#"{"model":"m","prompt":"x-wing"}"#[..]);
        let whole_enc = Sha256::digest(&body[7..7 + ENC]);
        assert_eq!(opened.enc_digest[..], whole_enc[..]);
    }
    assert_eq!(plaintext_lens(&chunked, 7 + ENC)[..2], [12, 13]);

    let secret = NodeSecret::fixed(Kem::XWing, &array(&vector, "skR")).unwrap();
    let enc = Enc::read(Kem::XWing, &whole[7..7 + ENC]).unwrap();
    let info = labels::request_info(&HEADER.encode());
    let context = RequestOpening::setup(Suite::XWing, &secret, &enc, &info).unwrap();
    let secret = context
        .reply_secret(enc, labels::RESPONSE_EXPORT_LABEL)
        .unwrap();
    assert_eq!(secret.as_bytes(), bytes(&vector, "secret"));
    let mut rng = Fixed(bytes(&vector, "responseNonce"));
    let (nonce, mut sealing) = ReplySealer::new(secret).begin(&mut rng).unwrap();
    let mut out = BytesMut::from(nonce.as_bytes());
    let parts: [(&[u8], _); 3] = [
        (b"first", Place::Middle),
        (b"second", Place::Middle),
        (b"", Place::Final),
    ];
    for (plaintext, place) in parts {
        let chunk = OpenChunkAt::begin(&mut out, plaintext.len(), place).unwrap();
        out.extend_from_slice(plaintext);
        chunk.end(&mut out, &mut sealing).unwrap();
    }
    assert_eq!(out[..], bytes(&vector, "encapsulatedResponse"));
}

/// What both sides of an exchange come to.
struct Schedule {
    key: [u8; 32],
    base_nonce: [u8; 12],
    exporter_secret: [u8; 32],
}

impl Schedule {
    const SUITE: &[u8] = b"HPKE\x64\x7a\x00\x01\x00\x02";

    /// `KeySchedule(mode_base, shared_secret, info, "", "")` (RFC 9180 section 5.1).
    fn of(shared_secret: &[u8], info: &[u8]) -> Self {
        let mut context = vec![0];
        context.extend(Self::extract(b"", b"psk_id_hash", b"").0);
        context.extend(Self::extract(b"", b"info_hash", info).0);
        let (_, secret) = Self::extract(shared_secret, b"secret", b"");
        Self {
            key: Self::expand(&secret, b"key", &context),
            base_nonce: Self::expand(&secret, b"base_nonce", &context),
            exporter_secret: Self::expand(&secret, b"exp", &context),
        }
    }

    fn extract(salt: &[u8], label: &[u8], ikm: &[u8]) -> (Vec<u8>, Hkdf<Sha256>) {
        let ikm = [b"HPKE-v1", Self::SUITE, label, ikm].concat();
        let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(salt), &ikm);
        (prk.to_vec(), hkdf)
    }

    fn expand<const N: usize>(prk: &Hkdf<Sha256>, label: &[u8], info: &[u8]) -> [u8; N] {
        let len = u16::try_from(N).unwrap().to_be_bytes();
        let info = [&len, &b"HPKE-v1"[..], Self::SUITE, label, info].concat();
        let mut out = [0; N];
        prk.expand(&info, &mut out).unwrap();
        out
    }

    /// The secret of the reply (RFC 9180 section 5.3).
    fn reply_secret(&self) -> [u8; 32] {
        let prk = Hkdf::<Sha256>::from_prk(&self.exporter_secret).unwrap();
        Self::expand(&prk, b"sec", b"message/bhttp chunked response")
    }
}

fn cipher(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
}

/// The only chunk of a message, sealed.
fn seal_only(key: &[u8], nonce: [u8; 12], message: &[u8]) -> Vec<u8> {
    let mut chunk = message.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let sealed = cipher(key).seal_in_place_append_tag(nonce, Aad::from(b"final"), &mut chunk);
    sealed.unwrap();
    chunk
}

/// The only chunk of a message, opened.
fn open_only(key: &[u8], nonce: [u8; 12], sealed: &[u8]) -> Vec<u8> {
    let mut chunk = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = cipher(key).open_in_place(nonce, Aad::from(b"final"), &mut chunk);
    opened.unwrap().to_vec()
}

#[test]
fn another_sealer_reaches_our_node_and_reads_its_reply() {
    let node = Node::of(Kem::XWing);
    let peer = other::EncapsulationKey::try_from(node.public_key.as_bytes()).unwrap();
    let (enc, shared) = peer.encapsulate_with_rng(&mut rng());
    let header = [KEY_ID, 0x64, 0x7a, 0, 1, 0, 2];
    let info = [&b"message/bhttp chunked request\0"[..], &header].concat();
    let schedule = Schedule::of(&shared, &info);

    let mut message = Vec::new();
    bhttp::request(&mut message, HEAD.path, HEAD.fields, b"{}").unwrap();
    let mut body = [&header[..], &enc, &[0]].concat();
    assert_eq!(body.len(), 7 + ENC + 1);
    body.extend(seal_only(&schedule.key, schedule.base_nonce, &message));
    let (opened, sealer) = node.open([&body[..]]).unwrap();
    assert_eq!(opened.content, &b"{}"[..]);

    let reply = sealer.seal_whole(200, &[], b"answer", &[], Padding::Off);
    let reply = reply.unwrap();
    let (response_nonce, sealed) = reply.split_at(32);
    let salt = [&body[7..7 + ENC], response_nonce].concat();
    let prk = Hkdf::<Sha256>::new(Some(&salt), &schedule.reply_secret());
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    prk.expand(b"key", &mut key).unwrap();
    prk.expand(b"nonce", &mut nonce).unwrap();
    let opened = open_only(&key, nonce, &sealed[1..]);
    assert!(opened.windows(6).any(|part| part == b"answer"));
}

#[test]
fn our_sealer_reaches_another_node() {
    let secret = other::DecapsulationKey::from(rand::random::<[u8; 32]>());
    let public_key = secret.encapsulation_key().to_bytes();
    let recipient = Recipient {
        key_id: KEY_ID,
        public_key: &public_key,
        suite: Suite::XWing,
    };
    let (body, _) = seal_to(recipient, &HEAD, b"{}", Padding::Off, &mut rng()).unwrap();
    let (header, rest) = body.split_at(7);
    let (enc, rest) = rest.split_at(ENC);
    let shared = secret.decapsulate(enc.try_into().unwrap());
    let info = [&b"message/bhttp chunked request\0"[..], header].concat();
    let schedule = Schedule::of(&shared, &info);
    let opened = open_only(&schedule.key, schedule.base_nonce, &rest[1..]);
    let mut message = Vec::new();
    bhttp::request(&mut message, HEAD.path, HEAD.fields, b"{}").unwrap();
    assert_eq!(opened, message);
}

/// The encapsulated key is bound whole: each byte counts for the replay table and for the key.
#[test]
fn every_byte_of_enc_counts() {
    let node = Node::of(Kem::XWing);
    let (request, _) = node.sealed(b"{}", Padding::Off);
    for at in (7..7 + ENC)
        .step_by(53)
        .chain([7 + 1087, 7 + 1088, 7 + ENC - 1])
    {
        for bit in [0x01, 0x80] {
            let mut changed = request.to_vec();
            changed[at] ^= bit;
            let error = node.open([&changed[..]]).unwrap_err();
            assert_eq!(error, OpenError::FirstChunk, "byte {at}");
        }
    }
    for cut in [7, 7 + 32, 7 + ENC - 1, 7 + ENC] {
        let error = node.open([&request[..cut]]).unwrap_err();
        assert_eq!(error, OpenError::Truncated, "cut at {cut}");
    }
}

/// Before anything is done with the key, and before its `enc` has come.
#[test]
fn a_key_is_used_with_its_own_kem_alone() {
    for (kem, header) in [
        (Kem::X25519, [KEY_ID, 0x64, 0x7a, 0, 1, 0, 2]),
        (Kem::XWing, [KEY_ID, 0, 0x20, 0, 1, 0, 2]),
        (Kem::XWing, [KEY_ID, 0x64, 0x7a, 0, 1, 0, 1]),
    ] {
        let mut opener = RequestOpener::new(RequestLimits::default());
        let pushed = opener.push(&Node::of(kem).keys, Bytes::copy_from_slice(&header));
        assert_eq!(pushed, Err(OpenError::UnsupportedSuite), "{kem:?}");
    }
    let [x25519, x_wing] = KEMS.map(Node::of);
    for (node, suite) in [(&x25519, Suite::XWing), (&x_wing, X25519)] {
        let recipient = Recipient {
            suite,
            ..node.recipient()
        };
        let sealed = seal_to(recipient, &HEAD, b"", Padding::Off, &mut rng());
        assert_eq!(sealed.map(|_| ()), Err(SealError::UnusableKey), "{suite:?}");
    }
}

/// The crate that does the same in Rust alone, both ways, from the same seeds.
#[test]
fn another_kem_comes_to_the_same() {
    for _ in 0..20 {
        let seed: [u8; 32] = rand::random();
        let (ours, theirs) = (
            PrivateKey::from_bytes(&seed).unwrap(),
            other::DecapsulationKey::from(seed),
        );
        assert_eq!(ours.to_bytes()[..], seed);
        let public = XWing::sk_to_pk(&ours);
        let their_public = theirs.encapsulation_key();
        assert_eq!(public.to_bytes()[..], their_public.to_bytes()[..]);

        let (shared, enc) = XWing::encap_with_rng(&public, None, &mut rng()).unwrap();
        let opened = theirs.decapsulate(enc.to_bytes()[..].try_into().unwrap());
        assert_eq!(opened[..], shared.0[..]);
        let (enc, shared) = their_public.encapsulate_with_rng(&mut rng());
        let enc = EncappedKey::from_bytes(&enc).unwrap();
        assert_eq!(XWing::decap(&ours, None, &enc).unwrap().0[..], shared[..]);

        // Also where nothing fits: implicit rejection, and an X25519 half of low order.
        for at in [0, 500, 1087, 1088, 1119] {
            let mut bent = enc.to_bytes();
            bent[at] ^= 0x40;
            let expected = theirs.decapsulate(bent[..].try_into().unwrap());
            let bent = EncappedKey::from_bytes(&bent).unwrap();
            assert_eq!(
                XWing::decap(&ours, None, &bent).unwrap().0,
                expected,
                "{at}"
            );
        }
        let mut low = enc.to_bytes();
        low[1088..].fill(0);
        let expected = theirs.decapsulate(low[..].try_into().unwrap());
        let low = EncappedKey::from_bytes(&low).unwrap();
        assert_eq!(XWing::decap(&ours, None, &low).unwrap().0, expected);
    }
}

/// By aws-lc and by what stands in for it in known answers.
#[test]
fn a_key_that_is_none_is_not_sealed_to() {
    let good = XWing::sk_to_pk(&XWing::derive_keypair(&[7; 32]).0).to_bytes();
    let mut low_order = good;
    low_order[1184..].fill(0);
    let mut coefficient = good;
    // The first of 12 bits each: 3,329, which is 0 in another form.
    coefficient[0] = 0x01;
    coefficient[1] = (coefficient[1] & 0xf0) | 0x0d;
    for key in [low_order, coefficient] {
        let key = PublicKey::from_bytes(&key).unwrap();
        let seal = || {
            XWing::encap_with_rng(&key, None, &mut rng())
                .map(|_| ())
                .err()
        };
        assert_eq!(seal(), Some(HpkeError::EncapError));
        assert_eq!(fixed::with(seal), Some(HpkeError::EncapError));
    }
    for len in [0, 1120, 1215, 1217] {
        let error = PublicKey::from_bytes(&vec![0; len]).err();
        assert_eq!(error, Some(HpkeError::IncorrectInputLength(1216, len)));
        let error = EncappedKey::from_bytes(&vec![0; len]).map(|_| ()).err();
        let expected = (len != 1120).then_some(HpkeError::IncorrectInputLength(1120, len));
        assert_eq!(error, expected);
    }
}

/// The modes that authenticate a sender are no part of the protocol.
#[test]
fn no_sender_is_authenticated() {
    let (secret, public) = XWing::derive_keypair(&[7; 32]);
    let sealed = XWing::encap_with_rng(&public, Some((&secret, &public)), &mut rng());
    assert_eq!(sealed.map(|_| ()).err(), Some(HpkeError::EncapError));
    let (_, enc) = XWing::encap_with_rng(&public, None, &mut rng()).unwrap();
    let opened = XWing::decap(&secret, Some(&public), &enc);
    assert_eq!(opened.map(|_| ()).err(), Some(HpkeError::DecapError));
}

/// Derived as draft-ietf-hpke-pq says; the number was made with Python's `hashlib`.
#[test]
fn a_key_pair_is_derived() {
    let (secret, public) = XWing::derive_keypair(&[7; 32]);
    let seed = "33cb03c8334474d6af395b4f7c13cefd0d57c080492cc310da74bae0c808b263";
    assert_eq!(hex::encode(secret.to_bytes()), seed);
    assert_eq!(public, XWing::sk_to_pk(&secret));
    assert_eq!(format!("{public:?}"), "PublicKey(..)");
}
