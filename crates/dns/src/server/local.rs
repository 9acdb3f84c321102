//! Names that are answered here, as the server sees them: the hosts files and their changes, and aliases that lead out.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, SystemTime},
};

use super::{
    StartError,
    flight::{Client, Request},
    inbox::{Address, Event},
    trace::Trace,
};
use crate::{
    config::{DnsConfig, LocalSettings},
    local::{self, Hosts, Local, Record, RecordError, Rule, Table, TableError, Verdict},
    message::{self, ClientView, Header, Query, SERVFAIL},
};

/// Why the names to answer here cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalError {
    /// A record of the config is none.
    Record(RecordError),
    /// Records of the config contradict each other.
    Table(TableError),
    /// A hosts file cannot be read.
    Hosts {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalError::Record(error) => error.fmt(f),
            LocalError::Table(error) => error.fmt(f),
            LocalError::Hosts { path, error } => {
                write!(f, "read the hosts file {}: {error}; ", path.display())?;
                f.write_str("make it readable for this user, or take it out of dns.local.hosts")
            }
        }
    }
}

impl std::error::Error for LocalError {}

/// What becomes of a client's query here.
pub(super) enum Here {
    /// It goes on.
    Nothing,
    /// Its answer is written.
    Answer,
    /// Another name has to be asked for first.
    Alias(Alias),
}

/// Answers a query into `answer`, as the client gets it. `scratch` is room to work in.
pub(super) fn answer(
    local: &Local,
    (message, query): (&[u8], &Query),
    view: &ClientView,
    scratch: &mut Vec<u8>,
    answer: &mut Vec<u8>,
) -> Here {
    match local.answer(message, query, scratch) {
        Verdict::Pass => Here::Nothing,
        Verdict::Answered => {
            message::prepare_answer(scratch, view, &message[Header::LEN..query.question.end], answer);
            Here::Answer
        }
        Verdict::Alias { target, place } => {
            let asked = message[..query.question.end].to_vec();
            let query = instead(message, query, &target);
            Here::Alias(Alias { view: *view, asked, aliases: std::mem::take(scratch), place, query, rule: None })
        }
    }
}

/// The same query for another name. Records besides EDNS are of no meaning and stay behind.
fn instead(message: &[u8], query: &Query, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + name.len());
    out.extend_from_slice(&message[..Header::LEN]);
    message::wire::put_u16(&mut out, 10, query.edns.is_some().into());
    out.extend_from_slice(name);
    out.extend_from_slice(&message[query.question.name_end..query.question.end]);
    if let Some(edns) = &query.edns {
        out.extend_from_slice(&message[edns.record.clone()]);
    }
    out
}

/// A query whose name is an alias for one that upstreams know.
pub(super) struct Alias {
    view: ClientView,
    /// The client's query up to the end of its question.
    asked: Vec<u8>,
    /// The answer as far as it is known.
    aliases: Vec<u8>,
    place: usize,
    /// What to ask.
    query: Vec<u8>,
    /// What the alias is from, where somebody wants to know.
    rule: Option<Rule>,
}

impl Alias {
    /// Notes what the alias is from.
    pub(super) fn told(mut self, rule: Option<Rule>) -> Alias {
        self.rule = rule;
        self
    }

    /// What to ask, and who then answers the client.
    pub(super) fn ask(mut self, client: Client) -> (Vec<u8>, Client) {
        let query = std::mem::take(&mut self.query);
        (query, Client::Request(Box::new(Aliased { alias: self, client })))
    }
}

/// A client that waits for what its name is an alias for.
struct Aliased {
    alias: Alias,
    client: Client,
}

impl Request for Aliased {
    fn answer(self: Box<Self>, message: &[u8]) {
        self.answer_traced(message, None);
    }

    fn answer_traced(self: Box<Self>, message: &[u8], trace: Option<&dyn Fn() -> Trace>) {
        let Aliased { alias: Alias { view, asked, aliases, place, rule, .. }, client } = *self;
        let (mut joined, mut answer) = (Vec::new(), Vec::new());
        if local::join(&aliases, place, message, &mut joined) {
            message::prepare_answer(&joined, &view, &asked[Header::LEN..], &mut answer);
        } else {
            let text = Some("keepwarm: the answer to an alias cannot be used");
            message::build_error(&asked, &view, SERVFAIL, text, &mut answer);
        }
        let trace = || Trace {
            answer: answer.clone(),
            local: rule.clone().or(Some(Rule::Record)),
            ..trace.map_or_else(|| Trace::own(&answer), |trace| trace())
        };
        client.deliver(&answer, Some(&trace));
    }

    fn is_explained(&self) -> bool {
        self.client.is_explained()
    }

    fn asked(&self) -> Option<&[u8]> {
        Some(&self.alias.asked[Header::LEN..])
    }

    fn is_wanted(&self) -> bool {
        self.client.is_waiting()
    }
}

/// Reads everything that is answered here.
pub(super) fn load(config: &DnsConfig) -> Result<(Local, Files), StartError> {
    let records = config.local.records.iter().map(|line| Record::parse(line)).collect::<Result<Vec<_>, _>>();
    let records = records.map_err(|error| StartError::Local(LocalError::Record(error)))?;
    let mut files = Files { settings: config.local.clone(), records, stamps: Vec::new() };
    files.stamps = files.look();
    let table = files.read().map_err(StartError::Local)?;
    Ok((Local::new(&config.local, &config.routes, table), files))
}

/// The hosts files, and how they were when they were read last.
pub(super) struct Files {
    settings: LocalSettings,
    records: Vec<Record>,
    stamps: Vec<Stamp>,
}

/// What of a file changes when its content does; `None` when it cannot be looked at.
type Stamp = Option<(Option<SystemTime>, u64, [i64; 3])>;

impl Files {
    fn look(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok(), data.len(), identity(&data)))
        };
        self.settings.hosts.iter().map(stamp).collect()
    }

    fn read(&self) -> Result<Table, LocalError> {
        let hosts = self.settings.hosts.iter().map(|path| self.read_one(path)).collect::<Result<Vec<_>, _>>()?;
        Table::new(&self.records, &hosts).map_err(LocalError::Table)
    }

    fn read_one(&self, path: &PathBuf) -> Result<Hosts, LocalError> {
        let failed = |error| LocalError::Hosts { path: path.clone(), error };
        let text = read_file(path).map_err(failed)?;
        let ttl = u32::try_from(self.settings.hosts_ttl.as_secs()).unwrap_or(u32::MAX);
        let hosts = local::parse_hosts(&text, ttl);
        if !hosts.unknown.is_empty() {
            let (path, lines) = (path.display(), &hosts.unknown);
            tracing::warn!(%path, ?lines, "lines of a hosts file are not understood and passed over");
        }
        Ok(hosts)
    }

    /// What is to be answered now, if that may have changed. What cannot be read leaves all as it was, until it changes again.
    fn changed(&mut self) -> Option<Table> {
        let stamps = self.look();
        if stamps == self.stamps {
            return None;
        }
        self.stamps = stamps;
        match self.read() {
            Ok(table) => {
                tracing::info!("hosts files changed and are read again");
                Some(table)
            }
            Err(error) => {
                tracing::warn!(%error, "hosts files changed and cannot be read: what they said before holds on");
                None
            }
        }
    }
}

fn read_file(path: &PathBuf) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(HOSTS_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > HOSTS_MAX {
        let text = format!("it is larger than {} MiB", HOSTS_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(text)
}

/// The file behind the name, and when it was touched: a new file of the same size and time is another one.
#[cfg(unix)]
fn identity(data: &std::fs::Metadata) -> [i64; 3] {
    use std::os::unix::fs::MetadataExt as _;
    [data.ino().cast_signed(), data.ctime(), data.ctime_nsec()]
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> [i64; 3] {
    [0; 3]
}

/// The thread that looks for changes of hosts files. Dropping it ends it.
#[derive(Default)]
pub(super) struct Watch {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    /// Starts it for the names of this number; nothing happens before [`begin`](Self::begin). There is no thread where there are no files.
    pub(super) fn start(mut files: Files, number: u64, local: Local, workers: Vec<Address>) -> io::Result<Watch> {
        if files.settings.hosts.is_empty() {
            return Ok(Watch { stop: None, thread: None });
        }
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            if stopped.recv().is_err() {
                return;
            }
            let (mut local, mut before) = (local, None);
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                // Workers let go of it long ago: a large table is freed here, not on the way of a query.
                drop(before.take());
                let Some(table) = files.changed() else { continue };
                let changed = local.with_table(table);
                workers.iter().for_each(|worker| worker.inbox.push(Event::Local { number, local: changed.clone() }));
                before = Some(std::mem::replace(&mut local, changed));
            }
        };
        let thread = thread::Builder::new().name("dns-hosts".into()).spawn(look)?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }

    /// From now on workers are told.
    pub(super) fn begin(&self) {
        // A thread that is gone has nothing to look at.
        let _ = self.stop.as_ref().map(|stop| stop.send(()));
    }

    /// Lets the thread end by itself.
    pub(super) fn leave(mut self) {
        drop(self.thread.take());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Bytes of a hosts file, at most.
const HOSTS_MAX: u64 = 64 << 20;
