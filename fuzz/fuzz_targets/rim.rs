//! NVIDIA's manifests, as a vendor's service or anybody on the way to it sends them.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|xml: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_761_307_200);
    if let Ok(rim) = rim::verify(xml, "NV_GPU_DRIVER_GH100_550.90.07", now) {
        assert_eq!(rim.golden.measurements.len(), 21);
    }
});
