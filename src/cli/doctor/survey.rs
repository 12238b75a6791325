//! What there is to be looked at on a machine, and what it means for a node.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestation::{EvidenceKind, time::to_rfc3339};
use serde::{Serialize, Serializer};

use crate::node::probe::{ConfidentialState, GpuSurvey};

/// Most bytes that are read of a file below /proc or /sys; one processor's lines have under 8 KiB.
const MAX_READ: u64 = 32 * 1024;
/// The first kernel with configfs-tsm.
const TSM_KERNEL: (u32, u32) = (6, 7);
/// What Azure's machines have as the asset tag of their chassis.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
/// No clock that is set shows a time before this program was written: 2026-01-01.
const WRITTEN: Duration = Duration::from_secs(1_767_225_600);

/// How a finding stands to attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is there and works.
    Ok,
    /// It is not there, and need not be if something else is.
    Absent,
    /// It is there and does not work.
    Problem,
    /// Something to know.
    Note,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Problem => "problem",
            Self::Note => "note",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) id: &'static str,
    pub(super) status: Status,
    pub(super) looked_at: String,
    pub(super) found: String,
    /// What to do about it.
    #[serde(rename = "do")]
    pub(super) todo: Option<String>,
    /// The source of evidence that it makes usable.
    #[serde(skip)]
    pub(super) source: Option<&'static str>,
}

impl Finding {
    pub(super) fn new(
        id: &'static str,
        status: Status,
        looked_at: &str,
        found: impl Into<String>,
    ) -> Self {
        Self {
            id,
            status,
            looked_at: looked_at.to_owned(),
            found: found.into(),
            todo: None,
            source: None,
        }
    }

    pub(super) fn todo(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }

    fn source(mut self, source: &'static str) -> Self {
        self.source = Some(source);
        self
    }
}

/// A machine, or a folder that looks like one.
pub(super) struct Machine<'a> {
    /// Where /dev, /proc, /run and /sys are.
    pub(super) root: &'a Path,
    /// Whose reports configfs-tsm gives below a folder.
    pub(super) tsm: &'a dyn Fn(&Path) -> Result<EvidenceKind, String>,
    pub(super) gpus: &'a dyn Fn() -> Result<GpuSurvey, String>,
    pub(super) now: SystemTime,
}

impl Machine<'_> {
    /// Everything, in the order in which it is shown.
    pub(super) fn examine(&self) -> Vec<Finding> {
        let mut findings = vec![self.kernel(), self.cpu(), self.configfs()];
        findings.push(self.device(
            "sev-guest",
            "/dev/sev-guest",
            Some("sev-guest"),
            "in an SEV-SNP guest: modprobe sev-guest",
        ));
        findings.push(self.device(
            "tdx-guest",
            "/dev/tdx_guest",
            None,
            "in a TDX guest: modprobe tdx-guest; its quotes come through configfs-tsm",
        ));
        findings.push(self.device(
            "nsm",
            "/dev/nsm",
            Some("nitro"),
            "in an AWS Nitro enclave the kernel makes it",
        ));
        findings.extend(self.azure());
        findings.extend(self.gpus());
        findings.push(self.clock());
        findings
    }

    fn kernel(&self) -> Finding {
        let (shown, release) = self.text("/proc/sys/kernel/osrelease");
        let Some(release) = release else {
            return Finding::new("kernel", Status::Note, &shown, "cannot be read");
        };
        let found = Finding::new("kernel", Status::Note, &shown, &release);
        match version(&release) {
            Some(version) if version >= TSM_KERNEL => Finding {
                status: Status::Ok,
                ..found
            },
            _ => found.todo(
                "6.7 or newer has configfs-tsm; before it SEV-SNP has /dev/sev-guest, and TDX \
                 cannot be attested by a node",
            ),
        }
    }

    fn cpu(&self) -> Finding {
        let (shown, text) = self.text("/proc/cpuinfo");
        let text = text.unwrap_or_default();
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let mut values = lines.filter(|(name, _)| name.trim() == key);
            values.next().map(|(_, value)| value.trim())
        };
        let model = value("model name").unwrap_or("of an unknown model");
        let has = |flag: &str| {
            let flags = value("flags").unwrap_or_default();
            flags.split_ascii_whitespace().any(|it| it == flag)
        };
        let flags = ["hypervisor", "sev", "sev_es", "sev_snp", "tdx_guest"];
        let flags: Vec<_> = flags.into_iter().filter(|flag| has(flag)).collect();
        let (_, vmpl) = self.text("/sys/devices/system/cpu/sev/vmpl");
        let mut found = format!("{model}, flags: {}", or_none(&flags.join(" ")));
        if let Some(vmpl) = vmpl {
            found += &format!("; an SEV-SNP guest at VMPL {vmpl}");
        }
        let finding = Finding::new("cpu", Status::Note, &shown, found);
        if has("hypervisor") {
            finding
        } else {
            finding.todo(
                "no hypervisor is seen: a node attests inside a confidential virtual machine, not \
                 on its host",
            )
        }
    }

    fn configfs(&self) -> Finding {
        let id = "configfs-tsm";
        let (shown, path) = self.at("/sys/kernel/config/tsm/report");
        if path.is_dir() {
            return match (self.tsm)(&path) {
                Ok(kind) => Finding::new(id, Status::Ok, &shown, format!("gives {kind} reports"))
                    .source("configfs-tsm"),
                Err(error) => Finding::new(id, Status::Problem, &shown, error).todo(
                    "run doctor as the node's user; what it needs stands in deploy/README.md, \
                     \"Access to the hardware\"",
                ),
            };
        }
        let (_, mounted) = self.at("/sys/kernel/config");
        let is_mounted = fs::read_dir(mounted).is_ok_and(|mut entries| entries.next().is_some());
        let todo = if is_mounted {
            "in an SEV-SNP or TDX guest with kernel 6.7 or newer: modprobe sev-guest or tdx-guest"
        } else {
            "mount -t configfs none /sys/kernel/config, then in an SEV-SNP or TDX guest with \
             kernel 6.7 or newer: modprobe sev-guest or tdx-guest"
        };
        Finding::new(id, Status::Absent, &shown, "not there").todo(todo)
    }

    fn device(
        &self,
        id: &'static str,
        path: &str,
        source: Option<&'static str>,
        todo: &str,
    ) -> Finding {
        let (shown, path) = self.at(path);
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(_) => Finding {
                source,
                ..Finding::new(id, Status::Ok, &shown, "opens")
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Finding::new(id, Status::Absent, &shown, "not there").todo(todo)
            }
            Err(error) => Finding::new(id, Status::Problem, &shown, error.to_string())
                .todo("let the node's user open it (deploy/README.md, \"Access to the hardware\")"),
        }
    }

    /// Azure's confidential machines keep their report behind a vTPM.
    fn azure(&self) -> Option<Finding> {
        let (_, tag) = self.text("/sys/class/dmi/id/chassis_asset_tag");
        if tag.as_deref() != Some(AZURE_TAG) {
            return None;
        }
        let devices = ["/dev/tpmrm0", "/dev/tpm0"].map(|path| self.at(path));
        let tpm = devices.iter().find(|(_, path)| path.exists());
        let shown = tpm.map_or("/dev/tpmrm0", |(shown, _)| shown);
        let found = tpm.map_or(
            "an Azure machine without a TPM",
            |_| "an Azure machine with a TPM",
        );
        Some(Finding::new("azure", Status::Note, shown, found).todo(
            "a confidential machine here keeps its report behind the vTPM, where a node cannot set \
             the report data: `sealgate verify` reads such evidence, and no node gives it",
        ))
    }

    fn gpus(&self) -> Vec<Finding> {
        let (_, driver) = self.at("/proc/driver/nvidia/version");
        let survey = match (self.gpus)() {
            Ok(survey) => survey,
            Err(error) if driver.exists() => {
                return vec![
                    Finding::new("nvml", Status::Problem, "NVIDIA's driver", error).todo(
                        "the driver is loaded; install its library, or let this user open \
                         /dev/nvidiactl and /dev/nvidia*",
                    ),
                ];
            }
            Err(error) => {
                return vec![
                    Finding::new("nvml", Status::Absent, "NVIDIA's driver", error)
                        .todo("needed only where GPUs are to be attested (`evidence.gpus`)"),
                ];
            }
        };
        let driver = format!("driver {}, {} GPUs", survey.driver, survey.gpus.len());
        let mut findings = vec![Finding::new("nvml", Status::Ok, "NVIDIA's driver", driver)];
        for (number, gpu) in survey.gpus.iter().enumerate() {
            let shown = format!("GPU {number}");
            findings.push(Finding::new("gpu", Status::Note, &shown, gpu));
        }
        let (status, found, todo) = confidential(&survey.confidential);
        let finding = Finding::new("gpu-cc", status, "confidential computing", found);
        findings.push(match todo {
            Some(todo) => finding.todo(todo),
            None => finding,
        });
        findings
    }

    fn clock(&self) -> Finding {
        let shown = to_rfc3339(self.now);
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since < WRITTEN {
            return Finding::new("clock", Status::Problem, &shown, "not set")
                .todo("set it: certificates and requests are checked against it");
        }
        let signs = [
            "/run/systemd/timesync/synchronized",
            "/run/chrony/chronyd.pid",
            "/run/chronyd.pid",
            "/run/ntpd.pid",
        ];
        match signs.iter().find(|path| self.at(path).1.exists()) {
            Some(sign) => Finding::new("clock", Status::Ok, &shown, format!("{sign} is there")),
            None => Finding::new("clock", Status::Note, &shown, "nothing is seen that keeps it").todo(
                "run chrony or systemd-timesyncd: a request whose date is over 120 s off is refused",
            ),
        }
    }

    /// A path as it is shown, and where it is looked for.
    fn at(&self, path: &str) -> (String, PathBuf) {
        (
            path.to_owned(),
            self.root.join(path.trim_start_matches('/')),
        )
    }

    /// The beginning of a text file.
    fn text(&self, path: &str) -> (String, Option<String>) {
        let (shown, path) = self.at(path);
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_READ).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (shown, read.is_ok().then_some(text))
    }
}

/// What the GPUs' mode means.
fn confidential(
    state: &Result<ConfidentialState, String>,
) -> (Status, String, Option<&'static str>) {
    match state {
        Err(error) => (
            Status::Absent,
            format!("the library cannot say it: {error}"),
            Some("H100 or newer with driver 550 or newer can be attested"),
        ),
        Ok(ConfidentialState { is_on: false, .. }) => (
            Status::Absent,
            "off".to_owned(),
            Some(
                "the host turns it on before the guest starts (NVIDIA's deployment guide for \
                 confidential computing); the GPU belongs to one confidential virtual machine",
            ),
        ),
        Ok(ConfidentialState {
            is_developer_mode: true,
            ..
        }) => (
            Status::Problem,
            "on, in developers' mode".to_owned(),
            Some("developers' mode protects nothing: turn it off"),
        ),
        Ok(ConfidentialState {
            is_ready: false, ..
        }) => (
            Status::Ok,
            "on; the GPUs take no work yet".to_owned(),
            Some("once they are trusted: nvidia-smi conf-compute -srs 1"),
        ),
        Ok(ConfidentialState { is_ready: true, .. }) => (Status::Ok, "on".to_owned(), None),
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
