//! `keepwarm import`: the config of another forwarder as a keepwarm config, and what could not be carried over.
//!
//! The config goes to standard output, the notes to standard error: each option of the other program is carried over, or
//! noted with the reason and what to do instead. The result is held against the config's own checks before it is printed,
//! and their words are part of the notes. Nothing is looked up and no network is used.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    cli::{Exit, complain, print},
    config::{Config, ConfigError},
};
use draft::{Draft, Note};

mod cloudflared;
mod dnsproxy;
mod draft;
mod lines;
mod setting;
mod smartdns;
mod stamp;
mod unbound;
mod upstream;

/// A file larger than this is refused unread: 1 MiB.
const FILE_MAX: u64 = 1 << 20;

/// Arguments of `keepwarm import`.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "keepwarm import [--from <PROGRAM>] <FILE>\n       keepwarm import [--from <PROGRAM>] -- <FLAGS>..."
)]
pub struct ImportArgs {
    /// The program whose config it is. Without it, that is told from the config.
    #[arg(long, value_name = "PROGRAM")]
    pub from: Option<Program>,
    /// Its config file; "-" reads standard input.
    #[arg(value_name = "FILE", conflicts_with = "flags", required_unless_present = "flags")]
    pub file: Option<PathBuf>,
    /// Or its command line, for cloudflared and dnsproxy.
    #[arg(value_name = "FLAGS", last = true)]
    pub flags: Vec<String>,
}

/// The programs whose configs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// `cloudflared proxy-dns`: flags or config.yml.
    Cloudflared,
    /// AdGuard dnsproxy: flags or YAML.
    Dnsproxy,
    /// smartdns: smartdns.conf.
    Smartdns,
    /// unbound: unbound.conf with its forward zones.
    Unbound,
}

impl Program {
    fn as_str(self) -> &'static str {
        match self {
            Program::Cloudflared => "cloudflared",
            Program::Dnsproxy => "dnsproxy",
            Program::Smartdns => "smartdns",
            Program::Unbound => "unbound",
        }
    }
}

/// What an import made.
#[derive(Debug)]
pub struct Imported {
    /// The program whose config it was.
    pub program: Program,
    /// The keepwarm config.
    pub config: String,
    /// What was left behind, what means something else, and what `keepwarm check` says; empty when there is nothing to say.
    pub report: String,
}

/// Prints the config, and what is to be said about it to standard error.
///
/// # Errors
/// When standard output cannot be written. Input that cannot be read ends with [`Exit::Usage`].
pub fn main(args: &ImportArgs) -> anyhow::Result<Exit> {
    let imported = match &args.file {
        None => from_flags(args.from, &args.flags),
        Some(file) if file == Path::new("-") => {
            let mut text = String::new();
            let read = io::stdin().take(FILE_MAX + 1).read_to_string(&mut text);
            read.map_err(|error| format!("cannot read standard input: {error}"))
                .and_then(|_| from_text(args.from, "standard input", &text, Path::new("")))
        }
        Some(file) => read_file(file).and_then(|text| {
            let base = file.parent().unwrap_or(Path::new(""));
            from_text(args.from, &file.display().to_string(), &text, base)
        }),
    };
    match imported {
        Ok(Imported { config, report, .. }) => {
            complain(&report);
            print(&config)
        }
        Err(problem) => {
            complain(&format!("keepwarm: {problem}\n"));
            Ok(Exit::Usage)
        }
    }
}

/// Imports a command line; the program's own name may come first.
///
/// # Errors
/// When it cannot be told whose it is, or the program has no such command line.
pub fn from_flags(program: Option<Program>, words: &[String]) -> Result<Imported, String> {
    let is_said = |word: &str| words.iter().any(|known| known == word || known.ends_with(&format!("/{word}")));
    let program = match program {
        Some(program) => program,
        None if is_said("proxy-dns") || is_said("cloudflared") || is_said("--proxy-dns") => Program::Cloudflared,
        None if is_said("dnsproxy") => Program::Dnsproxy,
        None => {
            return Err("whose command line this is cannot be told; say --from cloudflared or --from dnsproxy".into());
        }
    };
    let mut draft = Draft::default();
    match program {
        Program::Cloudflared => cloudflared::apply(&cloudflared::FLAGS.read(words), &mut draft),
        Program::Dnsproxy => dnsproxy::apply(&dnsproxy::FLAGS.read(words), Path::new(""), &mut draft),
        Program::Smartdns | Program::Unbound => {
            return Err(format!("{} has its settings in a file; name that instead of flags", program.as_str()));
        }
    }
    Ok(conclude(program, draft, Path::new("")))
}

/// Imports the text of a config file; `name` stands for it in notes, what it includes is looked for from `base`.
///
/// # Errors
/// When it cannot be told whose it is, or it is not in that program's syntax.
pub fn from_text(program: Option<Program>, name: &str, text: &str, base: &Path) -> Result<Imported, String> {
    if text.len() as u64 > FILE_MAX {
        return Err(format!("{name} is larger than 1 MiB"));
    }
    let Some(program) = program.or_else(|| detect(text)) else {
        return Err(format!(
            "whose config {name} is cannot be told; say --from cloudflared, dnsproxy, smartdns or unbound"
        ));
    };
    let mut draft = Draft::default();
    match program {
        Program::Cloudflared => cloudflared::apply(&setting::read_yaml(name, text)?, &mut draft),
        Program::Dnsproxy => dnsproxy::apply(&setting::read_yaml(name, text)?, base, &mut draft),
        Program::Smartdns => smartdns::apply(name, text, base, &mut draft),
        Program::Unbound => unbound::apply(name, text, base, &mut draft),
    }
    Ok(conclude(program, draft, base))
}

/// Whose config this is, by words that no other of these programs has at the start of a line.
fn detect(text: &str) -> Option<Program> {
    let first = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
    let any = |words: &[&str]| text.lines().filter_map(first).any(|word| words.contains(&&*word));
    if any(&["server:", "forward-zone:", "remote-control:"]) {
        Some(Program::Unbound)
    } else if text.lines().any(|line| line.starts_with("proxy-dns")) {
        Some(Program::Cloudflared)
    } else if any(&["upstream:", "listen-addrs:", "listen-ports:", "bootstrap:"]) {
        Some(Program::Dnsproxy)
    } else if any(&[
        "server",
        "server-tcp",
        "server-tls",
        "server-https",
        "server-quic",
        "server-h3",
        "bind",
        "bind-tcp",
        "nameserver",
    ]) {
        Some(Program::Smartdns)
    } else {
        None
    }
}

fn conclude(program: Program, mut draft: Draft, base: &Path) -> Imported {
    draft.finish(program.as_str());
    let config = draft.to_toml(program.as_str());
    let mut report = String::new();
    section(&mut report, &format!("Not carried over from {}:", program.as_str()), &draft.lost);
    section(&mut report, "Carried over, with another meaning:", &draft.changed);
    let verdict = match Config::parse("the imported config", &config, base) {
        Ok(loaded) => (loaded.warnings.iter().count() > 0).then(|| loaded.warnings.render(false)),
        Err(ConfigError::Faults(faults)) => Some(faults.render(false)),
        Err(error) => Some(error.to_string()),
    };
    if let Some(verdict) = verdict {
        write!(report, "What keepwarm check says of it:\n\n{verdict}\n\n").expect("writing to a string cannot fail");
    }
    Imported { program, config, report }
}

fn section(report: &mut String, title: &str, notes: &[Note]) {
    if notes.is_empty() {
        return;
    }
    writeln!(report, "{title}").expect("writing to a string cannot fail");
    for Note { place, text } in notes {
        writeln!(report, "  {place}: {text}").expect("writing to a string cannot fail");
    }
    report.push('\n');
}

/// Reads a file of up to 1 MiB.
fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > FILE_MAX => Err(format!("cannot read {}: larger than 1 MiB", path.display())),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;
