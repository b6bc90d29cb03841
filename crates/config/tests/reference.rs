//! The reference page is what the code says.

use std::path::Path;

use connectord_config::reference;

#[test]
fn the_reference_page_is_what_the_reader_checks() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(written == reference(), "run UPDATE_DOCS=1 cargo test -p connectord-config --test reference");
}
