use std::time::Instant;

use bytes::Bytes;

/// What the driver of a [`Machine`] has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a step that is not carried out leaves client and server waiting for each other"]
pub enum Step<E> {
    /// Write these octets to the peer; there may be more to send before it answers.
    Transmit(Bytes),
    /// Nothing to do until octets arrive, the deadline passes, or the caller queues a command.
    NeedInput,
    /// Start the TLS handshake on this connection now, as its client, then call `poll` again.
    ///
    /// The machine has made sure that no octet received in plaintext is left over.
    StartTls,
    /// Something for the caller.
    Event(E),
}

/// A protocol session without I/O: octets go in, octets and events come out.
///
/// Time is an argument, so that a test needs no sleep and a session no clock.
pub trait Machine {
    /// What the session tells its caller.
    type Event;
    /// Why the session ended.
    type Error;

    /// Takes octets that arrived from the peer; an empty slice says that the peer closed the connection.
    fn receive(&mut self, octets: &[u8]);

    /// Says what to do next.
    ///
    /// # Errors
    /// The session is dead after an error; the connection must be closed.
    fn poll(&mut self, now: Instant) -> Result<Step<Self::Event>, Self::Error>;

    /// When `poll` wants to be called even if nothing arrives; `None` when it only waits for the peer or the caller.
    fn deadline(&self) -> Option<Instant>;

    /// Whether the peer owes us something: an answer, a greeting, the rest of a message.
    ///
    /// The driver counts silence only while this is true.
    fn awaiting(&self) -> bool {
        true
    }

    /// What the session is waiting for, in words that complete "timed out while …", such as `receiving the greeting`.
    fn phase(&self) -> &'static str {
        "waiting for the server"
    }

    /// Whether octets sent or received now belong to a login, so that a wire trace hides them.
    fn confidential(&self) -> bool {
        false
    }
}
