//! What a policy asks of Nitro evidence: the `[nitro]` table (`docs/policy.md`).

use std::io;
use std::time::Duration;

use serde::Deserialize;

use crate::certificate::Scheme;
use crate::nitro::chain::{AWS_ROOT_SHA256, aws_root};
use crate::nitro::document::Pcr;
use crate::policy::{Hex, PolicyError};
use crate::root::{SoftwareRoots, TrustedRoot};

const SOFTWARE_ROOTS: SoftwareRoots = SoftwareRoots {
    key: "nitro.software_roots",
    below: 0,
    scheme: Scheme::EcdsaP384,
    vendors: &[AWS_ROOT_SHA256],
    vendors_own: |path| PolicyError::AwsAsSoftware { path },
};
/// Longest that a document's time may lie away, in seconds: a week, as for appraisals.
const MAX_AGE_S: u64 = 7 * 24 * 60 * 60;

/// Reference values for Nitro evidence.
#[derive(Clone, Debug)]
pub struct NitroPolicy {
    pub(super) roots: Vec<TrustedRoot>,
    /// By number of the register; `None` allows any value.
    pub(crate) pcrs: [(u64, Option<Vec<Pcr>>); 6],
    pub(crate) module_ids: Option<Vec<String>>,
    pub(super) maximum_age: Duration,
}

impl NitroPolicy {
    /// Whether it trusts a root that no hardware stands behind.
    pub fn trusts_software(&self) -> bool {
        self.roots.iter().any(TrustedRoot::is_software)
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    #[serde(default)]
    aws_root: bool,
    #[serde(default)]
    software_roots: Vec<String>,
    pcr0: Vec<Hex<48>>,
    pcr1: Vec<Hex<48>>,
    pcr2: Vec<Hex<48>>,
    pcr3: Option<Vec<Hex<48>>>,
    pcr4: Option<Vec<Hex<48>>>,
    pcr8: Option<Vec<Hex<48>>>,
    module_ids: Option<Vec<String>>,
    #[serde(default = "Section::default_maximum_age_s")]
    maximum_age_s: u64,
}

impl Section {
    /// Five minutes: a document is made for each question.
    fn default_maximum_age_s() -> u64 {
        5 * 60
    }

    /// Completes the policy; `digests` gets the SHA-256 of every file that it rests on.
    pub(crate) fn load(
        self,
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        digests: &mut Vec<[u8; 32]>,
    ) -> Result<NitroPolicy, PolicyError> {
        if !(1..=MAX_AGE_S).contains(&self.maximum_age_s) {
            return Err(PolicyError::OutOfRange {
                key: "nitro.maximum_age_s",
                range: "1 to 604800",
            });
        }
        let mut roots = Vec::new();
        if self.aws_root {
            roots.extend(aws_root());
        }
        roots.extend(SOFTWARE_ROOTS.read(self.software_roots, read_file, digests)?);
        if roots.is_empty() {
            return Err(PolicyError::NoAwsRoot);
        }
        Ok(NitroPolicy {
            roots,
            pcrs: [
                (0, Some(self.pcr0)),
                (1, Some(self.pcr1)),
                (2, Some(self.pcr2)),
                (3, self.pcr3),
                (4, self.pcr4),
                (8, self.pcr8),
            ]
            .map(|(number, list)| (number, list.map(Hex::unwrap_all))),
            module_ids: self.module_ids,
            maximum_age: Duration::from_secs(self.maximum_age_s),
        })
    }
}
