use super::{Network, Relays, Results};

/// What is known of one provider's own hosts.
///
/// Everything here was read from mail that is public; [`Profile::sources`] says where and from when. A provider
/// changes its hosts when it likes: then the walk ends early and the client is unknown, which is noticed and harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Domains of its POP3 and IMAP servers.
    pub servers: &'static [&'static str],
    /// As [`Relays::hosts`].
    pub hosts: &'static [&'static str],
    /// As [`Relays::networks`].
    pub networks: &'static [&'static str],
    /// As [`Relays::authserv_ids`]; none where no public mail shows reliably where its own fields stand.
    pub authserv_ids: &'static [&'static str],
    /// As [`Relays::results`].
    pub results: Results,
    /// As [`Relays::gaps`].
    pub gaps: bool,
    /// Public mail and pages that show it, with the year.
    pub sources: &'static [(&'static str, u16)],
}

/// The providers that are known.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "gmail",
        servers: &["gmail.com", "googlemail.com"],
        hosts: &["mx.google.com"],
        // Its inner hosts sign with 10.0.0.0/8, since 2015 in 6to4 form.
        networks: &["10.0.0.0/8", "2002:a00::/24"],
        authserv_ids: &["mx.google.com"],
        results: Results::Below,
        gaps: false,
        sources: &[
            ("https://github.com/rf-peixoto/phishing_pot/blob/main/email/sample-1231.eml", 2023),
            ("https://github.com/PHPMailer/PHPMailer/issues/891", 2016),
        ],
    },
    Profile {
        name: "outlook",
        servers: &["outlook.com", "office365.com", "office.com", "hotmail.com", "live.com"],
        hosts: &[
            "prod.outlook.com",
            "mail.protection.outlook.com",
            "prod.protection.outlook.com",
            "outlook.office365.com",
        ],
        // Asia, Europe, America, Australia, and what came before. Not all of 2603:1000::/24: machines that anybody rents
        // are in it. The hosts that send its customers' mail are elsewhere: 40.92.0.0/15, 40.107.0.0/16,
        // 2a01:111:f400::/48.
        networks: &["2603:1096::/32", "2603:10a6::/32", "2603:10b6::/32", "2603:10c6::/32", "2a01:111:e400::/48"],
        authserv_ids: &[""],
        results: Results::Above,
        gaps: false,
        sources: &[
            ("https://github.com/rf-peixoto/phishing_pot/blob/main/email/sample-1004.eml", 2023),
            ("https://github.com/haraka/Haraka/issues/3280", 2024),
            ("https://github.com/getmail6/getmail6/issues/48", 2020),
        ],
    },
    Profile {
        name: "gmx",
        servers: &["gmx.net", "gmx.com", "gmx.de", "web.de", "mail.com"],
        hosts: &["gmx.net", "gmx.com", "web.de", "mx.mail.com"],
        networks: &[],
        authserv_ids: &["gmx.net", "web.de"],
        results: Results::Above,
        gaps: false,
        sources: &[
            ("https://lore.kernel.org/alsa-devel/20221205163713.7476-1-p.jungkamp@gmx.net/", 2022),
            ("https://github.com/djcb/mu/blob/master/lib/tests/bench-indexer.cc", 2020),
        ],
    },
    Profile {
        name: "ionos",
        servers: &["ionos.de", "ionos.com", "1und1.de", "1and1.com", "kundenserver.de"],
        hosts: &["kundenserver.de"],
        networks: &[],
        authserv_ids: &[],
        results: Results::Above,
        gaps: false,
        sources: &[("https://github.com/apache/spamassassin/blob/trunk/t/rcvd_parser.t", 2004)],
    },
    Profile {
        name: "yahoo",
        servers: &["yahoo.com", "aol.com", "ymail.com"],
        hosts: &["yahoo.com"],
        // Its newer hosts sign with 10.0.0.0/8.
        networks: &["10.0.0.0/8"],
        authserv_ids: &[],
        results: Results::Above,
        gaps: false,
        sources: &[
            (
                "https://github.com/SpamExperts/OrangeAssassin/blob/master/tests/functional/test_plugin/test_short_circuit.py",
                2016,
            ),
            ("https://github.com/jstedfast/MailKit/issues/644", 2018),
        ],
    },
    Profile {
        name: "icloud",
        servers: &["mail.me.com", "icloud.com", "me.com", "mac.com"],
        hosts: &["p*-icloudmta-smtpin-*", "p*-mailgateway-smtp*", "mail.me.com"],
        networks: &[],
        authserv_ids: &[],
        results: Results::Below,
        gaps: false,
        sources: &[("https://lists.ubuntu.com/archives/apparmor/2025-February/", 2025)],
    },
    Profile {
        name: "fastmail",
        servers: &["fastmail.com", "fastmail.fm", "messagingengine.com"],
        hosts: &["messagingengine.com", "internal", "slot*"],
        networks: &[],
        authserv_ids: &["messagingengine.com", "internal"],
        results: Results::Above,
        // Since 2018 at the latest one host writes as `mx4.messagingengine.com` and as `mailmx.nyi.internal`.
        gaps: true,
        sources: &[
            ("https://pymotw.com/3/imaplib/", 2016),
            ("https://github.com/NousResearch/hermes-agent/pull/68606", 2026),
        ],
    },
    Profile {
        name: "proton",
        // By way of its Bridge, which is a server on the user's own machine: named by the account, not found by it.
        servers: &["protonmail.ch", "proton.me"],
        hosts: &["protonmail.ch"],
        networks: &[],
        authserv_ids: &["protonmail.ch"],
        results: Results::Above,
        gaps: false,
        sources: &[("https://github.com/ProtonMail/WebClients/issues/333", 2023)],
    },
    Profile {
        name: "yandex",
        servers: &["yandex.ru", "yandex.com", "yandex.net"],
        hosts: &["yandex.net"],
        networks: &["2a02:6b8:c00::/40"],
        authserv_ids: &["yandex.net"],
        results: Results::Below,
        gaps: false,
        sources: &[("https://github.com/rms-support-letter/rms-support-letter.github.io/issues/3105", 2021)],
    },
];

impl Profile {
    /// The profile called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name.eq_ignore_ascii_case(name))
    }

    /// The profile of the provider whose POP3 or IMAP server is `host`.
    ///
    /// ```
    /// use connectord_mail::relay::Profile;
    /// assert_eq!(Profile::of_server("imap.gmail.com").map(|p| p.name), Some("gmail"));
    /// assert_eq!(Profile::of_server("imap.example.org"), None);
    /// ```
    pub fn of_server(host: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.servers.iter().any(|domain| super::matches(domain, host)))
    }

    /// What the profile means for the walk.
    pub fn relays(&self) -> Relays {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let networks = self.networks.iter().map(|text| text.parse::<Network>().expect("a test reads all profiles"));
        Relays {
            hosts: texts(self.hosts),
            networks: networks.collect(),
            authserv_ids: texts(self.authserv_ids),
            results: self.results,
            gaps: self.gaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_can_be_used_and_names_its_sources() {
        for profile in PROFILES {
            let relays = profile.relays();
            assert!(!relays.hosts.is_empty() && !profile.servers.is_empty(), "{}", profile.name);
            assert_eq!(Profile::named(&profile.name.to_uppercase()), Some(profile));
            assert!(!profile.sources.is_empty(), "{}", profile.name);
            assert!(profile.sources.iter().all(|(address, year)| address.starts_with("https://") && *year > 2000));
            for server in profile.servers {
                assert_eq!(Profile::of_server(&format!("imap.{server}")), Some(profile), "{server}");
            }
        }
    }
}
