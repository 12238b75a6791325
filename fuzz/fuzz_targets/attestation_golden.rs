//! Golden measurements, as a bundle holds them.

#![no_main]

use attestation::nvidia::GoldenMeasurements;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(golden) = GoldenMeasurements::from_json(bytes) {
        let written = golden.to_json().expect("what was read can be written");
        let again = GoldenMeasurements::from_json(&written).expect("what was written can be read");
        assert_eq!(golden, again);
    }
});
