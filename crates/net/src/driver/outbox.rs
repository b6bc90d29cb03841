use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Pieces at least this long are sent as they are; shorter ones are gathered, so that pipelined commands share segments.
const GATHER: usize = 8 * 1024;

/// Octets to send, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    gathered: BytesMut,
    length: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, octets: Bytes) {
        self.length += octets.len();
        if octets.len() < GATHER {
            self.gathered.extend_from_slice(&octets);
        } else {
            self.close_gathered();
            self.pieces.push_back(octets);
        }
        if self.gathered.len() >= 2 * GATHER {
            self.close_gathered();
        }
    }

    /// What to send next; `None` when there is nothing.
    pub(super) fn front(&mut self) -> Option<&[u8]> {
        if self.pieces.is_empty() {
            self.close_gathered();
        }
        self.pieces.front().map(Bytes::as_ref)
    }

    /// Drops what was sent of the front.
    pub(super) fn advance(&mut self, count: usize) {
        if let Some(front) = self.pieces.front_mut() {
            let count = count.min(front.len());
            front.advance(count);
            self.length -= count;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            // Taken whole, so that a connection at rest owns no buffer.
            self.pieces.push_back(std::mem::take(&mut self.gathered).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_out_in_the_order_they_went_in_and_short_ones_together() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for length in [3, 5, GATHER, 1, GATHER - 1, GATHER - 1, GATHER - 1, 2 * GATHER, 0, 7] {
            let octets = vec![u8::try_from(length % 251).unwrap(); length];
            expected.extend_from_slice(&octets);
            outbox.push(octets.into());
        }
        assert_eq!(outbox.len(), expected.len());
        let mut sent = Vec::new();
        let mut writes = 0;
        while let Some(front) = outbox.front() {
            let count = front.len().min(5000);
            sent.extend_from_slice(&front[..count]);
            outbox.advance(count);
            writes += 1;
        }
        assert_eq!(sent, expected);
        assert!(outbox.len() == 0 && writes <= 16, "{writes}");
    }
}
