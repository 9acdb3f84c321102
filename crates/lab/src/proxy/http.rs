//! The server side of HTTP CONNECT (RFC 9110 section 9.3.6), with Basic credentials (RFC 7617).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::connection::{Connection, Stop};
use super::counters::ProxyCounters;
use super::spec::ProxyPhase;
use super::tunnel;

/// What of a request counts here.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    method: String,
    /// Without the brackets of IPv6.
    host: String,
    port: u16,
    authorization: Option<String>,
}

/// Serves one connection to its end.
pub(super) async fn serve(connection: &mut Connection) -> Result<(), Stop> {
    connection.idle(STRAY).await?;
    let text = read_head(connection).await?;
    let Some(head) = parse(&text) else { return refuse(connection, 400).await };
    if head.method != "CONNECT" {
        return refuse(connection, 405).await;
    }
    if connection.faults().bad_version {
        connection.at(ProxyPhase::Connect)?;
        connection.answer(b"ICY 200 OK\r\n\r\n").await?;
        return Err(Stop::Finish);
    }
    if !authenticate(connection, &head) {
        connection.site.count(ProxyCounters::refuse);
        connection.at(ProxyPhase::Connect)?;
        return refuse(connection, 407).await;
    }
    match tunnel::open(connection, &head.host, head.port).await? {
        Ok(opened) => tunnel::establish(connection, opened, ESTABLISHED).await,
        Err(code) => {
            let status = connection.faults().status.unwrap_or(status(code));
            refuse(connection, status).await
        }
    }
}

/// Reads up to the empty line.
async fn read_head(connection: &mut Connection) -> Result<Vec<u8>, Stop> {
    loop {
        if let Some(at) = connection.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(connection.buffer.split_to(at + 4).to_vec());
        }
        if connection.buffer.len() > HEAD_MAX {
            refuse(connection, 431).await?;
        }
        connection.fill().await?;
    }
}

fn parse(text: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(text).ok()?;
    let (line, fields) = text.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    // Other methods have other targets, and are refused anyway.
    let (host, port) = target.rsplit_once(':').unwrap_or((target, "0"));
    let authorization = fields
        .split("\r\n")
        .filter_map(|field| field.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned()));
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = port.parse().ok().or((method != "CONNECT").then_some(0))?;
    Some(Head { method: method.to_owned(), host, port, authorization })
}

fn authenticate(connection: &Connection, head: &Head) -> bool {
    let right = connection.site.credential.as_ref().map(|(user, password)| {
        let given = head.authorization.as_deref().and_then(|value| value.split_once(' '));
        given.is_some_and(|(scheme, secret)| {
            scheme.eq_ignore_ascii_case("basic") && secret == BASE64_STANDARD.encode(format!("{user}:{password}"))
        })
    });
    let fails = connection.faults().auth_fails || right == Some(false);
    connection.site.count(|counters| {
        counters.auth_failed += u64::from(fails);
        counters.auth_ok += u64::from(!fails && right.is_some());
    });
    !fails
}

async fn refuse(connection: &mut Connection, status: u16) -> Result<(), Stop> {
    let challenge = if status == 407 { "Proxy-Authenticate: Basic realm=\"lab\"\r\n" } else { "" };
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Lab");
    let answer = format!("HTTP/1.1 {status} {reason}\r\n{challenge}Connection: close\r\nContent-Length: 0\r\n\r\n");
    connection.answer(answer.as_bytes()).await?;
    Err(Stop::Finish)
}

/// The status for a SOCKS5 reply code.
fn status(code: u8) -> u16 {
    match code {
        2 => 403,
        3..=5 => 502,
        6 => 504,
        _ => 500,
    }
}

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const STRAY: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const HEAD_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_taken_apart() {
        let head = parse(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nproxy-Authorization:  Basic eA== \r\n\r\n");
        let expected = Head {
            method: "CONNECT".to_owned(),
            host: "::1".to_owned(),
            port: 443,
            authorization: Some("Basic eA==".to_owned()),
        };
        assert_eq!(head, Some(expected));
        assert_eq!(parse(b"GET http://a/ HTTP/1.1\r\n\r\n").map(|head| head.method), Some("GET".to_owned()));
        for bad in
            [&b"CONNECT a HTTP/1.1\r\n\r\n"[..], b"CONNECT a:x HTTP/1.1\r\n\r\n", b"CONNECT a:1\r\n\r\n", b"\xff\r\n"]
        {
            let head = parse(bad);
            assert!(head.as_ref().is_none_or(|head| head.port == 0), "{head:?}");
        }
    }
}
