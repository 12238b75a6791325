//! Appraises what a node says of itself: evidence, policy, nonce and time in, a verified node out.
//!
//! This crate is the trust boundary. [`verify`] is the only maker of a [`VerifiedNode`], a
//! [`VerifiedNode`] the only source of a [`VerifiedKey`], and a [`VerifiedKey`] the only thing a
//! request can be sealed to. Every check has a name, is made whether or not an earlier one failed,
//! and can be read in the [`Appraisal`]; one that did not pass refuses the node.
//!
//! The crate does no IO, reads no clock and logs nothing: the nonce and the time are arguments, and
//! the files that a policy names are read by the caller. Roots come from the crate itself or from
//! the policy, never from evidence. [`software_root`] makes evidence for machines without a TEE and
//! is never used by the verifier, which knows no simulated mode: such evidence is accepted only
//! under a policy that names its root, and then says so in [`Root`].

#![warn(clippy::arithmetic_side_effects, clippy::as_conversions)]

// Test support is shared with the tests beside the crate, which know it by its name.
#[cfg(test)]
extern crate self as attestation;

pub mod answer;
pub mod azure_snp;
pub mod binding;
pub mod bundle;
mod certificate;
pub mod chain;
mod check;
mod claims;
pub mod collateral;
mod crl;
mod digest;
mod evidence;
mod input;
mod json;
pub mod nitro;
pub mod nvidia;
pub mod ocsp;
mod padding;
pub mod policy;
pub mod proposal;
mod review;
mod root;
pub mod self_test;
pub mod sev_snp;
pub mod software_root;
pub mod statement;
pub mod tdx;
pub mod text;
pub mod time;
pub mod toml_error;
mod verify;

pub use answer::{Answer, AnswerError, EvidenceItem, EvidenceKind};
pub use bundle::Bundle;
pub use certificate::CertificateError;
pub use check::{Check, Outcome, Refusal};
pub use claims::{Claims, CpuClaims, Root};
pub use collateral::{Collateral, CollateralKind};
pub use digest::{InvalidHex, Nonce, StatementDigest};
pub use input::{Expected, InvalidNonce, ReportNonce};
pub use json::JsonError;
pub use padding::{Padding, UnknownPadding};
pub use policy::{Policy, PolicyError};
pub use proposal::{Proposal, propose, propose_item};
pub use review::Review;
pub use self_test::{SelfTest, SelfTestFailure, self_test};
pub use statement::{Dialect, PublicKey, Statement, StatementError, Suite};
pub use verify::{
    Appraisal, DialectKey, Ineligible, MAX_KEY_LIFE, VerifiedKey, VerifiedNode, appraise,
    appraise_asked, appraise_item, verify,
};
