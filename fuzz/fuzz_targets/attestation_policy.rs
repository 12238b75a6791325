//! The policy file, whose author is trusted and makes mistakes.

#![no_main]

use attestation::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Policy::from_toml(text, &mut |_| Ok(Vec::new()));
});
