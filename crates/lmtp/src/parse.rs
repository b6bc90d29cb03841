//! Octets to values: the lines of a reply, and the replies they make.

mod line;
mod reply;

pub use line::{Line, line};
pub use reply::{Limits, ParseError, Replies, reply};
