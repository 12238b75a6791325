//! Logs and metrics. Logs are one line per event on standard error, as text or JSON.
//!
//! Only this project's own events pass, whatever level is asked for: an HTTP library at its most
//! verbose may print header values, and nobody here can promise what its next version prints. Our
//! own events carry ids, names, numbers and codes, never a prompt, a reply or a key.

use std::io::IsTerminal as _;

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer as _,
    filter::Targets,
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

pub mod metrics;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Text,
    /// One JSON object per line, for a log collector.
    Json,
}

/// The crates whose events are written.
const OWN_TARGETS: [&str; 2] = ["sealgate", "attestation"];

/// Starts logging for the process.
///
/// # Errors
/// [`TryInitError`] if it was started before.
pub fn init(level: LevelFilter, format: LogFormat) -> Result<(), TryInitError> {
    let own = Targets::new()
        .with_default(LevelFilter::OFF)
        .with_targets(OWN_TARGETS.map(|target| (target, level)));
    let ansi = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(ansi);
    let lines = match format {
        LogFormat::Text => lines.with_target(level >= Level::DEBUG).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(own))
        .try_init()
}
