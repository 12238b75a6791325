//! The Nitro Secure Module of an AWS enclave: one request and one response in CBOR (RFC 8949).

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use attestation::{Collateral, EvidenceItem, EvidenceKind};
use tee_device::Nsm;

use super::{CpuSource, EvidenceError, Question};

/// Longest word that the module gives for an error, in bytes.
const MAX_ERROR: usize = 64;

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const MAP: u8 = 5;
/// CBOR's null.
const NULL: u8 = 0xf6;

/// Why the module gives no document.
#[derive(Debug, thiserror::Error)]
pub enum NitroError {
    /// The device cannot be opened.
    #[error("{}: {source}{}", path.display(), super::device_hint(source))]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The driver refuses.
    #[error("the secure module cannot be asked: {0}")]
    Ask(io::Error),
    /// The module refuses.
    #[error("the secure module answers {0:?}")]
    Refused(Box<str>),
    /// The module's response is none.
    #[error("the secure module's response is not one to an attestation request")]
    Malformed,
}

/// The module's one operation, so that a test can be the module.
pub(super) trait SecureModule: fmt::Debug + Send + Sync {
    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>>;
}

impl SecureModule for Nsm {
    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.ask(request)
    }
}

/// The documents of one module.
#[derive(Debug)]
pub(super) struct Nitro<M = Nsm>(M);

impl Nitro {
    pub(super) fn open(path: &Path) -> Result<Self, NitroError> {
        let module = Nsm::open(path).map_err(|source| NitroError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(module))
    }
}

impl<M: SecureModule> CpuSource for Nitro<M> {
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError> {
        let response = self.0.ask(&request(question)).map_err(NitroError::Ask)?;
        Ok(EvidenceItem {
            kind: EvidenceKind::Nitro,
            report: document(&response)?,
            // A document carries its certificates.
            certificates: Vec::new(),
            collateral: Collateral::default(),
        })
    }
}

/// `{"Attestation": {"user_data": …, "nonce": …, "public_key": null}}`.
fn request(question: &Question) -> Vec<u8> {
    let mut request = Vec::new();
    item(&mut request, MAP, 1, &[]);
    text(&mut request, "Attestation");
    item(&mut request, MAP, 3, &[]);
    text(&mut request, "user_data");
    item(&mut request, BYTES, 64, &question.report_data);
    text(&mut request, "nonce");
    item(&mut request, BYTES, 32, &question.nonce);
    text(&mut request, "public_key");
    request.push(NULL);
    request
}

fn text(out: &mut Vec<u8>, text: &'static str) {
    item(
        out,
        TEXT,
        u8::try_from(text.len()).unwrap_or(u8::MAX),
        text.as_bytes(),
    );
}

/// The head of a data item in its shortest form, and what follows it.
fn item(out: &mut Vec<u8>, major: u8, len: u8, content: &[u8]) {
    match len {
        0..=23 => out.push(major << 5 | len),
        _ => out.extend([major << 5 | 24, len]),
    }
    out.extend_from_slice(content);
}

/// The document in `{"Attestation": {"document": …}}`; the word in `{"Error": …}` is the error.
pub(super) fn document(response: &[u8]) -> Result<Vec<u8>, NitroError> {
    let mut reader = Reader(response);
    let answer = match (reader.map()?, reader.text()?) {
        (1, "Attestation") => match (reader.map()?, reader.text()?) {
            (1, "document") => Ok(reader.take(BYTES)?.to_vec()),
            _ => return Err(NitroError::Malformed),
        },
        (1, "Error") => {
            let word = reader.text()?.chars().take(MAX_ERROR);
            Err(NitroError::Refused(word.collect()))
        }
        _ => return Err(NitroError::Malformed),
    };
    match reader.0 {
        [] => answer,
        _ => Err(NitroError::Malformed),
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn map(&mut self) -> Result<usize, NitroError> {
        self.head(MAP)
    }

    fn text(&mut self) -> Result<&'a str, NitroError> {
        let bytes = self.take(TEXT)?;
        std::str::from_utf8(bytes).map_err(|_| NitroError::Malformed)
    }

    fn take(&mut self, major: u8) -> Result<&'a [u8], NitroError> {
        let len = self.head(major)?;
        self.bytes(len)
    }

    /// The length in the head of the next item, which is of the kind `major` and of definite length.
    fn head(&mut self, major: u8) -> Result<usize, NitroError> {
        let first = self.bytes(1)?.first().copied().unwrap_or_default();
        if first >> 5 != major {
            return Err(NitroError::Malformed);
        }
        let more = match first & 0x1f {
            short @ 0..=23 => return Ok(usize::from(short)),
            24 => 1,
            25 => 2,
            26 => 4,
            _ => return Err(NitroError::Malformed),
        };
        let shifted = |len: usize, byte: &u8| len << 8 | usize::from(*byte);
        Ok(self.bytes(more)?.iter().fold(0, shifted))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], NitroError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(NitroError::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::attester::evidence::tests::question;

    #[derive(Debug)]
    struct Module {
        response: io::Result<Vec<u8>>,
        asked: Mutex<Vec<u8>>,
    }

    impl SecureModule for Module {
        fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
            *self.asked.lock().unwrap() = request.to_vec();
            let response = self.response.as_ref();
            response.cloned().map_err(|error| error.kind().into())
        }
    }

    fn nitro(response: &[u8]) -> Nitro<Module> {
        Nitro(Module {
            response: Ok(response.to_vec()),
            asked: Mutex::default(),
        })
    }

    /// As the module answers, with a document of `len` bytes.
    fn answer(len: u16) -> Vec<u8> {
        let head = b"\xa1\x6bAttestation\xa1\x68document\x59";
        let document = vec![7; usize::from(len)];
        [&head[..], &len.to_be_bytes(), &document].concat()
    }

    #[test]
    fn report_data_and_nonce_go_in_and_the_document_comes_out() {
        let nitro = nitro(&answer(5000));
        let item = nitro.evidence(&question()).unwrap();
        assert_eq!(item.kind, EvidenceKind::Nitro);
        assert_eq!(item.report, [7; 5000]);
        assert!(item.certificates.is_empty());
        let expected = [
            &b"\xa1\x6bAttestation\xa3\x69user_data\x58\x40"[..],
            &question().report_data,
            b"\x65nonce\x58\x20",
            &question().nonce,
            b"\x6apublic_key\xf6",
        ];
        assert_eq!(*nitro.0.asked.lock().unwrap(), expected.concat());
    }

    #[test]
    fn every_form_of_length_is_read() {
        let with = |head: &[u8], len: usize| {
            let all = [b"\xa1\x6bAttestation\xa1\x68document", head, &vec![7; len]].concat();
            document(&all).unwrap().len()
        };
        assert_eq!(with(b"\x57", 23), 23);
        assert_eq!(with(b"\x58\xff", 255), 255);
        assert_eq!(with(b"\x59\x01\x00", 256), 256);
        assert_eq!(with(b"\x5a\x00\x01\x00\x00", 65536), 65536);
    }

    #[test]
    fn what_the_module_refuses_is_named() {
        let error = nitro(b"\xa1\x65Error\x6cInvalidInput").evidence(&question());
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("answers \"InvalidInput\""), "{error}");
        let long = [b"\xa1\x65Error\x78\xff".as_slice(), &[b'e'; 255]].concat();
        let Err(NitroError::Refused(word)) = document(&long) else {
            panic!("not refused")
        };
        assert_eq!(word.len(), MAX_ERROR);
        let busy = Nitro(Module {
            response: Err(io::ErrorKind::TimedOut.into()),
            asked: Mutex::default(),
        });
        let error = busy.evidence(&question()).unwrap_err().to_string();
        assert!(error.contains("cannot be asked"), "{error}");
    }

    #[test]
    fn no_other_response_is_read() {
        let good = answer(3);
        assert!(document(&good).is_ok());
        let changed = |from: &str, to: &[u8]| {
            let at = good
                .windows(from.len())
                .position(|it| it == from.as_bytes());
            let mut bytes = good.clone();
            bytes.splice(at.unwrap()..at.unwrap() + from.len(), to.iter().copied());
            bytes
        };
        let cases = [
            ("nothing", vec![]),
            ("a longer map", [&[0xa2], &good[1..]].concat()),
            ("an array", [&[0x81], &good[1..]].concat()),
            ("a map without end", [&[0xbf], &good[1..]].concat()),
            ("another answer", changed("Attestation", b"attestation")),
            ("another member", changed("document", b"docoment")),
            ("two members", {
                let mut bytes = good.clone();
                bytes[13] += 1;
                bytes
            }),
            (
                "no text",
                changed("document", b"\xff\xff\xff\xff\xff\xff\xff\xff"),
            ),
            ("cut", good[..good.len() - 1].to_vec()),
            ("more behind it", [&good[..], &[0]].concat()),
        ];
        for (name, bytes) in cases {
            let read = document(&bytes);
            assert!(
                matches!(read, Err(NitroError::Malformed)),
                "{name}: {read:?}"
            );
        }
    }

    #[test]
    fn an_absent_device_is_named_with_what_to_do() {
        let error = Nitro::open(Path::new("/dev/there-is-no-nsm")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("/dev/there-is-no-nsm"), "{error}");
        assert!(error.contains("sealgate doctor"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(document(&bytes));
            drop(document(&[b"\xa1\x6bAttestation", &bytes[..]].concat()));
        }
    }
}
