//! Real gateway and node processes over loopback, with a fake engine and a hostile proxy.

pub(crate) mod dialects;
pub(crate) mod engine;
pub(crate) mod fault;
pub(crate) mod forward;
pub(crate) mod metrics;
pub(crate) mod mitm;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod setup;
pub(crate) mod tls;

pub(crate) use engine::{Engine, Reply};
pub(crate) use process::Process;
pub(crate) use setup::Setup;

/// In every prompt that the tests send; in no log line, whatever happens.
pub(crate) const CANARY: &str = "canary-5f1d0c";

/// The key that the tests' clients use.
pub(crate) const KEY: &str = "sk-test-0123456789abcdef0123456789abcdef";

/// A prompt with the canary in it.
pub(crate) fn prompt(text: &str) -> String {
    format!("{CANARY} {text}")
}

/// Waits for what must come, and fails the test by name instead of hanging it.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}
