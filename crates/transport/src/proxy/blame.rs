//! What a failure through a proxy means for the proxy: whether another one is worth a try, and whether this one should rest.

use crate::error::{Error, ErrorKind, Phase};

/// Who is to blame for a connection through a proxy that did not come about.
///
/// | what happened | [`ErrorKind`] | blame |
/// |---|---|---|
/// | SOCKS5 reply 3 | `NetworkUnreachable` | `Destination` |
/// | SOCKS5 reply 4 | `Unreachable` | `Destination` |
/// | SOCKS5 reply 5 | `Refused` | `Destination` |
/// | SOCKS5 reply 6, HTTP 504, no word on the CONNECT by the deadline | `TimedOut(Connect)` | `Destination` |
/// | the connection broke while the rest of a payload was sent, after the proxy's word | `Reset`, `Eof`, `TimedOut(Write)` | `Destination` |
/// | SOCKS5 reply 2, HTTP 403 and 451 | `ProxyDenied` | `Declined` |
/// | SOCKS5 reply 8 | `AddressType` | `Declined` |
/// | SOCKS5 reply 1 and those above 8, other HTTP statuses than 2xx but 408 | `ProxyGeneral` | `Declined` |
/// | SOCKS5 reply 7, HTTP 405 and 501 | `ProxyUnsupported` | `Declined` |
/// | HTTP 500, 502 and 503 | `BadGateway` | `Declined` |
/// | SOCKS5 method 255 or a refused password, HTTP 401 and 407 | `ProxyAuth` | `Proxy` |
/// | no connection to the proxy, or no answer to its greeting, by the deadline | `TimedOut(Proxy)` | `Proxy` |
/// | refused, reset, closed or untrusted by the proxy; garbage; HTTP 408 | `Proxy` | `Proxy` |
/// | the key of an SSH server is another one | `HostKey` | `Proxy` |
/// | no file, port, buffer or route here; the proxy's name is not found | as without a proxy | `Local` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The destination. The proxy has done its work, and whoever wants the destination is to be told.
    Destination,
    /// This proxy will not or cannot serve this request, and is alive: another one may serve it, and this one the next request.
    Declined,
    /// The proxy is broken, out of reach or does not know us: its breaker counts it, and another one may serve the request.
    Proxy,
    /// This machine, or whoever looks up the proxy's name. It says nothing of the proxy.
    Local,
}

impl Blame {
    /// Who is to blame for an error of [`open`](super::Proxy::open), [`greet`](super::Proxy::greet) or
    /// [`connect`](super::Greeted::connect).
    pub fn of(error: &Error) -> Blame {
        match error.kind() {
            ErrorKind::Refused
            | ErrorKind::Unreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut(Phase::Connect | Phase::Write)
            | ErrorKind::Reset
            | ErrorKind::Eof => Blame::Destination,
            ErrorKind::ProxyDenied
            | ErrorKind::AddressType
            | ErrorKind::ProxyGeneral
            | ErrorKind::ProxyUnsupported
            | ErrorKind::BadGateway => Blame::Declined,
            ErrorKind::Proxy | ErrorKind::ProxyAuth | ErrorKind::HostKey | ErrorKind::TimedOut(Phase::Proxy) => {
                Blame::Proxy
            }
            _ => Blame::Local,
        }
    }
}
