//! The `sealgate` command: arguments, one role, an exit code.

use std::process::ExitCode;

/// A request takes and gives back a few buffers of its body's size; the system's allocator returns
/// them to the kernel each time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sealgate::cli::main()
}
