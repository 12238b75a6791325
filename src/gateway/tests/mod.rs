//! A gateway over loopback before nodes that a test plays.

mod announcements;
mod appraisals;
mod carried;
mod cors;
pub(super) mod fake;
mod fleet;
mod harness;
mod refusals;
mod retries;
mod streams;
mod tls;
mod whole;
