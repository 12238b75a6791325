//! What a report's opaque data says of the device: versions, boards, modes.

use std::fmt;

use serde::Deserialize;

use crate::answer::EvidenceKind;
use crate::nvidia::report::Report;

const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
const CHIP_SKU: u16 = 15;
const PROJECT: u16 = 17;
const PROJECT_SKU: u16 = 18;
const FWID: u16 = 20;
const PROTECTED_PCIE: u16 = 21;
/// Of a switch its own id; of a GPU under protected PCIe the ids of the switch at each link.
const SWITCH_IDS: u16 = 22;
const CHIP: u16 = 35;
const FEATURE_FLAG: u16 = 36;

const PROTECTED_PCIE_ON: [u8; 1] = [0xaa];
const PROTECTED_PCIE_OFF: [u8; 1] = [0x55];

/// Longest text in a record that is looked at.
const MAX_TEXT: usize = 32;

/// Project, project SKU and chip SKU of every LS10 switch; its report does not name them.
const LS10_BOARD: &str = "5612_0002_890";
/// The chip that reports of Blackwell GPUs mean which name none.
const BLACKWELL_CHIP: &str = "GB100";

/// The 8 bytes by which GPUs name their switches.
pub type SwitchId = [u8; 8];

/// How a GPU is set up for confidential computing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One GPU passed through to one machine.
    Spt,
    /// Several GPUs, their links encrypted.
    Mpt,
    /// Several GPUs and their switches, over protected PCIe: links are not encrypted.
    Ppcie,
}

impl Mode {
    /// NVIDIA's name for it, as in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spt => "spt",
            Self::Mpt => "mpt",
            Self::Ppcie => "ppcie",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a report says of its device.
pub(crate) enum Device<'a> {
    Gpu(Gpu<'a>),
    Switch(Switch<'a>),
}

pub(crate) struct Gpu<'a> {
    pub(crate) driver: &'a str,
    pub(crate) vbios: String,
    pub(crate) fwid: &'a [u8; 48],
    pub(crate) mode: Mode,
    /// Under protected PCIe, each switch that a link goes to, once.
    pub(crate) switches: Vec<SwitchId>,
    project: &'a str,
    project_sku: &'a str,
    chip_sku: &'a str,
    chip: Option<&'a str>,
}

pub(crate) struct Switch<'a> {
    pub(crate) vbios: &'a str,
    pub(crate) id: &'a SwitchId,
}

/// Why opaque data does not describe a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("opaque record {0} is missing or malformed")]
    Record(u16),
    #[error("feature flag and protected PCIe status disagree or are unknown")]
    Mode,
}

impl<'a> Device<'a> {
    pub(crate) fn of(kind: EvidenceKind, report: &Report<'a>) -> Result<Self, DeviceError> {
        match kind {
            EvidenceKind::NvidiaNvswitch => Switch::of(report).map(Self::Switch),
            _ => Gpu::of(report).map(Self::Gpu),
        }
    }

    pub(crate) fn vbios(&self) -> &str {
        match self {
            Self::Gpu(gpu) => &gpu.vbios,
            Self::Switch(switch) => switch.vbios,
        }
    }

    pub(crate) fn driver(&self) -> Option<&'a str> {
        match self {
            Self::Gpu(gpu) => Some(gpu.driver),
            Self::Switch(_) => None,
        }
    }

    pub(crate) fn mode(&self) -> Option<Mode> {
        match self {
            Self::Gpu(gpu) => Some(gpu.mode),
            Self::Switch(_) => None,
        }
    }

    /// A switch's own id, or those that a GPU is linked to.
    pub(crate) fn switches(&self) -> Vec<SwitchId> {
        match self {
            Self::Gpu(gpu) => gpu.switches.clone(),
            Self::Switch(switch) => vec![*switch.id],
        }
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> String {
        let vbios = self.vbios();
        match self {
            Self::Gpu(gpu) => format!("driver {}, VBIOS {vbios}, mode {}", gpu.driver, gpu.mode),
            Self::Switch(switch) => format!("switch {}, VBIOS {vbios}", hex::encode(switch.id)),
        }
    }
}

impl<'a> Gpu<'a> {
    fn of(report: &Report<'a>) -> Result<Self, DeviceError> {
        let fwid = report.record(FWID).and_then(|value| value.try_into().ok());
        let mode = mode(report)?;
        let chip = report
            .record(CHIP)
            .map(|_| text(report, CHIP))
            .transpose()?;
        Ok(Self {
            driver: text(report, DRIVER_VERSION)?,
            vbios: vbios(report)?,
            fwid: fwid.ok_or(DeviceError::Record(FWID))?,
            mode,
            switches: match mode {
                Mode::Ppcie => switches(report)?,
                Mode::Spt | Mode::Mpt => Vec::new(),
            },
            project: text(report, PROJECT)?,
            project_sku: text(report, PROJECT_SKU)?,
            chip_sku: text(report, CHIP_SKU)?,
            chip,
        })
    }

    /// The id of the manifest of its driver, which NVIDIA writes another way for Blackwell.
    pub(crate) fn driver_manifest(&self, architecture: &str) -> String {
        if architecture.starts_with("GB") {
            let chip = self.chip.unwrap_or(BLACKWELL_CHIP);
            format!("NV_GPU_CC_DRIVER_{chip}_{}", self.driver)
        } else {
            format!("NV_GPU_DRIVER_{architecture}_{}", self.driver)
        }
    }

    /// The id of the manifest of its VBIOS.
    pub(crate) fn vbios_manifest(&self) -> String {
        let board = [self.project, self.project_sku, self.chip_sku].join("_");
        format!("NV_GPU_VBIOS_{board}_{}", undotted(&self.vbios))
    }
}

impl<'a> Switch<'a> {
    fn of(report: &Report<'a>) -> Result<Self, DeviceError> {
        let id = report.record(SWITCH_IDS);
        let id = id.and_then(|value| value.try_into().ok());
        Ok(Self {
            vbios: text(report, VBIOS_VERSION)?,
            id: id.ok_or(DeviceError::Record(SWITCH_IDS))?,
        })
    }

    /// The id of the manifest of its firmware.
    pub(crate) fn vbios_manifest(&self) -> String {
        format!("NV_SWITCH_BIOS_{LS10_BOARD}_{}", undotted(self.vbios))
    }
}

fn undotted(version: &str) -> String {
    version.replace('.', "").to_ascii_uppercase()
}

/// Text up to the first zero byte, after which there are only zeros.
fn text<'a>(report: &Report<'a>, kind: u16) -> Result<&'a str, DeviceError> {
    let error = DeviceError::Record(kind);
    let value = report.record(kind).ok_or(error)?;
    let end = value.iter().position(|byte| *byte == 0);
    let (text, padding) = value
        .split_at_checked(end.unwrap_or(value.len()))
        .ok_or(error)?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let fits = (1..=MAX_TEXT).contains(&text.len());
    if !fits || !text.iter().all(is_plain) || padding.iter().any(|byte| *byte != 0) {
        return Err(error);
    }
    str::from_utf8(text).map_err(|_| error)
}

/// Eight bytes: the first four backwards, then the fifth; `96.00.9f.00.01`.
fn vbios(report: &Report<'_>) -> Result<String, DeviceError> {
    match report.record(VBIOS_VERSION) {
        Some([d, c, b, a, e, 0, 0, 0]) => Ok(format!("{a:02x}.{b:02x}.{c:02x}.{d:02x}.{e:02x}")),
        _ => Err(DeviceError::Record(VBIOS_VERSION)),
    }
}

/// By the feature flag; drivers that send none tell protected PCIe by its status alone.
fn mode(report: &Report<'_>) -> Result<Mode, DeviceError> {
    let protected = match report.record(PROTECTED_PCIE) {
        None => None,
        Some(status) if *status == PROTECTED_PCIE_ON => Some(true),
        Some(status) if *status == PROTECTED_PCIE_OFF => Some(false),
        Some(_) => return Err(DeviceError::Mode),
    };
    let mode = match (report.record(FEATURE_FLAG), protected) {
        (None, Some(true)) | (Some([2, 0]), _) => Mode::Ppcie,
        (None, _) | (Some([0, 0]), _) => Mode::Spt,
        (Some([1, 0]), _) => Mode::Mpt,
        (Some(_), _) => return Err(DeviceError::Mode),
    };
    match protected {
        Some(protected) if protected != (mode == Mode::Ppcie) => Err(DeviceError::Mode),
        _ => Ok(mode),
    }
}

/// Eight bytes for each link.
fn switches(report: &Report<'_>) -> Result<Vec<SwitchId>, DeviceError> {
    let error = DeviceError::Record(SWITCH_IDS);
    let (ids, rest) = report.record(SWITCH_IDS).ok_or(error)?.as_chunks();
    if ids.is_empty() || !rest.is_empty() {
        return Err(error);
    }
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
