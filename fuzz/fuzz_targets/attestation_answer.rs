//! What a node says of itself, before anything of it is believed.

#![no_main]

use attestation::{Answer, Statement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(answer) = Answer::from_json(bytes) {
        let _ = Statement::parse(&answer.statement);
    }
    let _ = Statement::parse(bytes);
});
