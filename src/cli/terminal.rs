//! Words for the person at the terminal: results on standard output, complaints on standard error.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
    sync::OnceLock,
};

/// Exit code for input that cannot be used, as clap has it.
pub(super) const UNUSABLE: u8 = 2;

/// Why a result did not get out, the first time.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints one line. That it could not be written is said at the end, by [`ended`].
pub(super) fn say(line: impl Display) {
    keep(writeln!(io::stdout(), "{line}"));
}

/// Prints one line, and whether it got out.
pub(super) fn show(line: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Prints rows under their heads, each column as wide as its widest cell.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let mut widths: Vec<_> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        say(cells.join("  ").trim_end());
    };
    line(head.to_vec());
    for row in &rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// Prints `bytes` as they are.
pub(super) fn print_bytes(bytes: &[u8]) -> ExitCode {
    keep(io::stdout().write_all(bytes));
    ExitCode::SUCCESS
}

/// Says something beside the result, on standard error.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Says what went wrong, and gives the exit code for it.
pub(super) fn fail(error: impl Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "sealgate: {error}");
    ExitCode::from(UNUSABLE)
}

/// The exit code of a command that ended with `code`: another one if its result was lost.
pub(super) fn ended(code: ExitCode) -> ExitCode {
    keep(io::stdout().flush());
    match LOST.get() {
        Some(error) => fail(format_args!("standard output: {error}")),
        None => code,
    }
}

/// A closed pipe is nobody's error: whoever read it had enough.
fn keep(written: io::Result<()>) {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => _ = LOST.set(error),
        Ok(()) | Err(_) => {}
    }
}
