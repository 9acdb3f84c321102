//! A reader of length-prefixed bytes that knows where it is, so that errors can say it.

use super::HelloError;

/// What is left of some bytes, and how far into the message that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    left: &'a [u8],
    at: usize,
    /// What is read here, for errors.
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Cursor<'a> {
        Cursor { left: bytes, at: 0, what }
    }

    /// The same bytes, under another name in errors.
    pub(super) fn named(self, what: &'static str) -> Cursor<'a> {
        Cursor { what, ..self }
    }

    pub(super) fn error(&self, problem: &'static str) -> HelloError {
        HelloError { at: self.at, what: self.what, problem }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// What is left, to the end.
    pub(super) fn rest(self) -> &'a [u8] {
        self.left
    }

    /// What is left, after which nothing is.
    pub(super) fn all(&mut self) -> &'a [u8] {
        let all = std::mem::take(&mut self.left);
        self.at += all.len();
        all
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Cursor<'a>, HelloError> {
        let (taken, left) = self.left.split_at_checked(length).ok_or_else(|| self.error("ends early"))?;
        let taken = Cursor { left: taken, ..*self };
        (self.left, self.at) = (left, self.at + length);
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, HelloError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, HelloError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u24(&mut self) -> Result<usize, HelloError> {
        let [high, middle, low] = self.array()?;
        Ok(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
    }

    /// A vector with a length of one byte before it.
    pub(super) fn vector8(&mut self) -> Result<Cursor<'a>, HelloError> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// A vector with a length of two bytes before it.
    pub(super) fn vector16(&mut self) -> Result<Cursor<'a>, HelloError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Fails where anything is left.
    pub(super) fn end(&self) -> Result<(), HelloError> {
        if self.is_empty() { Ok(()) } else { Err(self.error("has bytes after its end")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (array, left) = self.left.split_first_chunk::<N>().ok_or_else(|| self.error("ends early"))?;
        (self.left, self.at) = (left, self.at + N);
        Ok(*array)
    }
}
