use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::private::{Private, write};
use crate::process;

/// What all servers of this module can do.
macro_rules! private {
    ($server:ident) => {
        impl $server {
            /// What it has logged so far.
            pub fn log(&self) -> String {
                self.0.log()
            }

            /// Stops all its processes where they are (SIGSTOP): it accepts connections and is silent.
            pub fn suspend(&self) {
                self.0.suspend();
            }

            /// Lets suspended processes go on.
            pub fn resume(&self) {
                self.0.resume();
            }

            /// Kills all its processes at once (SIGKILL); connections are refused until [`restart`](Self::restart).
            pub fn kill(&mut self) {
                self.0.kill();
            }

            /// Kills it if it runs, and starts it again on the same ports, with what it has learned.
            pub fn restart(&mut self) {
                self.0.restart();
            }
        }
    };
}

/// A real Rspamd 3.4, private to one test: a normal worker over TCP and on a Unix socket, a controller, no proxy, no
/// fuzzy storage, no Redis (Bayes in SQLite), no network but the DNS server it is given. It takes some 10 s to start.
///
/// Needs the Debian package rspamd; without it panics and names the package.
#[derive(Debug)]
pub struct Rspamd(Private<2>);

private!(Rspamd);

/// Bayes in files, which needs no Redis; so that the few words of a test are enough to learn from.
const BAYES: &str = r#"
classifier "bayes" {
  tokenizer { name = "osb"; }
  backend = "sqlite3";
  min_tokens = 1;
  min_learns = 1;
  cache { type = "sqlite3"; file = "${DBDIR}/learn_cache.sqlite"; }
  statfile { symbol = "BAYES_HAM"; path = "${DBDIR}/ham.sqlite"; spam = false; }
  statfile { symbol = "BAYES_SPAM"; path = "${DBDIR}/spam.sqlite"; spam = true; }
}
"#;

impl Rspamd {
    /// Files for [`start`](Self::start) that let it learn. Without a classifier Rspamd says that it learned, and has learned
    /// nothing.
    pub const BAYES: [(&str, &str); 2] = [("classifier-bayes.conf", BAYES), ("statistic.conf", BAYES)];

    /// Starts it with a DNS server, if any, and further files of its configuration: name below `local.d` and text.
    pub fn start(dns: Option<&Dns>, files: &[(&str, &str)]) -> Self {
        process::require("/usr/bin/rspamd", "rspamd");
        // Port 1 answers at once that nobody is there.
        let dns = dns.map_or(1, |dns| dns.port());
        let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Self(Private::start("rspamd", move |directory, [worker, controller]| {
            let place = directory.display();
            let disabled = "enabled = false;\n".to_owned();
            let mut all = vec![
                (
                    "worker-normal.inc".to_owned(),
                    format!("bind_socket = [\"127.0.0.1:{worker}\", \"{place}/rspamd.sock mode=0666\"];\ncount = 1;\n"),
                ),
                (
                    "worker-controller.inc".to_owned(),
                    format!(
                        "bind_socket = \"127.0.0.1:{controller}\";\ncount = 1;\nsecure_ip = [\"192.0.2.1\"];\npassword = \"secret\";\n"
                    ),
                ),
                ("worker-proxy.inc".to_owned(), disabled.clone()),
                ("worker-fuzzy.inc".to_owned(), disabled.clone()),
                ("fuzzy_check.conf".to_owned(), disabled),
                (
                    "options.inc".to_owned(),
                    format!(
                        "dns {{ nameserver = [\"127.0.0.1:{dns}\"]; timeout = 1s; retransmits = 2; }}\nfilters = \"chartable,dkim,regexp\";\n\
                         url_tld = \"{place}/conf/tlds\";\n"
                    ),
                ),
                ("logging.inc".to_owned(), "type = \"console\";\n".to_owned()),
            ];
            all.extend(files.iter().cloned());
            // Those of the package take minutes to be compiled on a machine that does much else.
            write(&directory.join("conf/tlds"), "com\norg\nnet\ntest\n");
            for (name, text) in all {
                write(&directory.join("conf/local.d").join(name), &text);
            }
            for name in ["db", "run", "log"] {
                write(&directory.join(name).join("here"), "");
            }
            let mut command = Command::new("/usr/bin/rspamd");
            command.args(["-f", "-i", "-c", "/etc/rspamd/rspamd.conf"]);
            for (name, path) in [("DBDIR", "db"), ("RUNDIR", "run"), ("LOGDIR", "log"), ("LOCAL_CONFDIR", "conf")] {
                command.arg(format!("--var={name}={place}/{path}"));
            }
            command
        }))
    }

    /// Where its normal worker listens.
    pub fn address(&self) -> SocketAddr {
        process::loopback(self.0.ports()[0])
    }

    /// Where its normal worker listens, too.
    pub fn socket(&self) -> PathBuf {
        self.0.directory().join("rspamd.sock")
    }

    /// Where its controller listens; the password is `secret`, and it wants it.
    pub fn controller(&self) -> SocketAddr {
        process::loopback(self.0.ports()[1])
    }
}

/// A real clamd 1.4 that knows one virus, EICAR, over TCP and on a Unix socket.
///
/// Needs the Debian package clamav-daemon; without it panics and names the package.
#[derive(Debug)]
pub struct Clamd(Private<1>);

private!(Clamd);

impl Clamd {
    /// Starts it with further lines of its configuration.
    pub fn start(extra: &str) -> Self {
        process::require("/usr/sbin/clamd", "clamav-daemon");
        let extra = extra.to_owned();
        Self(Private::start("clamd", move |directory, [port]| {
            let place = directory.display();
            write(&directory.join("db/eicar.hdb"), "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature\n");
            let _ = std::fs::remove_file(directory.join("clamd.sock"));
            let conf = directory.join("clamd.conf");
            let text = format!(
                "DatabaseDirectory {place}/db\nLocalSocket {place}/clamd.sock\nLocalSocketMode 666\nTCPSocket {port}\nTCPAddr 127.0.0.1\n\
                 Foreground yes\nTemporaryDirectory {place}\n{extra}\n"
            );
            write(&conf, &text);
            let mut command = Command::new("/usr/sbin/clamd");
            command.arg("-c").arg(conf);
            command
        }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        process::loopback(self.0.ports()[0])
    }

    /// Where it listens, too.
    pub fn socket(&self) -> PathBuf {
        self.0.directory().join("clamd.sock")
    }
}

/// A real spamd 4.0 without network tests, over TCP and on a Unix socket, with two children at most. It takes some 10 s
/// to start.
///
/// Needs root (its children become nobody) and the Debian packages spamd and spamassassin; without them panics and names
/// the package.
#[derive(Debug)]
pub struct Spamd(Private<1>);

private!(Spamd);

impl Spamd {
    /// Starts it with further lines of its configuration, such as rules.
    pub fn start(extra: &[&str]) -> Self {
        process::require("/usr/sbin/spamd", "spamd");
        process::require("/etc/spamassassin/init.pre", "spamassassin");
        process::require_root("spamd");
        let extra: Vec<_> = extra.iter().map(|line| format!("--cf={line}")).collect();
        Self(Private::start("spamd", move |directory, [port]| {
            let place = directory.display();
            let home = directory.join("home");
            write(&home.join("here"), "");
            let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("every system has nobody");
            std::os::unix::fs::chown(&home, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("we are root");
            let _ = std::fs::remove_file(directory.join("spamd.sock"));
            let mut command = Command::new("/usr/sbin/spamd");
            command
                .args(["--local", "--nouser-config", "--min-children=1", "--max-children=2", "--username=nobody"])
                .args(["--syslog=stderr", "--allowed-ips=127.0.0.1", "--socketmode=0666"])
                .arg(format!("--listen=127.0.0.1:{port}"))
                .arg(format!("--socketpath={place}/spamd.sock"))
                .arg(format!("--helper-home-dir={place}/home"))
                .args(&extra);
            command
        }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        process::loopback(self.0.ports()[0])
    }

    /// Where it listens, too.
    pub fn socket(&self) -> PathBuf {
        self.0.directory().join("spamd.sock")
    }
}

/// A DNS server that knows only what it is told, and says of all else that it does not exist: dnsmasq.
///
/// Needs the Debian package dnsmasq-base; without it panics and names the package.
#[derive(Debug)]
pub struct Dns(Private<1>);

private!(Dns);

impl Dns {
    /// The zone of a sender, shop.test, whose mail comes from 192.0.2.7 and is rejected from elsewhere.
    pub const SHOP: [&str; 5] = [
        "txt-record=shop.test,\"v=spf1 ip4:192.0.2.7 -all\"",
        "txt-record=_dmarc.shop.test,\"v=DMARC1; p=reject\"",
        "mx-host=shop.test,out.shop.test,10",
        "host-record=shop.test,out.shop.test,192.0.2.7",
        "ptr-record=7.2.0.192.in-addr.arpa,out.shop.test",
    ];

    /// Starts it with dnsmasq's options for its zones, without the dashes: `txt-record=shop.test,"v=spf1 -all"`,
    /// `host-record=mx.shop.test,192.0.2.7`, which has a name and its address in both directions.
    pub fn start(records: &[&str]) -> Self {
        process::require("/usr/sbin/dnsmasq", "dnsmasq-base");
        let records: Vec<_> = records.iter().map(|record| format!("{record}\n")).collect();
        Self(Private::start("dnsmasq", move |directory, [port]| {
            let conf = directory.join("dnsmasq.conf");
            let text = format!(
                "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/#/\nuser=root\nlog-facility=-\n{}",
                records.concat()
            );
            write(&conf, &text);
            let mut command = Command::new("/usr/sbin/dnsmasq");
            command.arg("--keep-in-foreground").arg(format!("--conf-file={}", conf.display()));
            command
        }))
    }

    /// Where it answers, over UDP and TCP of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.0.ports()[0]
    }
}
