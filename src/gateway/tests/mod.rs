//! A gateway over loopback before nodes that a test plays.

mod announcements;
mod appraisals;
mod carried;
mod cors;
mod credentials;
pub(crate) mod fake;
mod fleet;
mod hardware;
mod harness;
mod health;
mod metrics;
mod own;
mod paced;
mod post_quantum;
mod receipts;
mod receipts_kept;
mod refusals;
mod retries;
mod sealed;
mod selection;
pub(crate) mod simulated;
mod streams;
pub(crate) mod tls;
mod whole;
