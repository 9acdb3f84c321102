//! A child process that says things line by line and ends when it is told to. Every wait has a limit.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

/// A running process. Killed when dropped.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    /// What it said so far, for error messages.
    said: Vec<String>,
}

/// Which of its two streams is listened to.
pub(super) enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Process {
    /// Starts a process; the stream that is listened to has to be piped.
    ///
    /// # Errors
    /// When it cannot be started, or the stream is not piped.
    pub(super) fn start(name: &'static str, command: &mut Command, stream: &Stream) -> anyhow::Result<Process> {
        let (sender, lines) = mpsc::channel();
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let mut process = Process { name, child, lines, said: Vec::new() };
        let stream: Option<Box<dyn Read + Send>> = match stream {
            Stream::Output => process.child.stdout.take().map(|stream| Box::new(stream) as _),
            Stream::Error => process.child.stderr.take().map(|stream| Box::new(stream) as _),
        };
        let stream = stream.with_context(|| format!("listen to {name}: its stream is not piped"))?;
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                // Nobody listens any more: read on all the same, or the process would block on a full pipe.
                let _ = sender.send(line);
            }
        });
        Ok(process)
    }

    /// The next line that `wanted` makes something of.
    ///
    /// # Errors
    /// When the process ends or is silent for [`PATIENCE`].
    pub(super) fn wait_for<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.said.push(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(_) => bail!("{} ended or was silent for {PATIENCE:?}{}", self.name, self.words()),
            }
        }
    }

    /// Sends SIGTERM, waits for the end and returns everything that the process said.
    ///
    /// # Errors
    /// When it does not end, or ends with another exit code than 0.
    pub(super) fn stop(mut self) -> anyhow::Result<Vec<String>> {
        // There is no safe call for this in the standard library.
        let told = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        if !told.context("run kill")?.success() {
            bail!("{} cannot be stopped{}", self.name, self.words());
        }
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line),
                // The end of its words is the end of the process, or nearly so.
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("{} does not stop{}", self.name, self.words()),
            }
        }
        let status: ExitStatus = self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        if !status.success() {
            bail!("{} ended with {status}{}", self.name, self.words());
        }
        Ok(std::mem::take(&mut self.said))
    }

    fn words(&self) -> String {
        let last = &self.said[self.said.len().saturating_sub(WORDS_MAX)..];
        if last.is_empty() { String::new() } else { format!("; its last words:\n  {}", last.join("\n  ")) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For how long a process may say nothing when something is due from it; under valgrind a start takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of a process in an error message.
const WORDS_MAX: usize = 20;
