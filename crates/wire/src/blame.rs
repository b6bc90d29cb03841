/// Whose fault an error is; decides whether trying again, asking a person, or fixing this program helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The server broke its protocol, or refuses service for a reason of its own.
    Server,
    /// The server lacks something we were told to require (STARTTLS, a mechanism, an extension).
    Incompatible,
    /// The server did not accept who we are.
    Credentials,
    /// One of our own limits was passed; the limit is an option.
    Limit,
    /// The calling code used the session wrongly.
    Caller,
}
