//! What the fuzz targets call of the node. Built only for fuzzing.

use super::engine_metrics::Load;
pub use super::evidence::fuzzing::{certificate_table, pem, secure_module_response};

/// What an engine says of its load: requests that run and wait, and the used part of its cache.
#[must_use]
pub fn engine_metrics(page: &[u8]) -> Option<(Option<u64>, Option<u64>, Option<f64>)> {
    let load = Load::read(page).ok()?;
    Some((load.running, load.waiting, load.kv_cache))
}
