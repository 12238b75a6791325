//! What a verifier keeps beside its policy: collateral, and reference values for GPUs.

use crate::collateral::Collateral;
use crate::nvidia::GoldenMeasurements;

/// Collateral and reference values from a source that the policy trusts.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    collateral: Collateral,
    golden: Vec<GoldenMeasurements>,
}

impl Bundle {
    /// No bundle: evidence must bring the collateral that it needs.
    pub fn empty() -> Self {
        Self::default()
    }

    /// What vendors signed.
    pub fn collateral(&self) -> &Collateral {
        &self.collateral
    }

    /// Golden measurements of GPUs and switches.
    pub fn golden_measurements(&self) -> &[GoldenMeasurements] {
        &self.golden
    }
}

#[cfg(test)]
impl Bundle {
    /// Golden measurements that nobody vouches for.
    pub(crate) fn of_golden(golden: Vec<GoldenMeasurements>) -> Self {
        Self {
            golden,
            ..Self::default()
        }
    }
}
