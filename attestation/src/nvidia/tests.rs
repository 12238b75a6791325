//! Devices of a root of one's own with one flaw each, and genuine ones against what NVIDIA's
//! manifests say.

use std::sync::LazyLock;
use std::time::SystemTime;

#[path = "../../tests/common/nvidia.rs"]
mod maker;

use maker::*;

use crate::check::Checks;
use crate::nvidia::chain;
use crate::nvidia::{GoldenMeasurements, Report};
use crate::time::from_rfc3339;
use crate::{Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Policy, Root};
use crate::{Outcome, appraise_item};

const NONCE: [u8; 32] = [0x5a; 32];

static GPU: LazyLock<Device> = LazyLock::new(|| Device::gpu(NONCE));

/// A device, and all that its appraisal takes.
struct Case {
    device: Device,
    golden: Vec<GoldenMeasurements>,
    settings: String,
    now: SystemTime,
    nonce: Option<[u8; 32]>,
    /// Made from the device, then bent.
    bend_item: fn(&mut EvidenceItem),
}

impl Case {
    fn new() -> Self {
        Self {
            device: GPU.clone(),
            golden: Device::golden(),
            settings: "architectures = [\"GH100\"]\n".to_owned(),
            now: at(NOW),
            nonce: Some(NONCE),
            bend_item: |_| {},
        }
    }

    fn set(&mut self, setting: &str) {
        self.settings.push_str(setting);
        self.settings.push('\n');
    }

    fn item(&self) -> EvidenceItem {
        let mut item = self.device.item();
        (self.bend_item)(&mut item);
        item
    }

    fn appraise(&self) -> Appraisal {
        let text = format!(
            "version = 1\n[nvidia]\nsoftware_roots = [\"root.der\"]\nminimum_gpus = 0\n{}",
            self.settings
        );
        // The root that is trusted is the unbent one, unless its certificate is what is bent.
        let root = self.device.root();
        let policy = Policy::from_toml(&text, &mut |_| Ok(root.clone())).unwrap();
        let bundle = Bundle::of_golden(self.golden.clone());
        let expected = Expected {
            nonce: self.nonce.map(Into::into),
            report_data: None,
        };
        appraise_item(&self.item(), Some(&policy), &bundle, expected, self.now)
    }

    /// The names of the checks that did not pass, each once.
    fn flaws(&self) -> Vec<&'static str> {
        let appraisal = self.appraise();
        let mut flaws: Vec<_> = appraisal
            .checks()
            .iter()
            .filter(|it| !it.passed())
            .collect();
        flaws.dedup_by_key(|check| check.name);
        flaws.iter().map(|check| check.name).collect()
    }
}

type Bend = fn(&mut Case);

fn run_table(cases: &[(&str, &[&str], Bend)]) {
    for (name, expected, bend) in cases {
        let mut case = Case::new();
        bend(&mut case);
        assert_eq!(case.flaws(), *expected, "{name}");
    }
}

fn to_switch(case: &mut Case) {
    case.device = case.device.switch();
    case.settings = "architectures = [\"LS_10\"]\n".to_owned();
}

fn to_blackwell(case: &mut Case) {
    let names = [
        "GB100 A01 GSP FMC LF",
        "GB100 A01 GSP BROM",
        "NVIDIA GB100 Provisioner ICA 00000",
    ];
    for (level, name) in case.device.levels.iter_mut().zip(names) {
        level.common_name = name.to_owned();
    }
    let leaf = &mut case.device.levels[LEAF];
    leaf.remove_extension(COMPOSITE_DEVICE_ID);
    let info = tcb_info(&[FWID, [0; 48]], &[0x80, 0, 0, 0]);
    leaf.extensions.push((TCB_INFO, false, info));
    case.settings = "architectures = [\"GB100\"]\n".to_owned();
}

#[test]
fn good_devices_are_accepted() {
    run_table(&[
        ("GPU", &[], |_| {}),
        ("switch", &[], to_switch),
        ("Blackwell GPU", &[], to_blackwell),
        ("Blackwell GPU that names its chip", &[], |case| {
            to_blackwell(case);
            case.device.set_record(35, b"GB102\0");
            case.golden.retain(|it| !it.id.contains("GB100"));
        }),
        ("root among the certificates", &[], |case| {
            case.bend_item = |item| item.certificates.push(GPU.root());
        }),
    ]);
    let appraisal = Case::new().appraise();
    assert_eq!(appraisal.root(), Some(Root::Software));
    let names: Vec<_> = appraisal.checks().iter().map(|it| it.name).collect();
    let expected = [
        "policy section",
        "report",
        "certificates",
        "leaf certificate",
        "authorities",
        "root",
        "certificate validity",
        "report signature",
        "report nonce",
        "device data",
        "certified architecture",
        "device kind",
        "architecture",
        "firmware id",
        "firmware flags",
        "revocation",
        "revocation",
        "revocation",
        "driver measurements",
        "VBIOS measurements",
        "measurement indexes",
        "minimum VBIOS",
        "VBIOS version",
        "minimum driver",
        "driver version",
        "mode",
        "device",
        "denied device",
    ];
    assert_eq!(names, expected);
}

#[test]
fn chains_with_one_flaw() {
    run_table(&[
        ("no certificates", &["certificates"], |case| {
            case.bend_item = |item| item.certificates.clear();
        }),
        ("an authority left out", &["certificates"], |case| {
            case.bend_item = |item| drop(item.certificates.remove(2));
        }),
        ("the root twice", &["certificates"], |case| {
            case.bend_item = |item| item.certificates.extend([GPU.root(), GPU.root()]);
        }),
        ("no certificate", &["certificates"], |case| {
            case.bend_item = |item| item.certificates[3].push(0);
        }),
        ("leaf is an authority", &["leaf certificate"], |case| {
            let leaf = &mut case.device.levels[LEAF];
            leaf.extensions
                .push((BASIC_CONSTRAINTS, true, constraints(None)));
        }),
        ("leaf may not sign", &["leaf certificate"], |case| {
            let leaf = &mut case.device.levels[LEAF];
            leaf.set_extension(KEY_USAGE, key_usage(KEY_CERT_SIGN));
        }),
        ("leaf signed by another", &["leaf certificate"], |case| {
            case.device.levels[LEAF].signer = Some(Key::generate());
        }),
        ("leaf names another issuer", &["leaf certificate"], |case| {
            case.device.levels[LEAF].issuer_name = Some("Other".to_owned());
        }),
        ("device is no authority", &["authorities"], |case| {
            case.device.levels[DEVICE].remove_extension(BASIC_CONSTRAINTS);
        }),
        ("device signed by another", &["authorities"], |case| {
            case.device.levels[DEVICE].signer = Some(Key::generate());
        }),
        ("provisioner may not issue", &["authorities"], |case| {
            let usage = key_usage(DIGITAL_SIGNATURE);
            case.device.levels[PROVISIONER].set_extension(KEY_USAGE, usage);
        }),
        ("provisioner signed by another", &["authorities"], |case| {
            case.device.levels[PROVISIONER].signer = Some(Key::generate());
        }),
        ("provisioner's path too short", &["authorities"], |case| {
            let level = &mut case.device.levels[PROVISIONER];
            level.set_extension(BASIC_CONSTRAINTS, constraints(Some(0)));
        }),
        ("identity's path too short", &["authorities"], |case| {
            let level = &mut case.device.levels[IDENTITY];
            level.set_extension(BASIC_CONSTRAINTS, constraints(Some(1)));
        }),
        ("paths just long enough", &[], |case| {
            for (level, len) in [(DEVICE, 0), (PROVISIONER, 1), (IDENTITY, 2), (ROOT, 3)] {
                let level = &mut case.device.levels[level];
                level.set_extension(BASIC_CONSTRAINTS, constraints(Some(len)));
            }
        }),
        ("identity signed by a stranger", &["root"], |case| {
            case.device.levels[IDENTITY].signer = Some(Key::generate());
        }),
        ("identity names another root", &["root"], |case| {
            case.device.levels[IDENTITY].issuer_name = Some("Other".to_owned());
        }),
        ("leaf at its last second", &[], |case| {
            case.device.levels[LEAF].not_after = NOW;
        }),
        ("leaf ended", &["certificate validity"], |case| {
            case.device.levels[LEAF].not_after = NOW - 1;
        }),
        ("leaf at its first second", &[], |case| {
            case.device.levels[LEAF].not_before = NOW;
        }),
        ("leaf not begun", &["certificate validity"], |case| {
            case.device.levels[LEAF].not_before = NOW + 1;
        }),
        ("device ended", &["certificate validity"], |case| {
            case.device.levels[DEVICE].not_after = NOW - 1;
        }),
        ("provisioner ended", &["certificate validity"], |case| {
            case.device.levels[PROVISIONER].not_after = NOW - 1;
        }),
        ("identity ended", &["certificate validity"], |case| {
            case.device.levels[IDENTITY].not_after = NOW - 1;
        }),
        ("root ended", &["certificate validity"], |case| {
            case.device.levels[ROOT].not_after = NOW - 1;
        }),
    ]);
}

#[test]
fn reports_with_one_flaw() {
    run_table(&[
        ("signed by another", &["report signature"], |case| {
            case.device.signer = Some(Key::generate());
        }),
        (
            "signature of another report",
            &["report signature"],
            |case| {
                case.bend_item = |item| item.report[380] ^= 1;
            },
        ),
        ("another nonce", &["report nonce"], |case| {
            case.device.nonce[31] ^= 1;
        }),
        ("no nonce to compare with", &["report nonce"], |case| {
            case.nonce = None
        }),
        ("one byte more", &["report"], |case| {
            case.bend_item = |item| item.report.push(0);
        }),
        ("no driver", &["device data"], |case| {
            case.device.remove_record(3)
        }),
        ("no VBIOS", &["device data"], |case| {
            case.device.remove_record(6)
        }),
        ("VBIOS too long", &["device data"], |case| {
            case.device.set_record(6, &[0, 0x9f, 0, 0x96, 1, 0, 0, 1]);
        }),
        ("no chip SKU", &["device data"], |case| {
            case.device.remove_record(15)
        }),
        ("no project", &["device data"], |case| {
            case.device.remove_record(17)
        }),
        ("no project SKU", &["device data"], |case| {
            case.device.remove_record(18)
        }),
        ("no firmware id", &["device data"], |case| {
            case.device.remove_record(20)
        }),
        ("short firmware id", &["device data"], |case| {
            case.device.set_record(20, &[0xf1; 47]);
        }),
        ("text with a blank", &["device data"], |case| {
            case.device.set_record(3, b"550 90")
        }),
        ("text after its end", &["device data"], |case| {
            case.device.set_record(3, b"550\09")
        }),
        ("empty text", &["device data"], |case| {
            case.device.set_record(3, b"\0\0")
        }),
        ("long text", &["device data"], |case| {
            case.device.set_record(3, &[b'5'; 33])
        }),
        ("chip with a blank", &["device data"], |case| {
            case.device.set_record(35, b"G 1")
        }),
        ("status unknown", &["device data"], |case| {
            case.device.set_record(21, &[0])
        }),
        ("flag unknown", &["device data"], |case| {
            case.device.set_record(36, &[3, 0])
        }),
        ("flag of one byte", &["device data"], |case| {
            case.device.set_record(36, &[0])
        }),
        ("flag beyond a byte", &["device data"], |case| {
            case.device.set_record(36, &[0, 1])
        }),
        ("status on, flag not", &["device data"], |case| {
            case.device.set_record(21, &[0xaa]);
            case.device.set_record(36, &[0, 0]);
        }),
        ("flag on, status not", &["device data"], |case| {
            case.device.set_record(36, &[2, 0]);
            case.device.set_record(22, &SWITCH_ID);
        }),
        (
            "protected PCIe without switches",
            &["device data"],
            |case| {
                case.device.set_record(21, &[0xaa]);
            },
        ),
        ("half a switch id", &["device data"], |case| {
            case.device.set_record(21, &[0xaa]);
            case.device.set_record(22, &[1; 12]);
        }),
        ("no switch id", &["device data"], |case| {
            case.device.set_record(21, &[0xaa]);
            case.device.set_record(22, &[]);
        }),
        ("switch without an id", &["device data"], |case| {
            to_switch(case);
            case.device.remove_record(22);
        }),
        ("switch without a version", &["device data"], |case| {
            to_switch(case);
            case.device.remove_record(6);
        }),
    ]);
}

#[test]
fn identities_with_one_flaw() {
    run_table(&[
        (
            "device of another chip",
            &["certified architecture"],
            |case| {
                case.device.levels[DEVICE].common_name = "GB100 A01 GSP BROM".to_owned();
            },
        ),
        (
            "provisioner of another chip",
            &["certified architecture"],
            |case| {
                let name = "NVIDIA GB100 Provisioner ICA 1".to_owned();
                case.device.levels[PROVISIONER].common_name = name;
            },
        ),
        ("switch as a GPU", &["device data"], |case| {
            to_switch(case);
            case.device.kind = EvidenceKind::NvidiaGpu;
        }),
        (
            "GPU's report from a switch's key",
            &["device kind"],
            |case| {
                let opaque = case.device.opaque.clone();
                to_switch(case);
                case.device.kind = EvidenceKind::NvidiaGpu;
                case.device.opaque = opaque;
                for golden in &mut case.golden {
                    golden.id = golden.id.replace("GH100", "LS_10");
                }
            },
        ),
        ("GPU's key as a switch", &["device kind"], |case| {
            let levels = case.device.levels.clone();
            to_switch(case);
            case.device.levels = levels;
            case.device.levels[DEVICE].subject_serial = hex::encode_upper(SWITCH_ID);
            case.settings = "architectures = [\"GH100\"]\n".to_owned();
        }),
        ("architecture not listed", &["architecture"], |case| {
            case.settings = "architectures = [\"GB100\", \"LS_10\"]\n".to_owned();
        }),
        ("another firmware id", &["firmware id"], |case| {
            case.device.set_record(20, &[0xf2; 48]);
        }),
        ("a firmware id of zeros", &["firmware id"], |case| {
            to_blackwell(case);
            case.device.set_record(20, &[0; 48]);
        }),
        ("no extension", &["firmware id", "firmware flags"], |case| {
            case.device.levels[LEAF].remove_extension(COMPOSITE_DEVICE_ID);
        }),
        (
            "both extensions",
            &["firmware id", "firmware flags"],
            |case| {
                let info = tcb_info(&[FWID], &[0]);
                case.device.levels[LEAF]
                    .extensions
                    .push((TCB_INFO, false, info));
            },
        ),
        (
            "a short id in the leaf",
            &["firmware id", "firmware flags"],
            |case| {
                let id = composite_device_id(&FWID[1..]);
                case.device.levels[LEAF].set_extension(COMPOSITE_DEVICE_ID, id);
            },
        ),
        (
            "id of another algorithm",
            &["firmware id", "firmware flags"],
            |case| {
                let id = seq(&[
                    &tlv(2, &[1]),
                    &seq(&[]),
                    &seq(&[&oid(SHA256_ID), &tlv(4, &FWID)]),
                ]);
                case.device.levels[LEAF].set_extension(COMPOSITE_DEVICE_ID, id);
            },
        ),
        (
            "another version",
            &["firmware id", "firmware flags"],
            |case| {
                let mut id = composite_device_id(&FWID);
                id[4] = 2;
                case.device.levels[LEAF].set_extension(COMPOSITE_DEVICE_ID, id);
            },
        ),
        (
            "device key of another type",
            &["firmware id", "firmware flags"],
            |case| {
                let mut id = composite_device_id(&FWID);
                id[5] = 0x31;
                case.device.levels[LEAF].set_extension(COMPOSITE_DEVICE_ID, id);
            },
        ),
        (
            "bytes after the extension",
            &["firmware id", "firmware flags"],
            |case| {
                let id = [composite_device_id(&FWID), vec![0]].concat();
                case.device.levels[LEAF].set_extension(COMPOSITE_DEVICE_ID, id);
            },
        ),
        ("no id among Blackwell's", &["firmware id"], |case| {
            to_blackwell(case);
            let info = tcb_info(&[[0xf2; 48], [0; 48]], &[0x80, 0, 0, 0]);
            case.device.levels[LEAF].set_extension(TCB_INFO, info);
        }),
        ("firmware under a debugger", &["firmware flags"], |case| {
            to_blackwell(case);
            let info = tcb_info(&[FWID], &[0x90, 0, 0, 0]);
            case.device.levels[LEAF].set_extension(TCB_INFO, info);
        }),
        ("firmware in recovery", &["firmware flags"], |case| {
            to_blackwell(case);
            let info = tcb_info(&[FWID], &[0x20]);
            case.device.levels[LEAF].set_extension(TCB_INFO, info);
        }),
        ("insecure firmware", &["firmware flags"], |case| {
            to_blackwell(case);
            let info = tcb_info(&[FWID], &[0x40]);
            case.device.levels[LEAF].set_extension(TCB_INFO, info);
        }),
        ("other flags, and none", &[], |case| {
            to_blackwell(case);
            let info = tcb_info(&[FWID], &[]);
            case.device.levels[LEAF].set_extension(TCB_INFO, info);
        }),
        ("as many ids as may be", &[], |case| {
            to_blackwell(case);
            let info = tcb_info(&[FWID; 16], &[0x8f]);
            case.device.levels[LEAF].set_extension(TCB_INFO, info);
        }),
        (
            "an id too many",
            &["firmware id", "firmware flags"],
            |case| {
                to_blackwell(case);
                let info = tcb_info(&[FWID; 17], &[0x80]);
                case.device.levels[LEAF].set_extension(TCB_INFO, info);
            },
        ),
        (
            "a field twice",
            &["firmware id", "firmware flags"],
            |case| {
                to_blackwell(case);
                let flags = tlv(0x87, &[0, 0x80]);
                let info = seq(&[&flags, &flags]);
                case.device.levels[LEAF].set_extension(TCB_INFO, info);
            },
        ),
        (
            "a field that is none",
            &["firmware id", "firmware flags"],
            |case| {
                to_blackwell(case);
                case.device.levels[LEAF].set_extension(TCB_INFO, seq(&[&tlv(2, &[1])]));
            },
        ),
        (
            "bytes after Blackwell's",
            &["firmware id", "firmware flags"],
            |case| {
                to_blackwell(case);
                let info = [tcb_info(&[FWID], &[0x80]), vec![0]].concat();
                case.device.levels[LEAF].set_extension(TCB_INFO, info);
            },
        ),
        (
            "flags with eight bits unused",
            &["firmware id", "firmware flags"],
            |case| {
                to_blackwell(case);
                case.device.levels[LEAF].set_extension(TCB_INFO, seq(&[&tlv(0x87, &[8, 0])]));
            },
        ),
        (
            "flags of no byte with a bit unused",
            &["firmware id", "firmware flags"],
            |case| {
                to_blackwell(case);
                case.device.levels[LEAF].set_extension(TCB_INFO, seq(&[&tlv(0x87, &[1])]));
            },
        ),
        ("switch of another certificate", &["device id"], |case| {
            to_switch(case);
            case.device.levels[DEVICE].subject_serial = "50203EB31AD9ED0009".to_owned();
        }),
        ("switch without a certified id", &["device id"], |case| {
            to_switch(case);
            case.device.levels[DEVICE].subject_serial = String::new();
        }),
        ("switch without an extension", &["firmware flags"], |case| {
            to_switch(case);
            case.device.levels[LEAF].remove_extension(COMPOSITE_DEVICE_ID);
        }),
    ]);
}

#[test]
fn measurements_with_one_flaw() {
    run_table(&[
        ("no driver manifest", &["driver measurements"], |case| {
            drop(case.golden.remove(0))
        }),
        ("no VBIOS manifest", &["VBIOS measurements"], |case| {
            drop(case.golden.remove(1))
        }),
        ("no switch manifest", &["VBIOS measurements"], |case| {
            to_switch(case);
            case.golden.retain(|it| !it.id.contains("SWITCH"));
        }),
        ("none, but none asked for", &[], |case| {
            case.golden.clear();
            case.set("measurements = \"off\"");
        }),
        (
            "another driver measurement",
            &["driver measurements"],
            |case| {
                case.device.measurements[2].1[0] ^= 1;
            },
        ),
        (
            "another VBIOS measurement",
            &["VBIOS measurements"],
            |case| {
                case.device.measurements[4].1[47] ^= 1;
            },
        ),
        (
            "another switch measurement",
            &["VBIOS measurements"],
            |case| {
                to_switch(case);
                case.device.measurements[0].1[0] ^= 1;
            },
        ),
        ("a measurement that no manifest names", &[], |case| {
            case.device.measurements[5].1[0] ^= 1;
        }),
        ("the first of the values", &[], |case| {
            case.device.measurements[0].1 = vec![0xee; 48];
        }),
        ("a longer value", &["driver measurements"], |case| {
            case.device.measurements[0].1.push(0);
        }),
        ("an index left out", &["driver measurements"], |case| {
            drop(case.device.measurements.remove(1));
        }),
        ("an index of both", &["measurement indexes"], |case| {
            let shared = case.golden[0].measurements[2].clone();
            case.golden[1].measurements.insert(0, shared);
        }),
        (
            "driver manifest of another version",
            &["driver measurements"],
            |case| {
                case.golden[0].version = "550.90.08".to_owned();
            },
        ),
        (
            "VBIOS manifest of another version",
            &["VBIOS measurements"],
            |case| {
                case.golden[1].version = "96.00.9F.00.02".to_owned();
            },
        ),
        (
            "driver of another version",
            &["driver measurements"],
            |case| {
                case.device.set_record(3, b"550.90.08\0");
            },
        ),
        (
            "board of another project",
            &["VBIOS measurements"],
            |case| {
                case.device.set_record(17, b"1011\0");
            },
        ),
        ("board of another SKU", &["VBIOS measurements"], |case| {
            case.device.set_record(18, b"0201\0");
        }),
        ("chip of another SKU", &["VBIOS measurements"], |case| {
            case.device.set_record(15, b"883\0");
        }),
        (
            "VBIOS of another version",
            &["VBIOS measurements"],
            |case| {
                case.device.set_record(6, &[0, 0x9f, 0, 0x96, 2, 0, 0, 0]);
            },
        ),
        (
            "Blackwell under a Hopper's manifest",
            &["driver measurements"],
            |case| {
                to_blackwell(case);
                case.golden.retain(|it| !it.id.contains("CC_DRIVER"));
            },
        ),
    ]);
}

#[test]
fn policies_with_one_demand() {
    run_table(&[
        ("minimum driver met", &[], |case| {
            case.set("minimum_driver = \"550.90.07\"")
        }),
        ("minimum driver not met", &["minimum driver"], |case| {
            case.set("minimum_driver = \"550.90.08\"");
        }),
        ("driver listed", &[], |case| {
            case.set("driver_versions = [\"9\", \"550.90.07\"]")
        }),
        ("driver not listed", &["driver version"], |case| {
            case.set("driver_versions = [\"550.90.08\"]");
        }),
        ("no driver listed", &["driver version"], |case| {
            case.set("driver_versions = []")
        }),
        (
            "driver without an order",
            &["minimum driver", "driver version"],
            |case| {
                case.device.set_record(3, b"550.90.07-beta\0");
                case.golden[0].id.push_str("-beta");
                case.golden[0].version.push_str("-beta");
                case.set("minimum_driver = \"1\"");
                case.set("driver_versions = [\"550.90.07\"]");
            },
        ),
        ("minimum VBIOS met", &[], |case| {
            case.set("minimum_vbios = { GH100 = \"96.00.9f.00.01\" }");
        }),
        ("minimum VBIOS not met", &["minimum VBIOS"], |case| {
            case.set("minimum_vbios = { GH100 = \"96.00.9f.00.02\" }");
        }),
        ("minimum VBIOS of another chip", &[], |case| {
            case.set("minimum_vbios = { GB100 = \"97.00.00.00.00\" }");
        }),
        ("minimum of a switch met", &[], |case| {
            to_switch(case);
            case.set("minimum_vbios = { LS_10 = \"96.10.55.00.01\" }");
        }),
        ("VBIOS listed", &[], |case| {
            case.set("vbios_versions = [\"96.00.9f.00.01\"]")
        }),
        ("VBIOS not listed", &["VBIOS version"], |case| {
            case.set("vbios_versions = [\"96.00.9f.00.02\"]");
        }),
        (
            "VBIOS without an order",
            &["minimum VBIOS", "VBIOS version"],
            |case| {
                to_switch(case);
                case.device.set_record(6, b"96.10.55.00.0x");
                case.golden[4].id = "NV_SWITCH_BIOS_5612_0002_890_961055000X".to_owned();
                case.golden[4].version = "96.10.55.00.0x".to_owned();
                case.set("minimum_vbios = { LS_10 = \"00.00.00.00.00\" }");
                case.set("vbios_versions = [\"96.10.55.00.01\"]");
            },
        ),
        ("VBIOS in upper case", &[], |case| {
            to_switch(case);
            case.device.set_record(6, b"96.10.5A.00.01");
            case.golden[4].id = "NV_SWITCH_BIOS_5612_0002_890_96105A0001".to_owned();
            case.golden[4].version = "96.10.5a.00.01".to_owned();
            case.set("vbios_versions = [\"96.10.5a.00.01\"]");
        }),
        ("several GPUs by flag", &["mode"], |case| {
            case.device.set_record(36, &[1, 0])
        }),
        ("several GPUs allowed", &[], |case| {
            case.device.set_record(36, &[1, 0]);
            case.set("modes = [\"spt\", \"mpt\"]");
        }),
        ("one GPU by flag", &[], |case| {
            case.device.set_record(36, &[0, 0])
        }),
        ("one GPU where several are asked for", &["mode"], |case| {
            case.set("modes = [\"mpt\", \"ppcie\"]");
        }),
        ("no status at all", &[], |case| {
            case.device.remove_record(21)
        }),
        ("protected PCIe by flag", &["mode"], |case| {
            case.device.set_record(36, &[2, 0]);
            case.device.set_record(21, &[0xaa]);
            case.device.set_record(22, &SWITCH_ID);
        }),
        ("protected PCIe by flag alone", &["mode"], |case| {
            case.device.set_record(36, &[2, 0]);
            case.device.remove_record(21);
            case.device.set_record(22, &SWITCH_ID);
        }),
        ("protected PCIe by status alone", &["mode"], |case| {
            case.device.set_record(21, &[0xaa]);
            case.device.set_record(22, &SWITCH_ID);
        }),
        ("protected PCIe allowed", &[], |case| {
            case.device.set_record(21, &[0xaa]);
            case.device.set_record(22, &SWITCH_ID);
            case.set("modes = [\"ppcie\"]");
        }),
        ("no mode allowed", &["mode"], |case| case.set("modes = []")),
        ("device listed", &[], |case| {
            let key = hex::encode(case.device.levels[DEVICE].key.sha256());
            case.set(&format!("devices = [\"{key}\"]"));
        }),
        ("leaf listed", &[], |case| {
            let key = hex::encode(case.device.levels[LEAF].key.sha256());
            case.set(&format!("devices = [\"{key}\"]"));
        }),
        ("provisioner listed", &["device"], |case| {
            let key = hex::encode(case.device.levels[PROVISIONER].key.sha256());
            case.set(&format!("devices = [\"{key}\"]"));
        }),
        ("no device listed", &["device"], |case| {
            case.set("devices = []")
        }),
        ("device denied", &["denied device"], |case| {
            let key = hex::encode(case.device.levels[DEVICE].key.sha256());
            case.set(&format!("denied_devices = [\"{key}\"]"));
        }),
        ("leaf denied", &["denied device"], |case| {
            let key = hex::encode(case.device.levels[LEAF].key.sha256());
            case.set(&format!("denied_devices = [\"{key}\"]"));
        }),
        ("another denied", &[], |case| {
            let key = hex::encode(case.device.levels[ROOT].key.sha256());
            case.set(&format!("denied_devices = [\"{key}\"]"));
        }),
    ]);
}

/// Each level's status is asked for; how responses are judged, `ocsp` tests.
#[test]
fn statuses_with_one_flaw() {
    run_table(&[
        ("no status of the device", &["revocation"], |case| {
            case.device.ocsp[0] = None
        }),
        ("no status of the provisioner", &["revocation"], |case| {
            case.device.ocsp[1] = None
        }),
        ("no status of the identity", &["revocation"], |case| {
            case.device.ocsp[2] = None
        }),
        ("device revoked", &["revocation"], |case| {
            case.device.ocsp[0].as_mut().unwrap().status = Ocsp::revoked(Some(6));
        }),
        ("provisioner revoked", &["revocation"], |case| {
            case.device.ocsp[1].as_mut().unwrap().status = Ocsp::revoked(None);
        }),
        ("identity unknown", &["revocation"], |case| {
            case.device.ocsp[2].as_mut().unwrap().status = UNKNOWN.to_vec();
        }),
        ("none, but none asked for", &[], |case| {
            case.device.ocsp = [const { None }; 3];
            case.set("revocation = \"off\"");
        }),
    ]);
    let mut case = Case::new();
    case.device.ocsp[1] = None;
    let appraisal = case.appraise();
    let refusal = appraisal.refusal().unwrap();
    assert!(
        refusal
            .expected
            .contains("NVIDIA GH100 Provisioner ICA 1 good at")
    );
    assert_eq!(refusal.seen, "no OCSP response about it");
}

#[test]
fn what_a_policy_gives_up_is_said() {
    let mut case = Case::new();
    case.golden.clear();
    case.device.ocsp = [const { None }; 3];
    case.set("measurements = \"off\"");
    case.set("revocation = \"off\"");
    let appraisal = case.appraise();
    let checks = appraisal.checks().iter();
    let given_up = checks.filter(|check| check.passed() && check.expected.starts_with("any: "));
    let names: Vec<_> = given_up.map(|check| check.name).collect();
    assert_eq!(names, ["revocation", "measurements"]);
}

#[test]
fn without_a_policy_what_needs_one_is_not_checked() {
    let item = GPU.item();
    let bundle = Bundle::of_golden(Device::golden());
    let expected = Expected {
        nonce: Some(NONCE.into()),
        report_data: None,
    };
    let appraisal = appraise_item(&item, None, &bundle, expected, at(NOW));
    assert_eq!(appraisal.refusal().unwrap().check, "root");

    let genuine = genuine_item();
    let appraisal = appraise_item(
        &genuine,
        None,
        &genuine_bundle(),
        genuine_nonce(),
        from_rfc3339("2025-08-21T12:00:00Z").unwrap(),
    );
    assert_eq!(appraisal.root(), Some(Root::Nvidia));
    let unchecked: Vec<_> = appraisal
        .checks()
        .iter()
        .filter(|it| !it.passed())
        .collect();
    assert!(unchecked.iter().all(|it| it.outcome == Outcome::NotChecked));
    let names: Vec<_> = unchecked.iter().map(|it| it.name).collect();
    let expected = [
        "architecture",
        "minimum VBIOS",
        "VBIOS version",
        "minimum driver",
        "driver version",
        "mode",
        "device",
        "denied device",
    ];
    assert_eq!(names, expected);
}

fn pem(text: &str) -> Vec<Vec<u8>> {
    let blocks = text.split_inclusive("-----END CERTIFICATE-----");
    let blocks = blocks.filter(|block| block.contains("BEGIN"));
    blocks
        .map(|block| {
            x509_cert::der::pem::decode_vec(block.trim().as_bytes())
                .unwrap()
                .1
        })
        .collect()
}

fn genuine_item() -> EvidenceItem {
    let ocsp = [
        include_bytes!("../../tests/data/nvidia/hopper/ocsp-l2.der").to_vec(),
        include_bytes!("../../tests/data/nvidia/hopper/ocsp-l3.der").to_vec(),
        include_bytes!("../../tests/data/nvidia/hopper/ocsp-l4.der").to_vec(),
    ];
    EvidenceItem {
        kind: EvidenceKind::NvidiaGpu,
        report: include_bytes!("../../tests/data/nvidia/hopper/report.bin").to_vec(),
        certificates: pem(include_str!(
            "../../tests/data/nvidia/hopper/cert_chain.pem"
        )),
        collateral: Collateral {
            ocsp: ocsp.to_vec(),
            ..Collateral::default()
        },
    }
}

fn genuine_bundle() -> Bundle {
    let golden = [
        include_bytes!("../../tests/data/nvidia/hopper/driver-golden.json").as_slice(),
        include_bytes!("../../tests/data/nvidia/hopper/vbios-golden.json"),
    ];
    Bundle::of_golden(
        golden
            .map(|it| GoldenMeasurements::from_json(it).unwrap())
            .to_vec(),
    )
}

fn genuine_nonce() -> Expected {
    let nonce = hex::decode("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb");
    Expected {
        nonce: Some(nonce.unwrap().as_slice().try_into().unwrap()),
        report_data: None,
    }
}

/// The sample's OCSP responses hold from 2025-08-21T06:47:08Z for a day.
#[test]
fn a_genuine_gpu_is_accepted_in_its_day_and_refused_outside() {
    let text = "version = 1\n[nvidia]\nnvidia_root = true\narchitectures = [\"GH100\"]\n\
                minimum_gpus = 1\n";
    let policy = Policy::from_toml(text, &mut |_| unreachable!()).unwrap();
    let appraise = |time: &str| {
        appraise_item(
            &genuine_item(),
            Some(&policy),
            &genuine_bundle(),
            genuine_nonce(),
            from_rfc3339(time).unwrap(),
        )
    };
    for time in [
        "2025-08-21T06:47:08Z",
        "2025-08-21T12:00:00Z",
        "2025-08-22T06:47:07Z",
    ] {
        let appraisal = appraise(time);
        assert_eq!(appraisal.refusal(), None, "{time}");
        assert_eq!(appraisal.root(), Some(Root::Nvidia));
        let seen = |name| {
            appraisal
                .checks()
                .iter()
                .find(|it| it.name == name)
                .unwrap()
        };
        assert_eq!(
            seen("driver measurements").expected,
            "21 as in NV_GPU_DRIVER_GH100_550.90.07"
        );
        assert_eq!(
            seen("VBIOS measurements").expected,
            "12 as in NV_GPU_VBIOS_1010_0200_882_96009F0001"
        );
    }
    let cases = [
        ("2025-08-20T12:00:00Z", "OCSP response is not valid yet"),
        ("2025-08-21T06:47:06Z", "OCSP response is not valid yet"),
        ("2025-08-22T06:47:09Z", "OCSP response has expired"),
        ("2025-08-22T12:00:00Z", "OCSP response has expired"),
    ];
    for (time, seen) in cases {
        let appraisal = appraise(time);
        let refusal = appraisal.refusal().unwrap();
        assert_eq!(
            (refusal.check, refusal.seen.as_str()),
            ("revocation", seen),
            "{time}"
        );
    }
}

#[test]
fn every_changed_byte_of_a_genuine_report_is_refused() {
    let item = genuine_item();
    let roots = Vec::from_iter(chain::nvidia_root());
    let mut checks = Checks::default();
    let now = from_rfc3339("2025-08-21T12:00:00Z").unwrap();
    let chain = chain::verify(&mut checks, &item.certificates, &roots, now).unwrap();
    let verifies = |bytes: &[u8]| {
        Report::parse(bytes)
            .is_ok_and(|report| chain.leaf.verifies(report.signed, report.signature))
    };
    let mut report = item.report;
    assert!(verifies(&report));
    for at in 0..report.len() {
        report[at] ^= 0x40;
        assert!(!verifies(&report), "byte {at}");
        report[at] ^= 0x40;
    }
}
