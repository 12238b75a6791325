#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealgate::seal::fuzzing::ehbp_opener(data));
