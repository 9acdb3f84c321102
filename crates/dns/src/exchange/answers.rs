//! Answers on their way back: collected by asker as they are read, and handed over once for each read.

use std::sync::Arc;

use super::{Asked, Asker, Replies};
use crate::error::Error;

/// Answers that go to one asker together: their messages end to end in one buffer, which is used again.
#[derive(Default)]
pub(crate) struct Answers {
    bytes: Vec<u8>,
    /// Each answer's token, and where it ends.
    ends: Vec<(u64, usize)>,
}

impl Answers {
    pub(crate) fn push(&mut self, token: u64, answer: &[u8]) {
        self.bytes.extend_from_slice(answer);
        self.ends.push((token, self.bytes.len()));
    }

    /// Takes what `other` has, which is empty afterwards.
    pub(crate) fn append(&mut self, other: &mut Answers) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        for (token, answer) in other.iter() {
            self.push(token, answer);
        }
        other.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Tokens and messages, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(token, end)| (token, &self.bytes[std::mem::replace(&mut start, end)..end]))
    }

    /// Forgets the answers and keeps room for the next ones; the room of a burst is given back.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.ends.clear();
        self.ends.shrink_to(KEPT / 64);
    }
}

/// Those who ask on a connection, each with the answers that it has not been given yet.
#[derive(Default)]
pub(crate) struct Askers {
    known: Vec<(Arc<dyn Replies>, Answers)>,
    /// Failures that go with the next delivery.
    failed: Vec<(Asked, Error)>,
}

impl Askers {
    /// Takes note of those who came after the ones that it knows.
    pub(super) fn learn(&mut self, askers: &[Arc<dyn Replies>]) {
        for replies in askers.iter().skip(self.known.len()) {
            self.known.push((replies.clone(), Answers::default()));
        }
    }

    /// Puts an answer aside for its asker, to go with the next [`deliver`](Self::deliver).
    pub(crate) fn answer(&mut self, asker: Asker, token: u64, answer: &[u8]) {
        match asker {
            Asker::Known(number) => self.known[number].1.push(token, answer),
            Asker::Once(replies) => replies.reply(token, Ok(bytes::Bytes::copy_from_slice(answer))),
        }
    }

    /// Tells an asker at once that there is no answer.
    pub(crate) fn fail(&self, asker: &Asker, token: u64, error: Error) {
        match asker {
            Asker::Known(number) => self.known[*number].0.reply(token, Err(error)),
            Asker::Once(replies) => replies.reply(token, Err(error)),
        }
    }

    /// Puts a failure aside, to go with the next [`deliver`](Self::deliver).
    pub(crate) fn fail_later(&mut self, asked: Asked, error: Error) {
        self.failed.push((asked, error));
    }

    /// Gives each asker its answers, and what was put aside.
    pub(crate) fn deliver(&mut self) {
        for (asked, error) in std::mem::take(&mut self.failed) {
            self.fail(&asked.asker, asked.token, error);
        }
        for (replies, answers) in &mut self.known {
            if !answers.is_empty() {
                replies.reply_all(answers);
            }
        }
    }
}

/// Bytes kept for the next answers.
const KEPT: usize = 64 * 1024;
