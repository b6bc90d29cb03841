//! Destinations: Maildir, LMTP, SMTP, mbox and a delivery command.
