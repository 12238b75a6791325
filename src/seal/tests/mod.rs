//! Exchanges as the two roles have them; the parts are tested beside their code.

mod exchange;
mod forgotten;
mod hpke_js;
mod interop;
mod known_answers;
mod paced;
mod streams;
mod tampering;
mod verified;
mod x_wing;

use attestation::PublicKey;
use bytes::{Bytes, BytesMut};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    FinalPart, Kem, NodeSecret, OpenError, OpenedRequest, OpeningKeys, Padding, ReplyHead,
    ReplyOpener, ReplyPart, ReplySealer, RequestHead, RequestLimits, RequestOpener,
    context::Place,
    request_sealer::{Recipient, seal_to},
    suite::{Aead, Suite},
    varint,
};

const KEY_ID: u8 = 5;
const HEAD: RequestHead<'static> = RequestHead {
    path: "/v1/completions",
    fields: &[
        ("content-type", "application/json"),
        ("date", "Mon, 23 Nov 2026 22:00:00 GMT"),
        ("sealgate-request-id", "00112233445566778899aabbccddeeff"),
    ],
};

const KEMS: [Kem; 2] = [Kem::X25519, Kem::XWing];
/// What the gateway seals X25519 with.
const X25519: Suite = Suite::X25519(Aead::Aes256Gcm);

/// A node with one key.
struct Node {
    public_key: PublicKey,
    keys: OpeningKeys,
}

impl Node {
    fn new() -> Self {
        Self::of(Kem::X25519)
    }

    fn of(kem: Kem) -> Self {
        let secret = NodeSecret::generate(kem).unwrap();
        let public_key = secret.public_key();
        let mut keys = OpeningKeys::new();
        keys.insert(KEY_ID, secret);
        Self { public_key, keys }
    }

    fn recipient(&self) -> Recipient<'_> {
        Recipient {
            key_id: KEY_ID,
            public_key: self.public_key.as_bytes(),
            suite: match self.public_key {
                PublicKey::X25519(_) => X25519,
                PublicKey::XWing(_) => Suite::XWing,
            },
        }
    }

    fn sealed(&self, content: &[u8], padding: Padding) -> (Bytes, ReplyOpener) {
        seal_to(self.recipient(), &HEAD, content, padding, &mut rng()).unwrap()
    }

    /// Opens a body that comes in pieces.
    fn open<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(OpenedRequest, ReplySealer), OpenError> {
        let mut opener = RequestOpener::new(RequestLimits::default());
        for piece in pieces {
            opener.push(&self.keys, Bytes::copy_from_slice(piece))?;
        }
        opener.finish()
    }

    /// A finished exchange up to the reply: its opener and its sealer.
    fn exchange(&self) -> (ReplyOpener, ReplySealer) {
        let (request, opener) = self.sealed(b"{}", Padding::Off);
        (opener, self.open([&request[..]]).unwrap().1)
    }
}

fn rng() -> StdRng {
    StdRng::from_rng(&mut rand::rng())
}

/// What an opener gave on, and how it ended.
#[derive(Debug, Default)]
struct Seen {
    head: Option<ReplyHead>,
    content: Vec<u8>,
    error: Option<OpenError>,
    end: Option<FinalPart>,
}

impl Seen {
    /// Everything that a complete reply said.
    fn complete(self) -> (ReplyHead, Vec<u8>, super::Trailers) {
        assert_eq!(self.error, None);
        let end = self.end.unwrap();
        let content = [&self.content[..], &end.content].concat();
        (self.head.or(end.head).unwrap(), content, end.trailers)
    }
}

fn read_reply<'a>(mut opener: ReplyOpener, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut seen = Seen::default();
    for piece in pieces {
        let mut pushed = opener.push(Bytes::copy_from_slice(piece));
        while pushed.is_ok() {
            match opener.next_part() {
                Ok(Some(ReplyPart::Head(head))) => seen.head = Some(head),
                Ok(Some(ReplyPart::Content(content))) => seen.content.extend_from_slice(&content),
                Ok(None) => break,
                Err(error) => pushed = Err(error),
            }
        }
        if let Err(error) = pushed {
            assert_eq!(opener.push(Bytes::new()), Err(OpenError::Failed));
            assert_eq!(opener.next_part(), Err(OpenError::Failed));
            assert_eq!(opener.finish(), Err(OpenError::Failed));
            seen.error = Some(error);
            return seen;
        }
    }
    match opener.finish() {
        Ok(end) => seen.end = Some(end),
        Err(error) => seen.error = Some(error),
    }
    seen
}

/// The chunks of a body after its first `head` bytes, each with its length prefix, and its place.
fn chunks(body: &[u8], head: usize) -> Vec<(Place, Vec<u8>)> {
    let mut rest = &body[head..];
    let mut chunks = Vec::new();
    loop {
        let prefix = varint::len_from(rest[0]);
        let len = usize::try_from(varint::decode(&rest[..prefix])).unwrap();
        if len == 0 {
            chunks.push((Place::Final, rest.to_vec()));
            return chunks;
        }
        let (chunk, after) = rest.split_at(prefix + len);
        chunks.push((Place::Middle, chunk.to_vec()));
        rest = after;
    }
}

/// Lengths of the plaintexts of a body's chunks.
fn plaintext_lens(body: &[u8], head: usize) -> Vec<usize> {
    chunks(body, head)
        .iter()
        .map(|(_, chunk)| chunk.len() - varint::len_from(chunk[0]) - 16)
        .collect()
}

/// Bytes as a body buffer that nobody else holds.
fn owned(bytes: &[u8]) -> Bytes {
    BytesMut::from(bytes).freeze()
}
