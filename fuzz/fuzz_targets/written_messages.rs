#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| connectord_deliveries::fuzzing::written_messages(data));
