//! connectord.
fn main() {}
