//! What a scraper accepts: no panic, and OpenMetrics only where it is named.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::telemetry::metrics::{Accepts, Format};

fuzz_target!(|accept: &str| {
    let named = accept
        .to_ascii_lowercase()
        .contains("application/openmetrics-text");
    let format = Accepts(accept).format();
    assert!(named || format == Format::Prometheus);
});
