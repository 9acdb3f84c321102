//! What every command has that asks a running daemon: where it is, what opens it, and how the answer is printed.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{cli::NoDaemon, config::ControlConfig, table::csv};
use keepwarm_control::{
    Token,
    client::{ClientError, Daemon},
};

/// Which daemon is asked. Without the flags the environment says it: `KEEPWARM_CONTROL`, and `KEEPWARM_TOKEN` or `KEEPWARM_TOKEN_FILE`.
#[derive(Debug, Clone, Default, Args)]
pub struct AskArgs {
    /// Address of the running daemon's status endpoint [default: $KEEPWARM_CONTROL, or 127.0.0.1:9180].
    #[arg(long, value_name = "ADDR", global = true)]
    pub control: Option<SocketAddr>,
    /// File with the token of the daemon's control.token_file [default: $KEEPWARM_TOKEN, or the file $KEEPWARM_TOKEN_FILE].
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
}

impl AskArgs {
    /// The daemon that is meant.
    ///
    /// # Errors
    /// When the environment has no address where it should, or the token cannot be read or is none.
    pub fn daemon(&self) -> anyhow::Result<Daemon> {
        self.daemon_by(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn daemon_by(&self, env: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Daemon> {
        let address = match (self.control, env(CONTROL)) {
            (Some(address), _) => address,
            (None, Some(text)) => {
                let text = text.to_string_lossy();
                text.parse().with_context(|| format!("{CONTROL} is \"{text}\"; accepted: IP:PORT"))?
            }
            (None, None) => ControlConfig::default().listen,
        };
        let token = match (&self.token_file, env(TOKEN), env(TOKEN_FILE)) {
            (Some(file), ..) => Some(read(file)?),
            (None, Some(token), _) => {
                Some(Token::new(&token.to_string_lossy()).map_err(|error| anyhow::anyhow!("{TOKEN} {error}"))?)
            }
            (None, None, Some(file)) => Some(read(Path::new(&file)).context(TOKEN_FILE)?),
            (None, None, None) => None,
        };
        Ok(Daemon { address, token })
    }
}

fn read(file: &Path) -> anyhow::Result<Token> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("read the token in {shown}"))?;
    Token::new(&text).map_err(|error| anyhow::anyhow!("the token in {shown} {error}"))
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// As the API has it.
    Json,
    /// A row a line, with the keys of the API.
    Csv,
}

/// How an answer is printed.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    pub output: Format,
    /// The same as `-o json`.
    #[arg(long, conflicts_with = "output", global = true)]
    pub json: bool,
}

impl OutputArgs {
    /// The format that is asked for.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    /// The rows in the format that is asked for; `first` are the keys that CSV begins with.
    pub(crate) fn rows<R: Serialize>(
        &self,
        rows: &[R],
        first: &[&str],
        table: impl FnOnce() -> String,
    ) -> anyhow::Result<String> {
        match self.format() {
            Format::Table => Ok(table()),
            Format::Json => json(rows),
            Format::Csv => csv(rows, first),
        }
    }

    /// The same of a single thing.
    pub(crate) fn one<R: Serialize>(
        &self,
        row: &R,
        first: &[&str],
        table: impl FnOnce() -> String,
    ) -> anyhow::Result<String> {
        match self.format() {
            Format::Json => json(row),
            Format::Table | Format::Csv => self.rows(std::slice::from_ref(row), first, table),
        }
    }
}

/// As JSON, with an end of line.
pub(crate) fn json<T: Serialize + ?Sized>(answer: &T) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(answer).context("write json")?))
}

/// Gives the errors of a daemon that is not there their exit code.
pub fn unavailable(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::NotRunning { .. } => NoDaemon(error.to_string()).into(),
        ClientError::Unauthorized { .. } | ClientError::Refused { .. } | ClientError::Protocol { .. } => error.into(),
    }
}

const CONTROL: &str = "KEEPWARM_CONTROL";
const TOKEN: &str = "KEEPWARM_TOKEN";
const TOKEN_FILE: &str = "KEEPWARM_TOKEN_FILE";

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn asked(args: &AskArgs, env: &[(&str, &str)]) -> Result<Daemon, String> {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        args.daemon_by(env).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_default() {
        let none = AskArgs::default();
        let flag = AskArgs { control: Some(([127, 0, 0, 1], 7).into()), token_file: None };
        let env = [(CONTROL, "[::1]:9")];
        assert_eq!(asked(&none, &[]), Ok(ControlConfig::default().listen.into()));
        assert_eq!(asked(&none, &env).unwrap().address.port(), 9);
        assert_eq!(asked(&flag, &env).unwrap().address.port(), 7);
        assert!(asked(&none, &[(CONTROL, "localhost")]).unwrap_err().contains("accepted: IP:PORT"));
    }

    #[test]
    fn a_token_is_read_from_a_file_or_the_environment_and_never_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "0123456789abcdef-file").unwrap();
        let by_flag = AskArgs { control: None, token_file: Some(file.path().to_owned()) };
        let none = AskArgs::default();
        let env = [(TOKEN, "0123456789abcdef-env"), (TOKEN_FILE, file.path().to_str().unwrap())];
        let token = |text: &str| Some(Token::new(text).unwrap());
        assert_eq!(asked(&by_flag, &env).unwrap().token, token("0123456789abcdef-file"));
        assert_eq!(asked(&none, &env).unwrap().token, token("0123456789abcdef-env"));
        assert_eq!(asked(&none, &env[1..]).unwrap().token, token("0123456789abcdef-file"));
        let refused = asked(&none, &[(TOKEN, "secret word")]).unwrap_err();
        assert!(refused.contains("fewer than") && !refused.contains("secret"), "{refused}");
        let missing = AskArgs { control: None, token_file: Some("no/such/file".into()) };
        assert!(asked(&missing, &[]).unwrap_err().contains("no/such/file"));
    }
}
