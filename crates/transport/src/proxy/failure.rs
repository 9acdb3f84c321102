//! What goes wrong between us and a proxy, before it is known what was tried.

use std::{borrow::Cow, io};

use crate::error::{Error, ErrorKind, Phase, Side};

/// A failed exchange with a proxy.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    happened: Cow<'static, str>,
    source: Option<io::Error>,
}

impl Failure {
    /// The proxy's or the destination's, as the kind says.
    pub(super) fn new(kind: ErrorKind, happened: impl Into<Cow<'static, str>>) -> Failure {
        Failure { kind, happened: happened.into(), source: None }
    }

    pub(super) fn into_error(self, tried: String) -> Error {
        // What the proxy says of the destination is about the connection between these two.
        let phase = if self.kind.is_proxy() { Phase::Proxy } else { Phase::Connect };
        let error = Error::new(self.kind, phase, tried, self.happened);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl From<io::Error> for Failure {
    /// Of the connection to the proxy: a shortage here stays what it is, everything else is the proxy's.
    fn from(error: io::Error) -> Failure {
        let (kind, happened): (_, Cow<'static, str>) = match ErrorKind::from_io(&error, Phase::Proxy) {
            ErrorKind::Eof => (ErrorKind::Proxy, "the proxy closed the connection".into()),
            ErrorKind::Reset => (ErrorKind::Proxy, "the proxy reset the connection".into()),
            kind if kind.side() == Side::Local && kind != ErrorKind::Other => (kind, error.to_string().into()),
            _ => (ErrorKind::Proxy, error.to_string().to_lowercase().into()),
        };
        Failure { kind, happened, source: Some(error) }
    }
}

/// The error of a proxy that cannot be reached: what an upstream would be blamed for is the proxy's.
pub(super) fn unreachable(error: Error, tried: impl Into<String>) -> Error {
    let (kind, phase) = match error.side() {
        Side::Upstream if error.is_timeout() => (ErrorKind::TimedOut(Phase::Proxy), Phase::Proxy),
        Side::Upstream => (ErrorKind::Proxy, Phase::Proxy),
        Side::Local | Side::Client => (error.kind(), error.phase()),
    };
    Error::new(kind, phase, tried, error.to_string()).with_source(error)
}
