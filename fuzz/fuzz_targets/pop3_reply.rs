#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| connectord_pop3::fuzzing::reply(data));
