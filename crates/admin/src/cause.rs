//! Why an account is not well: one table for the page, the API, the command line and exit codes.
//!
//! The sentence of a cause is the catalogue's `cause.CODE`; a test sees to it that every code has one in every language.

use std::collections::BTreeMap;

use crate::at::At;
use crate::backend::UnknownWord;

/// Who mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mends {
    /// It heals by itself.
    Itself,
    /// A person.
    Person,
    /// Nobody has to: it is a remark beside the account.
    Remark,
}

/// What a button beside a cause does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Opens the form at this field.
    Edit(&'static str),
    /// Checks now.
    CheckNow,
    /// Switches the account off.
    SwitchOff,
    /// Shows what is parked.
    ShowParked,
    /// Shows the messages that may have come twice.
    ShowTwice,
    /// Shows the accounts with this cause.
    ShowAccounts,
    /// Shows the accounts of its user.
    ShowUser,
    /// Shows the account's messages.
    ShowMessages,
    /// Shows the settings of the installation.
    ShowSettings,
    /// Tries the parts of the installation.
    TestParts,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct CauseRow {
    /// The code.
    pub code: Code,
    /// Who mends it.
    pub mends: Mends,
    /// The exit code of a check by hand (sysexits).
    pub exit: u8,
    /// The button, and at most one more: word below `do.` in the catalogue, and what it does.
    pub remedies: &'static [(&'static str, Remedy)],
    /// The values that its sentence speaks of.
    pub words: &'static [&'static str],
}

macro_rules! causes {
    ($($variant:ident $code:literal $mends:ident $exit:literal [$($remedy:expr),*] [$($word:literal),*],)+) => {
        /// A cause, as programs know it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is described by its sentence in the catalogue")]
        pub enum Code { $($variant),+ }

        impl Code {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code itself.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// Its row of the table.
            pub const fn row(self) -> CauseRow {
                match self {
                    $(Self::$variant => CauseRow {
                        code: self, mends: Mends::$mends, exit: $exit, remedies: &[$($remedy),*], words: &[$($word),*],
                    }),+
                }
            }
        }

        impl std::str::FromStr for Code {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($code => Ok(Self::$variant),)+ _ => Err(UnknownWord) }
            }
        }
    };
}

use Remedy::{
    CheckNow, Edit, ShowAccounts, ShowMessages, ShowParked, ShowSettings, ShowTwice, ShowUser, SwitchOff, TestParts,
};

causes! {
    NameUnknown "name_unknown" Itself 69 [("edit_server", Edit("host")), ("try_now", CheckNow)] ["host"],
    NoAnswer "no_answer" Itself 69 [("try_now", CheckNow), ("edit_server", Edit("host"))] ["host", "port"],
    WrongProtocol "wrong_protocol" Person 78 [("edit_protocol", Edit("protocol"))] ["port"],
    TlsExpired "tls_expired" Itself 69 [("try_now", CheckNow), ("trust_this", Edit("pins"))] ["host"],
    TlsOtherName "tls_other_name" Person 78 [("edit_server", Edit("host")), ("trust_this", Edit("pins"))] ["host"],
    TlsUnknownIssuer "tls_unknown_issuer" Person 78 [("trust_this", Edit("pins")), ("try_now", CheckNow)] ["host"],
    TlsNotOffered "tls_not_offered" Person 78 [("use_tls", Edit("security"))] ["port"],
    AddressRefused "address_refused" Person 78 [("edit_server", Edit("host")), ("show_settings", ShowSettings)] ["host"],
    LoginRefused "login_refused" Person 77 [("enter_password", Edit("secret")), ("try_once", CheckNow)] ["host"],
    AppPassword "app_password" Person 77 [("enter_app_password", Edit("secret"))] ["host"],
    OauthNeeded "oauth_needed" Person 77 [("edit_login", Edit("secret"))] ["host"],
    OauthEnded "oauth_ended" Person 77 [("edit_login", Edit("secret"))] ["host"],
    AccessOff "access_off" Person 77 [("try_again", CheckNow)] ["host"],
    InUse "in_use" Itself 75 [("try_now", CheckNow)] ["host"],
    Throttled "throttled" Itself 75 [("show_what_came", ShowMessages), ("change_interval", Edit("check"))] ["host"],
    FolderGone "folder_gone" Person 78 [("choose_folders", Edit("folders"))] ["folder"],
    Renumbered "renumbered" Person 75 [("retrieve_new", CheckNow), ("show_list", ShowMessages)] ["host", "messages", "known"],
    Parked "parked" Remark 65 [("show_parked", ShowParked)] ["messages"],
    UserGone "user_gone" Person 78 [("other_user", Edit("deliver_to")), ("switch_off", SwitchOff)] ["user"],
    MailboxFull "mailbox_full" Person 75 [("try_now", CheckNow), ("show_user", ShowUser)] ["user"],
    DestinationDown "destination_down" Itself 75 [("test_it", TestParts), ("show_accounts", ShowAccounts)] ["part"],
    FilterDown "filter_down" Itself 75 [("test_it", TestParts), ("show_accounts", ShowAccounts)] ["part"],
    DiskFull "disk_full" Person 75 [("show_settings", ShowSettings)] ["path"],
    KeyUnreadable "key_unreadable" Person 78 [("show_settings", ShowSettings)] ["path"],
    SettingsWrong "settings_wrong" Person 78 [("edit", Edit("host")), ("show_settings", ShowSettings)] [],
    MaybeTwice "maybe_twice" Remark 0 [("show_twice", ShowTwice)] ["messages"],
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A value that a sentence speaks of; each language writes it in its way.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A name from outside.
    Text(String),
    /// A count, and the one that chooses between singular and plural.
    Count(u64),
    /// Octets.
    Octets(u64),
    /// A moment.
    At(At),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

/// Why something is not well, with what its sentence speaks of.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// The code.
    pub code: Code,
    /// Values by name; see [`CauseRow::words`].
    pub words: BTreeMap<&'static str, Value>,
    /// Since when.
    pub since: Option<At>,
    /// The next try.
    pub next: Option<At>,
    /// How often it was tried.
    pub tries: u32,
    /// The text of a parsed status reply; shown to administrators only, at most 200 characters of it.
    pub said: Option<String>,
}

impl Cause {
    /// A cause of which nothing more is known.
    pub fn new(code: Code) -> Self {
        Self { code, words: BTreeMap::new(), since: None, next: None, tries: 0, said: None }
    }

    /// With a value for its sentence.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.words.insert(name, value.into());
        self
    }

    /// What the server said, as far as it is shown: 200 characters.
    pub fn said(&self) -> Option<String> {
        self.said.as_ref().map(|said| said.chars().take(200).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Mends};

    #[test]
    fn nothing_that_a_person_must_mend_is_without_a_button() {
        assert_eq!(Code::ALL.len(), 26);
        for code in Code::ALL {
            let row = code.row();
            assert!((1..=2).contains(&row.remedies.len()), "{} has {} buttons", code.word(), row.remedies.len());
            assert_eq!(code.word().parse(), Ok(*code));
            assert!(row.mends == Mends::Remark || row.exit != 0, "{} ends with 0", code.word());
        }
    }
}
