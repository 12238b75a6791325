//! What the leaf's DICE extension says of the firmware that its key was derived for.

use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{self, Decode, Reader, SliceReader, Tag};

use crate::certificate::Certificate;

/// Of Hopper GPUs and LS10 switches: version, device key, one firmware id.
const COMPOSITE_DEVICE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1");
/// Of Blackwell GPUs: `DiceTcbInfo` (TCG DICE Attestation Architecture, section 6.1.1).
const TCB_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

const FWIDS: u8 = 6;
const FLAGS: u8 = 7;
/// `OperationalFlags`: notSecure, recovery, debug. The first bit, notConfigured, is set on genuine
/// GPUs.
const UNSAFE_FLAGS: u8 = 0b0111_0000;

/// Most firmware ids that one extension may hold.
const MAX_FWIDS: usize = 16;

/// A firmware id: SHA-384.
pub(super) type Fwid = [u8; 48];

/// What the extension says.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct TcbInfo {
    pub(super) fwids: Vec<Fwid>,
    /// The first byte of `OperationalFlags`, where the extension has them.
    pub(super) flags: Option<u8>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum TcbInfoError {
    #[error("no DICE TcbInfo extension, or two")]
    Missing,
    #[error("malformed DICE TcbInfo extension")]
    Malformed,
}

impl TcbInfo {
    pub(super) fn of(leaf: &Certificate) -> Result<Self, TcbInfoError> {
        let composite = leaf.extension(COMPOSITE_DEVICE_ID);
        let info = match (composite, leaf.extension(TCB_INFO)) {
            (Some(der), None) => composite_device_id(der),
            (None, Some(der)) => tcb_info(der),
            _ => return Err(TcbInfoError::Missing),
        };
        info.map_err(|_| TcbInfoError::Malformed)
    }

    /// Whether the flags, if there are any, call the firmware neither insecure nor in recovery nor
    /// under a debugger.
    pub(super) fn is_safe(&self) -> bool {
        self.flags.is_none_or(|flags| flags & UNSAFE_FLAGS == 0)
    }
}

fn composite_device_id(der: &[u8]) -> der::Result<TcbInfo> {
    let mut reader = SliceReader::new(der)?;
    let fwid = reader.sequence(|reader| {
        let version = u8::decode(reader)?;
        let device_key = AnyRef::decode(reader)?;
        let fwid = fwid(reader)?;
        match (version, device_key.header().tag()) {
            (1, Tag::Sequence) => Ok(fwid),
            _ => Err(der::Error::from(der::ErrorKind::Failed)),
        }
    })?;
    reader.finish()?;
    Ok(TcbInfo {
        fwids: vec![fwid],
        flags: None,
    })
}

fn tcb_info(der: &[u8]) -> der::Result<TcbInfo> {
    let mut reader = SliceReader::new(der)?;
    let info = reader.sequence(|reader| {
        let mut info = TcbInfo {
            fwids: Vec::new(),
            flags: None,
        };
        let mut last = None;
        while !reader.is_finished() {
            let field = AnyRef::decode(reader)?;
            let Tag::ContextSpecific { number, .. } = field.header().tag() else {
                return Err(der::ErrorKind::Failed.into());
            };
            // The fields are optional and stand in order, so none is there twice.
            if last.replace(number).is_some_and(|last| last >= number) {
                return Err(der::ErrorKind::Failed.into());
            }
            match u8::try_from(number.value()) {
                Ok(FWIDS) => info.fwids = fwids(field.value())?,
                Ok(FLAGS) => info.flags = Some(flags(field.value())?),
                _ => {}
            }
        }
        Ok::<_, der::Error>(info)
    })?;
    reader.finish()?;
    Ok(info)
}

fn fwids(content: &[u8]) -> der::Result<Vec<Fwid>> {
    let mut reader = SliceReader::new(content)?;
    let mut fwids = Vec::new();
    while !reader.is_finished() {
        if fwids.len() >= MAX_FWIDS {
            return Err(der::ErrorKind::Failed.into());
        }
        fwids.push(fwid(&mut reader)?);
    }
    Ok(fwids)
}

/// `FWID`: algorithm and digest.
fn fwid<'a>(reader: &mut SliceReader<'a>) -> der::Result<Fwid> {
    reader.sequence(|reader| {
        let algorithm = ObjectIdentifier::decode(reader)?;
        let digest = <&OctetStringRef>::decode(reader)?;
        match digest.as_bytes().try_into() {
            Ok(digest) if algorithm == SHA384 => Ok(digest),
            _ => Err(der::Error::from(der::ErrorKind::Failed)),
        }
    })
}

/// The first byte of an implicitly tagged `BIT STRING`.
fn flags(content: &[u8]) -> der::Result<u8> {
    match content {
        [unused @ 0..=7, bits @ ..] => {
            BitStringRef::new(*unused, bits)?;
            Ok(bits.first().copied().unwrap_or_default())
        }
        _ => Err(der::ErrorKind::Failed.into()),
    }
}
