//! Dialogues, fed at every split.

mod dialogues;
mod harness;
mod hostile;
mod logins;
mod two_sides;
