//! The `sealgate` command: arguments, one role, an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealgate::cli::main()
}
