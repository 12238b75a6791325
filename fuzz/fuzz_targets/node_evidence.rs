//! What a host, a secure module or a library hands the node, by the first byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::node::fuzzing::{certificate_table, pem, secure_module_response};

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0, bytes)) => certificate_table(bytes),
        Some((1, bytes)) => secure_module_response(bytes),
        Some((_, bytes)) => pem(bytes),
        None => {}
    }
});
