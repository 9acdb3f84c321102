//! Secrets in a config file: which parts of its text no message shows.
//!
//! Faults are shown with the line that they are in, and the next line may hold a password. Where the file could be read, the
//! places of secrets are known; of a file that is not TOML they are guessed, rather too many than too few.

use std::ops::Range;

use toml::{Spanned, de::DeValue};

use super::fault::Faults;

/// Conceals every text in a value, except behind keys that name files.
pub(super) fn conceal_within(faults: &mut Faults, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (_, value) in table.iter().filter(|(key, _)| !key.get_ref().ends_with(FILE)) {
                conceal_within(faults, value);
            }
        }
        DeValue::Array(items) => items.iter().for_each(|item| conceal_within(faults, item)),
        _ => faults.conceal(value.span()),
    }
}

/// Conceals the value of a key that is not known, where it may have been meant for one that holds secrets.
pub(super) fn conceal_unknown(faults: &mut Faults, section: &str, key: &str, value: &Spanned<DeValue<'_>>) {
    let of_users = section == "https" && value.get_ref().is_table();
    if of_users || speaks_of_secrets(key) && !key.ends_with(FILE) {
        conceal_within(faults, value);
    }
}

/// Where the text names a user and password in a URL: `://user:password@`, the password.
pub(super) fn in_urls(text: &str) -> Vec<Range<usize>> {
    let password = |(start, scheme): (usize, &str)| {
        let start = start + scheme.len();
        let rest = &text[start..];
        let rest = &rest[..rest.find(['"', '\'', ' ', '\t', '\n']).unwrap_or(rest.len())];
        let colon = rest.find(':')? + 1;
        let at = rest.rfind('@').filter(|at| *at > colon)?;
        Some(start + colon..start + at)
    };
    text.match_indices("://").filter_map(password).collect()
}

/// What follows the equals sign in lines, and in sections, that speak of users or passwords.
pub(super) fn in_lines(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let (mut start, mut in_section) = (0, false);
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') && !line.contains('=') {
            in_section = speaks_of_secrets(line);
        }
        if let Some(equals) = line.find('=').filter(|_| in_section || speaks_of_secrets(line)) {
            secrets.push(start + equals + 1..start + line.len());
        }
        start += line.len();
    }
    secrets
}

/// The text with a star for each byte of the secrets; lines and offsets stay.
pub(super) fn masked(text: &str, secrets: &[Range<usize>]) -> String {
    let mut shown = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        match letter != '\n' && secrets.iter().any(|secret| secret.contains(&at)) {
            true => shown.extend(std::iter::repeat_n('*', letter.len_utf8())),
            false => shown.push(letter),
        }
    }
    shown
}

/// What keys end in that name a file, and not what is in it.
const FILE: &str = "_file";

fn speaks_of_secrets(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["user", "pass", "secret", "token", "proxy", "credential"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("p = \"socks5://ann:hunter2@proxy:1080\" # x", "p = \"socks5://ann:*******@proxy:1080\" # x"),
            ("p = \"http://ann:h@nter2@proxy\"", "p = \"http://ann:*******@proxy\""),
            ("a = \"tls://host:853\"", "a = \"tls://host:853\""),
            ("a = \"tls://ann@host:853\"", "a = \"tls://ann@host:853\""),
            ("a = \"://\"", "a = \"://\""),
        ] {
            assert_eq!(masked(text, &in_urls(text)), shown);
        }
    }

    #[test]
    fn lines_that_may_hold_a_password_are_masked_after_the_equals_sign() {
        let text = "[https.users]\nann = \"ü\n[dns]\ntimeout = 4\npassword = \"x\"\n";
        assert_eq!(masked(text, &in_lines(text)), "[https.users]\nann =****\n[dns]\ntimeout = 4\npassword =****\n");
    }
}
