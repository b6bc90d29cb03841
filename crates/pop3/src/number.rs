use std::fmt;
use std::num::NonZeroU32;

/// The number of a message in one session: 1 for the first (RFC 1939 §5). It means nothing in the next session.
///
/// ```
/// use connectord_pop3::MessageNumber;
/// assert_eq!(MessageNumber::new(7).map(MessageNumber::get), Some(7));
/// assert_eq!(MessageNumber::new(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageNumber(NonZeroU32);

impl MessageNumber {
    /// Checks that the number is not zero.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number itself, 1 or more.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl From<NonZeroU32> for MessageNumber {
    fn from(number: NonZeroU32) -> Self {
        Self(number)
    }
}

impl fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
