//! Dialogues from the RFCs' examples and from real servers, each fed at every split.

#![expect(clippy::disallowed_methods, reason = "poll wants an instant, and this session never looks at it")]
#![expect(clippy::unwrap_used, reason = "a test may")]

mod answers;
mod commands;
mod fetch;
mod login;
mod quirks;
mod script;
