//! What the system says of this process, under the names that the field gives it.

use std::{fmt, fs};

use super::{Family, Page, Row, Source};

const RESIDENT: Family<0> = Family::gauge(
    "resident_memory_bytes",
    [],
    "Memory that the process has in RAM.",
);
const OPEN_FILES: Family<0> = Family::gauge(
    "open_fds",
    [],
    "Files and sockets that the process has open.",
);

/// Everything that is told.
pub const FAMILIES: [Row; 2] = [RESIDENT.row(), OPEN_FILES.row()];

/// This process, as `/proc` shows it.
#[derive(Debug)]
pub(super) struct Process;

impl Source for Process {
    fn collect(&self, page: &mut Page<'_>) -> fmt::Result {
        page.family(&RESIDENT, |series| match resident() {
            Some(bytes) => series.number([], bytes),
            None => Ok(()),
        })?;
        page.family(&OPEN_FILES, |series| match open_files() {
            Some(count) => series.number([], count),
            None => Ok(()),
        })
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

fn open_files() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the folder that is being read.
    u64::try_from(listed.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_both() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
        assert!(open_files().is_some_and(|count| count >= 3));
    }
}
