/// What the server listed in answer to CAPA (RFC 2449 §5), in its order.
///
/// ```
/// use connectord_pop3::{Capabilities, Expire, parse};
/// let mut capabilities = Capabilities::none();
/// for line in ["sasl CRAM-MD5 plain", "EXPIRE 60", "PIPELINING"] {
///     capabilities.push(parse::capability(line.as_bytes()).expect("a name"));
/// }
/// assert!(capabilities.has("Pipelining"));
/// assert_eq!(capabilities.sasl(), ["CRAM-MD5", "PLAIN"]);
/// assert_eq!(capabilities.expire(), Some(Expire { days: Some(60), differs_by_user: false }));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Option<Vec<Capability>>);

/// One line of the answer to CAPA.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capability {
    /// The name, in upper case.
    pub name: String,
    /// What follows, as it came.
    pub arguments: Vec<String>,
}

/// How long the server keeps messages (RFC 2449 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expire {
    /// The shortest time, in days; 0: as soon as they are retrieved; `None`: for ever (`NEVER`).
    pub days: Option<u32>,
    /// Other users have other times; CAPA after login tells this user's.
    pub differs_by_user: bool,
}

/// How long to wait between two logins (RFC 2449 §6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginDelay {
    /// The longest time, in seconds.
    pub seconds: u32,
    /// Other users have other times; CAPA after login tells this user's.
    pub differs_by_user: bool,
}

impl Capabilities {
    /// A server that does not know CAPA, or was not asked.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// A server that answered CAPA, with nothing listed so far.
    pub fn none() -> Self {
        Self(Some(Vec::new()))
    }

    /// Whether the server answered CAPA; if not, what it can do must be tried.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a line.
    pub fn push(&mut self, capability: Capability) {
        self.0.get_or_insert_default().push(capability);
    }

    /// All lines, in the server's order.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        self.0.iter().flatten()
    }

    /// Whether `name` is listed; upper and lower case are the same.
    pub fn has(&self, name: &str) -> bool {
        self.arguments(name).is_some()
    }

    /// What follows `name` in the first line with it.
    pub fn arguments(&self, name: &str) -> Option<&[String]> {
        self.iter().find(|line| line.name.eq_ignore_ascii_case(name)).map(|line| line.arguments.as_slice())
    }

    /// SASL mechanisms in upper case, each once, the first 64 of them (RFC 5034 §3).
    pub fn sasl(&self) -> Vec<String> {
        let mut mechanisms: Vec<String> = Vec::new();
        for mechanism in self.iter().filter(|line| line.name == "SASL").flat_map(|line| &line.arguments) {
            let mechanism = mechanism.to_ascii_uppercase();
            // Bounded, as each is compared with all before it.
            if mechanisms.len() < 64 && !mechanisms.contains(&mechanism) {
                mechanisms.push(mechanism);
            }
        }
        mechanisms
    }

    /// How long the server keeps messages, if it tells.
    pub fn expire(&self) -> Option<Expire> {
        // GNU Mailutils 3.15 forgets the space (seen 2026).
        if self.has("EXPIRENEVER") {
            return Some(Expire { days: None, differs_by_user: false });
        }
        let (value, differs_by_user) = self.by_user("EXPIRE")?;
        let days = if value.eq_ignore_ascii_case("NEVER") { None } else { Some(value.parse().ok()?) };
        Some(Expire { days, differs_by_user })
    }

    /// How long to wait between two logins, if the server tells.
    pub fn login_delay(&self) -> Option<LoginDelay> {
        let (value, differs_by_user) = self.by_user("LOGIN-DELAY")?;
        Some(LoginDelay { seconds: value.parse().ok()?, differs_by_user })
    }

    /// Which server this is, if it tells (RFC 2449 §6.9).
    pub fn implementation(&self) -> Option<String> {
        self.arguments("IMPLEMENTATION").map(|words| words.join(" "))
    }

    fn by_user(&self, name: &str) -> Option<(&str, bool)> {
        let arguments = self.arguments(name)?;
        let value = arguments.first()?;
        Some((value, arguments.get(1).is_some_and(|word| word.eq_ignore_ascii_case("USER"))))
    }
}
