#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| connectord_filter::fuzzing::notice(data));
