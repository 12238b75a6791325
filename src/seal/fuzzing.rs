//! What the fuzz targets call: parsers of outside bytes, with the checks that must always hold.
//!
//! Built only for fuzzing. Bytes that only a peer with the key can make are sealed here first, so
//! that a target reaches what lies behind the cipher.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken promise must stop the fuzzer"
)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use blake2::{Blake2b, Digest as _, digest::consts::U32};
use bytes::{Bytes, BytesMut};
use hpke::{
    Deserializable as _, OpModeS, Serializable as _, kdf::HkdfSha256, setup_sender_with_rng,
};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    Committer, EhbpError, EhbpKeys, EhbpOpener, EhbpSecret, EncapsulatedKey, FinalPart, FormError,
    Kem, NodeSecret, OpenError, OpeningKeys, Receipt, ReceiptKey, ReplyOpener, ReplyPart,
    ReplySealer, RequestLimits, RequestOpener, Salts, SeedEnvelope, SeedError, SeedKeys,
    SeedReplySealer, SeedSecret,
    aead::Aes256Gcm,
    bhttp::{Control, Event, Fields, Reader, RequestLine, StatusLine},
    chunks::OpenChunkAt,
    context::{Place, ReplySecret, RequestSealing, SealChunk},
    kem::{PublicKey, X25519HkdfSha256},
    labels, named_key,
    suite::{Aead, Header, Suite},
};

const KEY_ID: u8 = 1;
const MAX_CONTENT: u64 = 4096;

type Message<C> = (Option<C>, Fields, Vec<u8>, Option<Fields>);

/// Reads receipts: the bytes as they are, as a payload that the right key signed, and as salts. What is
/// taken is signed again as the same text.
pub fn receipt(data: &str) {
    let key = ReceiptKey::from_seed(&[1; 32]).expect("a key");
    let public_key = key.public_key().expect("32 bytes");
    for jws in [data.to_owned(), key.sign_payload(data)] {
        if let Ok(receipt) = Receipt::verify(&jws, &public_key) {
            assert_eq!(key.sign(&receipt), Ok(jws), "two texts of one receipt");
        }
    }
    let salts = data.parse::<Salts>();
    if let Ok(salts) = &salts {
        assert_eq!(salts.to_string(), data, "two texts of salts");
    }
    let salts = salts.or_else(|_| FUZZED_SALTS.parse());
    let salts = salts.expect("salts");
    let mut bytewise = Committer::of_events(&salts.response);
    data.as_bytes()
        .chunks(1)
        .for_each(|byte| bytewise.update(byte));
    let mut whole = Committer::of_events(&salts.response);
    whole.update(data.as_bytes());
    assert_eq!(
        whole.commitment(),
        bytewise.commitment(),
        "a split changed the content"
    );
}

/// Salts of zeros.
const FUZZED_SALTS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Reads a Binary HTTP request whole and byte by byte.
pub fn bhttp_request(data: &[u8]) {
    bhttp_message::<RequestLine>(data);
}

/// Reads a Binary HTTP response whole and byte by byte.
pub fn bhttp_response(data: &[u8]) {
    bhttp_message::<StatusLine>(data);
}

fn bhttp_message<C: Control + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let whole = read_message::<C>([data]);
    let bytewise = read_message::<C>(data.chunks(1));
    assert_eq!(whole, bytewise, "a split changed the message");
}

fn read_message<'a, C: Control>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Message<C>, FormError> {
    let mut reader = Reader::<C>::new(MAX_CONTENT);
    let mut message = (None, Fields::default(), Vec::new(), None);
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(event) = reader.read(&mut piece)? {
            match event {
                Event::Head(head, fields) => {
                    assert!(message.0.is_none(), "a second head");
                    (message.0, message.1) = (Some(head), fields);
                }
                Event::Content(content) => message.2.extend_from_slice(&content),
                Event::Trailers(trailers) => message.3 = Some(trailers),
            }
        }
        assert!(piece.is_empty(), "input was left");
    }
    reader.finish()?;
    assert!(
        message.0.is_some() && message.3.is_some(),
        "an end without head or trailers"
    );
    assert!(u64::try_from(message.2.len()).is_ok_and(|len| len <= MAX_CONTENT));
    Ok(message)
}

/// Opens a request: the bytes as they are, and the same bytes as plaintext of a real sender, with
/// either KEM.
pub fn request_opener(data: &[u8]) {
    open_request_with(Kem::X25519, Suite::X25519(Aead::Aes256Gcm), data);
    open_request_with(Kem::XWing, Suite::XWing, data);
}

fn open_request_with(kem: Kem, suite: Suite, data: &[u8]) {
    let secret = NodeSecret::fixed(kem, &[7; 32]).expect("32 bytes");
    let public_key = secret.public_key();
    let mut keys = OpeningKeys::new();
    keys.insert(KEY_ID, secret);
    assert!(open_request(&keys, [data]).is_err(), "nobody has the key");
    // What a gateway reads of a request that it carries.
    let named = named_key(data).is_some_and(|(key_id, named)| (key_id, named) == (KEY_ID, kem));
    let refused = open_request(&keys, [data]).err();
    let fits = !matches!(
        refused,
        Some(OpenError::UnknownKey(_) | OpenError::UnsupportedSuite)
    );
    assert!(
        data.len() < 7 || named == fits,
        "two readings of one header"
    );

    let header = Header {
        key_id: KEY_ID,
        suite,
    };
    let encoded = header.encode();
    let info = labels::request_info(&encoded);
    let mut rng = StdRng::seed_from_u64(1);
    let (enc, mut sealing, _) =
        RequestSealing::setup(suite, public_key.as_bytes(), &info, &mut rng).expect("a good key");
    let mut body = BytesMut::from(&encoded[..]);
    body.extend_from_slice(enc.as_bytes());
    seal_pieces(&mut body, data, &mut sealing);
    let whole = open_request(&keys, [&body[..]]);
    let bytewise = open_request(&keys, body.chunks(1));
    assert_eq!(whole, bytewise, "a split changed the request");
}

fn open_request<'a>(
    keys: &OpeningKeys,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(String, Fields, Bytes), OpenError> {
    let mut opener = RequestOpener::new(RequestLimits {
        content_bytes: 4096,
    });
    for piece in pieces {
        opener.push(keys, Bytes::copy_from_slice(piece))?;
    }
    opener
        .finish()
        .map(|(request, _)| (request.path, request.fields, request.content))
}

/// Opens a reply: the bytes as they are, and the same bytes as plaintext of a real node.
pub fn reply_opener(data: &[u8]) {
    let secret = || ReplySecret::fixed(Aead::Aes256Gcm, [1; 32], [2; 32]);
    assert!(
        open_reply(ReplyOpener::new(secret()), [data]).is_err(),
        "nobody has the key"
    );

    let mut rng = StdRng::seed_from_u64(1);
    let (nonce, mut sealing) = ReplySealer::new(secret())
        .begin(&mut rng)
        .expect("lengths that fit");
    let mut body = BytesMut::from(nonce.as_bytes());
    seal_pieces(&mut body, data, &mut sealing);
    let whole = open_reply(ReplyOpener::new(secret()), [&body[..]]);
    let bytewise = open_reply(ReplyOpener::new(secret()), body.chunks(1));
    assert_eq!(whole, bytewise, "a split changed the reply");
}

fn open_reply<'a>(
    mut opener: ReplyOpener,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, FinalPart), OpenError> {
    let (mut content, mut head) = (Vec::new(), None);
    for piece in pieces {
        opener.push(Bytes::copy_from_slice(piece))?;
        while let Some(part) = opener.next_part()? {
            match part {
                ReplyPart::Head(new) => head = Some(new),
                ReplyPart::Content(piece) => content.extend_from_slice(&piece),
            }
        }
    }
    let mut end = opener.finish()?;
    end.head = end.head.or(head);
    assert!(end.head.is_some(), "an end without a head");
    Ok((content, end))
}

/// Seals `data` in chunks whose lengths its own bytes choose.
fn seal_pieces(body: &mut BytesMut, mut data: &[u8], sealing: &mut impl SealChunk) {
    while let Some(first) = data.first().copied().filter(|first| first & 1 == 1) {
        let len = usize::from(first).min(data.len());
        let (piece, rest) = data.split_at(len);
        seal_piece(body, piece, Place::Middle, sealing);
        data = rest;
    }
    let last = &data[..data.len().min(16_384)];
    seal_piece(body, last, Place::Final, sealing);
}

fn seal_piece(body: &mut BytesMut, piece: &[u8], place: Place, sealing: &mut impl SealChunk) {
    let chunk = OpenChunkAt::begin(body, piece.len(), place).expect("a length that fits");
    body.extend_from_slice(piece);
    chunk.end(body, sealing).expect("a fresh key");
}

/// Opens a body of EHBP: the bytes as they are, and behind frames of a real sender.
pub fn ehbp_opener(data: &[u8]) {
    let secret = EhbpSecret::fixed(&[7; 32]).expect("32 bytes");
    let public_key = PublicKey::from_bytes(&secret.public_key()).expect("32 bytes");
    let mut keys = EhbpKeys::new();
    keys.insert(KEY_ID, secret);
    let mut rng = StdRng::seed_from_u64(1);
    let (enc, mut context) = setup_sender_with_rng::<Aes256Gcm, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public_key,
        labels::EHBP_REQUEST_INFO,
        &mut rng,
    )
    .expect("a good key");
    let enc = EncapsulatedKey::from_bytes(enc.to_bytes().into());
    assert!(open_ehbp(&keys, enc, [data]).is_err(), "nobody has the key");

    let (mut body, mut rest) = (Vec::new(), data);
    while let Some(first) = rest.first().copied().filter(|first| first & 1 == 1) {
        let (piece, after) = rest.split_at(usize::from(first).min(rest.len()));
        let sealed = context.seal(piece, b"").expect("a fresh key");
        let len = u32::try_from(sealed.len()).expect("a short piece");
        body.extend_from_slice(&len.to_be_bytes());
        body.extend_from_slice(&sealed);
        rest = after;
    }
    body.extend_from_slice(rest);
    let whole = open_ehbp(&keys, enc, [&body[..]]);
    let bytewise = open_ehbp(&keys, enc, body.chunks(1));
    assert_eq!(whole, bytewise, "a split changed the body");
    let sealed = &data[..data.len() - rest.len()];
    assert!(whole.is_ok_and(|content| content == sealed) || !rest.is_empty() || sealed.is_empty());
}

fn open_ehbp<'a>(
    keys: &EhbpKeys,
    enc: EncapsulatedKey,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Bytes, EhbpError> {
    let mut opener = EhbpOpener::new(
        enc,
        RequestLimits {
            content_bytes: 1024 * 1024,
        },
    );
    for piece in pieces {
        opener.push(keys, Bytes::copy_from_slice(piece))?;
    }
    opener.finish().map(|(body, _)| body.content)
}

/// Opens a confidential request of the seed: the bytes as they are, and the same bytes as plaintext
/// of a real client.
pub fn seed_opener(data: &[u8]) {
    let (node, client) = (SeedSecret::fixed(&[7; 32]), SeedSecret::fixed(&[8; 32]));
    let (node, client) = (node.expect("32 bytes"), client.expect("32 bytes"));
    let node_key = PublicKey::from_bytes(&node.public_key()).expect("32 bytes");
    let exchanged = client.private_key().exchange(&node_key).expect("good keys");
    let (salt, nonce) = ([1; 16], [2; 12]);
    let cipher = labels::seed_cipher(&salt, exchanged.as_slice()).expect("lengths that fit");
    let sealed = SeedReplySealer::new(cipher)
        .seal_with(nonce, data, None)
        .expect("a fresh key");
    let sealed: serde_json::Value = serde_json::from_slice(&sealed).expect("JSON");
    let mut keys = SeedKeys::new();
    let hash: [u8; 32] = Blake2b::<U32>::digest(data).into();
    let body = serde_json::json!({
        "ciphertext": sealed["ciphertext"], "nonce": sealed["nonce"], "salt": STANDARD.encode(salt),
        "client_dh_public_key": STANDARD.encode(client.public_key()),
        "node_dh_public_key": STANDARD.encode(node.public_key()),
        "plaintext_body_hash": STANDARD.encode(hash), "stack_small_id": 1, "model_name": "m",
    });
    keys.insert(KEY_ID, node);
    assert!(open_seed(&keys, data).is_err(), "nobody has the key");
    let opened = open_seed(&keys, body.to_string().as_bytes());
    assert!(opened.is_ok_and(|content| content == data));
}

fn open_seed(keys: &SeedKeys, body: &[u8]) -> Result<Bytes, SeedError> {
    let limits = RequestLimits {
        content_bytes: 16 * 1024 * 1024,
    };
    let (request, _) = SeedEnvelope::parse(body, limits)?.open(keys)?;
    Ok(request.content)
}
