//! A config without its secrets, and a last look for them in whatever is about to leave.
//!
//! Comments are left out whole, for nobody knows what is in them.

use toml::Value;

/// Texts that must not leave.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// The text with every secret of four bytes and more taken out, wherever it stands. Shorter ones would take words apart.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut longest_first: Vec<&String> = self.0.iter().filter(|secret| secret.len() >= LEN_MIN).collect();
        longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        longest_first.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED))
    }
}

/// Each key with its value, a line each, and the secrets that were taken out. A text that is not TOML shows nothing.
pub(super) fn config(text: &str) -> (String, Secrets) {
    let mut shown = String::new();
    let mut secrets = Secrets::default();
    if let Ok(table) = text.parse::<toml::Table>() {
        walk("", &Value::Table(table), false, &mut shown, &mut secrets);
    }
    (shown, secrets)
}

fn walk(path: &str, value: &Value, is_secret: bool, shown: &mut String, secrets: &mut Secrets) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                // Names of users are no secrets, but theirs.
                let is_secret = !key.ends_with("_file") && (is_secret || SECRET.contains(&key.as_str()));
                walk(&path, value, is_secret, shown, secrets);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                walk(&format!("{path}[{number}]"), item, is_secret, shown, secrets);
            }
        }
        value => {
            let text = match value {
                Value::String(text) if is_secret => {
                    secrets.0.push(text.clone());
                    REDACTED.to_owned()
                }
                Value::String(text) => format!("{:?}", without_login(text, secrets)),
                _ if is_secret => REDACTED.to_owned(),
                other => other.to_string(),
            };
            *shown += &format!("{path} = {text}\n");
        }
    }
}

/// `scheme://user:password@host` without the password. A password may have an `@`: the last one counts.
fn without_login(text: &str, secrets: &mut Secrets) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((login, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match login.split_once(':') {
        Some((user, password)) => {
            secrets.0.push(password.to_owned());
            format!("{scheme}://{user}:{REDACTED}@{host}")
        }
        // A user alone is none, but a token may stand in its place.
        None if scheme == "ssh" => text.to_owned(),
        None => {
            secrets.0.push(login.to_owned());
            format!("{scheme}://{REDACTED}@{host}")
        }
    }
}

/// Keys whose values, and all below them, are secrets. Those that end in `_file` name a file.
const SECRET: [&str; 5] = ["users", "password", "username", "token", "secret"];
const REDACTED: &str = "<redacted>";
const LEN_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_and_the_rest_stays() {
        let text = r#"
            version = 1
            # the old password was tulip
            [https.users]
            ann = "hunter2"
            bob = { password_file = "bob.password" }
            [[tunnel.upstream]]
            name = "exit"
            address = "socks5://me:s3cr@t@proxy.example:1080"
            username = "somebody"
            [[tunnel.upstream]]
            address = "ssh://me@host"
            through = "http://tok123@proxy"
        "#;
        let (shown, secrets) = config(text);
        for line in [
            "version = 1",
            "https.users.ann = <redacted>",
            "https.users.bob.password_file = \"bob.password\"",
            "tunnel.upstream[0].address = \"socks5://me:<redacted>@proxy.example:1080\"",
            "tunnel.upstream[0].username = <redacted>",
            "tunnel.upstream[1].address = \"ssh://me@host\"",
            "tunnel.upstream[1].through = \"http://<redacted>@proxy\"",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
        assert!(!shown.contains("tulip"), "{shown}");
        assert_eq!(secrets.redact("hunter2, s3cr@t, somebody and tok123"), "<redacted>, <redacted>, <redacted> and <redacted>");
    }

    #[test]
    fn what_is_not_toml_shows_nothing() {
        assert_eq!(config("password = hunter2").0, "");
    }
}
