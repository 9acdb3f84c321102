//! HTTP/1.1 messages as bytes (RFC 9112): heads and bodies in, heads and chunks out. No I/O.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};

/// Bytes that are no HTTP/1.1, or too many of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad;

/// Takes the head of a request from the input, once it is whole.
pub(super) fn take_head(input: &mut BytesMut) -> Result<Option<Request<()>>, Bad> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if input.len() > HEAD_MAX { Err(Bad) } else { Ok(None) };
    };
    let head = input.split_to(end + 4);
    let text = std::str::from_utf8(&head[..end]).map_err(|_| Bad)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Bad);
    };
    let version = match version {
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/1.0" => Version::HTTP_10,
        _ => return Err(Bad),
    };
    let mut request = Request::builder().method(method).uri(target).version(version).body(()).map_err(|_| Bad)?;
    for line in lines {
        put_field(request.headers_mut(), line)?;
    }
    Ok(Some(request))
}

fn put_field(headers: &mut HeaderMap, line: &str) -> Result<(), Bad> {
    let (name, value) = line.split_once(':').ok_or(Bad)?;
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Bad)?;
    let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes()).map_err(|_| Bad)?;
    headers.try_append(name, value).map_err(|_| Bad)?;
    Ok(())
}

/// Whether the client wants the connection to end with the answer (RFC 9112 section 9.3).
pub(super) fn wants_close(request: &Request<()>) -> bool {
    let says = |word: &str| {
        let values = request.headers().get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(word))
    };
    says("close") || (request.version() == Version::HTTP_10 && !says("keep-alive"))
}

/// The body of a request on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    state: State,
    trailers: HeaderMap,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Done,
    /// Bytes to come.
    Length(u64),
    ChunkSize,
    /// Bytes of the chunk to come.
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// What the input holds next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Piece(Bytes),
    /// More must be read first.
    More,
    End,
}

impl Incoming {
    /// RFC 9112 section 6.3. Both lengths at once are refused: that is how requests are smuggled.
    pub(super) fn of(request: &Request<()>) -> Result<Self, Bad> {
        let mut lengths = request.headers().get_all(CONTENT_LENGTH).into_iter();
        let state = match (request.headers().get(TRANSFER_ENCODING), lengths.next(), lengths.next()) {
            (None, None, _) => State::Done,
            (None, Some(length), None) => {
                let length = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                match length.and_then(|text| text.parse().ok()).ok_or(Bad)? {
                    0 => State::Done,
                    length => State::Length(length),
                }
            }
            (Some(coding), None, _) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => State::ChunkSize,
            _ => return Err(Bad),
        };
        Ok(Self { state, trailers: HeaderMap::new() })
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn take_trailers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.trailers)
    }

    /// Takes the next piece from the input.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Step, Bad> {
        loop {
            match self.state {
                State::Done => return Ok(Step::End),
                State::Length(left) | State::Chunk(left) => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - count as u64;
                    self.state = match self.state {
                        State::Chunk(_) if left == 0 => State::ChunkEnd,
                        State::Chunk(_) => State::Chunk(left),
                        _ if left == 0 => State::Done,
                        _ => State::Length(left),
                    };
                    return Ok(Step::Piece(input.split_to(count).freeze()));
                }
                State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let Some(line) = take_line(input)? else { return Ok(Step::More) };
                    self.take_line(&line)?;
                }
            }
        }
    }

    fn take_line(&mut self, line: &str) -> Result<(), Bad> {
        self.state = match self.state {
            State::ChunkSize => {
                let size = line.split(';').next().unwrap_or_default().trim_end();
                if !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(Bad);
                }
                match u64::from_str_radix(size, 16).map_err(|_| Bad)? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                }
            }
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Done,
            State::Trailers if self.trailers.len() < TRAILERS_MAX => {
                put_field(&mut self.trailers, line)?;
                State::Trailers
            }
            _ => return Err(Bad),
        };
        Ok(())
    }
}

fn take_line(input: &mut BytesMut) -> Result<Option<String>, Bad> {
    let Some(end) = input.windows(2).position(|window| window == b"\r\n") else {
        return if input.len() > HEAD_MAX { Err(Bad) } else { Ok(None) };
    };
    let line = input.split_to(end);
    input.advance(2);
    String::from_utf8(line.to_vec()).map(Some).map_err(|_| Bad)
}

/// Writes a head.
pub(super) fn put_head(output: &mut BytesMut, head: &Response<()>) {
    let status = head.status();
    let line = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    output.extend_from_slice(line.as_bytes());
    put_fields(output, head.headers());
}

/// Writes a part of a body.
pub(super) fn put_piece(output: &mut BytesMut, piece: &[u8], chunked: bool) {
    if !chunked {
        return output.extend_from_slice(piece);
    }
    // A chunk of no bytes would end the body.
    if !piece.is_empty() {
        output.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        output.extend_from_slice(piece);
        output.extend_from_slice(b"\r\n");
    }
}

/// Writes the end of a chunked body.
pub(super) fn put_last_chunk(output: &mut BytesMut, trailers: &HeaderMap) {
    output.extend_from_slice(b"0\r\n");
    put_fields(output, trailers);
}

fn put_fields(output: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        output.extend_from_slice(name.as_str().as_bytes());
        output.extend_from_slice(b": ");
        output.extend_from_slice(value.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
    output.extend_from_slice(b"\r\n");
}

const HEAD_MAX: usize = 65_536;
const TRAILERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Result<Option<Request<()>>, Bad> {
        take_head(&mut BytesMut::from(head))
    }

    fn body(head: &str) -> Result<Incoming, Bad> {
        Incoming::of(&request(&format!("POST / HTTP/1.1\r\n{head}\r\n")).unwrap().unwrap())
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let mut input = BytesMut::from("GET /a?b HTTP/1.1\r\nHost: tiles.test\r\nX:  y \r\n\r");
        assert!(take_head(&mut input).unwrap().is_none());
        input.extend_from_slice(b"\nrest");
        let request = take_head(&mut input).unwrap().unwrap();
        assert_eq!((request.uri().to_string(), &input[..]), ("/a?b".to_owned(), &b"rest"[..]));
        assert_eq!(
            (&request.headers()["host"], &request.headers()["x"]),
            (&"tiles.test".parse().unwrap(), &"y".parse().unwrap())
        );
        for bad in
            ["GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"]
        {
            assert_eq!(request_error(bad), Bad, "{bad:?}");
        }
        assert_eq!(request_error(&"x".repeat(HEAD_MAX + 1)), Bad);
    }

    fn request_error(head: &str) -> Bad {
        request(head).unwrap_err()
    }

    #[test]
    fn lengths_that_do_not_agree_are_refused() {
        for bad in [
            "content-length: 1\r\ncontent-length: 2\r\n",
            "content-length: +1\r\n",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip\r\n",
        ] {
            assert!(body(bad).is_err(), "{bad:?}");
        }
        assert!(body("").unwrap().is_done());
        assert!(!body("content-length: 1\r\n").unwrap().is_done());
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_cut() {
        let wire = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nrest";
        for cut in 0..wire.len() {
            let mut incoming = body("transfer-encoding: chunked\r\n").unwrap();
            let mut input = BytesMut::from(&wire[..cut]);
            let mut later = &wire[cut..];
            let mut whole = Vec::new();
            loop {
                match incoming.take(&mut input).unwrap() {
                    Step::Piece(piece) => whole.extend_from_slice(&piece),
                    Step::More => input.extend_from_slice(std::mem::take(&mut later)),
                    Step::End => break,
                }
            }
            input.extend_from_slice(later);
            assert_eq!((&whole[..], &input[..]), (&b"abc0123456789"[..], &b"rest"[..]), "cut at {cut}");
            assert_eq!(incoming.take_trailers()["x-sum"], "1");
        }
        let mut incoming = body("transfer-encoding: chunked\r\n").unwrap();
        assert_eq!(incoming.take(&mut BytesMut::from("1\r\nab\r\n")).unwrap(), Step::Piece(Bytes::from_static(b"a")));
        assert_eq!(incoming.take(&mut BytesMut::from("b\r\n")), Err(Bad));
    }

    #[test]
    fn connections_close_as_the_version_and_the_client_say() {
        let wants = |head: &str| wants_close(&request(head).unwrap().unwrap());
        assert!(!wants("GET / HTTP/1.1\r\n\r\n"));
        assert!(wants("GET / HTTP/1.1\r\nconnection: te, Close\r\n\r\n"));
        assert!(wants("GET / HTTP/1.0\r\n\r\n"));
        assert!(!wants("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"));
    }
}
