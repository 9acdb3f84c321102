//! The client's side of HTTP CONNECT (RFC 9110 section 9.3.6) with Basic authentication (RFC 7617), over HTTP/1.1.
//!
//! The head of the answer is read to its last byte and no further: a successful answer has no body (section 9.3.6), so what follows
//! is the destination's.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Credential, Target, failure::Failure};
use crate::error::{ErrorKind, Phase};

/// Asks for a connection to `target`, and sends `ahead` with it.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    credential: Option<&Credential>,
    ahead: &[u8],
) -> Result<(), Failure> {
    let mut bytes = request(target, credential);
    bytes.extend_from_slice(ahead);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    let mut left = HEAD_MAX;
    loop {
        let (status, length) = read_head(stream, left).await?;
        left -= length;
        match status {
            status if status.is_success() => return Ok(()),
            // RFC 9110 section 15.2: any number of them may come before the answer. 101 would be one.
            status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
            status => return Err(refusal(status, credential.is_some())),
        }
    }
}

fn request(target: &Target, credential: Option<&Credential>) -> Vec<u8> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(Credential { user, password }) = credential {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// What a status means. Proxies answer a destination that cannot be reached with 502, 503 or 504 (tinyproxy and others with 500), and
/// all but 504 also when they are overloaded.
fn refusal(status: StatusCode, authenticated: bool) -> Failure {
    let happened = || format!("the proxy answered {status}");
    match status {
        // tinyproxy says 401 of a wrong password. The destination's 401 cannot get here.
        StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED if authenticated => {
            Failure::new(ErrorKind::ProxyAuth, "the proxy does not accept the user and password")
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
            Failure::new(ErrorKind::ProxyAuth, "the proxy wants a user and password")
        }
        StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            Failure::new(ErrorKind::ProxyDenied, happened())
        }
        StatusCode::GATEWAY_TIMEOUT => Failure::new(ErrorKind::TimedOut(Phase::Connect), happened()),
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => {
            Failure::new(ErrorKind::BadGateway, happened())
        }
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Failure::new(ErrorKind::ProxyUnsupported, happened())
        }
        // The proxy waited for the request and gave up: this connection was of no use. 101 was not asked for.
        StatusCode::REQUEST_TIMEOUT | StatusCode::SWITCHING_PROTOCOLS => Failure::new(ErrorKind::Proxy, happened()),
        _ => Failure::new(ErrorKind::ProxyGeneral, happened()),
    }
}

/// Reads the head of one answer, of `max` bytes at most, and tells its status and length.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, max: usize) -> Result<(StatusCode, usize), Failure> {
    let mut head = Vec::with_capacity(256);
    loop {
        let (read, missing) = (head.len(), missing(&head));
        if missing == 0 {
            return Ok((status(&head)?, head.len()));
        }
        if read + missing > max {
            return Err(broken("the head of its answer is too long"));
        }
        head.resize(read + missing, 0);
        let more = stream.read(&mut head[read..]).await?;
        if more == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        head.truncate(read + more);
        let known = head.len().min(PROTOCOL.len());
        if head[..known] != PROTOCOL[..known] {
            return Err(broken("it does not answer in http/1"));
        }
    }
}

/// The fewest bytes that can be missing to the end of the head: as many may be read without taking what follows it.
/// RFC 9112 section 2.2: a line may end without its carriage return.
fn missing(head: &[u8]) -> usize {
    match head {
        _ if head.len() < STATUS_LINE_MIN => STATUS_LINE_MIN + 2 - head.len(),
        [.., b'\n', b'\n'] | [.., b'\n', b'\r', b'\n'] => 0,
        [.., b'\n'] | [.., b'\n', b'\r'] => 1,
        _ => 2,
    }
}

/// The status in `HTTP/1.1 200 ...` (RFC 9112 section 4).
fn status(head: &[u8]) -> Result<StatusCode, Failure> {
    let ends = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\r' | b'\n'));
    let version = head[PROTOCOL.len()].is_ascii_digit() && head[PROTOCOL.len() + 1] == b' ';
    let code = StatusCode::from_bytes(&head[STATUS_LINE_MIN - 3..STATUS_LINE_MIN]).ok();
    match code {
        Some(code) if version && ends(head.get(STATUS_LINE_MIN)) => Ok(code),
        _ => Err(broken("its answer has no status")),
    }
}

fn broken(how: &str) -> Failure {
    Failure::new(ErrorKind::Proxy, format!("that is no http proxy: {how}"))
}

/// Bytes of all heads of an answer together.
const HEAD_MAX: usize = 16 * 1024;

const PROTOCOL: &[u8] = b"HTTP/1.";

/// Length of `HTTP/1.1 200`.
const STATUS_LINE_MIN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_must_be_there() {
        for head in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.0 200\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\na: b\r\n\n",
            b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n",
            b"HTTP/1.1 200 \r\r\n\n",
        ] {
            for read in 0..head.len() {
                let missing = missing(&head[..read]);
                assert!((1..=head.len() - read).contains(&missing), "{missing} after {:?}", &head[..read]);
            }
            assert_eq!(missing(head), 0);
            assert_eq!(status(head).unwrap(), 200);
        }
    }

    #[test]
    fn a_request_has_the_authority_twice_and_the_credential_encoded() {
        let credential = Credential { user: "Aladdin".to_owned(), password: "open sesame".to_owned() };
        let sent = request(&Target::new("[2001:db8::1]", 443).unwrap(), Some(&credential));
        // The credential is the example of RFC 7617 section 2.
        let expected = "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\
                        Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        let sent = request(&Target::new("Tiles.Example", 8443).unwrap(), None);
        let expected = "CONNECT tiles.example:8443 HTTP/1.1\r\nHost: tiles.example:8443\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}
