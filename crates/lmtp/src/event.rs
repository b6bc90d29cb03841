use crate::{Capabilities, Reply};

/// What a [`crate::Session`] tells its caller; answers come in the order of the commands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server has greeted us and answered LHLO. Comes once.
    Ready {
        /// What it offers.
        capabilities: Capabilities,
    },
    /// MAIL FROM was refused. The transaction is over: its recipients and its DATA are neither sent nor answered.
    SenderRefused(Reply),
    /// The answer to one RCPT TO.
    Recipient {
        /// The recipient, counted from 0 in the order of [`crate::Session::rcpt`] in this transaction.
        index: usize,
        /// The 2yz reply, or the refusal.
        result: Result<Reply, Reply>,
    },
    /// DATA was given up, since no recipient was accepted (RFC 2033 §4.2). The transaction is over; the sender is still set
    /// at the server: [`crate::Session::rset`] before the next MAIL.
    NoRecipients,
    /// DATA was refused. The transaction is over, as after [`Event::NoRecipients`].
    DataRefused(Reply),
    /// 354 has come: [`crate::Session::push`] and [`crate::Session::finish`] may be called.
    ReadyForData,
    /// What was pushed is on its way: the next piece may come. Comes once after each piece.
    WantData,
    /// The answer to the message for one accepted recipient (RFC 2033 §4.2); after the last one the transaction is over.
    Delivered {
        /// The recipient, counted as in [`Event::Recipient`].
        index: usize,
        /// The 2yz reply, or the refusal. After a 421 the others' answers usually fail to come: [`crate::Error::Closed`].
        result: Result<Reply, Reply>,
    },
    /// RSET was answered: no transaction is open.
    Reset,
    /// QUIT was answered, or the server closed the connection instead; the session is over.
    Goodbye,
}
