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
    // A misspelt `password` need not speak of one.
    let of_login = section == "tunnel.upstream";
    let of_users = matches!(section, "https" | "tunnel") && value.get_ref().is_table();
    let names_user = value.get_ref().as_str().is_some_and(|text| text.contains('@'));
    if of_users || of_login || names_user || speaks_of_secrets(key) && !key.ends_with(FILE) {
        conceal_within(faults, value);
    }
}

/// Where the text names a user and password in a URL: `://user:password@`, the password. A password may have blanks and quotes: the URL
/// goes on to the quote that ends its string, or to the end of the line.
pub(super) fn in_urls(text: &str) -> Vec<Range<usize>> {
    let password = |(at, scheme): (usize, &str)| {
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let start = at + scheme.len();
        let rest = text[start..].split('\n').next().unwrap_or_default();
        let rest = &rest[..Open::default().after(&text[line_start..at]).string_end(rest)];
        let colon = rest.find(':')? + 1;
        let at = rest.rfind('@').filter(|at| *at > colon)?;
        Some(start + colon..start + at)
    };
    text.match_indices("://").filter_map(password).collect()
}

/// What follows the equals sign in lines, and in sections, that speak of users or passwords, to the end of a value of many lines. What has
/// no equals sign in such a section is a secret whole.
pub(super) fn in_lines(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let (mut start, mut in_section, mut open) = (0, false, Open::default());
    for line in text.split_inclusive('\n') {
        let equals = line.find('=').map(|equals| equals + 1);
        let secret = if open.has_more() {
            Some(0)
        } else if is_header(line, in_section) {
            in_section = speaks_of_secrets(line);
            None
        } else if in_section {
            Some(equals.unwrap_or(0))
        } else {
            equals.filter(|_| speaks_of_secrets(line))
        };
        if let Some(from) = secret {
            secrets.push(start + from..start + line.len());
            open = open.after(&line[from..]).at_line_end();
        }
        start += line.len();
    }
    secrets
}

/// Whether a line heads a section. In a section of secrets only what can be nothing else does.
fn is_header(line: &str, in_section: bool) -> bool {
    let head = line.split('#').next().unwrap_or_default().trim();
    let is_plain = || {
        let name = head.trim_start_matches('[').trim_end_matches(']');
        head.ends_with(']') && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._- ".contains(letter))
    };
    head.starts_with('[') && !head.contains('=') && (!in_section || is_plain())
}

/// What is open at a place in a text that may not be TOML.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    /// The quote that ends the string.
    quote: Option<&'static str>,
    brackets: usize,
}

impl Open {
    /// What is open after more text of the same line.
    fn after(mut self, mut text: &str) -> Open {
        while let Some(letter) = text.chars().next() {
            let mut step = letter.len_utf8();
            match self.quote {
                Some(quote) => {
                    let end = self.string_end(text);
                    if end == text.len() {
                        return self;
                    }
                    self.quote = None;
                    step = end + quote.len();
                }
                None => match QUOTES.into_iter().find(|quote| text.starts_with(quote)) {
                    Some(quote) => {
                        self.quote = Some(quote);
                        step = quote.len();
                    }
                    None if letter == '#' => return self,
                    None if "[{".contains(letter) => self.brackets += 1,
                    None if "]}".contains(letter) => self.brackets = self.brackets.saturating_sub(1),
                    None => {}
                },
            }
            text = &text[step..];
        }
        self
    }

    /// Where the open string ends in the text; the text's end where it does not, or where no string is open.
    fn string_end(self, text: &str) -> usize {
        let Some(quote) = self.quote else { return text.len() };
        let mut is_escaped = false;
        for (at, letter) in text.char_indices() {
            if !is_escaped && text[at..].starts_with(quote) {
                return at;
            }
            // Between single quotes a backslash is one.
            is_escaped = letter == '\\' && !is_escaped && quote.starts_with('"');
        }
        text.len()
    }

    /// A string with one quote ends with its line, finished or not.
    fn at_line_end(self) -> Open {
        Open { quote: self.quote.filter(|quote| quote.len() > 1), ..self }
    }

    fn has_more(self) -> bool {
        self.quote.is_some() || self.brackets > 0
    }
}

/// The longer ones first, which begin with the others.
const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];

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
    ["user", "pass", "pasw", "pwd", "secret", "token", "proxy", "credential"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("p = \"socks5://ann:hunter2@proxy:1080\" # x", "p = \"socks5://ann:*******@proxy:1080\" # x"),
            ("p = \"http://ann:h@nter2@proxy\"", "p = \"http://ann:*******@proxy\""),
            ("p = \"http://ann:hunter 2@proxy\" # b@c", "p = \"http://ann:********@proxy\" # b@c"),
            ("p = [\"\", \"http://ann:h't\\\"2@proxy\", 'b@c']", "p = [\"\", \"http://ann:******@proxy\", 'b@c']"),
            ("p = 'http://ann:h\"t 2\\@proxy' # b@c", "p = 'http://ann:******@proxy' # b@c"),
            ("p = \"\"\"http://ann:h\"t 2@proxy\"\"\" # b@c", "p = \"\"\"http://ann:*****@proxy\"\"\" # b@c"),
            ("http://ann:hunter 2@proxy\nb@c", "http://ann:********@proxy\nb@c"),
            ("a = \"tls://host:853\"", "a = \"tls://host:853\""),
            ("a = [\"tls://host:853\", \"b@c\"]", "a = [\"tls://host:853\", \"b@c\"]"),
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
    #[test]
    fn a_value_of_many_lines_is_masked_to_its_end() {
        for (text, shown) in [
            ("[users]\na = \"\"\"\nx\n[b]\n\"\"\"\n[dns]\nc = 1", "[users]\na =****\n*\n***\n***\n[dns]\nc = 1"),
            ("password = '''\nx = 1\n'''\nc = 1", "password =****\n*****\n***\nc = 1"),
            ("users = {\n  a = \"x\"\n}\nc = 1", "users =**\n*********\n*\nc = 1"),
            ("[users] # a = b\nx\n[\"x\"]\n[dns] # =\nc = 1", "[users] # a = b\n*\n*****\n[dns] # =\nc = 1"),
        ] {
            assert_eq!(masked(text, &in_lines(text)), shown);
        }
    }
}
