#![no_main]
#[path = "../../crates/imap/tests/differential/property.rs"]
mod property;
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    property::same_meaning(data);
});
