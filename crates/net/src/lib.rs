//! Sockets for sans-I/O sessions: connecting, TLS policy, proxies, deadlines, the driver, wire traces.
