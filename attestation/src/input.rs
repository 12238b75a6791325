//! One piece of evidence, with all that its appraisal may use.

use std::time::SystemTime;

use crate::answer::EvidenceItem;
use crate::bundle::Bundle;
use crate::collateral::Collateral;

/// What a report must carry of whoever asked for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Expected {
    /// The user field: SNP `REPORT_DATA`, TDX `REPORTDATA`, Nitro `user_data`.
    pub report_data: Option<[u8; 64]>,
    /// The nonce: that of a GPU's report, or of a Nitro document.
    pub nonce: Option<[u8; 32]>,
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
}

impl<'a> Input<'a> {
    pub(crate) fn of(
        item: &'a EvidenceItem,
        bundle: &'a Bundle,
        expected: Expected,
        now: SystemTime,
    ) -> Self {
        Self {
            report: &item.report,
            certificates: &item.certificates,
            delivered: &item.collateral,
            bundle,
            expected,
            now,
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
