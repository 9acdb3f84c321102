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
    profile::{TlsProfile, limits},
};

/// Makes connections of one profile; the tickets are in here.
#[derive(Debug)]
pub(super) struct Dialer {
    context: SslContext,
    hello: Hello,
    tickets: Arc<Tickets>,
    resumption: bool,
}

/// What is set for each connection and not for the context.
#[derive(Debug)]
struct Hello {
    key_shares: Vec<u16>,
    application_settings: Vec<String>,
    new_codepoint: bool,
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
        let refused = |(field, error): (&'static str, ErrorStack)| {
            TlsSetupError::Refused(label.to_owned(), field, error.to_string().to_lowercase())
        };
        let tickets = Arc::<Tickets>::default();
        let context = context::build(profile, &alpn, verifier, &tickets).map_err(refused)?;
        let dialer = Dialer { context, hello: Hello::of(profile, &alpn), tickets, resumption: profile.resumption };
        // What is set for each connection is tried here, so that a profile that cannot be used fails early.
        dialer.prepare().map_err(|error| refused(("tls.key_shares", error)))?;
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
            Ok(Err(error)) => {
                // A session may be what the server does not like; TLS 1.2 would offer it again.
                self.tickets.forget(&name);
                return Err(explain::explain(&error, tried));
            }
            Err(_) => return Err(Error::timed_out(Phase::Tls, tried, start.elapsed())),
        };
        let info = self.info(&stream, start.elapsed());
        Ok((stream, info))
    }

    pub(super) fn forget_tickets(&self) {
        self.tickets.clear();
    }

    /// A connection before its handshake, in the shape of the profile.
    fn prepare(&self) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if !self.hello.key_shares.is_empty() {
            ext::set_key_shares(&mut ssl, &self.hello.key_shares)?;
        }
        ext::set_new_application_settings(&mut ssl, self.hello.new_codepoint);
        for protocol in &self.hello.application_settings {
            ext::add_application_settings(&mut ssl, protocol.as_bytes(), b"")?;
        }
        ssl.set_enable_ech_grease(self.hello.ech_grease);
        ext::shed_configuration(&mut ssl);
        Ok(ssl)
    }

    /// The same for a server, with a ticket of its where there is one.
    fn prepare_for(&self, name: &PeerName) -> Result<Ssl, ErrorStack> {
        let mut ssl = self.prepare()?;
        if let Some(shown) = name.shown() {
            ssl.set_hostname(shown)?;
        }
        if self.resumption
            && let Some(ticket) = self.tickets.take(name)
        {
            ticket.offer(&mut ssl)?;
        }
        verify::expect_name(&mut ssl, name.clone())?;
        Ok(ssl)
    }

    fn info(&self, stream: &SslStream<TcpStream>, handshake: Duration) -> TlsInfo {
        let ssl = stream.ssl();
        let version = match ssl.version2() {
            Some(SslVersion::TLS1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        };
        TlsInfo {
            version,
            resumed: ssl.session_reused(),
            alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
            handshake,
            ech: if self.hello.ech_grease { EchStatus::Grease } else { EchStatus::Off },
        }
    }
}

impl Hello {
    fn of(profile: &TlsProfile, alpn: &[&str]) -> Hello {
        let settings = profile.application_settings.as_ref();
        let protocols = settings.iter().flat_map(|settings| &settings.protocols);
        Hello {
            key_shares: limits::sendable(&profile.key_shares, limits::GROUPS),
            application_settings: protocols.filter(|name| alpn.contains(&name.as_str())).cloned().collect(),
            new_codepoint: settings.is_none_or(|settings| settings.new_codepoint),
            ech_grease: profile.ech_grease,
        }
    }
}
