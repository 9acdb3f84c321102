//! The query log's file: lines in, a limit on its size, and patience with a disk that is full.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::Receiver},
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use tokio::time::Instant as Clock;

use super::{Counters, Mail, line::Lines};
use crate::config::QueryLogSettings;

pub(super) struct Writer {
    path: PathBuf,
    max_size: u64,
    /// `None` when it could not be opened again.
    file: Option<File>,
    /// Bytes of whole lines in the file.
    size: u64,
    lines: Lines,
    /// Lines that are written next, and how many.
    buffer: Vec<u8>,
    entries: u64,
    counters: Arc<Counters>,
    /// Dropped entries that the file tells of.
    told: u64,
    state: State,
}

enum State {
    /// -> `Failing` when the file cannot be written.
    Writing,
    /// Nothing is written until `retry`. -> `Writing` when it can be again.
    Failing { retry: Instant },
}

impl Writer {
    pub(super) fn open(path: &Path, settings: &QueryLogSettings, counters: Arc<Counters>) -> io::Result<Writer> {
        let (file, size) = open(path)?;
        Ok(Writer {
            path: path.to_owned(),
            max_size: settings.max_size,
            file: Some(file),
            size,
            lines: Lines::new(settings.privacy),
            buffer: Vec::new(),
            entries: 0,
            counters,
            told: 0,
            state: State::Writing,
        })
    }

    /// Writes until told to leave or nobody can send any more. What has come in together is written together.
    pub(super) fn run(mut self, entries: &Receiver<Mail>) {
        while let Ok(first) = entries.recv() {
            self.take(first);
            while let Ok(next) = entries.try_recv() {
                self.take(next);
                if self.buffer.len() >= BATCH {
                    self.flush();
                }
            }
            self.flush();
            if self.counters.closing.load(Relaxed) {
                return;
            }
        }
    }

    pub(super) fn take(&mut self, mail: Mail) {
        if let Mail::Entry(entry) = mail {
            self.lines.push(&entry, &mut self.buffer);
            self.entries += 1;
        }
    }

    /// Writes what waits, or drops it while the file cannot be written.
    pub(super) fn flush(&mut self) {
        if self.entries == 0 {
            return;
        }
        let now = Clock::now().into_std();
        let written = match self.state {
            State::Failing { retry } if now < retry => Err(None),
            State::Writing | State::Failing { .. } => self.write().map_err(Some),
        };
        match written {
            Ok(()) => self.recovered(),
            Err(error) => {
                self.counters.drop_entries(self.entries);
                self.failed(error, now);
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(BATCH);
        self.entries = 0;
    }

    fn write(&mut self) -> io::Result<()> {
        let dropped = self.counters.dropped.load(Relaxed);
        let mut gap = Vec::new();
        if dropped > self.told {
            Lines::push_gap(now(), dropped - self.told, &mut gap);
        }
        let length = (gap.len() + self.buffer.len()) as u64;
        if self.size > 0 && self.size.saturating_add(length) > self.max_size {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (file, size) = open(&self.path)?;
                self.size = size;
                none.insert(file)
            }
        };
        if matches!(self.state, State::Failing { .. }) {
            // What a failed attempt left there is no whole line.
            let end = file.metadata()?.len().min(self.size);
            file.set_len(end)?;
        }
        file.write_all(&gap)?;
        file.write_all(&self.buffer)?;
        (self.size, self.told) = (self.size + length, dropped);
        Ok(())
    }

    /// As after a failure whose pause is over.
    #[cfg(test)]
    pub(super) fn retry_now(&mut self) {
        self.state = State::Failing { retry: Clock::now().into_std() };
    }

    /// The file becomes `FILE.1`, and a new one is begun.
    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        self.file = None;
        Ok(())
    }

    fn recovered(&mut self) {
        if matches!(self.state, State::Failing { .. }) {
            tracing::info!(dropped = self.told, "the query log is written again");
            self.state = State::Writing;
        }
    }

    /// One warning for all that fails until it works again.
    fn failed(&mut self, error: Option<io::Error>, now: Instant) {
        let Some(error) = error else { return };
        if matches!(self.state, State::Writing) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the query log cannot be written: entries are dropped and counted until it can");
        }
        self.state = State::Failing { retry: now + RETRY };
    }
}

/// Opens a file to append to, which nobody but its owner may read if it is new; with its size.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a log tells the time of day")]
    let now = SystemTime::now();
    Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
