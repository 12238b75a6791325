//! An engine's page of metrics: no panic, sensible numbers, and the same of every page with more
//! comments in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::node::fuzzing::engine_metrics;

fuzz_target!(|page: &[u8]| {
    let Some(load) = engine_metrics(page) else {
        return;
    };
    assert!(load.2.is_none_or(|part| (0.0..=1.0).contains(&part)));
    let longer = [b"# more\n".as_slice(), page, b"\n# more"].concat();
    if page.len() < 1024 * 1024 {
        assert_eq!(engine_metrics(&longer), Some(load));
    }
});
