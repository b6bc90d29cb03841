//! The four ways to give a password.

use toml::Spanned;
use toml::de::DeValue;

use super::secret_file;
use crate::model::PasswordSource;
use crate::section::Section;

/// Their keys, the best ones first.
pub(super) const KEYS: [&str; 4] = ["password_file", "password_command", "password_env", "password"];

/// The password's source, if one is given; more than one is a problem.
pub(super) fn read(section: Section<'_, '_>) -> Option<PasswordSource> {
    let given: Vec<_> = KEYS.into_iter().filter(|name| section.has(name)).collect();
    if let [first, second, ..] = given.as_slice() {
        let message = format!("the password is given in several ways: {}", given.join(" and "));
        section.context.problem_between(&section.key_span(second), &section.key_span(first), message);
    }
    let file = secret_file(section, "password_file").map(PasswordSource::File);
    let command = command(section).map(PasswordSource::Command);
    let variable = variable(section).map(PasswordSource::Environment);
    let inline = section.secret("password").map(|password| PasswordSource::Inline(password.into_inner()));
    file.or(command).or(variable).or(inline)
}

fn variable(section: Section<'_, '_>) -> Option<String> {
    let name = section.text("password_env")?;
    if name.get_ref().contains('=') {
        let message = "password_env must be the name of an environment variable, without \"=\"";
        section.context.hide(&name.span());
        section.context.problem(&name.span(), message);
        return None;
    }
    Some(name.into_inner())
}

fn command(section: Section<'_, '_>) -> Option<Vec<String>> {
    let name = "password_command";
    if let Some(DeValue::String(text)) = section.raw(name).map(Spanned::get_ref) {
        let words: Vec<_> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        section.context.problem_with_hint(
            &section.value_span(name),
            "password_command must be a list of texts: it is run without a shell",
            format!("write password_command = [{}]", words.join(", ")),
        );
        return None;
    }
    let mut words: Vec<_> = section.words(name)?.into_iter().map(Spanned::into_inner).collect();
    let Some(program) = words.first_mut() else {
        section.context.problem(&section.value_span(name), "password_command must name a program");
        return None;
    };
    // A name without a slash is searched for in PATH, as a shell would.
    if program.contains('/') {
        *program = section.context.resolve(program).to_string_lossy().into_owned();
    }
    Some(words)
}
