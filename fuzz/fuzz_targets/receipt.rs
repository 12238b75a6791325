#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| sealgate::seal::fuzzing::receipt(data));
