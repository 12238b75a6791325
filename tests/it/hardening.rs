//! What is seen from outside of a process that protects its memory.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use rustix::{
    process::{Resource, getrlimit, getuid},
    thread::{CapabilitySet, capabilities},
};
use tokio::process::Command;

use crate::harness::{Engine, Process, process::sealgate, setup::Files};

/// A user without rights, where the tests' own has all of them.
const NOBODY: u32 = 65_533;

#[tokio::test]
async fn a_role_dumps_no_core_and_is_not_looked_into() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(files.dir.path(), everybody).unwrap();
    // To root's own processes the kernel tells no difference.
    let user = if getuid().is_root() {
        NOBODY
    } else {
        getuid().as_raw()
    };
    let as_user = || {
        let mut command = Command::new("sh");
        let script = "ulimit -S -c \"$(ulimit -H -c)\"; exec \"$@\"";
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_sealgate")]);
        if getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let node = files.node("node-a", &engine, "");
    let node = Process::start_by(as_user(), "node", &node).await;
    let gateway = files.gateway(&[&node.url], "");
    let gateway = Process::start_by(as_user(), "gateway", &gateway).await;
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    let mut looked_into = Command::new("sleep");
    looked_into.arg("60").kill_on_drop(true);
    if getuid().is_root() {
        looked_into.uid(NOBODY).gid(NOBODY);
    }
    let looked_into = looked_into.spawn().unwrap();
    assert_eq!(owner(looked_into.id().unwrap()), user, "as it is otherwise");
    for process in [&node, &gateway] {
        assert_ne!(owner(process.pid()), user, "its memory is root's alone");
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size"));
        let words: Vec<_> = core.unwrap().split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{limits}");
    }
}

#[tokio::test]
async fn memory_is_locked_where_that_is_wanted_and_otherwise_nothing_starts() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let text = fs::read_to_string(files.node("node-a", &engine, "")).unwrap();
    let config = files.write("node-a.toml", &format!("lock_memory = true\n{text}"));
    let may = getrlimit(Resource::Memlock).current.is_none()
        || capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::IPC_LOCK));
    if may {
        let node = Process::start("node", &config).await;
        let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
        let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:"));
        let locked = locked.unwrap().trim().trim_end_matches(" kB");
        assert!(locked.parse::<u64>().unwrap() > 0, "{status}");
    } else {
        let output = sealgate().arg("node").arg("--config").arg(&config).output();
        let output = output.await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("LimitMEMLOCK=infinity"), "{text}");
    }
}
