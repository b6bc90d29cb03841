use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Dovecot;

/// Writes `dovecot.conf`.
pub(super) fn write(dovecot: &Dovecot) {
    let [pop3, pop3s, imap, imaps, lmtp] = dovecot.ports;
    let directory = dovecot.directory.path().display();
    let (cert, key) = (dovecot.certificates.server_cert().display(), dovecot.certificates.server_key().display());
    let extra = &dovecot.extra;
    let text = format!(
        r#"
protocols = imap pop3 lmtp
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
instance_name = connectord-test
listen = 127.0.0.1

ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}

auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
auth_username_format = %u
auth_username_chars =
auth_failure_delay = 0
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/users
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={directory}/mail/%u
}}
first_valid_uid = 1
first_valid_gid = 1

mail_location = maildir:~/Maildir
mail_fsync = never
mail_max_userip_connections = 0
mail_privileged_group =
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Trash {{
    auto = create
    special_use = \Trash
  }}
  mailbox Junk {{
    auto = create
    special_use = \Junk
  }}
  mailbox Sent {{
    auto = create
    special_use = \Sent
  }}
  mailbox Drafts {{
    auto = create
    special_use = \Drafts
  }}
}}

protocol lmtp {{
  mail_plugins = sieve
}}
postmaster_address = postmaster@localhost
hostname = localhost
lda_mailbox_autocreate = yes
plugin {{
  sieve = file:~/.dovecot.sieve
}}

# Room for 1,500 connections of each kind at once.
default_client_limit = 8192
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service pop3-login {{
  service_count = 0
  process_limit = 4
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service imap-login {{
  service_count = 0
  process_limit = 4
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3 {{
  process_limit = 1500
  service_count = 256
}}
service imap {{
  process_limit = 1500
  service_count = 256
}}
service lmtp {{
  process_limit = 1500
  process_min_avail = 1
  inet_listener lmtp {{
    port = {lmtp}
  }}
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
}}
{extra}
"#
    );
    let path = dovecot.configuration();
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    crate::maildir::make_directory(&dovecot.directory.path().join("mail"));
}

/// Writes the password file; passwords as base64, so that they may hold colons and any UTF-8.
pub(super) fn write_users(dovecot: &Dovecot) {
    let mut text = String::new();
    for (name, password) in &dovecot.users {
        assert!(
            !name.is_empty() && !name.contains(|c: char| c == ':' || c == '/' || c.is_whitespace()),
            "{name:?} is no user name for a password file"
        );
        text += &format!("{name}:{{PLAIN.b64}}{}::::::\n", BASE64_STANDARD.encode(password));
    }
    let path = dovecot.directory.path().join("users");
    let next = dovecot.directory.path().join("users.next");
    std::fs::write(&next, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", next.display()));
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o644))
        .unwrap_or_else(|e| panic!("cannot open {} to dovecot: {e}", next.display()));
    std::fs::rename(&next, &path).unwrap_or_else(|e| panic!("cannot replace {}: {e}", path.display()));
}
