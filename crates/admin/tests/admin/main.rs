//! The page and the API, in this process, over an installation in memory.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod hostile;
mod live;
mod monitoring;
mod pages;
mod threats;
