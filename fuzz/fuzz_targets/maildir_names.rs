#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| connectord_deliveries::fuzzing::maildir_names(data));
