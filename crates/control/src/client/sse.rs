//! Reads an event stream (WHATWG HTML section 9.2.6): bytes in, events out.
//!
//! Not here: `id` and `retry`, for a reader that comes again gets the newest look anyway.

/// What is read of a stream, and what of it is not yet whole.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The line that has begun.
    line: Vec<u8>,
    /// Whether the last byte was CR, of which a following LF is part.
    after_cr: bool,
    name: String,
    data: Option<String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; `message` where none was given.
    pub(super) name: String,
    /// Its lines of data, with LF between them.
    pub(super) data: String,
}

impl Reader {
    /// Takes what came and hands out each event that it completes.
    ///
    /// # Errors
    /// In words, when an event has more than [`EVENT_MAX`] bytes or is not UTF-8.
    pub(super) fn read(&mut self, bytes: &[u8], mut each: impl FnMut(Event)) -> Result<(), String> {
        for &byte in bytes {
            let is_end_of_crlf = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            match byte {
                _ if is_end_of_crlf => {}
                b'\r' | b'\n' => self.end_line(&mut each)?,
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_MAX {
                return Err(format!("an event of more than {EVENT_MAX} bytes"));
            }
        }
        Ok(())
    }

    fn end_line(&mut self, each: &mut impl FnMut(Event)) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8(line).map_err(|_| "an event that is not UTF-8".to_owned())?;
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            if let Some(data) = self.data.take() {
                each(Event { name: if name.is_empty() { "message".into() } else { name }, data });
            }
            return Ok(());
        }
        // A line that begins with a colon is a comment: its field has no name.
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        Ok(())
    }
}

/// Largest event: 16 MiB, as all pools and upstreams of a large daemon.
const EVENT_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.read(piece, |event| events.push((event.name, event.data))).unwrap();
        }
        events
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream =
            b": hello\r\n\r\nevent: sample\r\ndata: {\"a\":1}\r\nid: 7\r\n\r\ndata:x\rdata\rdata:  y\r\rdata: lost";
        let expected = [("sample".to_owned(), "{\"a\":1}".to_owned()), ("message".to_owned(), "x\n\n y".to_owned())];
        assert_eq!(read(&[stream]), expected);
        for cut in 0..stream.len() {
            assert_eq!(read(&[&stream[..cut], &stream[cut..]]), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn an_event_without_an_end_is_refused() {
        let mut reader = Reader::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..20).find_map(|_| reader.read(&piece, |_| panic!("no event")).err());
        assert!(refused.unwrap().contains("more than"));
        assert!(Reader::default().read(b"data: \xff\n\n", |_| ()).is_err());
    }
}
