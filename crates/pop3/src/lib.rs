//! POP3 client session for retrieval, sans I/O (RFC 1939, 2449, 2595, 3206, 5034, 6856).
