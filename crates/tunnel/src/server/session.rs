//! One client: its handshake, its tunnel, and how it ends.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use keepwarm_transport::proxy::Target;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{
    ClientInfo, HandshakeFailure, Shared, Terms, closed,
    counters::{Connected, Counters},
    door::Inside,
    gone::gone,
    handshake::{Begin, Failure, handshake},
    linger::last_word,
    listen, shared,
};
use crate::{
    Stream,
    config::ListenKind,
    gate::Pass,
    relay::{RelayOptions, relay},
    socks::{self, Request, Version},
    udp,
};

/// Serves a client to its end.
///
/// # Cancel safety
/// Dropping the future closes its connection and its tunnel.
pub(super) async fn serve(mut stream: TcpStream, client: ClientInfo, door: Inside, shared: Arc<Shared>, _place: Pass) {
    listen::prepare(&stream);
    let connected = Connected::new(&shared.counters);
    let session = Session { client, shared: &shared, terms: Arc::clone(door.terms()), connected };
    let wish = match &door.listen.kind {
        ListenKind::Forward(target) => {
            Counters::count(&shared.counters.forwards);
            Wish::Tunnel { version: None, target: target.clone(), payload: Bytes::new() }
        }
        ListenKind::Http => Wish::Http(Bytes::new()),
        kind @ (ListenKind::Socks | ListenKind::Mixed) => {
            match session.begin(&mut stream, *kind == ListenKind::Mixed).await {
                Some(wish) => wish,
                None => return,
            }
        }
    };
    // All but tunnels are boxed: those need not have room for what the others keep.
    match wish {
        Wish::Tunnel { version, target, payload } => session.tunnel(stream, version, target, payload).await,
        Wish::Http(first) => Box::pin(session.http(stream, first)).await,
        Wish::Associate(declared) => Box::pin(udp::associate(stream, declared, &shared)).await,
        Wish::Answer(answer) => session.last_word(stream, &answer).await,
    }
}

struct Session<'a> {
    client: ClientInfo,
    shared: &'a Arc<Shared>,
    terms: Arc<Terms>,
    connected: Connected<'a>,
}

/// What a client gets.
enum Wish {
    /// `version`: how it is told of its tunnel, `None` for a forward, which is not. `payload`: what it sent for the destination already.
    Tunnel { version: Option<Version>, target: Target, payload: Bytes },
    /// It began with this.
    Http(Bytes),
    /// Datagrams, from where it says.
    Associate(SocketAddr),
    /// Nothing but this.
    Answer(socks::Answer),
}

impl Session<'_> {
    /// The handshake, within its time and until the server stops. `None`: the client is gone, or has to go.
    async fn begin(&self, stream: &mut TcpStream, may_be_http: bool) -> Option<Wish> {
        let counters = &self.shared.counters;
        let mut closing = self.shared.closing.subscribe();
        let limit = self.shared.connector.config().handshake_timeout;
        let begun = tokio::select! {
            biased;
            begun = timeout(limit, handshake(stream, self.shared, &self.terms, may_be_http)) => begun,
            () = closed(&mut closing) => return None,
        };
        let (version, request, payload) = match begun {
            Ok(Ok(Begin::Socks { version, request, payload })) => (version, request, payload),
            Ok(Ok(Begin::Other(first))) => return Some(Wish::Http(first)),
            Ok(Err(failure)) => return self.failed(failure),
            Err(_) => {
                counters.handshake_failed(HandshakeFailure::TimedOut);
                return None;
            }
        };
        Counters::count(if version == Version::V5 { &counters.socks5 } else { &counters.socks4 });
        match request {
            Request::Connect(target) => Some(Wish::Tunnel { version: Some(version), target, payload }),
            Request::Associate(declared) if self.shared.connector.config().udp.enabled => {
                Some(Wish::Associate(declared))
            }
            Request::Associate(_) => self.failed(Failure::Refused(socks::not_offered())),
        }
    }

    /// Counts a handshake that came to nothing. What the client is told is returned.
    fn failed(&self, failure: Failure) -> Option<Wish> {
        if let Some(reason) = failure.reason() {
            self.shared.counters.handshake_failed(reason);
            if reason == HandshakeFailure::User {
                self.shared.users(&self.terms).warn_refused(self.client);
            }
            tracing::debug!(client = %self.client.peer, reason = reason.as_str(), "a client's handshake failed");
        }
        match failure {
            Failure::Refused(refusal) => Some(Wish::Answer(refusal.answer)),
            Failure::Gone(_) => None,
        }
    }

    async fn http(self, stream: TcpStream, first: Bytes) {
        Counters::count(&self.shared.counters.http);
        crate::http::serve(stream, first, self.shared.clone(), self.client, self.terms).await;
    }

    /// Makes the tunnel and relays.
    async fn tunnel(self, mut stream: TcpStream, version: Option<Version>, target: Target, payload: Bytes) {
        // A client of a forward has had nothing to wait for, so it may be done with sending before a byte was sent.
        let may_half_close = version.is_none() || !payload.is_empty();
        // Boxed, since it takes thousands of bytes for a moment, and a task keeps for its whole life what its largest moment took. It
        // also costs less than to move them when the task is spawned.
        let made = tokio::select! {
            biased;
            made = Box::pin(self.shared.open(self.client, target, payload)) => made,
            () = gone(&stream, may_half_close) => return Counters::count(&self.shared.counters.gone_early),
        };
        match (made, version) {
            (Ok((upstream, listed)), version) => {
                let reply = version.map(|version| version.success(shared::local_address(&upstream, listed.trace())));
                if let Some(reply) = reply
                    && stream.write_all(&reply).await.is_err()
                {
                    return;
                }
                let options = RelayOptions::from(&*self.shared.connector.config());
                relay(Stream::Tcp(stream), upstream, &options, listed.traffic()).await;
            }
            (Err(error), Some(version)) => self.last_word(stream, &version.failure(error.kind())).await,
            // There are no words for it, but a clean end would read like an answer without a byte.
            (Err(_), None) => drop(stream.set_zero_linger()),
        }
    }

    async fn last_word(mut self, stream: TcpStream, answer: &[u8]) {
        self.connected.served();
        // Boxed for the same reason.
        Box::pin(last_word(stream, answer)).await;
    }
}

#[cfg(test)]
mod tests {
    use keepwarm_transport::resolve::SystemResolver;

    use super::*;
    use crate::{
        Connector,
        config::{Listen, TunnelConfig},
        server::destination::Own,
    };

    /// A task keeps for its whole life what its largest moment took, and is moved when it is spawned.
    #[tokio::test]
    async fn a_client_takes_three_kilobytes_whatever_it_may_come_to_want() {
        let connector = Connector::new(TunnelConfig::default(), Arc::new(SystemResolver::default())).unwrap();
        let shared = Arc::new(Shared::new(connector, Own::default()));
        let door = super::super::Door::open(&Listen { address: ([127, 0, 0, 1], 0).into(), kind: ListenKind::Mixed });
        let door = door.unwrap();
        let stream = TcpStream::connect(door.address()).await.unwrap();
        let client = ClientInfo { peer: door.address(), listener: 0 };
        let place = shared.places.try_pass().unwrap();
        let task = serve(stream, client, door.enter(), shared, place);
        let size = size_of_val(&task);
        println!("{size} bytes");
        assert!(size <= 3072, "{size} bytes");
    }
}
