//! One piece of evidence, with all that its appraisal may use.

use std::str::FromStr;
use std::time::SystemTime;

use crate::answer::EvidenceItem;
use crate::bundle::Bundle;
use crate::collateral::Collateral;
use crate::policy::Policy;

/// What a report must carry of whoever asked for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Expected {
    /// The user field: SNP `REPORT_DATA`, TDX `REPORTDATA`, Nitro `user_data`.
    pub report_data: Option<[u8; 64]>,
    /// The nonce: that of a GPU's report, of a Nitro document, or of Azure's TPM quote.
    pub nonce: Option<ReportNonce>,
}

/// A nonce as raw evidence carries it, whoever asked for it: 1 to [`ReportNonce::MAX`] bytes. A
/// node's answer is always asked with a [`Nonce`](crate::Nonce).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReportNonce {
    bytes: [u8; Self::MAX],
    len: usize,
}

/// The text is no nonce.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a nonce is 1 to {} bytes of lower-case hex", ReportNonce::MAX)]
pub struct InvalidNonce;

impl ReportNonce {
    /// The longest that any format has, in bytes: that of Nitro's documents.
    pub const MAX: usize = 512;

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl TryFrom<&[u8]> for ReportNonce {
    type Error = InvalidNonce;

    fn try_from(nonce: &[u8]) -> Result<Self, InvalidNonce> {
        let mut bytes = [0; Self::MAX];
        let place = bytes.get_mut(..nonce.len()).ok_or(InvalidNonce)?;
        if nonce.is_empty() {
            return Err(InvalidNonce);
        }
        place.copy_from_slice(nonce);
        Ok(Self {
            bytes,
            len: nonce.len(),
        })
    }
}

impl From<[u8; 32]> for ReportNonce {
    fn from(nonce: [u8; 32]) -> Self {
        let mut bytes = [0; Self::MAX];
        for (byte, of_nonce) in bytes.iter_mut().zip(nonce) {
            *byte = of_nonce;
        }
        Self {
            bytes,
            len: nonce.len(),
        }
    }
}

impl FromStr for ReportNonce {
    type Err = InvalidNonce;

    fn from_str(text: &str) -> Result<Self, InvalidNonce> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bytes = hex::decode(text).map_err(|_| InvalidNonce)?;
        if !lower {
            return Err(InvalidNonce);
        }
        Self::try_from(bytes.as_slice())
    }
}

/// What the appraisals of one answer's evidence share.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Without one, what needs it is not checked.
    pub(crate) policy: Option<&'a Policy>,
    /// What of it is in force.
    pub(crate) bundle: &'a Bundle,
    /// When it is appraised.
    pub(crate) now: SystemTime,
    /// When it was asked for: what must be fresh had to be so then.
    pub(crate) asked: SystemTime,
}

/// What one appraisal works on.
pub(crate) struct Input<'a> {
    /// The report, as the hardware gave it.
    pub(crate) report: &'a [u8],
    /// DER, leaf first, root left out.
    pub(crate) certificates: &'a [Vec<u8>],
    /// What came with the evidence.
    pub(crate) delivered: &'a Collateral,
    /// What the verifier keeps.
    pub(crate) bundle: &'a Bundle,
    pub(crate) expected: Expected,
    pub(crate) now: SystemTime,
    /// See [`Context::asked`].
    pub(crate) asked: SystemTime,
}

impl<'a> Input<'a> {
    pub(crate) fn of(item: &'a EvidenceItem, context: &Context<'a>, expected: Expected) -> Self {
        Self {
            report: &item.report,
            certificates: &item.certificates,
            delivered: &item.collateral,
            bundle: context.bundle,
            expected,
            now: context.now,
            asked: context.asked,
        }
    }

    /// Pieces of one kind of collateral, the verifier's own first.
    pub(crate) fn collateral(
        &self,
        kind: impl Fn(&'a Collateral) -> &'a Vec<Vec<u8>>,
    ) -> impl Iterator<Item = &'a [u8]> {
        let pieces = kind(self.bundle.collateral()).iter();
        pieces.chain(kind(self.delivered)).map(Vec::as_slice)
    }
}
