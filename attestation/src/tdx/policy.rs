//! What a policy asks of TDX evidence: the `[tdx]` table (`docs/policy.md`).

use std::{fmt, io};

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::certificate::Scheme;
use crate::policy::{Hex, PolicyError};
use crate::root::{SoftwareRoots, TrustedRoot};
use crate::tdx::TcbStatus;
use crate::tdx::chain::intel_root;
use crate::tdx::roots::INTEL_SGX_ROOT_CA_SHA256;

const SOFTWARE_ROOTS: SoftwareRoots = SoftwareRoots {
    key: "tdx.software_roots",
    below: 1,
    scheme: Scheme::EcdsaP256,
    vendors: &[INTEL_SGX_ROOT_CA_SHA256],
    vendors_own: |path| PolicyError::IntelAsSoftware { path },
};
/// XFAM bits that the TDX module lets a TD have (Intel TDX module specification, `XFAM_FIXED0`).
const XFAM_POSSIBLE: u64 = 0x0006_dbe7;

/// Reference values for TDX evidence.
#[derive(Clone, Debug)]
pub struct TdxPolicy {
    pub(crate) roots: Vec<TrustedRoot>,
    pub(crate) accepted_tcb_statuses: Vec<TcbStatus>,
    pub(crate) accepted_advisories: Vec<String>,
    pub(crate) minimum_tcb_evaluation_number: u32,
    pub(crate) minimum_tee_tcb_svn: Option<[u8; 16]>,
    pub(crate) mrseam: Vec<[u8; 48]>,
    pub(crate) mrtd: Vec<[u8; 48]>,
    pub(crate) rtmrs: [Option<Vec<[u8; 48]>>; 4],
    pub(crate) mrconfigid: Option<Vec<[u8; 48]>>,
    pub(crate) mrowner: Option<Vec<[u8; 48]>>,
    pub(crate) mrownerconfig: Option<Vec<[u8; 48]>>,
    pub(crate) allow_pks: bool,
    pub(crate) allow_kl: bool,
    pub(crate) allowed_xfam: u64,
    pub(crate) fmspcs: Option<Vec<[u8; 6]>>,
    pub(crate) denied_fmspcs: Vec<[u8; 6]>,
    pub(crate) ppids: Option<Vec<[u8; 16]>>,
    pub(crate) denied_ppids: Vec<[u8; 16]>,
}

/// What a person who reads a policy wants to know of it.
impl TdxPolicy {
    /// Whether it trusts a root that no hardware stands behind.
    pub fn trusts_software(&self) -> bool {
        self.roots.iter().any(TrustedRoot::is_software)
    }

    /// Whether any kernel, or any command line and initial file system, passes.
    pub fn accepts_any_software(&self) -> bool {
        let [_, rtmr1, rtmr2, _] = &self.rtmrs;
        rtmr1.is_none() || rtmr2.is_none()
    }

    /// Whether a platform passes that Intel does not call up to date.
    pub fn accepts_less_than_up_to_date(&self) -> bool {
        let statuses = &self.accepted_tcb_statuses;
        statuses.iter().any(|status| *status != TcbStatus::UpToDate)
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    #[serde(default)]
    intel_root: bool,
    #[serde(default)]
    software_roots: Vec<String>,
    #[serde(default = "Section::default_accepted_tcb_statuses")]
    accepted_tcb_statuses: Vec<TcbStatus>,
    #[serde(default)]
    accepted_advisories: Vec<String>,
    minimum_tcb_evaluation_number: u32,
    minimum_tee_tcb_svn: Option<Hex<16>>,
    mrseam: Vec<Hex<48>>,
    mrtd: Vec<Hex<48>>,
    rtmr0: Option<Vec<Hex<48>>>,
    rtmr1: Values,
    rtmr2: Values,
    rtmr3: Option<Vec<Hex<48>>>,
    mrconfigid: Option<Vec<Hex<48>>>,
    mrowner: Option<Vec<Hex<48>>>,
    mrownerconfig: Option<Vec<Hex<48>>>,
    #[serde(default)]
    allow_pks: bool,
    #[serde(default)]
    allow_kl: bool,
    #[serde(default = "Section::default_allowed_xfam")]
    allowed_xfam: u64,
    fmspcs: Option<Vec<Hex<6>>>,
    #[serde(default)]
    denied_fmspcs: Vec<Hex<6>>,
    ppids: Option<Vec<Hex<16>>>,
    #[serde(default)]
    denied_ppids: Vec<Hex<16>>,
}

/// A list of values, or the word "any" of somebody who knows what that means.
struct Values(Option<Vec<Hex<48>>>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValuesVisitor;

        impl<'de> Visitor<'de> for ValuesVisitor {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of 96 hex digits each, or \"any\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Values, E> {
                match word {
                    "any" => Ok(Values(None)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Values(Some(values)))
            }
        }

        deserializer.deserialize_any(ValuesVisitor)
    }
}

impl Section {
    fn default_accepted_tcb_statuses() -> Vec<TcbStatus> {
        vec![TcbStatus::UpToDate]
    }

    fn default_allowed_xfam() -> u64 {
        XFAM_POSSIBLE
    }

    /// Completes the policy; `digests` gets the SHA-256 of every file that it rests on.
    pub(crate) fn load(
        self,
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        digests: &mut Vec<[u8; 32]>,
    ) -> Result<TdxPolicy, PolicyError> {
        let hardening = |status: &TcbStatus| status.is_hardening_needed();
        if self.accepted_tcb_statuses.iter().any(hardening) && self.accepted_advisories.is_empty() {
            return Err(PolicyError::OutOfRange {
                key: "tdx.accepted_advisories",
                range: "the list that goes with a status of SWHardeningNeeded",
            });
        }
        let mut roots = Vec::new();
        if self.intel_root {
            roots.extend(intel_root());
        }
        roots.extend(SOFTWARE_ROOTS.read(self.software_roots, read_file, digests)?);
        if roots.is_empty() {
            return Err(PolicyError::NoIntelRoot);
        }
        let rtmrs = [self.rtmr0, self.rtmr1.0, self.rtmr2.0, self.rtmr3];
        Ok(TdxPolicy {
            roots,
            accepted_tcb_statuses: self.accepted_tcb_statuses,
            accepted_advisories: self.accepted_advisories,
            minimum_tcb_evaluation_number: self.minimum_tcb_evaluation_number,
            minimum_tee_tcb_svn: self.minimum_tee_tcb_svn.map(Hex::into_inner),
            mrseam: Hex::unwrap_all(self.mrseam),
            mrtd: Hex::unwrap_all(self.mrtd),
            rtmrs: rtmrs.map(|list| list.map(Hex::unwrap_all)),
            mrconfigid: self.mrconfigid.map(Hex::unwrap_all),
            mrowner: self.mrowner.map(Hex::unwrap_all),
            mrownerconfig: self.mrownerconfig.map(Hex::unwrap_all),
            allow_pks: self.allow_pks,
            allow_kl: self.allow_kl,
            allowed_xfam: self.allowed_xfam,
            fmspcs: self.fmspcs.map(Hex::unwrap_all),
            denied_fmspcs: Hex::unwrap_all(self.denied_fmspcs),
            ppids: self.ppids.map(Hex::unwrap_all),
            denied_ppids: Hex::unwrap_all(self.denied_ppids),
        })
    }
}
