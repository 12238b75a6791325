//! What a policy asks of SEV-SNP evidence: the `[sev_snp]` table (`docs/policy.md`).

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use crate::certificate::Scheme;
use crate::policy::{Hex, PolicyError};
use crate::root::{SoftwareRoots, TrustedRoot};
use crate::sev_snp::chain::amd_roots;
use crate::sev_snp::roots::ARK_SHA256;
use crate::sev_snp::{Product, Tcb};

const SOFTWARE_ROOTS: SoftwareRoots = SoftwareRoots {
    key: "sev_snp.software_roots",
    below: 1,
    scheme: Scheme::RsaPss,
    vendors: &ARK_SHA256,
    vendors_own: |path| PolicyError::AmdAsSoftware { path },
};

/// Reference values for SEV-SNP evidence.
#[derive(Clone, Debug)]
pub struct SnpPolicy {
    pub(crate) roots: Vec<TrustedRoot>,
    pub(crate) products: Vec<Product>,
    pub(crate) measurements: Vec<[u8; 48]>,
    pub(crate) minimum_tcb: BTreeMap<Product, Tcb>,
    pub(crate) allow_provisional_firmware: bool,
    pub(crate) vmpl: u8,
    pub(crate) minimum_guest_svn: u32,
    pub(crate) allow_smt: bool,
    pub(crate) allow_cxl: bool,
    pub(crate) require_single_socket: bool,
    pub(crate) required_platform_info: Vec<PlatformFeature>,
    pub(crate) host_data: Option<Vec<[u8; 32]>>,
    pub(crate) id_key_digests: Option<Vec<[u8; 48]>>,
    pub(crate) author_key_digests: Option<Vec<[u8; 48]>>,
    pub(crate) chip_ids: Option<Vec<[u8; 64]>>,
    pub(crate) denied_chip_ids: Vec<[u8; 64]>,
    /// Bits that must be set in the mitigation vectors of version 5.
    pub(crate) minimum_launch_mitigations: u64,
    pub(crate) minimum_current_mitigations: u64,
    /// `None` asks for what is usual under the root of the evidence.
    pub(crate) revocation: Option<Revocation>,
    pub(crate) vlek_csp_ids: Vec<String>,
}

/// What a person who reads a policy wants to know of it.
impl SnpPolicy {
    /// Whether it trusts a root that no hardware stands behind.
    pub fn trusts_software(&self) -> bool {
        self.roots.iter().any(TrustedRoot::is_software)
    }

    /// Whether reports of this generation can pass.
    pub fn accepts(&self, product: Product) -> bool {
        self.products.contains(&product)
    }

    /// Whether no launch digest is listed, so that no report can pass.
    pub fn accepts_no_measurement(&self) -> bool {
        self.measurements.is_empty()
    }

    /// Whether the platform must have looked for aliased memory.
    pub fn demands_alias_check(&self) -> bool {
        self.required_platform_info
            .contains(&PlatformFeature::AliasCheckComplete)
    }

    /// Whether a chip under AMD's roots passes without a current list of what AMD revoked.
    pub fn skips_revocation(&self) -> bool {
        !matches!(self.revocation, None | Some(Revocation::Required))
            && self.roots.iter().any(|root| !root.is_software())
    }

    /// Whether firmware passes that the host can still roll back.
    pub fn accepts_provisional_firmware(&self) -> bool {
        self.allow_provisional_firmware
    }
}

/// What is asked of revocation lists.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Revocation {
    /// A current list must be there.
    Required,
    /// A list that is there must be current.
    IfPresent,
    /// Lists are not looked at.
    Off,
}

/// What a platform can have switched on, as the report's `platform_info` tells.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PlatformFeature {
    Tsme,
    Ecc,
    RaplDisabled,
    CiphertextHiding,
    AliasCheckComplete,
}

impl PlatformFeature {
    pub(crate) const ALL: [Self; 5] = [
        Self::Tsme,
        Self::Ecc,
        Self::RaplDisabled,
        Self::CiphertextHiding,
        Self::AliasCheckComplete,
    ];

    pub(crate) fn bit(self) -> u64 {
        match self {
            Self::Tsme => 1 << 1,
            Self::Ecc => 1 << 2,
            Self::RaplDisabled => 1 << 3,
            Self::CiphertextHiding => 1 << 4,
            Self::AliasCheckComplete => 1 << 5,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tsme => "tsme",
            Self::Ecc => "ecc",
            Self::RaplDisabled => "rapl-disabled",
            Self::CiphertextHiding => "ciphertext-hiding",
            Self::AliasCheckComplete => "alias-check-complete",
        }
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    #[serde(default)]
    amd_roots: bool,
    #[serde(default)]
    software_roots: Vec<String>,
    products: Vec<Product>,
    measurements: Vec<Hex<48>>,
    #[serde(default)]
    minimum_tcb: BTreeMap<Product, MinimumTcb>,
    #[serde(default)]
    allow_provisional_firmware: bool,
    #[serde(default)]
    vmpl: u8,
    #[serde(default)]
    minimum_guest_svn: u32,
    #[serde(default = "Section::default_allow_smt")]
    allow_smt: bool,
    #[serde(default)]
    allow_cxl: bool,
    #[serde(default)]
    require_single_socket: bool,
    #[serde(default = "Section::default_required_platform_info")]
    required_platform_info: Vec<PlatformFeature>,
    host_data: Option<Vec<Hex<32>>>,
    id_key_digests: Option<Vec<Hex<48>>>,
    author_key_digests: Option<Vec<Hex<48>>>,
    chip_ids: Option<Vec<Hex<64>>>,
    #[serde(default)]
    denied_chip_ids: Vec<Hex<64>>,
    #[serde(default)]
    minimum_launch_mitigations: u64,
    #[serde(default)]
    minimum_current_mitigations: u64,
    revocation: Option<Revocation>,
    #[serde(default)]
    vlek_csp_ids: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct MinimumTcb {
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

impl Section {
    /// Guests may run with SMT unless told otherwise: nearly every host has it on.
    fn default_allow_smt() -> bool {
        true
    }

    /// Memory aliasing (BadRAM) is checked for unless told otherwise.
    fn default_required_platform_info() -> Vec<PlatformFeature> {
        vec![PlatformFeature::AliasCheckComplete]
    }

    /// Completes the policy; `digests` gets the SHA-256 of every file that it rests on.
    pub(crate) fn load(
        self,
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        digests: &mut Vec<[u8; 32]>,
    ) -> Result<SnpPolicy, PolicyError> {
        if self.vmpl > 3 {
            return Err(PolicyError::OutOfRange {
                key: "sev_snp.vmpl",
                range: "0 to 3",
            });
        }
        let minimum_tcb = minimum_tcb(&self.products, &self.minimum_tcb)?;
        let mut roots = Vec::new();
        if self.amd_roots {
            roots.extend(amd_roots());
        }
        roots.extend(SOFTWARE_ROOTS.read(self.software_roots, read_file, digests)?);
        if roots.is_empty() {
            return Err(PolicyError::NoRoot);
        }
        Ok(SnpPolicy {
            roots,
            products: self.products,
            measurements: Hex::unwrap_all(self.measurements),
            minimum_tcb,
            allow_provisional_firmware: self.allow_provisional_firmware,
            vmpl: self.vmpl,
            minimum_guest_svn: self.minimum_guest_svn,
            allow_smt: self.allow_smt,
            allow_cxl: self.allow_cxl,
            require_single_socket: self.require_single_socket,
            required_platform_info: self.required_platform_info,
            host_data: self.host_data.map(Hex::unwrap_all),
            id_key_digests: self.id_key_digests.map(Hex::unwrap_all),
            author_key_digests: self.author_key_digests.map(Hex::unwrap_all),
            chip_ids: self.chip_ids.map(Hex::unwrap_all),
            denied_chip_ids: Hex::unwrap_all(self.denied_chip_ids),
            minimum_launch_mitigations: self.minimum_launch_mitigations,
            minimum_current_mitigations: self.minimum_current_mitigations,
            revocation: self.revocation,
            vlek_csp_ids: self.vlek_csp_ids,
        })
    }
}

/// Every product that is allowed must have a minimum: without one a rollback would go unseen.
fn minimum_tcb(
    products: &[Product],
    minima: &BTreeMap<Product, MinimumTcb>,
) -> Result<BTreeMap<Product, Tcb>, PolicyError> {
    if let Some(product) = products
        .iter()
        .find(|product| !minima.contains_key(product))
    {
        return Err(PolicyError::NoMinimumTcb(*product));
    }
    let complete = |(product, minimum): (&Product, &MinimumTcb)| {
        if minimum.fmc.is_some() != (*product == Product::Turin) {
            return Err(PolicyError::Fmc(*product));
        }
        let MinimumTcb {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        } = *minimum;
        Ok((
            *product,
            Tcb {
                fmc,
                bootloader,
                tee,
                snp,
                microcode,
            },
        ))
    };
    minima.iter().map(complete).collect()
}
