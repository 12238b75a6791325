//! Intel TDX: quotes, Intel's collateral, and their appraisal.

use std::io;
use std::time::SystemTime;

use serde::Deserialize;

use crate::check::Checks;
use crate::claims::Root;
use crate::input::Input;
use crate::policy::PolicyError;

/// Reference values for TDX evidence.
#[derive(Clone, Debug)]
pub struct TdxPolicy {}

/// The `[tdx]` table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {}

impl Section {
    pub(crate) fn load(
        self,
        _read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        _digests: &mut Vec<[u8; 32]>,
    ) -> Result<TdxPolicy, PolicyError> {
        Ok(TdxPolicy {})
    }
}

/// What a quote says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Where the certificates chain to.
    pub root: Root,
    /// When the first of the certificates and pieces of collateral ends.
    pub not_after: SystemTime,
}

pub(crate) fn run(
    checks: &mut Checks,
    _input: &Input<'_>,
    _policy: Option<&TdxPolicy>,
) -> Option<Claims> {
    checks.record("TEE", false, "one that is supported", "tdx");
    None
}
