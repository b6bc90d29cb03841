//! One message: its body, header scan and edits, envelope, trace fields, fingerprints and RFC 3463 status codes.
