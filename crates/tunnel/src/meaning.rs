//! What an error of a connection means for whoever asked for the tunnel.

use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as Kind, Phase, Side},
    proxy::Target,
};

use crate::error::{Error, ErrorKind};

/// The error of a tunnel to `target`. `asked`: an upstream was asked for it, or this machine tried to connect. `sent`: its first bytes had
/// left.
pub(crate) fn of(target: &Target, error: TransportError, asked: bool, sent: bool) -> Error {
    let suffix = if sent { "; its first bytes may have arrived" } else { "" };
    let kind = match kind(&error) {
        // Of the proxy's own name or address.
        ErrorKind::Resolve | ErrorKind::TimedOut if !asked => ErrorKind::Upstream,
        ErrorKind::NetworkUnreachable if !asked => ErrorKind::Local,
        kind => kind,
    };
    Error::from_transport(kind, format!("tunnel to {target}: {error}{suffix}"), error)
}

/// The error of an upstream that was asked for something else than a tunnel.
pub(crate) fn of_upstream(name: &str, error: TransportError) -> Error {
    Error::from_transport(kind(&error), format!("upstream {name}: {error}"), error)
}

fn kind(error: &TransportError) -> ErrorKind {
    match error.kind() {
        Kind::Refused => ErrorKind::Refused,
        Kind::Unreachable | Kind::BadGateway | Kind::Reset | Kind::Eof => ErrorKind::HostUnreachable,
        Kind::NetworkUnreachable | Kind::NetworkDown => ErrorKind::NetworkUnreachable,
        Kind::Resolve => ErrorKind::Resolve,
        Kind::Proxy | Kind::ProxyAuth | Kind::ProxyGeneral | Kind::HostKey | Kind::TimedOut(Phase::Proxy) => {
            ErrorKind::Upstream
        }
        Kind::TimedOut(_) => ErrorKind::TimedOut,
        Kind::ProxyDenied => ErrorKind::Forbidden,
        Kind::AddressType => ErrorKind::AddressType,
        Kind::ProxyUnsupported => ErrorKind::Unsupported,
        Kind::Cancelled => ErrorKind::Closed,
        _ if error.side() == Side::Upstream => ErrorKind::Upstream,
        _ => ErrorKind::Local,
    }
}

/// Of two upstreams' errors the one that says more about the destination.
pub(crate) fn more_telling(before: Option<Error>, now: Error) -> Error {
    let rank = |error: &Error| match error.kind() {
        ErrorKind::Refused | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::Resolve => 0,
        ErrorKind::Forbidden | ErrorKind::AddressType | ErrorKind::Unsupported => 1,
        ErrorKind::TimedOut => 2,
        _ => 3,
    };
    match before {
        Some(before) if rank(&before) <= rank(&now) => before,
        _ => now,
    }
}
