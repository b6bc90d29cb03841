//! LMTP client session, sans I/O (RFC 2033, 2034, 2920, 6152, 6531).
