/// Limits and policies of a session; change the fields of [`Options::default`].
///
/// ```
/// let mut options = connectord_lmtp::Options::default();
/// options.host_name = "retriever.example.org".into();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The name said in LHLO; default `localhost`. Characters that no host name or address literal has are sent as `-`.
    pub host_name: String,
    /// Longest accepted reply line, in octets with its line end; default 4096. RFC 5321 §4.5.3.1.5 says 512.
    pub max_line: usize,
    /// Most lines in one reply; default 100, at least 1.
    pub max_lines: usize,
    /// Whether commands are sent before the answers to earlier ones have come; default as offered.
    pub pipelining: Pipelining,
    /// Most commands in flight when pipelining; default 64, at least 1.
    ///
    /// What is in flight, and its answers, must fit into the socket buffers, or both sides wait for each other to read
    /// (RFC 2920 §3.1).
    pub window_commands: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host_name: "localhost".to_owned(),
            max_line: 4096,
            max_lines: 100,
            pipelining: Pipelining::AsOffered,
            window_commands: 64,
        }
    }
}

/// Whether commands are sent before the answers to earlier ones have come (RFC 2920).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pipelining {
    /// When the server lists PIPELINING; the default.
    #[default]
    AsOffered,
    /// One command at a time.
    Never,
}
