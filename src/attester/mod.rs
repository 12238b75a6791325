//! What a node and a gateway have in common that are asked under the seal: keys, evidence for them,
//! and letting sealed requests in (docs/wire.md).
//!
//! `keys` turn, `statement` says which they are and which statements still count, `evidence` comes
//! from the hardware, and `answer` puts the three together for whoever asks. `request` opens what is
//! sealed and lets it in, by its `time` and by the `replay` table, or refuses it with a `problem`;
//! `paced` sends a reply at ticks.
//!
//! Keys live in memory only and die with the process. What a request is for, and how it is answered,
//! is for the role to know.

pub(crate) mod answer;
pub(crate) mod caller;
pub(crate) mod evidence;
pub(crate) mod keys;
pub(crate) mod paced;
pub(crate) mod problem;
pub(crate) mod replay;
pub(crate) mod request;
pub(crate) mod statement;
pub(crate) mod time;
