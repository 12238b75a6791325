//! One piece of evidence, with all that its appraisal may use.

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
    /// The nonce: that of a GPU's report, or of a Nitro document.
    pub nonce: Option<[u8; 32]>,
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
