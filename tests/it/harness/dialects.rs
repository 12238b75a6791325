//! Clients of the two dialects, written from their descriptions and not from this project's code.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519},
    rand::SystemRandom,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blake2::{Blake2b, Digest as _, digest::consts::U32};
use hkdf::Hkdf;
use hpke::{
    Deserializable as _, OpModeS, Serializable as _,
    aead::{AeadCtxS, AesGcm256},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    setup_sender_with_rng,
};
use serde_json::{Value, json};
use sha2::Sha256;

type Kem = X25519HkdfSha256;
type Enc = <Kem as hpke::Kem>::EncappedKey;

/// One request in EHBP.
pub(crate) struct EhbpCall {
    /// The value of `Ehbp-Encapsulated-Key`.
    pub(crate) enc: String,
    pub(crate) body: Vec<u8>,
    context: AeadCtxS<AesGcm256, HkdfSha256, Kem>,
}

impl EhbpCall {
    /// Seals to the key of a key configuration, in frames of `frame` bytes.
    pub(crate) fn new(config: &[u8], content: &[u8], frame: usize) -> Self {
        assert_eq!(config.len(), 41, "one bare configuration");
        assert_eq!(config[..3], [0, 0, 0x20]);
        assert_eq!(config[35..], [0, 4, 0, 1, 0, 2]);
        Self::to_key(&config[3..35], content, frame)
    }

    pub(crate) fn to_key(key: &[u8], content: &[u8], frame: usize) -> Self {
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(key).unwrap();
        let rng = &mut rand::rng();
        let (enc, mut context): (Enc, AeadCtxS<AesGcm256, HkdfSha256, Kem>) =
            setup_sender_with_rng(&OpModeS::Base, &key, b"ehbp request", rng).unwrap();
        let mut body = Vec::new();
        for piece in content.chunks(frame) {
            let sealed = context.seal(piece, b"").unwrap();
            body.extend_from_slice(&u32::try_from(sealed.len()).unwrap().to_be_bytes());
            body.extend_from_slice(&sealed);
        }
        Self {
            enc: hex::encode(enc.to_bytes()),
            body,
            context,
        }
    }

    /// What opens the reply with this `Ehbp-Response-Nonce`.
    pub(crate) fn opener(&self, nonce: &str) -> EhbpReply {
        assert_eq!(nonce.len(), 64, "{nonce}");
        let mut secret = [0; 32];
        self.context.export(b"ehbp response", &mut secret).unwrap();
        let salt = hex::decode(format!("{}{nonce}", self.enc)).unwrap();
        let prk = Hkdf::<Sha256>::new(Some(&salt), &secret);
        let (mut key, mut base) = ([0; 32], [0; 12]);
        prk.expand(b"key", &mut key).unwrap();
        prk.expand(b"nonce", &mut base).unwrap();
        EhbpReply {
            key: aes(&key),
            base,
            next: 0,
            unread: Vec::new(),
        }
    }
}

/// A reply in EHBP, as it comes.
pub(crate) struct EhbpReply {
    key: LessSafeKey,
    base: [u8; 12],
    next: u64,
    unread: Vec<u8>,
}

impl EhbpReply {
    /// What the frames hold that are whole by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        let mut content = Vec::new();
        while let Some(prefix) = self.unread.first_chunk::<4>() {
            let end = 4 + usize::try_from(u32::from_be_bytes(*prefix)).unwrap();
            if self.unread.len() < end {
                break;
            }
            let mut nonce = self.base;
            for (byte, mask) in nonce[4..].iter_mut().zip(self.next.to_be_bytes()) {
                *byte ^= mask;
            }
            self.next += 1;
            let mut frame: Vec<u8> = self.unread.drain(..end).skip(4).collect();
            content.extend_from_slice(&open(&self.key, nonce, &mut frame));
        }
        content
    }

    /// Whether no frame is half there.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.unread.is_empty()
    }
}

/// One confidential request of the seed.
pub(crate) struct SeedCall {
    /// The request's members.
    pub(crate) request: Value,
    key: [u8; 32],
}

impl SeedCall {
    /// Seals to the key that a lock gave.
    pub(crate) fn new(node_key: &[u8], model: &str, stream: Option<bool>, content: &[u8]) -> Self {
        let rng = SystemRandom::new();
        let client = EphemeralPrivateKey::generate(&X25519, &rng).unwrap();
        let client_key = client.compute_public_key().unwrap();
        let (salt, nonce): ([u8; 16], [u8; 12]) = (rand::random(), rand::random());
        let peer = UnparsedPublicKey::new(&X25519, node_key);
        let key = agreement::agree_ephemeral(client, peer, (), |shared| {
            let mut key = [0; 32];
            let prk = Hkdf::<Sha256>::new(Some(&salt), shared);
            prk.expand(b"", &mut key).map(|()| key).map_err(drop)
        });
        let key = key.unwrap();
        let mut sealed = content.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        aes(&key)
            .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .unwrap();
        let request = json!({
            "ciphertext": STANDARD.encode(sealed),
            "client_dh_public_key": STANDARD.encode(client_key),
            "model_name": model,
            "node_dh_public_key": STANDARD.encode(node_key),
            "nonce": STANDARD.encode(nonce),
            "num_compute_units": null,
            "plaintext_body_hash": STANDARD.encode(Blake2b::<U32>::digest(content)),
            "salt": STANDARD.encode(salt),
            "stack_small_id": 7,
            "stream": stream,
        });
        Self { request, key }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(&self.request).unwrap()
    }

    /// Opens one message of the reply, whose form must be the one that every client takes.
    pub(crate) fn open(&self, message: &Value) -> Value {
        assert!(message["response_hash"].is_null() && message["signature"].is_null());
        let members = message.as_object().unwrap();
        assert!(members.contains_key("response_hash") && members.contains_key("signature"));
        let bytes = |name: &str| STANDARD.decode(message[name].as_str().unwrap()).unwrap();
        let mut sealed = bytes("ciphertext");
        let nonce = bytes("nonce").try_into().unwrap();
        serde_json::from_slice(&open(&aes(&self.key), nonce, &mut sealed)).unwrap()
    }
}

fn aes(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
}

fn open(key: &LessSafeKey, nonce: [u8; 12], sealed: &mut [u8]) -> Vec<u8> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::empty(), sealed)
        .unwrap()
        .to_vec()
}
