//! What the gateway says in its own name: a status, a kind for programs, a line for people.

use http::StatusCode;

use crate::error::{Error, ErrorKind, Side};

/// A request that gets no answer of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For the header `keepwarm-error`.
    pub(super) kind: &'static str,
    /// One line.
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { status, kind, text: text.into() }
    }

    /// The request is wrong; `text` says what would be accepted.
    pub(super) fn request(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "request", text)
    }

    /// What a client's error is to those who ask over HTTP. `is_known`: whether the origin is one that may be asked.
    pub(super) fn of(error: &Error, is_known: impl FnOnce() -> bool) -> Refusal {
        let kind = error.kind();
        if kind == ErrorKind::Request && !is_known() {
            let remedy = "add it to the origins of [https], or set any_host";
            return Refusal::new(StatusCode::FORBIDDEN, "not_configured", format!("{error}: {remedy}"));
        }
        Refusal::new(status(kind, error.side()), kind.as_str(), error.to_string())
    }
}

fn status(kind: ErrorKind, side: Side) -> StatusCode {
    match (kind, side) {
        (ErrorKind::Request | ErrorKind::RequestBody, _) => StatusCode::BAD_REQUEST,
        // This machine is short of something: not the origin's fault.
        (ErrorKind::Exhausted | ErrorKind::Closed, _) | (ErrorKind::Transport(_), Side::Local) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        (ErrorKind::TimedOut, _) => StatusCode::GATEWAY_TIMEOUT,
        (ErrorKind::NoAddress | ErrorKind::Transport(_), _) => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keepwarm_transport::error::{Error as TransportError, ErrorKind as TransportKind, Phase};

    use super::*;

    #[test]
    fn each_error_has_the_status_of_its_side() {
        let transport =
            |kind| Error::transport(TransportError::new(kind, Phase::Connect, "connect to 192.0.2.1:443", "no"));
        for (error, known, status, kind) in [
            (Error::request("x"), true, 400, "request"),
            (Error::request("x"), false, 403, "not_configured"),
            (Error::no_address("x"), true, 502, "no_address"),
            (Error::closed(), true, 503, "closed"),
            (Error::timed_out(Duration::from_secs(1), "x"), true, 504, "timeout"),
            (Error::request_body("x".into()), true, 400, "request_body"),
            (transport(TransportKind::Refused), true, 502, TransportKind::Refused.as_str()),
            (transport(TransportKind::FilesExhausted), true, 503, TransportKind::FilesExhausted.as_str()),
        ] {
            let refusal = Refusal::of(&error, || known);
            assert_eq!((refusal.status.as_u16(), refusal.kind), (status, kind), "{error}");
        }
    }
}
