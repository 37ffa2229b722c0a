#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kplay::image::fuzzing::auth_file(bytes));
