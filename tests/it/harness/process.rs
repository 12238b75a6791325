//! One `sealgate` process: its ready line, its logs, its end.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

use super::{CANARY, soon};

/// A running `sealgate` with its logs at the most verbose level.
///
/// Dropping it kills the process and fails the test if a log line holds the canary.
pub(crate) struct Process {
    child: Child,
    /// The base URL of the ready line.
    pub(crate) url: String,
    /// The base URL of its admin listener; empty without one.
    pub(crate) admin: String,
    log: PathBuf,
    /// Kept open: a closed pipe would be an error of the process.
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `sealgate ROLE --config FILE` and waits for its ready line.
    pub(crate) async fn start(role: &str, config: &Path) -> Self {
        Self::start_by(sealgate(), role, config).await
    }

    /// The same by a command that runs `sealgate`, or something that turns into it.
    pub(crate) async fn start_by(mut command: Command, role: &str, config: &Path) -> Self {
        command.arg(role).arg("--config").arg(config);
        let mut process = Self::run(command, config.with_extension("log"));
        let line = process.line().await;
        match line.split_once(" listening on ") {
            Some((_, url)) => url.clone_into(&mut process.url),
            None => panic!("{role} did not start: {line:?}\n{}", process.log()),
        }
        if std::fs::read_to_string(config).unwrap().contains("[admin]") {
            let line = process.line().await;
            let begin = format!("sealgate {role} admin listening on ");
            line.strip_prefix(&begin)
                .unwrap()
                .clone_into(&mut process.admin);
        }
        process
    }

    /// Starts `sealgate` with `args`; its logs go to the file `log`.
    pub(crate) fn spawn<A: AsRef<std::ffi::OsStr>>(
        args: impl IntoIterator<Item = A>,
        log: PathBuf,
    ) -> Self {
        let mut command = sealgate();
        command.args(args);
        Self::run(command, log)
    }

    fn run(mut command: Command, log: PathBuf) -> Self {
        let mut child = command
            .env("SEALGATE_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            url: String::new(),
            admin: String::new(),
            log,
            stdout,
        }
    }

    /// Its next line on standard output, empty at the end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Whether it has not ended yet.
    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it has logged `text` so many times.
    pub(crate) async fn logged(&self, text: &str, times: usize) {
        let waiting = async {
            while self.log().matches(text).count() < times {
                tokio::task::yield_now().await;
            }
        };
        soon(text, waiting).await;
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends the signal of this name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    /// Kills it without a word, as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{log}", self.url);
        } else {
            assert!(!log.contains(CANARY), "a prompt in the log of {}", self.url);
        }
    }
}

/// The command itself, with no variable of this environment to bend it.
pub(crate) fn sealgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SEALGATE_")) {
        command.env_remove(name);
    }
    command
}
