//! What evidence says, once everything it rests on has been looked at.

use std::fmt;
use std::time::SystemTime;

use crate::answer::EvidenceKind;
use crate::text::printable;
use crate::{nitro, nvidia, sev_snp, tdx};

/// Where the certificates behind an appraisal chain to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Root {
    /// AMD's own root, compiled in.
    Amd,
    /// Intel's own root, compiled in.
    Intel,
    /// AWS's own root, compiled in.
    Aws,
    /// NVIDIA's own root, compiled in.
    Nvidia,
    /// A root that the policy names and that no hardware stands behind.
    Software,
}

impl Root {
    /// The word for people: a vendor's name or `software root`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Intel => "intel",
            Self::Aws => "aws",
            Self::Nvidia => "nvidia",
            Self::Software => "software root",
        }
    }
}

/// As a parameter of a structured field (RFC 9651): `amd`, or `"software root"` with its quotes.
impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Software => f.write_str("\"software root\""),
            vendor => f.write_str(vendor.as_str()),
        }
    }
}

/// What an answer's evidence says. Worth something only if no check failed.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The CPU's report.
    pub cpu: CpuClaims,
    /// The devices' reports, in their order.
    pub devices: Vec<nvidia::Claims>,
}

/// What a CPU's report says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CpuClaims {
    /// AMD SEV-SNP.
    SevSnp(sev_snp::Claims),
    /// Intel TDX.
    Tdx(tdx::Claims),
    /// AWS Nitro Enclaves.
    Nitro(nitro::Claims),
}

impl CpuClaims {
    /// The kind of evidence.
    pub fn kind(&self) -> EvidenceKind {
        match self {
            Self::SevSnp(_) => EvidenceKind::SevSnp,
            Self::Tdx(_) => EvidenceKind::Tdx,
            Self::Nitro(_) => EvidenceKind::Nitro,
        }
    }

    /// Where its certificates chain to.
    pub fn root(&self) -> Root {
        match self {
            Self::SevSnp(claims) => claims.root,
            Self::Tdx(claims) => claims.root,
            Self::Nitro(claims) => claims.root,
        }
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        match self {
            Self::SevSnp(claims) => claims.not_after,
            Self::Tdx(claims) => claims.not_after,
            Self::Nitro(claims) => claims.not_after,
        }
    }
}

/// What tells one machine and its software from others, in one line for a log.
impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cpu {
            CpuClaims::SevSnp(claims) => write!(
                f,
                "measurement {}, chip {}",
                hex::encode(claims.measurement),
                hex::encode(claims.chip_id)
            ),
            CpuClaims::Tdx(claims) => {
                write!(f, "MRTD {}", hex::encode(claims.report.mrtd))?;
                for (number, rtmr) in claims.report.rtmrs.iter().enumerate() {
                    write!(f, ", RTMR{number} {}", hex::encode(rtmr))?;
                }
                let (platform, status) = (hex::encode(&claims.ppid), claims.tcb_status);
                write!(f, ", platform {platform}, TCB {status}")
            }
            CpuClaims::Nitro(claims) => {
                write!(f, "module {}", printable(&claims.module_id))?;
                let pcrs = claims.pcrs.iter();
                let mut set = pcrs.filter(|(_, pcr)| pcr.iter().any(|byte| *byte != 0));
                set.try_for_each(|(number, pcr)| write!(f, ", PCR{number} {}", hex::encode(pcr)))
            }
        }?;
        for (number, device) in (1..).zip(&self.devices) {
            write!(
                f,
                "; device {number}: {} {}, firmware {}",
                device.kind,
                printable(&device.architecture),
                printable(&device.vbios),
            )?;
            if let Some(driver) = &device.driver {
                write!(f, ", driver {}", printable(driver))?;
            }
            write!(f, ", key {}", hex::encode(device.device_key))?;
        }
        Ok(())
    }
}

impl Claims {
    /// The CPU's root; a software root as soon as any part hangs from one.
    pub fn root(&self) -> Root {
        let mut roots = self.devices.iter().map(|device| device.root);
        match roots.any(|root| root == Root::Software) {
            true => Root::Software,
            false => self.cpu.root(),
        }
    }

    /// When the first of the certificates and pieces of collateral behind it ends.
    pub fn not_after(&self) -> SystemTime {
        let devices = self.devices.iter().map(|device| device.not_after);
        devices.fold(self.cpu.not_after(), SystemTime::min)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap()
    }

    fn device(root: Root, seconds: u64) -> nvidia::Claims {
        nvidia::Claims {
            kind: EvidenceKind::NvidiaGpu,
            root,
            not_after: at(seconds),
            architecture: "GH100".to_owned(),
            driver: Some("550.90.07\n".to_owned()),
            vbios: "96.00.9F.00.01".to_owned(),
            mode: None,
            device_key: [0xd; 32],
            leaf_key: [0xe; 32],
            switches: Vec::new(),
        }
    }

    fn claims(root: Root, devices: Vec<nvidia::Claims>) -> Claims {
        let pcrs = [(0, [0xaa; 48]), (1, [0; 48])];
        Claims {
            cpu: CpuClaims::Nitro(nitro::Claims {
                root,
                module_id: "i-1-enc2".to_owned(),
                timestamp: UNIX_EPOCH,
                pcrs: pcrs.into(),
                public_key: None,
                not_after: at(20),
            }),
            devices,
        }
    }

    #[test]
    fn one_part_from_a_software_root_makes_a_software_root_of_all() {
        use Root::{Aws, Nvidia, Software};
        let root = |cpu, devices: &[Root]| {
            let devices = devices.iter().map(|root| device(*root, 0));
            claims(cpu, devices.collect()).root()
        };
        assert_eq!(root(Aws, &[]), Aws);
        assert_eq!(root(Aws, &[Nvidia, Nvidia]), Aws);
        assert_eq!(root(Aws, &[Nvidia, Software]), Software);
        assert_eq!(root(Software, &[Nvidia]), Software);
        assert_eq!(Software.to_string(), "\"software root\"");
        assert_eq!(Aws.to_string(), "aws");
    }

    #[test]
    fn the_first_end_counts() {
        let end = |devices: &[u64]| {
            let devices = devices.iter().map(|end| device(Root::Nvidia, *end));
            let end = claims(Root::Aws, devices.collect()).not_after();
            end.duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!([end(&[]), end(&[30]), end(&[30, 10])], [20, 20, 10]);
    }

    #[test]
    fn a_line_for_a_log_tells_machines_apart() {
        let line = claims(Root::Aws, vec![device(Root::Nvidia, 0)]).to_string();
        let expected = format!(
            "module i-1-enc2, PCR0 {}; device 1: nvidia-gpu GH100, firmware 96.00.9F.00.01, \
             driver 550.90.07\u{fffd}, key {}",
            "aa".repeat(48),
            "0d".repeat(32)
        );
        assert_eq!(line, expected);
    }
}
