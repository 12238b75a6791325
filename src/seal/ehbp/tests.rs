use bytes::{BufMut as _, Bytes, BytesMut};
use hpke::{
    Deserializable as _, OpModeS, Serializable as _,
    aead::{AeadCtxS, AesGcm256},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    setup_sender_with_rng,
};
use serde_json::Value;

use super::{sealer::EhbpReplySealer, *};
use crate::seal::{
    RequestLimits,
    context::{OpenChunk as _, Place, ReplySecret},
};

const MAX: usize = 1000;
const LIMITS: RequestLimits = RequestLimits { content_bytes: MAX };

type Context = AeadCtxS<AesGcm256, HkdfSha256, X25519HkdfSha256>;

/// What is sent: the header's key and the body.
type Sealed = (EncapsulatedKey, Vec<u8>);

/// A sender with the cryptography of another implementation.
struct Sender {
    enc: EncapsulatedKey,
    context: Context,
}

impl Sender {
    fn to(secret: &EhbpSecret) -> Self {
        Self::with_info(secret, b"ehbp request")
    }

    fn with_info(secret: &EhbpSecret, info: &[u8]) -> Self {
        type Public = <X25519HkdfSha256 as hpke::Kem>::PublicKey;
        let public = Public::from_bytes(&secret.public_key()).unwrap();
        let (enc, context): (<X25519HkdfSha256 as hpke::Kem>::EncappedKey, Context) =
            setup_sender_with_rng(&OpModeS::Base, &public, info, &mut rand::rng()).unwrap();
        let enc = hex::encode(enc.to_bytes()).parse().unwrap();
        Self { enc, context }
    }

    fn frame(&mut self, content: &[u8]) -> Vec<u8> {
        framed(&self.context.seal(content, b"").unwrap())
    }

    fn frames(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| self.frame(piece)).collect()
    }
}

fn framed(sealed: &[u8]) -> Vec<u8> {
    let len = u32::try_from(sealed.len()).unwrap();
    [&len.to_be_bytes()[..], sealed].concat()
}

fn node() -> (EhbpSecret, EhbpKeys) {
    let secret = [7; 32];
    let mut keys = EhbpKeys::new();
    keys.insert(3, EhbpSecret::fixed(&secret).unwrap());
    (EhbpSecret::fixed(&secret).unwrap(), keys)
}

fn open<'a>(
    keys: &EhbpKeys,
    enc: EncapsulatedKey,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(OpenedBody, EhbpReplySealer), EhbpError> {
    let mut opener = EhbpOpener::new(enc, LIMITS);
    for piece in pieces {
        opener.push(keys, Bytes::copy_from_slice(piece))?;
    }
    opener.finish()
}

fn error(keys: &EhbpKeys, enc: EncapsulatedKey, body: &[u8]) -> EhbpError {
    let whole = open(keys, enc, [body]).unwrap_err();
    let bytewise = open(keys, enc, body.chunks(1)).unwrap_err();
    assert_eq!(whole, bytewise, "a split changed the error");
    whole
}

#[test]
fn the_specifications_reply_comes_out_byte_for_byte() {
    let vector: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/ehbp-response.json")).unwrap();
    let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
    let array = |name: &str| bytes(name).try_into().unwrap();
    let secret = ReplySecret::fixed(AEAD, array("exported_secret"), array("enc"));
    let sealer = EhbpReplySealer::new(secret);
    let mut frames = sealer.begin_with(array("response_nonce")).unwrap();
    assert_eq!(frames.response_nonce(), vector["response_nonce"]);
    let plaintext = vector["plaintext"].as_str().unwrap();
    let sealed = frames.seal(plaintext.as_bytes()).unwrap();
    assert_eq!(sealed, bytes("frame"));
    assert_eq!(
        frames.seal(b"").unwrap(),
        Bytes::new(),
        "no frame of nothing"
    );
    assert_ne!(frames.seal(plaintext.as_bytes()).unwrap(), sealed);
}

#[test]
fn a_key_configuration_is_the_one_that_clients_read() {
    let config = encode_ehbp_key_config(&[9; 32]);
    let expected = [&[0, 0, 0x20][..], &[9; 32], &[0, 4, 0, 1, 0, 2]].concat();
    assert_eq!((config.len(), config), (41, expected));
}

#[test]
fn encapsulated_keys_have_one_text() {
    let good = "0a".repeat(32);
    assert_eq!(good.parse(), Ok(EncapsulatedKey::from_bytes([10; 32])));
    for text in [
        "",
        &good[1..],
        &good.to_uppercase(),
        &format!("{good}00"),
        &"0g".repeat(32),
    ] {
        let parsed: Result<EncapsulatedKey, _> = text.parse();
        assert_eq!(parsed, Err(InvalidEncapsulatedKey), "{text}");
    }
}

#[test]
fn a_body_opens_however_it_is_framed_and_split() {
    let (secret, keys) = node();
    let cases: [(&str, &[&[u8]]); 4] = [
        ("one frame", &[b"{\"model\":\"m\"}"]),
        ("many", &[b"{\"mod", b"el\"", b":\"m\"}"]),
        (
            "an empty plaintext among them",
            &[b"{\"mod", b"", b"el\":\"m\"}"],
        ),
        ("of the longest content", &[&[b'a'; MAX - 1], b"a"]),
    ];
    for (name, pieces) in cases {
        let mut sender = Sender::to(&secret);
        let body = sender.frames(pieces);
        for size in [1, 7, body.len()] {
            let (opened, _) = open(&keys, sender.enc, body.chunks(size)).expect(name);
            assert_eq!(opened.content, pieces.concat(), "{name}");
            assert_eq!(opened.key_id, 3);
        }
    }
}

#[test]
fn frames_of_no_bytes_are_passed_over_and_use_no_nonce() {
    let (secret, keys) = node();
    let mut sender = Sender::to(&secret);
    let nothing = [0; 4];
    let (one, two) = (sender.frame(b"one"), sender.frame(b"two"));
    let body = [&nothing[..], &one, &nothing, &nothing, &two, &nothing].concat();
    let (opened, _) = open(&keys, sender.enc, body.chunks(1)).unwrap();
    assert_eq!(opened.content, "onetwo");
    assert_eq!(error(&keys, sender.enc, &nothing), EhbpError::Empty);
}

#[test]
fn what_is_wrong_is_refused() {
    let (secret, keys) = node();
    let with = |make: &dyn Fn(&mut Sender) -> Vec<u8>| {
        let mut sender = Sender::to(&secret);
        let body = make(&mut sender);
        (sender.enc, body)
    };
    let too_large = EhbpError::TooLarge { max: MAX };
    let cases: [(&str, Sealed, EhbpError); 11] = [
        ("nothing", with(&|_| Vec::new()), EhbpError::Empty),
        ("half a length", with(&|_| vec![0, 0]), EhbpError::Truncated),
        (
            "half a later length",
            with(&|s| [s.frame(b"a"), vec![0]].concat()),
            EhbpError::Truncated,
        ),
        (
            "a cut frame",
            with(&|s| {
                let mut body = s.frames(&[b"one", b"two"]);
                body.pop();
                body
            }),
            EhbpError::Truncated,
        ),
        (
            "a frame shorter than a tag",
            with(&|_| framed(&[0; 15])),
            EhbpError::FrameTooShort { len: 15, min: 16 },
        ),
        (
            "a frame of 4 GiB, none of which came",
            with(&|_| vec![0xff; 4]),
            too_large,
        ),
        (
            "too long a frame",
            with(&|s| s.frame(&[0; MAX + 1])),
            too_large,
        ),
        (
            "too long together",
            with(&|s| s.frames(&[&[0; MAX], b"a"])),
            too_large,
        ),
        (
            "frames in another order",
            with(&|s| {
                let (one, two) = (s.frame(b"one"), s.frame(b"two"));
                let three = s.frame(b"three");
                [one, three, two].concat()
            }),
            EhbpError::Decrypt,
        ),
        (
            "the first one twice",
            with(&|s| {
                let one = s.frame(b"one");
                [one.clone(), one].concat()
            }),
            EhbpError::Decrypt,
        ),
        (
            "one bit of the first",
            with(&|s| {
                let mut body = s.frame(b"one");
                body[4] ^= 1;
                body
            }),
            EhbpError::NoKey,
        ),
    ];
    for (name, (enc, body), expected) in cases {
        assert_eq!(error(&keys, enc, &body), expected, "{name}");
    }
}

#[test]
fn bodies_that_hold_next_to_nothing_have_an_end() {
    let (_, keys) = node();
    let mut opener = EhbpOpener::new(EncapsulatedKey::from_bytes([9; 32]), LIMITS);
    let nothing = Bytes::from(vec![0; 64 * 1024]);
    let pushed: Vec<_> = (0..4)
        .map(|_| opener.push(&keys, nothing.clone()))
        .collect();
    assert_eq!(pushed[1], Ok(()));
    assert_eq!(pushed[2], Err(EhbpError::TooLarge { max: MAX }));
    assert_eq!(pushed[3], Err(EhbpError::Failed));
    assert_eq!(opener.finish().unwrap_err(), EhbpError::Failed);
}

/// A request does not name its key, and a rotation must not lose one.
#[test]
fn every_live_key_is_tried() {
    let (old, mut keys) = node();
    keys.insert(4, EhbpSecret::generate().unwrap());
    let mut sender = Sender::to(&old);
    let body = sender.frame(b"old");
    let (opened, _) = open(&keys, sender.enc, [&body[..]]).unwrap();
    assert_eq!((opened.key_id, &opened.content[..]), (3, &b"old"[..]));
    keys.remove(3);
    assert_eq!(error(&keys, sender.enc, &body), EhbpError::NoKey);
    keys.remove(4);
    assert_eq!(error(&keys, sender.enc, &body), EhbpError::NoKey);
}

#[test]
fn another_info_or_encapsulated_key_does_not_open() {
    let (secret, keys) = node();
    let mut sender = Sender::with_info(&secret, b"message/bhttp chunked request");
    let body = sender.frame(b"a");
    assert_eq!(error(&keys, sender.enc, &body), EhbpError::NoKey, "info");

    let mut sender = Sender::to(&secret);
    let body = sender.frame(b"a");
    // The same point in X25519, and another request in HPKE: a replay is known by these bytes.
    let mut enc = sender.enc.to_bytes();
    enc[31] ^= 0x80;
    let enc = EncapsulatedKey::from_bytes(enc);
    assert_eq!(error(&keys, enc, &body), EhbpError::NoKey, "top bit");

    let zero = EncapsulatedKey::from_bytes([0; 32]);
    assert_eq!(error(&keys, zero, &body), EhbpError::UnusableKey);
}

#[test]
fn a_reply_opens_under_what_the_sender_exports() {
    let (secret, keys) = node();
    let mut sender = Sender::to(&secret);
    let body = sender.frame(b"a");
    let (_, sealer) = open(&keys, sender.enc, [&body[..]]).unwrap();
    let mut frames = sealer.begin().unwrap();
    let long = vec![b'x'; 64 * 1024 + 1];
    let mut sealed = BytesMut::new();
    sealed.put(frames.seal(b"{}").unwrap());
    sealed.put(frames.seal(&long).unwrap());

    let mut exported = [0; 32];
    sender
        .context
        .export(b"ehbp response", &mut exported)
        .unwrap();
    let secret = ReplySecret::fixed(AEAD, exported, sender.enc.to_bytes());
    let nonce = hex::decode(frames.response_nonce()).unwrap();
    let mut opening = secret.opening(&nonce).unwrap();
    let mut lengths = Vec::new();
    let mut content = Vec::new();
    while !sealed.is_empty() {
        let len = u32::from_be_bytes(sealed.split_to(4)[..].try_into().unwrap());
        let frame = sealed.split_to(usize::try_from(len).unwrap());
        let plaintext = opening.open(frame, Place::Middle).unwrap();
        lengths.push(plaintext.len());
        content.extend_from_slice(&plaintext);
    }
    assert_eq!(lengths, [2, 64 * 1024, 1]);
    assert_eq!(content, [b"{}", &long[..]].concat());
}

#[test]
fn no_secret_is_shown() {
    let (secret, keys) = node();
    let mut sender = Sender::to(&secret);
    let body = sender.frame(b"prompt");
    let opener = format!("{:?}", EhbpOpener::new(sender.enc, LIMITS));
    let (opened, sealer) = open(&keys, sender.enc, [&body[..]]).unwrap();
    let shown = [
        opener,
        format!("{secret:?} {keys:?} {opened:?} {sealer:?}"),
        format!("{:?}", sealer.begin().unwrap()),
    ];
    let expected = "EhbpOpener(..) DialectSecret(..) {3} OpenedBody { key_id: 3, content_len: 6, \
                    .. } EhbpReplySealer(..) EhbpFrames(..)";
    assert_eq!(shown.join(" "), expected);
}
