//! Failed handshakes in the words that the rustls path has.

use boring::error::ErrorStack;
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    tls::explain_alert,
};
use tokio::net::TcpStream;
use tokio_boring::HandshakeError;

use super::verify;

/// Turns a failed handshake into an error of the transport.
pub(super) fn explain(error: &HandshakeError<TcpStream>, tried: String) -> Error {
    if let Some((kind, happened)) = error.ssl().and_then(verify::fault) {
        return Error::new(kind, Phase::Tls, tried, happened);
    }
    if let Some(io) = error.as_io_error() {
        // The error itself stays with the stream; its code says all that is asked of it.
        let copy = io.raw_os_error().map_or_else(|| io.kind().into(), std::io::Error::from_raw_os_error);
        return Error::from_io(copy, Phase::Tls, tried);
    }
    let (kind, happened) = match std::error::Error::source(error).and_then(stack) {
        Some(stack) => words(stack),
        None => (ErrorKind::Eof, "connection closed by peer during the tls handshake".to_owned()),
    };
    Error::new(kind, Phase::Tls, tried, happened)
}

/// BoringSSL's own errors, where there are any below.
fn stack<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a ErrorStack> {
    error.downcast_ref().or_else(|| error.source().and_then(stack))
}

/// What the first error that is known means.
fn words(stack: &ErrorStack) -> (ErrorKind, String) {
    let ours = stack.errors().iter().filter(|error| error.library_code() == LIBRARY);
    for error in ours {
        if let Ok(alert) = u8::try_from(error.reason_code() - ALERTS) {
            return explain_alert(alert);
        }
        if error.reason().is_some_and(|reason| NO_TLS.contains(&reason)) {
            return (ErrorKind::Tls, "peer does not speak tls".to_owned());
        }
    }
    (ErrorKind::Tls, format!("tls handshake failed: {}", stack.to_string().to_lowercase()))
}

/// `ERR_LIB_SSL` in err.h.
const LIBRARY: i32 = 16;

/// `SSL_AD_REASON_OFFSET` in ssl.h: alerts of the peer are reasons from here on.
const ALERTS: i32 = 1000;

/// What BoringSSL says of a first record that is none.
const NO_TLS: [&str; 4] = ["WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNEXPECTED_RECORD"];
