//! `keepwarm profile`: profiles of browsers and captures of them, shown, compared and recorded.
//!
//! What they consist of is in `keepwarm-https`; here are the flags and the tables.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::CellAlignment;
use keepwarm_https::profile::diff::FieldDiff;
use serde_json::{Value, json};

use crate::{
    cli::{Exit, print},
    config::words::parse_duration,
    table,
};

mod capture;
mod source;

use source::Source;

/// Arguments of `keepwarm profile`.
#[derive(Debug, Clone, Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct ProfileArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: ProfileCommand,
}

/// What `keepwarm profile` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ProfileCommand {
    /// List the profiles and references that are built in.
    List {
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a profile or captures field by field, with JA3, JA4 and Akamai's HTTP/2 string.
    Show {
        /// A name from the list, or a JSON file of a profile or of captures.
        #[arg(value_name = "NAME")]
        name: String,
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Compare two profiles or captures field by field; ends with 1 when one can be told from the other.
    Diff(DiffArgs),
    /// Record how a browser on this machine connects: a local server shows a page that asks for itself a few times.
    Capture(CaptureArgs),
}

/// Arguments of `keepwarm profile diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// The browser: a name from the list, or a JSON file of a profile or of captures.
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// What should look like it.
    #[arg(value_name = "CANDIDATE")]
    pub candidate: String,
    /// Show the fields that are equal too.
    #[arg(long)]
    pub all: bool,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `keepwarm profile capture`.
#[derive(Debug, Clone, Args)]
pub struct CaptureArgs {
    /// Loopback address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443", value_parser = parse_loopback)]
    pub listen: SocketAddr,
    /// Write the captures to this file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write a profile made of them to this file, which a config takes as profile = "@FILE".
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// What the browser is, such as "Chromium 156, Debian 12".
    #[arg(long, value_name = "TEXT", default_value = "captured")]
    pub label: String,
    /// Connections with a request to record.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub count: u16,
    /// How long to wait for them.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub wait: Duration,
    /// PEM file of a certificate for localhost that the browser trusts. Without it, one is made that the browser asks about.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// How; JSON is printed at the end.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// How a profile is printed; it has no rows of one kind, and so no CSV.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
    /// The same as `-o json`.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

impl OutputArgs {
    fn format(self) -> Output {
        if self.json { Output::Json } else { self.output }
    }
}

/// Does what is asked.
///
/// # Errors
/// A name that is none, a file that cannot be read or written, an address that cannot be listened on.
pub fn main(args: &ProfileArgs) -> anyhow::Result<Exit> {
    match &args.what {
        ProfileCommand::List { output } => list(output.format()),
        ProfileCommand::Show { name, output } => show(&source::find(name)?, output.format()),
        ProfileCommand::Diff(args) => diff(args),
        ProfileCommand::Capture(args) => capture::main(args),
    }
}

fn list(output: Output) -> anyhow::Result<Exit> {
    let sources = source::built_in();
    if output == Output::Json {
        let rows: Vec<Value> = sources.iter().map(|(name, source)| source.summary(name)).collect();
        return print_json(&rows.into());
    }
    let rows = sources.iter().map(|(name, source)| {
        let Prints { ja4, akamai, .. } = source.prints();
        // What is after a colon is for those who look at one of them.
        let origin = source.origin().split(':').next().unwrap_or_default();
        [name.clone(), or_none(ja4), or_none(akamai), origin.to_owned()]
    });
    print(&table::render(&LIST, rows))
}

/// The short names of a source; `None` where it leaves that to a library.
#[derive(Debug, Default)]
struct Prints {
    /// Only where all connections have the same.
    ja3: Option<String>,
    ja3n: Option<String>,
    ja4: Option<String>,
    ja4_r: Option<String>,
    ja4_resumed: Option<String>,
    akamai: Option<String>,
}

fn show(source: &Source, output: Output) -> anyhow::Result<Exit> {
    if output == Output::Json {
        return print_json(&source.json());
    }
    let Prints { ja3, ja3n, ja4, ja4_r, ja4_resumed, akamai } = source.prints();
    let mut rows = vec![["from".to_owned(), source.origin().to_owned()]];
    let prints = [
        ("ja3 (md5)", ja3),
        ("ja3n (md5)", ja3n),
        ("ja4", ja4),
        ("ja4_r", ja4_r),
        ("ja4 resumed", ja4_resumed),
        ("akamai", akamai),
    ];
    rows.extend(prints.into_iter().filter_map(|(name, print)| Some([name.to_owned(), print?])));
    for (name, values) in source.fields() {
        if !["ja4", "h2_akamai"].contains(&name.as_str()) {
            rows.push([name, shown(&values)]);
        }
    }
    rows.extend(source.differs().iter().map(|line| ["differs in".to_owned(), line.clone()]));
    print(&table::render(&SHOW, rows))
}

fn diff(args: &DiffArgs) -> anyhow::Result<Exit> {
    let (reference, candidate) = (source::find(&args.reference)?, source::find(&args.candidate)?);
    let diffs = source::diff(&reference, &candidate)?;
    let differing = diffs.iter().filter(|diff| !diff.equal).count();
    let exit = if differing > 0 { Exit::Failure } else { Exit::Ok };
    match args.output.format() {
        Output::Json => print_json(&json!(diffs))?,
        Output::Table => print(&diff_table(&diffs, args.all))?,
    };
    Ok(exit)
}

/// The fields that differ, or all of them, and how many there are.
fn diff_table(diffs: &[FieldDiff], all: bool) -> String {
    let rows: Vec<[String; 4]> = diffs
        .iter()
        .filter(|diff| all || !diff.equal)
        .map(|diff| {
            let equal = if diff.equal { "yes" } else { "NO" };
            [diff.field.clone(), equal.to_owned(), shown(&diff.reference), shown(&diff.candidate)]
        })
        .collect();
    let differing = diffs.iter().filter(|diff| !diff.equal).count();
    let count = format!("{} fields compared, {differing} differ\n", diffs.len());
    if rows.is_empty() { count } else { format!("{}\n{count}", table::render(&DIFF, rows)) }
}

/// Values for people: alternatives between bars, lists without brackets, and no more than a line of each.
fn shown(values: &[Value]) -> String {
    if values.is_empty() {
        return NONE.to_owned();
    }
    let text = values.iter().take(ALTERNATIVES_MAX).map(plain).collect::<Vec<String>>().join(" | ");
    let more = values.len().saturating_sub(ALTERNATIVES_MAX);
    let text = if more > 0 { format!("{text} | {more} more") } else { text };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => NONE.to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => NONE.to_owned(),
        Value::Array(list) if list.iter().all(Value::is_array) => {
            list.iter().map(|inner| plain(inner).replace(' ', ":")).collect::<Vec<String>>().join(" ")
        }
        Value::Array(list) => list.iter().map(plain).collect::<Vec<String>>().join(" "),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect::<Vec<String>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}

fn print_json(value: &Value) -> anyhow::Result<Exit> {
    print(&format!("{}\n", serde_json::to_string_pretty(value).context("write json")?))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{}; {}", error.problem, error.accepted))
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    // The page answers anyone, and what it records says who the user is.
    text.parse()
        .ok()
        .filter(|address: &SocketAddr| address.ip().is_loopback())
        .ok_or_else(|| "accepted: a loopback address with a port, such as 127.0.0.1:8443 or [::1]:0".into())
}

const NONE: &str = "-";

/// The most values of a field that a table shows; `-o json` shows all.
const ALTERNATIVES_MAX: usize = 3;

/// Characters of a cell.
const SHOWN_MAX: usize = 160;

const LIST: [table::Column; 4] = [
    ("NAME", CellAlignment::Left),
    ("JA4", CellAlignment::Left),
    ("AKAMAI", CellAlignment::Left),
    ("FROM", CellAlignment::Left),
];

const SHOW: [table::Column; 2] = [("FIELD", CellAlignment::Left), ("VALUE", CellAlignment::Left)];

const DIFF: [table::Column; 4] = [
    ("FIELD", CellAlignment::Left),
    ("EQUAL", CellAlignment::Left),
    ("REFERENCE", CellAlignment::Left),
    ("CANDIDATE", CellAlignment::Left),
];

#[cfg(test)]
mod tests;
