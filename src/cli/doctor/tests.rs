//! Machines that are folders.

use std::{fs, path::Path};

use attestation::EvidenceKind;

use super::*;
use crate::{
    clock::from_unix_seconds,
    node::probe::{ConfidentialState, GpuSurvey},
};

const NOW: u64 = 1_800_000_000;

/// A folder with these files.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

struct Told {
    tsm: Result<EvidenceKind, String>,
    gpus: Result<GpuSurvey, String>,
    now: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            tsm: Err("not asked".to_owned()),
            gpus: Err("no library".to_owned()),
            now: NOW,
        }
    }
}

fn examine(root: &Path, told: &Told) -> Vec<Finding> {
    let machine = Machine {
        root,
        tsm: &|asked| {
            assert_eq!(asked, root.join("sys/kernel/config/tsm/report"));
            told.tsm.clone()
        },
        gpus: &|| told.gpus.clone(),
        now: from_unix_seconds(told.now).unwrap(),
    };
    machine.examine()
}

/// Status and words of the finding `id`, with what to do.
fn found(findings: &[Finding], id: &str) -> (Status, String) {
    let mut with_id = findings.iter().filter(|finding| finding.id == id);
    let finding = with_id.next().unwrap_or_else(|| panic!("nothing on {id}"));
    let todo = finding.todo.as_deref().unwrap_or("nothing");
    (finding.status, format!("{} -> {todo}", finding.found))
}

fn sources(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter_map(|it| it.source).collect()
}

#[test]
fn a_bare_machine_gives_nothing_and_is_told_what_to_do() {
    let bare = machine(&[]);
    let findings = examine(bare.path(), &Told::default());
    assert!(sources(&findings).is_empty());
    for (id, status, words) in [
        ("kernel", Status::Note, "cannot be read"),
        ("cpu", Status::Note, "no hypervisor is seen"),
        ("configfs-tsm", Status::Absent, "mount -t configfs"),
        ("sev-guest", Status::Absent, "modprobe sev-guest"),
        ("tdx-guest", Status::Absent, "modprobe tdx-guest"),
        ("nsm", Status::Absent, "Nitro enclave"),
        ("nvml", Status::Absent, "no library"),
        ("clock", Status::Note, "chrony"),
    ] {
        let (seen, said) = found(&findings, id);
        assert_eq!(seen, status, "{id}: {said}");
        assert!(said.contains(words), "{id}: {said}");
    }
    assert!(findings.iter().all(|finding| finding.id != "azure"));
}

#[test]
fn a_guest_of_each_kind_is_recognised() {
    let guest = machine(&[
        ("proc/sys/kernel/osrelease", "6.8.0-40-generic\n"),
        (
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor sev_snp\n",
        ),
        ("sys/devices/system/cpu/sev/vmpl", "0\n"),
        ("sys/kernel/config/tsm/report/x", ""),
        ("dev/sev-guest", ""),
        ("run/chrony/chronyd.pid", "1"),
    ]);
    let told = Told {
        tsm: Ok(EvidenceKind::SevSnp),
        ..Told::default()
    };
    let findings = examine(guest.path(), &told);
    assert_eq!(sources(&findings), ["configfs-tsm", "sev-guest"]);
    assert_eq!(found(&findings, "kernel").0, Status::Ok);
    let (_, cpu) = found(&findings, "cpu");
    assert_eq!(
        cpu,
        "AMD EPYC, flags: hypervisor sev_snp; an SEV-SNP guest at VMPL 0 -> nothing"
    );
    let (status, tsm) = found(&findings, "configfs-tsm");
    assert_eq!(
        (status, tsm.as_str()),
        (Status::Ok, "gives sev-snp reports -> nothing")
    );
    assert_eq!(found(&findings, "clock").0, Status::Ok);

    let enclave = machine(&[("dev/nsm", "")]);
    assert_eq!(
        sources(&examine(enclave.path(), &Told::default())),
        ["nitro"]
    );
    let tdx_device_alone = machine(&[("dev/tdx_guest", "")]);
    let findings = examine(tdx_device_alone.path(), &Told::default());
    assert_eq!(found(&findings, "tdx-guest").0, Status::Ok);
    assert!(
        sources(&findings).is_empty(),
        "quotes come through configfs"
    );
}

#[test]
fn what_is_there_and_does_not_work_is_a_problem() {
    let broken = machine(&[
        ("sys/kernel/config/tsm/report/x", ""),
        ("dev/sev-guest/not-a-device", ""),
        ("proc/driver/nvidia/version", "570"),
    ]);
    let told = Told {
        tsm: Err("permission denied".to_owned()),
        now: 5,
        ..Told::default()
    };
    let findings = examine(broken.path(), &told);
    assert!(sources(&findings).is_empty());
    for (id, words) in [
        ("configfs-tsm", "permission denied"),
        ("sev-guest", "Access to the hardware"),
        ("nvml", "the driver is loaded"),
        ("clock", "not set"),
    ] {
        let (status, said) = found(&findings, id);
        assert_eq!(status, Status::Problem, "{id}: {said}");
        assert!(said.contains(words), "{id}: {said}");
    }
    let mounted = machine(&[("sys/kernel/config/usb_gadget/x", "")]);
    let (_, said) = found(&examine(mounted.path(), &Told::default()), "configfs-tsm");
    assert!(!said.contains("mount -t"), "{said}");
}

#[test]
fn kernels_are_told_apart_by_their_first_two_numbers() {
    for (release, status) in [
        ("6.7.0", Status::Ok),
        ("6.10-rc1", Status::Ok),
        ("7.0.1", Status::Ok),
        ("6.6.99", Status::Note),
        ("5.19.17", Status::Note),
        ("six", Status::Note),
    ] {
        let dir = machine(&[("proc/sys/kernel/osrelease", release)]);
        let findings = examine(dir.path(), &Told::default());
        assert_eq!(found(&findings, "kernel").0, status, "{release}");
    }
}

#[test]
fn azure_is_recognised_by_its_chassis() {
    let tag = "7783-7084-3265-9085-8269-3286-77\n";
    let dir = machine(&[
        ("sys/class/dmi/id/chassis_asset_tag", tag),
        ("dev/tpm0", ""),
    ]);
    let findings = examine(dir.path(), &Told::default());
    assert!(found(&findings, "azure").1.contains("with a TPM"));
    let dir = machine(&[("sys/class/dmi/id/chassis_asset_tag", tag)]);
    let findings = examine(dir.path(), &Told::default());
    assert!(found(&findings, "azure").1.contains("without a TPM"));
}

#[test]
fn each_mode_of_the_gpus_has_its_words() {
    let state = |is_on, is_developer_mode, is_ready| {
        Ok(ConfidentialState {
            is_on,
            is_developer_mode,
            is_ready,
        })
    };
    let bare = machine(&[]);
    for (confidential, status, words) in [
        (
            Err("not supported".to_owned()),
            Status::Absent,
            "cannot say it: not supported",
        ),
        (
            state(false, false, false),
            Status::Absent,
            "the host turns it on",
        ),
        (state(true, true, true), Status::Problem, "developers' mode"),
        (state(true, false, false), Status::Ok, "conf-compute -srs 1"),
        (state(true, false, true), Status::Ok, "on -> nothing"),
    ] {
        let told = Told {
            gpus: Ok(GpuSurvey {
                driver: "570.1".to_owned(),
                gpus: vec!["H100, VBIOS 96".to_owned()],
                confidential,
            }),
            ..Told::default()
        };
        let findings = examine(bare.path(), &told);
        let (seen, said) = found(&findings, "gpu-cc");
        assert_eq!(seen, status, "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(
            found(&findings, "nvml").1,
            "driver 570.1, 1 GPUs -> nothing"
        );
        assert_eq!(found(&findings, "gpu").1, "H100, VBIOS 96 -> nothing");
        assert!(sources(&findings).is_empty(), "a GPU alone attests nothing");
    }
}

#[test]
fn lines_are_aligned_and_json_is_stable() {
    let mut examination = Examination {
        version: JSON_VERSION,
        can_attest: true,
        sources: vec!["nitro", "sev-guest"],
        findings: vec![
            Finding::new("nsm", Status::Ok, "/dev/nsm", "opens"),
            Finding::new("configfs-tsm", Status::Absent, "/sys/x", "not there").todo("mount it"),
        ],
    };
    assert_eq!(
        examination.as_text(false),
        "ok       nsm           /dev/nsm: opens\n\
         absent   configfs-tsm  /sys/x: not there\n\
         \x20                      -> mount it\n\
         \n\
         A node can attest here, with evidence.source = \"nitro\" or \"sev-guest\"."
    );
    assert_eq!(
        serde_json::to_string(&examination).unwrap(),
        "{\"version\":1,\"can_attest\":true,\"sources\":[\"nitro\",\"sev-guest\"],\"findings\":[\
         {\"id\":\"nsm\",\"status\":\"ok\",\"looked_at\":\"/dev/nsm\",\"found\":\"opens\",\"do\":null},\
         {\"id\":\"configfs-tsm\",\"status\":\"absent\",\"looked_at\":\"/sys/x\",\
         \"found\":\"not there\",\"do\":\"mount it\"}]}"
    );
    examination.can_attest = false;
    assert!(
        examination
            .as_text(false)
            .contains("No node can attest here")
    );
    assert!(examination.as_text(true).contains("cannot attest"));
}

#[test]
fn a_configuration_is_tried_as_the_node_would() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    let text = "node_id = \"n\"\n[evidence]\nsource = \"nitro\"\ndevice = \"nsm\"\n\
                [[engine]]\nurl = \"builtin:echo\"\n";
    fs::write(&path, text).unwrap();
    let mut findings = Vec::new();
    assert!(!configured(&path, &mut findings).unwrap());
    assert_eq!(found(&findings, "evidence").0, Status::Problem);
    assert_eq!(found(&findings, "engine").0, Status::Ok);
    fs::write(&path, text.replace("node_id", "id")).unwrap();
    assert!(configured(&path, &mut findings).is_err());
}
