//! The attestation document's bytes: a `COSE_Sign1` (RFC 9052 section 4.2) around a map of CBOR.

use std::collections::BTreeMap;

use crate::nitro::cbor::{CborError, Reader};

/// Longest document, in bytes; the security module's answers have at most 12 KiB.
pub const MAX_DOCUMENT: usize = 16 * 1024;
/// Most certificates above the leaf, the root included; AWS has four.
const MAX_CABUNDLE: u64 = 8;
/// Platform configuration registers are numbered 0 to 31.
const PCRS: u64 = 32;

/// The tag of `COSE_Sign1`, which may be left out.
const COSE_SIGN1: u64 = 18;
/// The protected header `{1: -35}`: ES384, and nothing else.
pub(super) const ES384: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
/// ECDSA on P-384: r and s, big-endian, 48 bytes each.
const SIGNATURE_LEN: usize = 96;

/// A platform configuration register: a digest of SHA-384.
pub type Pcr = [u8; 48];

/// A document's parts and fields. Nothing about them is verified.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) protected: &'a [u8],
    pub(super) signature: &'a [u8; SIGNATURE_LEN],
    /// What is signed together with the protected header, as received.
    payload: &'a [u8],
    pub(super) module_id: &'a str,
    pub(super) digest: &'a str,
    /// Milliseconds since the Unix epoch.
    pub(super) timestamp_ms: u64,
    pub(super) pcrs: BTreeMap<u64, Pcr>,
    /// DER of the key that signed.
    pub(super) certificate: &'a [u8],
    /// DER of the authorities, the root first.
    pub(super) cabundle: Vec<&'a [u8]>,
    pub(super) public_key: Option<&'a [u8]>,
    pub(super) user_data: Option<&'a [u8]>,
    pub(super) nonce: Option<&'a [u8]>,
}

/// Why bytes are no attestation document.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DocumentError {
    /// Longer than [`MAX_DOCUMENT`].
    #[error("{0} bytes")]
    TooLong(usize),
    /// Not the CBOR that a document is.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// A tag other than that of `COSE_Sign1`.
    #[error("tag {0}")]
    Tag(u64),
    /// Not the four elements of a `COSE_Sign1`.
    #[error("an array of {0}")]
    Elements(u64),
    /// Unprotected headers, which nothing vouches for.
    #[error("unprotected headers")]
    Unprotected,
    /// A signature of another length than P-384's.
    #[error("a signature of {0} bytes")]
    Signature(usize),
    /// A field that documents do not have.
    #[error("an unknown field")]
    Unknown,
    /// A field that must be there is not.
    #[error("no `{0}`")]
    Missing(&'static str),
    /// A field or register that is there twice.
    #[error("`{0}` twice")]
    Duplicate(&'static str),
    /// A register that is none of PCR0 to PCR31, or no digest of SHA-384.
    #[error("a register that is no digest of SHA-384 in PCR0 to PCR31")]
    Pcr,
    /// More certificates than a chain of AWS has.
    #[error("{0} certificates in `cabundle`")]
    Cabundle(u64),
}

impl<'a> Document<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLong(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        if let Some(tag) = reader.tag()?.filter(|tag| *tag != COSE_SIGN1) {
            return Err(DocumentError::Tag(tag));
        }
        let elements = reader.array()?;
        if elements != 4 {
            return Err(DocumentError::Elements(elements));
        }
        let protected = reader.bytes()?;
        if reader.map()? != 0 {
            return Err(DocumentError::Unprotected);
        }
        let payload = reader.bytes()?;
        let signature = reader.bytes()?;
        reader.finish()?;
        let signature = signature
            .try_into()
            .map_err(|_| DocumentError::Signature(signature.len()))?;
        Self::from_parts(protected, payload, signature)
    }

    fn from_parts(
        protected: &'a [u8],
        payload: &'a [u8],
        signature: &'a [u8; SIGNATURE_LEN],
    ) -> Result<Self, DocumentError> {
        let mut module_id = Field::new("module_id");
        let mut digest = Field::new("digest");
        let mut timestamp = Field::new("timestamp");
        let mut registers = Field::new("pcrs");
        let mut certificate = Field::new("certificate");
        let mut authorities = Field::new("cabundle");
        let mut public_key = Field::new("public_key");
        let mut user_data = Field::new("user_data");
        let mut nonce = Field::new("nonce");
        let mut reader = Reader::new(payload);
        for _ in 0..reader.map()? {
            match reader.text()? {
                "module_id" => module_id.set(reader.text()?)?,
                "digest" => digest.set(reader.text()?)?,
                "timestamp" => timestamp.set(reader.unsigned()?)?,
                "pcrs" => registers.set(pcrs(&mut reader)?)?,
                "certificate" => certificate.set(reader.bytes()?)?,
                "cabundle" => authorities.set(cabundle(&mut reader)?)?,
                "public_key" => public_key.set(reader.bytes_or_null()?)?,
                "user_data" => user_data.set(reader.bytes_or_null()?)?,
                "nonce" => nonce.set(reader.bytes_or_null()?)?,
                _ => return Err(DocumentError::Unknown),
            }
        }
        reader.finish()?;
        Ok(Self {
            protected,
            signature,
            payload,
            module_id: module_id.get()?,
            digest: digest.get()?,
            timestamp_ms: timestamp.get()?,
            pcrs: registers.get()?,
            certificate: certificate.get()?,
            cabundle: authorities.get()?,
            public_key: public_key.value.flatten(),
            user_data: user_data.value.flatten(),
            nonce: nonce.value.flatten(),
        })
    }

    /// `Sig_structure` (RFC 9052 section 4.4) around the bytes as received: the context
    /// `Signature1`, the protected header, no external data, the payload.
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"\x84\x6aSignature1".to_vec();
        push_bytes(&mut bytes, self.protected);
        push_bytes(&mut bytes, &[]);
        push_bytes(&mut bytes, self.payload);
        bytes
    }
}

/// Writes a byte string; a document's parts are shorter than 64 KiB.
fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(len @ 0..24), _) => out.push(0x40 | len),
        (Ok(len), _) => out.extend([0x58, len]),
        (Err(_), Ok(len)) => {
            out.push(0x59);
            out.extend(len.to_be_bytes());
        }
        // Longer than `MAX_DOCUMENT`, which was checked.
        (Err(_), Err(_)) => {}
    }
    out.extend(bytes);
}

/// A field of the payload, in whatever order it comes.
struct Field<T> {
    name: &'static str,
    value: Option<T>,
}

impl<T> Field<T> {
    fn new(name: &'static str) -> Self {
        Self { name, value: None }
    }

    fn set(&mut self, value: T) -> Result<(), DocumentError> {
        match self.value.replace(value) {
            None => Ok(()),
            Some(_) => Err(DocumentError::Duplicate(self.name)),
        }
    }

    fn get(self) -> Result<T, DocumentError> {
        self.value.ok_or(DocumentError::Missing(self.name))
    }
}

fn pcrs(reader: &mut Reader<'_>) -> Result<BTreeMap<u64, Pcr>, DocumentError> {
    let mut registers = BTreeMap::new();
    for _ in 0..reader.map()? {
        let number = reader.unsigned()?;
        let value = reader.bytes()?.try_into().map_err(|_| DocumentError::Pcr)?;
        if number >= PCRS {
            return Err(DocumentError::Pcr);
        }
        if registers.insert(number, value).is_some() {
            return Err(DocumentError::Duplicate("pcr"));
        }
    }
    Ok(registers)
}

fn cabundle<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, DocumentError> {
    let count = reader.array()?;
    if count > MAX_CABUNDLE {
        return Err(DocumentError::Cabundle(count));
    }
    (0..count).map(|_| Ok(reader.bytes()?)).collect()
}
