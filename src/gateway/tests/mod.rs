//! A gateway over loopback before nodes that a test plays.

mod appraisals;
mod cors;
pub(super) mod fake;
mod harness;
mod refusals;
mod retries;
mod streams;
mod tls;
mod whole;
