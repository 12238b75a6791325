//! The seed API's confidential format, for the SDKs that were released with it; the node's side
//! alone.
//!
//! A body is read as a [`SeedEnvelope`], opening which hands out the one [`SeedReplySealer`]. The
//! format binds a ciphertext to no path, direction or place in a stream, and has no authenticated
//! end; docs/wire.md, "Two further dialects", has the whole list.

mod envelope;
mod error;
mod opener;
mod sealer;
#[cfg(test)]
mod tests;

pub use envelope::SeedEnvelope;
pub use error::SeedError;
pub use opener::OpenedSeedRequest;
pub use sealer::SeedReplySealer;

use super::dialect::{DialectKeys, DialectSecret};

/// Tells this dialect's keys from others.
#[derive(Debug)]
pub enum Seed {}

/// A node's secret for this dialect.
pub type SeedSecret = DialectSecret<Seed>;
/// A node's keys for this dialect.
pub type SeedKeys = DialectKeys<Seed>;
