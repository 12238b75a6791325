//! What a role does to its own process before it holds a key or a prompt: no core dumps, nobody of
//! its own user looks into its memory, and where it is told to, none of that goes to swap.
//!
//! What the kernel refuses ends the start: a role that is told to protect its memory does not run
//! without.

use std::io;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Why a process does not protect its memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum HardeningError {
    /// Core dumps cannot be ruled out.
    #[error("core dumps cannot be switched off: {0}")]
    Dumps(io::Error),
    /// The memory that may be locked has a bound, which a later allocation would meet.
    #[error(
        "lock_memory: this user may lock {limit} bytes and no more: set systemd's \
         LimitMEMLOCK=infinity (`ulimit -l unlimited`), or leave it to MemorySwapMax=0"
    )]
    Limited {
        /// Bytes that may be locked.
        limit: u64,
    },
    /// The kernel locks no memory.
    #[error("lock_memory: {0}")]
    Lock(io::Error),
}

/// Rules out core dumps, and that other processes of this user read or trace this one.
pub(super) fn rule_out_dumps() -> Result<(), HardeningError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    // The limit alone does not hold where dumps go to a program.
    let undumpable = limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    undumpable.map_err(|error| HardeningError::Dumps(error.into()))
}

/// Keeps all of this process's memory out of swap, that of later too.
pub(super) fn lock_memory() -> Result<(), HardeningError> {
    let unbounded =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let (false, Some(limit)) = (unbounded, getrlimit(Resource::Memlock).current) {
        return Err(HardeningError::Limited { limit });
    }
    // On fault: the allocator reserves far more than it uses.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|error| HardeningError::Lock(error.into()))
}
