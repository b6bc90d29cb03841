use crate::Reply;

/// What the server offers in its answer to LHLO; keywords this session has no use for are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// PIPELINING (RFC 2920), which RFC 2033 §5 demands and some servers lack.
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message in octets; 0 says that no fixed limit is in force, or none that is told.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034). Codes are read wherever they stand, offered or not.
    pub enhanced_status_codes: bool,
}

impl Capabilities {
    /// Reads the lines after the first; case does not matter, the last word on a keyword counts.
    ///
    /// ```
    /// use connectord_lmtp::{Capabilities, Reply};
    /// let reply = Reply::new(250, None, ["mail.example.org", "size 1000", "PIPELINING", "X-OWN"]);
    /// let offered = Capabilities::from_lhlo(&reply);
    /// assert_eq!((offered.pipelining, offered.size, offered.eight_bit_mime), (true, Some(1000), false));
    /// ```
    pub fn from_lhlo(reply: &Reply) -> Self {
        let mut found = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split(|o| *o == b' ').filter(|word| !word.is_empty());
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_slice() {
                b"PIPELINING" => found.pipelining = true,
                b"8BITMIME" => found.eight_bit_mime = true,
                b"SMTPUTF8" => found.smtp_utf8 = true,
                b"ENHANCEDSTATUSCODES" => found.enhanced_status_codes = true,
                b"SIZE" => {
                    let octets = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
                    found.size = Some(octets.unwrap_or(0));
                }
                _ => {}
            }
        }
        found
    }

    /// The answer to LHLO of a server with these capabilities.
    pub fn to_lhlo(&self, host: &str) -> Reply {
        let mut lines = vec![host.to_owned()];
        let flags = [
            (self.pipelining, "PIPELINING"),
            (self.eight_bit_mime, "8BITMIME"),
            (self.smtp_utf8, "SMTPUTF8"),
            (self.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
        ];
        lines.extend(flags.iter().filter(|(offered, _)| *offered).map(|(_, keyword)| (*keyword).to_owned()));
        lines.extend(self.size.map(|octets| format!("SIZE {octets}")));
        Reply::new(250, None, lines)
    }
}
