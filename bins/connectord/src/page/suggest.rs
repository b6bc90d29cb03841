//! What an address suggests: the settings of providers that are known.

use connectord_admin::{DeleteBy, Protocol, Settings};

/// Domains of addresses, and the server of their mailboxes; all by IMAP over TLS on port 993.
const PROVIDERS: [(&[&str], &str); 22] = [
    (&["gmail.com", "googlemail.com"], "imap.gmail.com"),
    (
        &["outlook.com", "hotmail.com", "live.com", "msn.com", "outlook.de", "outlook.it", "outlook.fr"],
        "outlook.office365.com",
    ),
    (&["gmx.de", "gmx.net", "gmx.at", "gmx.ch"], "imap.gmx.net"),
    (&["gmx.com", "gmx.co.uk", "gmx.fr", "gmx.es"], "imap.gmx.com"),
    (&["web.de"], "imap.web.de"),
    (
        &["yahoo.com", "yahoo.de", "yahoo.it", "yahoo.fr", "yahoo.es", "ymail.com", "rocketmail.com"],
        "imap.mail.yahoo.com",
    ),
    (&["aol.com"], "imap.aol.com"),
    (&["icloud.com", "me.com", "mac.com"], "imap.mail.me.com"),
    (&["fastmail.com", "fastmail.fm"], "imap.fastmail.com"),
    (&["mailbox.org"], "imap.mailbox.org"),
    (&["posteo.de", "posteo.net"], "posteo.de"),
    (&["t-online.de", "magenta.de"], "secureimap.t-online.de"),
    (&["freenet.de"], "mx.freenet.de"),
    (&["libero.it"], "imapmail.libero.it"),
    (&["virgilio.it"], "in.virgilio.it"),
    (&["tiscali.it"], "imap.tiscali.it"),
    (&["aruba.it"], "imaps.aruba.it"),
    (&["pec.it", "pec.aruba.it"], "imaps.pec.aruba.it"),
    (&["orange.fr", "wanadoo.fr"], "imap.orange.fr"),
    (&["free.fr"], "imap.free.fr"),
    (&["yandex.com", "yandex.ru"], "imap.yandex.com"),
    (&["zoho.com", "zohomail.eu"], "imap.zoho.com"),
];

/// The settings of an address whose provider is known.
pub(super) fn settings(address: &str) -> Option<Settings> {
    let (_, domain) = address.trim().rsplit_once('@')?;
    let domain = domain.to_lowercase();
    let (_, host) = PROVIDERS.iter().find(|(domains, _)| domains.contains(&domain.as_str()))?;
    // Gmail only archives what is expunged.
    let delete_by = if *host == "imap.gmail.com" { DeleteBy::Trash } else { DeleteBy::Expunge };
    Some(Settings {
        address: address.trim().to_owned(),
        protocol: Protocol::Imap,
        host: (*host).to_owned(),
        delete_by,
        ..Settings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::settings;

    #[test]
    fn a_known_domain_has_its_server_and_no_other_has_one() {
        assert_eq!(settings(" Ann@GMX.de").map(|found| found.host), Some("imap.gmx.net".to_owned()));
        for address in ["ann@example.org", "ann", "", "ann@notgmx.de"] {
            assert!(settings(address).is_none(), "{address}");
        }
    }
}
