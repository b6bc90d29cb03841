//! IMAP client session for retrieval, sans I/O (RFC 9051, 3501, 2177, 2971, 4315, 4959, 5161, 6154, 6851, 7888).
