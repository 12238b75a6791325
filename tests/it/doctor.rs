//! `sealgate doctor` on folders that look like machines, and a node without its hardware.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::harness::{Engine, process::sealgate, setup::Files, soon};

async fn doctor(root: &Path, more: &[&str]) -> Output {
    let mut command = sealgate();
    command.args(["doctor", "--library", "libthere-is-none.so", "--root"]);
    let examined = command.arg(root).args(more).output();
    soon("doctor", examined).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn doctor_says_what_a_machine_can_attest() {
    let machine = tempfile::tempdir().unwrap();
    let bare = doctor(machine.path(), &["--json"]).await;
    assert_eq!(bare.status.code(), Some(1), "{}", text(&bare.stderr));
    let json: Value = serde_json::from_slice(&bare.stdout).unwrap();
    assert_eq!(
        (&json["version"], &json["can_attest"]),
        (&1.into(), &false.into())
    );
    let findings = json["findings"].as_array().unwrap();
    let ids: Vec<_> = findings
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "kernel",
            "cpu",
            "configfs-tsm",
            "sev-guest",
            "tdx-guest",
            "nsm",
            "nvml",
            "clock"
        ]
    );
    for finding in findings {
        assert!(finding["looked_at"].is_string() && finding["found"].is_string());
        let is_told = finding["do"].is_string() || finding["id"] == "kernel";
        assert!(is_told, "{finding}");
    }

    fs::create_dir_all(machine.path().join("dev")).unwrap();
    fs::write(machine.path().join("dev/nsm"), "").unwrap();
    let enclave = doctor(machine.path(), &[]).await;
    let shown = text(&enclave.stdout);
    assert_eq!(enclave.status.code(), Some(0), "{shown}");
    assert!(
        shown.contains("ok       nsm           /dev/nsm: opens\n"),
        "{shown}"
    );
    assert!(shown.ends_with("evidence.source = \"nitro\".\n"), "{shown}");
}

#[tokio::test]
async fn doctor_tries_a_configuration() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let bare = tempfile::tempdir().unwrap();
    let path = files.node("node-a", &engine, "");
    let config = path.to_str().unwrap();
    let good = doctor(bare.path(), &["--config", config]).await;
    let shown = text(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{shown}{}", text(&good.stderr));
    assert!(
        shown.contains(": sev-snp under a software root: "),
        "{shown}"
    );
    assert!(shown.contains(": answers, models: "), "{shown}");

    let written = fs::read_to_string(&path).unwrap();
    let silent = written.replace("http://127.0.0.1", "http://192.0.2.1:1/#");
    let nitro = written.replace(
        "source = \"software-root\"\ndir = \"software-root\"",
        "source = \"nitro\"\ndevice = \"no-such-nsm\"",
    );
    let no_engine = {
        let at = written.find("[[engine]]").unwrap();
        written[..at].to_owned() + "[[engine]]\nurl = \"http://127.0.0.1:1\"\n"
    };
    for (name, changed, code, named) in [
        ("no engine", no_engine, 1, "a node without an engine"),
        ("no device", nitro, 1, "no-such-nsm"),
        ("no address", silent, 2, "url"),
    ] {
        fs::write(&path, changed).unwrap();
        let output = doctor(bare.path(), &["--config", config]).await;
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {shown}");
        assert!(shown.contains(named), "{name}: {shown}");
    }
}

#[tokio::test]
async fn a_node_without_its_hardware_does_not_start() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let written = fs::read_to_string(files.node("node-a", &engine, "")).unwrap();
    let with = |source: &str| {
        written.replace(
            "source = \"software-root\"\ndir = \"software-root\"",
            source,
        )
    };
    for (source, named) in [
        (
            "source = \"configfs-tsm\"\nroot = \"no-such-tsm\"",
            "no-such-tsm is not there",
        ),
        // A folder that no kernel stands behind.
        (
            "source = \"configfs-tsm\"\nroot = \".\"",
            "must be a configfs",
        ),
        (
            "source = \"sev-guest\"\ndevice = \"no-such-device\"",
            "no-such-device",
        ),
        (
            "source = \"sev-guest\"\ndevice = \"/dev/null\"",
            "firmware error 0xff",
        ),
        (
            "source = \"nitro\"\ndevice = \"/dev/null\"",
            "cannot be asked",
        ),
        (
            "source = \"software-root\"\ndir = \"software-root\"\n\
             gpus = { source = \"nvml\", library = \"libthere-is-none.so\" }",
            "libthere-is-none.so",
        ),
        (
            "source = \"software-root\"\ndir = \"software-root\"\n\
             collateral = { amd_crls = [\"lost.crl\"] }",
            "lost.crl",
        ),
    ] {
        let path = files.write("node.toml", &with(source));
        for command in [vec!["node", "--config"], vec!["check-config"]] {
            let ended = sealgate().args(&command).arg(&path).output();
            let output = soon(source, ended).await.unwrap();
            let error = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{command:?} {source}: {error}"
            );
            assert!(error.contains(named), "{command:?} {source}: {error}");
            assert!(output.stdout.is_empty(), "{command:?} {source}");
        }
    }
}
