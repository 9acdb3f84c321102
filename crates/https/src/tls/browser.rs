//! Handshakes by BoringSSL.

mod compression;
mod context;
mod explain;
mod tickets;
mod verify;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use boring::{
    error::ErrorStack,
    ssl::{Ssl, SslContext, SslVersion},
};
use keepwarm_boring_ext as ext;
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    tls::{EchStatus, PeerName, PeerVerifier, TlsInfo, TlsRoots, TlsVersion},
};
use tokio::net::TcpStream;
use tokio_boring::{SslStream, SslStreamBuilder};

use self::tickets::Tickets;
use super::{TlsSetupError, allows};
use crate::{
    config::HttpVersions,
    profile::{GROUPS, TlsProfile, sendable},
};

/// Makes connections of one profile; the tickets are in here.
#[derive(Debug)]
pub(super) struct Dialer {
    context: SslContext,
    hello: Hello,
    tickets: Option<Arc<Tickets>>,
}

/// What is set for each connection and not for the context.
#[derive(Debug)]
struct Hello {
    key_shares: Vec<u16>,
    /// Protocols, and whether at the newer code point.
    application_settings: (Vec<String>, bool),
    ech_grease: bool,
}

impl Dialer {
    pub(super) fn new(
        profile: &TlsProfile,
        label: &str,
        versions: HttpVersions,
        roots: &TlsRoots,
    ) -> Result<Dialer, TlsSetupError> {
        let verifier = PeerVerifier::new(roots).map_err(TlsSetupError::Roots)?;
        let alpn: Vec<&str> = profile.alpn.iter().map(String::as_str).filter(|name| allows(versions, name)).collect();
        if alpn.is_empty() {
            return Err(TlsSetupError::NoProtocol(label.to_owned(), versions.as_str()));
        }
        let tickets = profile.resumption.then(Arc::<Tickets>::default);
        let context = context::build(profile, &alpn, verifier, tickets.as_ref())
            .map_err(|(field, error)| TlsSetupError::Refused(label.to_owned(), field, error.to_string()))?;
        let dialer = Dialer { context, hello: Hello::of(profile, &alpn), tickets };
        // The fields that are set for each connection are tried once here, so that a profile fails early.
        dialer.prepare(&PROBE).map_err(|error| {
            TlsSetupError::Refused(label.to_owned(), "tls.key_shares", error.to_string())
        })?;
        Ok(dialer)
    }

    pub(super) async fn connect(
        &self,
        tcp: TcpStream,
        server_name: &str,
        deadline: Instant,
    ) -> Result<(SslStream<TcpStream>, TlsInfo), Error> {
        let start = tokio::time::Instant::now();
        let tried = match tcp.peer_addr() {
            Ok(peer) => format!("connect to {peer}"),
            Err(_) => format!("connect to {server_name}"),
        };
        let name = PeerName::parse(server_name, &tried)?;
        let ssl = self.prepare_for(&name).map_err(|error| {
            Error::new(ErrorKind::Other, Phase::Tls, tried.as_str(), format!("tls cannot be set up: {error}"))
        })?;
        let handshake = SslStreamBuilder::new(ssl, tcp).connect();
        let stream = match tokio::time::timeout_at(deadline.into(), handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(explain::explain(&error, tried)),
            Err(_) => return Err(Error::timed_out(Phase::Tls, tried, start.elapsed())),
        };
        let info = self.info(&stream, start.elapsed());
        Ok((stream, info))
    }

    pub(super) fn forget_tickets(&self) {
        if let Some(tickets) = &self.tickets {
            tickets.clear();
        }
    }

    /// A connection before its handshake.
    fn prepare_for(&self, name: &PeerName) -> Result<Ssl, ErrorStack> {
        let mut ssl = self.prepare(&self.hello)?;
        if let Some(shown) = name.shown() {
            ssl.set_hostname(shown)?;
        }
        if let Some(ticket) = self.tickets.as_ref().and_then(|tickets| tickets.take(name)) {
            ticket.offer(&mut ssl)?;
        }
        verify::expect(&mut ssl, name.clone());
        Ok(ssl)
    }
}
