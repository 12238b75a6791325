//! Words for the person at the terminal: results on standard output, complaints on standard error.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

/// Exit code for input that cannot be used, as clap has it.
pub(super) const UNUSABLE: u8 = 2;

/// Prints one line; a closed pipe is nobody's error.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints `bytes` as they are.
pub(super) fn print_bytes(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
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
