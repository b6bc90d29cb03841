//! Starts a private Dovecot with mail in it, prints how to reach it, and keeps it until standard input closes.
//!
//!     cargo run -p connectord-testkit --example dovecot -- 1000

use std::io::Read;

use connectord_testkit::{Dovecot, DovecotOptions, Service, corpus};

fn main() -> std::io::Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100);
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret").user("bob", "secret"));
    dovecot.seed("ann", "INBOX", &corpus::messages(count, 1));
    for (name, service) in [
        ("pop3", Service::Pop3),
        ("pop3s", Service::Pop3s),
        ("imap", Service::Imap),
        ("imaps", Service::Imaps),
        ("lmtp", Service::Lmtp),
    ] {
        println!("{name} 127.0.0.1:{}", dovecot.port(service));
    }
    println!("lmtp unix:{}", dovecot.lmtp_socket().display());
    println!("ca {}", dovecot.certificates().ca_file().display());
    println!("users ann and bob, password secret, {count} messages for ann");
    std::io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}
