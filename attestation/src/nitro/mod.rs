//! AWS Nitro Enclaves: attestation documents and their appraisal.

use std::io;
use std::time::SystemTime;

use serde::Deserialize;

use crate::check::Checks;
use crate::claims::Root;
use crate::input::Input;
use crate::policy::PolicyError;

/// Reference values for Nitro evidence.
#[derive(Clone, Debug)]
pub struct NitroPolicy {}

/// The `[nitro]` table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {}

impl Section {
    pub(crate) fn load(
        self,
        _read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        _digests: &mut Vec<[u8; 32]>,
    ) -> Result<NitroPolicy, PolicyError> {
        Ok(NitroPolicy {})
    }
}

/// What a document says.
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
    _policy: Option<&NitroPolicy>,
) -> Option<Claims> {
    checks.record("TEE", false, "one that is supported", "nitro");
    None
}
