//! Settings as entered: read from a form or from JSON, and looked over before anything is done with them.

use crate::backend::{Check, Delete, Entered, FieldProblem, Protocol, Secret, Security, Settings, Start};
use crate::fields::Fields;

/// Longest text of a field, in characters.
const LONGEST: usize = 512;

/// Problems that are plain to see, without asking anybody.
pub(crate) fn problems(settings: &Settings) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut check = |field: &str, wrong: bool, problem: &str| {
        if wrong && !problems.iter().any(|known: &FieldProblem| known.field == field) {
            problems.push(FieldProblem::new(field, problem));
        }
    };
    for (field, text) in settings.fields() {
        let longest = if field == "note" || field == "folders" { 8 * LONGEST } else { LONGEST };
        check(field, text.chars().count() > longest, "too_long");
        let lines = field == "note" || field == "folders";
        check(field, text.chars().any(|c| c.is_control() && !(lines && matches!(c, '\n' | '\r'))), "control");
    }
    check("address", settings.address.trim().is_empty(), "missing");
    check("address", settings.address.contains(char::is_whitespace), "blank");
    check("host", settings.host.is_empty(), "missing");
    let host_like = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    check("host", !settings.host.chars().all(host_like), "no_host");
    check("port", settings.port == Some(0), "no_port");
    check("deliver_to", settings.deliver_to.is_empty(), "missing");
    check("deliver_to", settings.deliver_to.iter().any(|user| user.trim().is_empty()), "missing");
    check("deliver_to", settings.deliver_to.len() > 50, "too_many");
    check("check", settings.check == Check::Push && settings.protocol == Protocol::Pop3, "push_pop3");
    check("folders", settings.protocol == Protocol::Imap && settings.folders.is_empty(), "missing");
    check("folders", settings.folders.len() > 200, "too_many");
    check("max_megabytes", settings.max_megabytes == Some(0), "no_number");
    let is_pin = |pin: &String| {
        pin.strip_prefix("sha256:")
            .is_some_and(|digits| digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()))
    };
    check("pins", !settings.pins.iter().all(is_pin), "no_pin");
    check("recipient", !settings.recipient.is_empty() && !settings.recipient.contains("{user}"), "no_user");
    problems
}

/// Whether a secret must be typed: a new account has none, and one that is stored is not sent elsewhere.
pub(crate) fn secret_problem(entered: &Entered, before: Option<&(Settings, bool)>) -> Option<FieldProblem> {
    match before {
        _ if entered.secret.is_some() => None,
        None => Some(FieldProblem::new("secret", "missing")),
        Some((settings, _)) if !entered.settings.same_recipient_of_secret(settings) => {
            Some(FieldProblem::new("secret", "again"))
        }
        Some((_, false)) => Some(FieldProblem::new("secret", "missing")),
        Some(_) => None,
    }
}

/// Reads the form; what cannot be read is a problem, and keeps its default meanwhile.
pub(crate) fn of_form(form: &Fields) -> (Entered, Vec<FieldProblem>) {
    let mut wrong = Vec::new();
    let defaults = Settings::default();
    macro_rules! word {
        ($name:literal, $default:expr) => {
            match form.get($name) {
                "" => $default,
                text => text.parse().unwrap_or_else(|_| {
                    wrong.push(FieldProblem::new($name, "no_choice"));
                    $default
                }),
            }
        };
    }
    let number = |name: &str, wrong: &mut Vec<FieldProblem>, problem: &str| match form.get(name) {
        "" => None,
        text => text.parse::<u32>().map_err(|_| wrong.push(FieldProblem::new(name, problem))).ok(),
    };
    let port = number("port", &mut wrong, "no_port");
    let port =
        port.and_then(|port| u16::try_from(port).map_err(|_| wrong.push(FieldProblem::new("port", "no_port"))).ok());
    let check = match form.get("check") {
        "every" => match form.get("check_minutes").parse() {
            Ok(minutes @ 1..=1440) => Check::Every(minutes),
            _ => {
                wrong.push(FieldProblem::new("check", "no_minutes"));
                defaults.check
            }
        },
        _ => word!("check", defaults.check),
    };
    let delete = match form.get("delete") {
        "after" => match form.get("delete_days").parse() {
            Ok(days @ 1..=9999) => Delete::After(days),
            _ => {
                wrong.push(FieldProblem::new("delete", "no_days"));
                defaults.delete
            }
        },
        _ => word!("delete", defaults.delete),
    };
    let start = match form.get("start") {
        "since" => match form.get("start_day").parse() {
            Ok(day) => Start::Since(day),
            Err(_) => {
                wrong.push(FieldProblem::new("start", "no_day"));
                Start::Everything
            }
        },
        _ => word!("start", Start::Everything),
    };
    let list = |name: &str| -> Vec<String> {
        let entries = form.all(name);
        let parts = entries.iter().flat_map(|text| text.split([',', '\n'])).map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    };
    let lines = |name: &str| -> Vec<String> {
        let entries = form.all(name);
        let parts = entries.iter().flat_map(|text| text.lines()).map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    };
    let settings = Settings {
        address: form.get("address").to_owned(),
        protocol: word!("protocol", defaults.protocol),
        security: word!("security", defaults.security),
        host: form.get("host").to_owned(),
        port,
        username: form.get("username").to_owned(),
        deliver_to: list("deliver_to"),
        check,
        start,
        delete,
        delete_by: word!("delete_by", defaults.delete_by),
        folders: lines("folders"),
        antispam: form.ticked("antispam"),
        antivirus: form.ticked("antivirus"),
        on_filter_failure: word!("on_filter_failure", defaults.on_filter_failure),
        max_megabytes: number("max_megabytes", &mut wrong, "no_number"),
        oversize: word!("oversize", defaults.oversize),
        mark_seen: form.ticked("mark_seen"),
        delivery: form.get("delivery").to_owned(),
        recipient: form.get("recipient").to_owned(),
        pins: list("pins"),
        trusted_relays: list("trusted_relays"),
        note: form.get("note").replace("\r\n", "\n"),
        enabled: form.ticked("enabled"),
    };
    if settings.security == Security::None && !form.has("readable") {
        wrong.push(FieldProblem::new("security", "readable"));
    }
    let secret = Secret::entered(form.raw("secret").to_owned());
    for problem in problems(&settings) {
        if !wrong.iter().any(|known| known.field == problem.field) {
            wrong.push(problem);
        }
    }
    (Entered { settings, secret }, wrong)
}

/// Reads JSON: the fields of [`Settings`], and `secret`.
pub(crate) fn of_json(value: serde_json::Value) -> Result<Entered, Vec<FieldProblem>> {
    let serde_json::Value::Object(mut fields) = value else { return Err(vec![FieldProblem::new("", "no_choice")]) };
    let secret = match fields.remove("secret") {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) => Secret::entered(text),
        Some(_) => return Err(vec![FieldProblem::new("secret", "no_choice")]),
    };
    // Each field by itself, so that an answer names the one that is wrong. No value is repeated: it may be a secret in the wrong field.
    let mut wrong = Vec::new();
    for (name, value) in &fields {
        let alone = serde_json::json!({ name: value });
        if serde_json::from_value::<Settings>(alone).is_err() {
            let known = Settings::default().fields().iter().any(|(field, _)| field == name);
            wrong.push(FieldProblem::new(name, if known { "no_choice" } else { "no_field" }));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let settings: Settings =
        serde_json::from_value(fields.into()).map_err(|_| vec![FieldProblem::new("", "no_choice")])?;
    let wrong = problems(&settings);
    if wrong.is_empty() { Ok(Entered { settings, secret }) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::{of_form, of_json, problems, secret_problem};
    use crate::backend::{Entered, Secret, Security, Settings};
    use crate::fields::Fields;

    fn good() -> Settings {
        Settings {
            address: "info@example.org".into(),
            host: "imap.example.org".into(),
            deliver_to: vec!["anna".into()],
            ..Settings::default()
        }
    }

    #[test]
    fn a_stored_secret_is_not_sent_elsewhere() {
        let before = (good(), true);
        let again = |change: fn(&mut Settings)| {
            let mut settings = good();
            change(&mut settings);
            secret_problem(&Entered { settings, secret: None }, Some(&before)).is_some()
        };
        assert!(!again(|_| {}));
        assert!(!again(|s| s.note = "x".into()));
        assert!(!again(|s| s.host = "IMAP.example.org".into()));
        assert!(!again(|s| s.port = Some(993)), "the same port by name");
        assert!(again(|s| s.host = "evil.example".into()));
        assert!(again(|s| s.port = Some(10_993)));
        assert!(again(|s| s.security = Security::None));
        assert!(again(|s| s.protocol = crate::backend::Protocol::Pop3));
        assert!(again(|s| s.pins = vec![format!("sha256:{}", "0".repeat(64))]));
        assert!(again(|s| s.username = "other".into()));
        let entered = Entered { settings: good(), secret: Secret::entered("x".into()) };
        assert!(secret_problem(&entered, None).is_none());
    }

    #[test]
    fn each_wrong_field_is_named() {
        let json = serde_json::json!({"address": "a@b", "host": "h", "deliver_to": ["x"], "port": "x", "colour": 1, "check": "7"});
        let mut fields: Vec<_> =
            of_json(json).expect_err("wrong").into_iter().map(|p| format!("{} {}", p.field, p.problem)).collect();
        fields.sort();
        assert_eq!(fields, ["check no_choice", "colour no_field", "port no_choice"]);
        assert_eq!(problems(&good()), []);
        let bad = Settings { host: "a b".into(), note: "x\u{1b}".into(), ..good() };
        assert_eq!(problems(&bad).len(), 2);
    }

    #[test]
    fn what_is_chosen_of_two_editors_boxes_is_what_it_says() {
        let text = "address=a%40b&host=h&deliver_to=x&folders=INBOX&antispam=no&antivirus=yes&mark_seen=no&enabled=yes";
        let (entered, wrong) = of_form(&Fields::read(text.as_bytes()));
        assert_eq!(wrong, []);
        let settings = entered.settings;
        assert!(!settings.antispam && settings.antivirus && !settings.mark_seen && settings.enabled);
    }

    #[test]
    fn a_form_without_encryption_needs_a_second_word() {
        let text = "address=a%40b&host=h&deliver_to=x&security=none&folders=INBOX&secret=%20p";
        let (entered, wrong) = of_form(&Fields::read(text.as_bytes()));
        assert_eq!(wrong.len(), 1);
        assert_eq!(entered.secret.expect("one").expose(), " p", "blanks of a secret are kept");
        assert!(of_form(&Fields::read(format!("{text}&readable=1").as_bytes())).1.is_empty());
    }
}
