//! Benchmarks of connectord.
