//! The TOML configuration: read strictly, checked, explained, and the parts that are built from it.
