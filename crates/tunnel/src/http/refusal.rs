//! What the proxy says in its own name: a status, a kind for programs, a line for people.

use std::time::Duration;

use http::StatusCode;

use crate::error::{Error, ErrorKind};

/// A request that gets no tunnel, or no answer of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For the header `keepwarm-error`.
    pub(super) kind: &'static str,
    /// One line.
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
    /// Nothing more is read from the client: what follows may not be a request.
    pub(super) closes: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { status, kind, text: text.into(), retry_after: None, closes: false }
    }

    /// The request is wrong; `text` says what would be accepted.
    pub(super) fn request(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "request", text)
    }

    /// The origin did not answer as it should.
    pub(super) fn origin(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_GATEWAY, "origin", text)
    }

    pub(super) fn unknown_user() -> Refusal {
        let text = "this proxy is for its users: give name and password in Proxy-Authorization (Basic)";
        Refusal::new(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "proxy_auth", text)
    }

    pub(super) fn closing(self) -> Refusal {
        Refusal { closes: true, ..self }
    }
}

impl From<&Error> for Refusal {
    /// What a tunnel that was not made is to those who ask over HTTP.
    fn from(error: &Error) -> Refusal {
        let kind = error.kind();
        let refusal = Refusal::new(status(kind), kind.as_str(), error.to_string());
        Refusal { retry_after: error.retry_after(), ..refusal }
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Rejected | ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        // Of this machine, which may soon do better, and not of anything beyond it.
        ErrorKind::Busy | ErrorKind::Local | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Refused
        | ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::Resolve
        | ErrorKind::AddressType
        | ErrorKind::Upstream
        | ErrorKind::Unsupported => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Side;

    #[test]
    fn each_kind_has_its_status() {
        let expected = [403, 403, 502, 502, 502, 502, 504, 502, 502, 503, 502, 503, 503];
        for (kind, expected) in ErrorKind::ALL.into_iter().zip(expected) {
            let refusal = Refusal::from(&Error::new(kind, Side::Upstream, "tunnel to a.example:443: why"));
            assert_eq!((refusal.status.as_u16(), refusal.kind), (expected, kind.as_str()));
            assert_eq!(refusal.text, "tunnel to a.example:443: why");
            assert_eq!(refusal.retry_after.is_some(), matches!(kind, ErrorKind::Busy | ErrorKind::Local));
        }
    }
}
