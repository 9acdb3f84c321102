//! Sessions to resume, bound to the context that they came from.

#![expect(unsafe_code, reason = "boring leaves it to the caller that a session is offered in its own context")]

use std::fmt;

use boring::{
    error::ErrorStack,
    ssl::{SslContext, SslContextBuilder, SslRef, SslSession, SslSessionCacheMode},
};
use boring_sys as ffi;
use foreign_types_shared::{ForeignType, ForeignTypeRef};

/// A session that a server offered to resume.
///
/// It keeps its context alive; a store of tickets that the context's own callback holds would keep both for ever, so the callback
/// must hold its store weakly.
#[derive(Clone)]
pub struct Ticket {
    session: SslSession,
    context: SslContext,
}

impl Ticket {
    /// Whether it may be offered once only, as those of TLS 1.3 (RFC 8446 appendix C.4).
    pub fn is_single_use(&self) -> bool {
        // SAFETY: the session is valid.
        unsafe { ffi::SSL_SESSION_should_be_single_use(self.session.as_ptr()) == 1 }
    }

    /// Offers to resume the session with `ssl`, before its handshake. False when it belongs to another context.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn offer(&self, ssl: &mut SslRef) -> Result<bool, ErrorStack> {
        if ssl.ssl_context().as_ptr() != self.context.as_ptr() {
            return Ok(false);
        }
        // SAFETY: the session came from this very context, which it has kept alive since.
        unsafe { ssl.set_session(&self.session) }?;
        Ok(true)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// Hands each ticket that a server sends to `keep`, with the connection that it came over. BoringSSL keeps none itself.
pub fn keep_tickets(context: &mut SslContextBuilder, keep: impl Fn(&SslRef, Ticket) + Send + Sync + 'static) {
    context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    context.set_new_session_callback(move |ssl, session| {
        let ticket = Ticket { session, context: ssl.ssl_context().to_owned() };
        keep(ssl, ticket);
    });
}
