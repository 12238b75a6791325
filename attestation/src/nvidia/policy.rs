//! What a policy asks of NVIDIA devices' evidence: the `[nvidia]` table (`docs/policy.md`).

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use crate::certificate::Scheme;
use crate::nvidia::Mode;
use crate::nvidia::chain::{AUTHORITIES, nvidia_root};
use crate::nvidia::roots::DEVICE_ROOT_SHA256;
use crate::nvidia::version::{DriverVersion, VbiosVersion};
use crate::policy::{Hex, PolicyError};
use crate::root::{SoftwareRoots, TrustedRoot};

const SOFTWARE_ROOTS: SoftwareRoots = SoftwareRoots {
    key: "nvidia.software_roots",
    below: AUTHORITIES,
    scheme: Scheme::EcdsaP384,
    vendors: &[DEVICE_ROOT_SHA256],
    vendors_own: |path| PolicyError::NvidiaAsSoftware { path },
};

/// The chips that a policy can name, as their certificates do: Hopper, Blackwell, and the switch.
pub(crate) const ARCHITECTURES: [&str; 7] = [
    "GH100", "GB100", "GB102", "GB110", "GB112", "GB202", "LS_10",
];

/// Reference values for devices' evidence.
#[derive(Clone, Debug)]
pub struct NvidiaPolicy {
    pub(crate) roots: Vec<TrustedRoot>,
    pub(crate) architectures: Vec<String>,
    pub(crate) minimum_gpus: u8,
    pub(crate) require_uniform_gpus: bool,
    pub(crate) modes: Vec<Mode>,
    pub(crate) revocation: Requirement,
    pub(crate) measurements: Requirement,
    pub(crate) minimum_driver: Option<DriverVersion>,
    pub(crate) driver_versions: Option<Vec<DriverVersion>>,
    pub(crate) minimum_vbios: BTreeMap<String, VbiosVersion>,
    pub(crate) vbios_versions: Option<Vec<VbiosVersion>>,
    pub(crate) devices: Option<Vec<[u8; 32]>>,
    pub(crate) denied_devices: Vec<[u8; 32]>,
}

/// What a person who reads a policy wants to know of it.
impl NvidiaPolicy {
    /// Whether it trusts a root that no hardware stands behind.
    pub fn trusts_software(&self) -> bool {
        self.roots.iter().any(TrustedRoot::is_software)
    }

    /// Whether a node passes that sends no evidence of its GPUs.
    pub fn accepts_no_gpu(&self) -> bool {
        self.minimum_gpus == 0
    }

    /// Whether a device passes whose certificates may be revoked.
    pub fn skips_revocation(&self) -> bool {
        self.revocation == Requirement::Off
    }

    /// Whether a device passes whatever its firmware measured.
    pub fn skips_measurements(&self) -> bool {
        self.measurements == Requirement::Off
    }
}

/// Whether something that fails closed is asked for at all.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Requirement {
    #[default]
    Required,
    Off,
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    #[serde(default)]
    nvidia_root: bool,
    #[serde(default)]
    software_roots: Vec<String>,
    architectures: Vec<String>,
    minimum_gpus: u8,
    #[serde(default = "Section::default_require_uniform_gpus")]
    require_uniform_gpus: bool,
    #[serde(default = "Section::default_modes")]
    modes: Vec<Mode>,
    #[serde(default)]
    revocation: Requirement,
    #[serde(default)]
    measurements: Requirement,
    minimum_driver: Option<DriverVersion>,
    driver_versions: Option<Vec<DriverVersion>>,
    #[serde(default)]
    minimum_vbios: BTreeMap<String, VbiosVersion>,
    vbios_versions: Option<Vec<VbiosVersion>>,
    devices: Option<Vec<Hex<32>>>,
    #[serde(default)]
    denied_devices: Vec<Hex<32>>,
}

impl Section {
    /// Machines with GPUs of two kinds are so rare that one is more likely a stranger's GPU.
    fn default_require_uniform_gpus() -> bool {
        true
    }

    /// What a driver means that says nothing.
    fn default_modes() -> Vec<Mode> {
        vec![Mode::Spt]
    }

    /// Completes the policy; `digests` gets the SHA-256 of every file that it rests on.
    pub(crate) fn load(
        self,
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        digests: &mut Vec<[u8; 32]>,
    ) -> Result<NvidiaPolicy, PolicyError> {
        let named = self
            .architectures
            .iter()
            .map(|name| ("architectures", name));
        let minimum = self
            .minimum_vbios
            .keys()
            .map(|name| ("minimum_vbios", name));
        let is_known = |name: &String| ARCHITECTURES.contains(&name.as_str());
        if let Some((key, name)) = named.chain(minimum).find(|(_, name)| !is_known(name)) {
            let name = name.clone();
            return Err(PolicyError::Architecture { key, name });
        }
        let mut roots = Vec::new();
        if self.nvidia_root {
            roots.extend(nvidia_root());
        }
        roots.extend(SOFTWARE_ROOTS.read(self.software_roots, read_file, digests)?);
        if roots.is_empty() {
            return Err(PolicyError::NoNvidiaRoot);
        }
        Ok(NvidiaPolicy {
            roots,
            architectures: self.architectures,
            minimum_gpus: self.minimum_gpus,
            require_uniform_gpus: self.require_uniform_gpus,
            modes: self.modes,
            revocation: self.revocation,
            measurements: self.measurements,
            minimum_driver: self.minimum_driver,
            driver_versions: self.driver_versions,
            minimum_vbios: self.minimum_vbios,
            vbios_versions: self.vbios_versions,
            devices: self.devices.map(Hex::unwrap_all),
            denied_devices: Hex::unwrap_all(self.denied_devices),
        })
    }
}
