//! The command line: what can be asked for, and which exit code an ending gets.
//!
//! Each command's work is in the module of its name; here are its arguments, its help and the way its errors are shown.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::{
    ask::{AskArgs, OutputArgs},
    config::{ConfigError, Loaded, Source},
    config_command::FileArgs,
    logging::{self, FilterError, LogFilter},
};

/// Keeps outbound connections warm, bounded, correctly isolated and explainable.
///
/// A DNS gateway over pooled plain and encrypted upstreams: at most a few connections to each upstream, one handshake
/// per upstream and idle period. Hot HTTPS: connections to the good addresses of a host, ready before they are needed.
/// Tunnels: a local SOCKS5 and HTTP proxy over connections to upstream proxies that are greeted and authenticated ahead.
#[derive(Debug, Parser)]
#[command(name = "keepwarm", version, verbatim_doc_comment, after_help = EXIT_CODES)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
// Lines are broken here, not by a feature of clap that another crate of the workspace may turn on.
#[command(term_width = 0)]
pub struct Cli {
    /// Log level or filter, such as "debug" or "info,keepwarm_pool=debug"; overrides the config's `log.level`.
    #[arg(long, value_name = "LEVEL", global = true, value_parser = parse_filter)]
    pub log: Option<LogFilter>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Check a config file and show every fault in it.
    Check(CheckArgs),
    /// Turn the config of cloudflared proxy-dns, dnsproxy, smartdns or unbound into one of keepwarm, and say what is lost.
    Import(crate::import::ImportArgs),
    /// Ask a name and show the answer, where it is from, the connection and the time of each phase.
    Query(QueryArgs),
    /// Show how the running daemon does: what is wrong, upstreams, connections, requests, the config in force.
    Status(crate::status::StatusArgs),
    /// Show the running daemon live: pools, upstreams, and requests that were slow or failed.
    Top(crate::top::TopArgs),
    /// Show the connection pools of the running daemon, one with its hosts and connections, or steer one.
    Pools(crate::pools::PoolsArgs),
    /// Show the upstreams of the running daemon: how each does, and why not.
    Upstreams(crate::upstreams::UpstreamsArgs),
    /// Report on the last hour of the running daemon, with charts and advice on its settings.
    Report(crate::report::ReportArgs),
    /// Have the running daemon read its config again, and show what changed.
    Reload(crate::reload::ReloadArgs),
    /// Show what the running daemon logs, or change it for a while.
    Log(crate::log_level::LogArgs),
    /// Show the cache of the running daemon, or flush answers from it.
    Cache(CacheArgs),
    /// Show the addresses of an origin of hot HTTPS: state, latency, failures; ban or allow some.
    Addresses(crate::addresses::AddressesArgs),
    /// Make connections of an origin of hot HTTPS ready.
    Warm(crate::warm::WarmArgs),
    /// Show the tunnels of the running daemon: upstreams and their spares, destinations in use, live tunnels.
    Tunnels(crate::tunnels::TunnelsArgs),
    /// Ask for a URL three times, cold, over the warm connection and resumed, and show what each phase took.
    Probe(crate::probe::ProbeArgs),
    /// Measure what warm connections cost and save.
    Bench(crate::bench::BenchArgs),
    /// Show, compare and record profiles of browsers: how connections look to a server.
    Profile(crate::profile::ProfileArgs),
    /// Print the config in force, an example or the schema of the config file.
    Config {
        /// What to print.
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Run DNS upstreams with faults on loopback, to play with.
    Lab(crate::lab::LabArgs),
    /// Show on this machine what pooling saves: 1,000 clients, 3 upstreams, with and without reuse.
    Demo(DemoArgs),
    /// Gather what somebody who helps needs to know, without secrets, in a text that can be read before it is sent.
    Diag(crate::diag::DiagArgs),
    /// Print what a shell needs to complete keepwarm's command line.
    Completions(crate::completions::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands to a folder.
    Man(crate::man::ManArgs),
}

/// Arguments of `keepwarm run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Config file; else that of the variable KEEPWARM_CONFIG. Without both, a built-in default: DNS on 127.0.0.1:5300 over public DoH and DoT resolvers.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Become this user once every listener is bound, for a start as root: NAME with all groups of NAME, or NAME:GROUP with this one alone.
    #[cfg(unix)]
    #[arg(long, value_name = "NAME[:GROUP]")]
    pub user: Option<String>,
    /// Set a key, over the file and the environment, such as "dns.timeout=2s"; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Address of the status endpoint; overrides the config's `control.listen`.
    #[arg(long, value_name = "ADDR")]
    pub control: Option<SocketAddr>,
}

/// Arguments of `keepwarm check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Which config.
    #[command(flatten)]
    pub config: FileArgs,
    /// Set a key, over the file and the environment, such as "dns.timeout=2s"; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the faults as JSON, for editors and CI.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `keepwarm query`.
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// Name to ask for.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Record type, by name or as TYPE65.
    #[arg(value_name = "TYPE", default_value = "A")]
    pub qtype: String,
    /// Ask the upstreams of this config file directly. Without it, the running daemon is asked.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["control", "token_file"])]
    pub config: Option<PathBuf>,
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Say why it went as it did: the cache, the route, each upstream and why it was asked or not, and every try.
    #[arg(long)]
    pub explain: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `keepwarm cache`.
#[derive(Debug, Clone, Args)]
#[command(disable_help_subcommand = true)]
pub struct CacheArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to do with it; shown without.
    #[command(subcommand)]
    pub what: Option<CacheCommand>,
}

/// What `keepwarm cache` can do beside showing it.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Forget answers, so that the next query for them asks an upstream.
    Flush(FlushArgs),
}

/// Arguments of `keepwarm cache flush`: one of them.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct FlushArgs {
    /// Forget the answers to every question about this very name, of any type; names below it stay.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Forget all answers.
    #[arg(long)]
    pub all: bool,
}

/// What `keepwarm config` prints.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print the config in force: what the file, the environment and the flags come to, without secrets.
    Show(ShowArgs),
    /// Print a commented example with every key and its default.
    Example,
    /// Print the JSON Schema of the config file.
    Schema,
}

/// Arguments of `keepwarm config show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Which config.
    #[command(flatten)]
    pub config: FileArgs,
    /// Set a key, over the file and the environment, such as "dns.timeout=2s"; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Say behind each key where its value is from: every key, also those at their defaults.
    #[arg(long)]
    pub origin: bool,
    /// Show also the keys that are at their defaults.
    #[arg(long)]
    pub defaults: bool,
    /// Print JSON: a list of keys, values and origins.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `keepwarm demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Also write the result as an HTML page with charts.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Fewer clients and a shorter load.
    #[arg(long)]
    pub quick: bool,
    /// Seed of the names that are asked; the same seed asks the same names.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// It failed.
    Failure,
    /// The command line is wrong.
    Usage,
    /// No daemon answers at the address that was asked.
    NoDaemon,
    /// An address cannot be listened on.
    Unavailable,
    /// The config file is missing or refused.
    Config,
    /// This signal ended it, after everything was stopped.
    Signal(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NoDaemon => 3,
            // The names EX_UNAVAILABLE and EX_CONFIG, and their numbers, are those of sysexits.h.
            Exit::Unavailable => 69,
            Exit::Config => 78,
            // As shells tell the end of a child by a signal.
            Exit::Signal(number) => 128 + number,
        })
    }
}

/// What makes a command end with [`Exit::NoDaemon`]: nobody answers where the daemon was looked for.
#[derive(Debug)]
pub struct NoDaemon(pub String);

impl fmt::Display for NoDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoDaemon {}

/// What makes a command end with [`Exit::Unavailable`]: an address cannot be listened on.
#[derive(Debug)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Shown below the help, and in the manual.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed
  2   the command line is wrong, or what is to be imported cannot be read
  3   no daemon answers: it is not running, or listens elsewhere
  69  an address cannot be listened on
  78  the config file is missing or refused
  130 interrupted by Ctrl-C while the demo ran";

/// Reads the command line of this process, does what it asks and shows what went wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap that go to standard output; a closed pipe there is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    dispatch(cli).unwrap_or_else(|error| show(&error)).into()
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { log, command } = cli;
    match command {
        Command::Run(args) => {
            let source = args.source(log.as_ref());
            let loaded = load(&source)?;
            crate::run::main(source, loaded, &args)
        }
        Command::Check(args) => crate::check::main(&args),
        Command::Import(args) => crate::import::main(&args),
        Command::Query(args) => crate::query::main(&args, log),
        Command::Status(args) => crate::status::main(&args),
        Command::Top(args) => crate::top::main(&args),
        Command::Pools(args) => crate::pools::main(&args),
        Command::Upstreams(args) => crate::upstreams::main(&args),
        Command::Report(args) => crate::report::main(&args),
        Command::Reload(args) => crate::reload::main(&args),
        Command::Log(args) => crate::log_level::main(&args),
        Command::Cache(args) => crate::cache::main(&args),
        Command::Addresses(args) => crate::addresses::main(&args, log),
        Command::Warm(args) => crate::warm::main(&args, log),
        Command::Tunnels(args) => crate::tunnels::main(&args),
        Command::Probe(args) => crate::probe::main(&args),
        Command::Bench(args) => crate::bench::main(&args),
        Command::Profile(args) => crate::profile::main(&args),
        Command::Config { what } => crate::config_command::main(&what, log.as_ref()),
        Command::Lab(args) => crate::lab::main(&args),
        Command::Demo(args) => crate::demo::main(&args),
        Command::Diag(args) => crate::diag::main(&args),
        Command::Completions(args) => crate::completions::main(&args),
        Command::Man(args) => crate::man::main(&args),
    }
}

impl RunArgs {
    /// Where the daemon's config is from. Without a file the built-in default is used; no other place is searched.
    pub fn source(&self, log: Option<&LogFilter>) -> Source {
        self.over(Source::of_command(self.config.as_deref(), &[]), log)
    }

    /// Puts the flags over a source: `--log` and `--control`, which are for one key each, over `--set`.
    fn over(&self, source: Source, log: Option<&LogFilter>) -> Source {
        let source = source.with_sets(&self.set).with_log(log);
        match self.control {
            Some(control) => source.with_flag("--control", "control.listen", control),
            None => source,
        }
    }
}

/// Loads the config of a command that logs, starts the log and says which config it is.
///
/// # Errors
/// [`ConfigError`] when there is no usable config.
pub fn load(source: &Source) -> anyhow::Result<Loaded> {
    let loaded = source.load()?;
    logging::init(&loaded.config.log)?;
    match source.path() {
        Some(file) => tracing::info!(file = %file.display(), "config read"),
        None => tracing::info!("no config file given: running with the built-in default"),
    }
    for warning in loaded.warnings.iter() {
        tracing::warn!("{}", warning.title);
    }
    Ok(loaded)
}

/// Writes to standard output. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// What the system says.
pub fn print(text: &str) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Ok),
    }
}

/// Shows why a command failed, and says which exit code that is.
fn show(error: &anyhow::Error) -> Exit {
    if let Some(ConfigError::Faults(faults)) = error.downcast_ref() {
        use crate::config::fault::Severity;
        let (errors, warnings) = (faults.count(Severity::Error), faults.count(Severity::Warning));
        let mut counts = format!("{errors} {}", if errors == 1 { "error" } else { "errors" });
        if warnings > 0 {
            counts += &format!(", {warnings} {}", if warnings == 1 { "warning" } else { "warnings" });
        }
        complain(&format!("{}\n\nkeepwarm: config refused: {counts}\n", faults.render(io::stderr().is_terminal())));
        return Exit::Config;
    }
    complain(&format!("keepwarm: {error:#}\n"));
    if error.downcast_ref::<ConfigError>().is_some() {
        Exit::Config
    } else if error.downcast_ref::<NoDaemon>().is_some() {
        Exit::NoDaemon
    } else if error.downcast_ref::<Unavailable>().is_some() {
        Exit::Unavailable
    } else {
        Exit::Failure
    }
}

/// Writes to standard error; when even that is closed there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn parse_filter(text: &str) -> Result<LogFilter, FilterError> {
    text.parse()
}

/// The command line's definition, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn errors_end_with_their_exit_code() {
        let refused = Config::parse("a.toml", "", Path::new("")).expect_err("an empty file has no version");
        for (error, exit) in [
            (anyhow::Error::new(refused), Exit::Config),
            (Config::load(Path::new("does-not-exist.toml")).expect_err("it does not exist").into(), Exit::Config),
            (Unavailable("port in use".into()).into(), Exit::Unavailable),
            (anyhow::Error::new(Unavailable("port in use".into())).context("start"), Exit::Unavailable),
            (NoDaemon("nobody answers".into()).into(), Exit::NoDaemon),
            (anyhow::anyhow!("anything else"), Exit::Failure),
        ] {
            assert_eq!(show(&error), exit, "{error}");
        }
    }

    #[test]
    fn flags_of_their_own_stand_over_those_that_set_a_key() {
        let words = "keepwarm --log debug run --set log.level=warn --set control.listen=[::1]:1 --control 127.0.0.1:2 --set dns.timeout=3s";
        let Cli { log, command: Command::Run(args) } = Cli::try_parse_from(words.split(' ')).unwrap() else {
            panic!("another command")
        };
        let effective = args.over(Source::built_in(), log.as_ref()).load().unwrap().effective;
        for (path, value, origin) in [
            ("log.level", "\"debug\"", "flag --log"),
            ("control.listen", "\"127.0.0.1:2\"", "flag --control"),
            ("dns.timeout", "\"3s\"", "flag --set"),
        ] {
            let entry = effective.entry(path).unwrap();
            assert_eq!((entry.value(), entry.origin().to_string().as_str()), (value, origin), "{path}");
        }
    }

    #[test]
    fn a_query_asks_the_daemon_or_the_upstreams_of_a_file_but_not_both() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        assert!(parse("keepwarm query a.test AAAA --json --control 127.0.0.1:1").is_ok());
        assert!(parse("keepwarm query a.test -c a.toml").is_ok());
        assert!(parse("keepwarm query a.test -c a.toml --control 127.0.0.1:1").is_err());
    }
}
