//! One client: its handshake, its tunnel, and how it ends.

use std::sync::Arc;

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
pub(super) async fn serve(stream: TcpStream, client: ClientInfo, door: Inside, shared: Arc<Shared>, _place: Pass) {
    listen::prepare(&stream);
    let connected = Connected::new(&shared.counters);
    let session = Session { client, shared: &shared, terms: Arc::clone(door.terms()), connected };
    match &door.listen.kind {
        ListenKind::Forward(target) => {
            Counters::count(&shared.counters.forwards);
            session.tunnel(stream, None, target.clone(), Bytes::new()).await;
        }
        ListenKind::Http => session.http(stream, Bytes::new()).await,
        ListenKind::Socks => session.begin(stream, false).await,
        ListenKind::Mixed => session.begin(stream, true).await,
    }
}

struct Session<'a> {
    client: ClientInfo,
    shared: &'a Arc<Shared>,
    terms: Arc<Terms>,
    connected: Connected<'a>,
}

impl Session<'_> {
    /// The handshake, within its time and until the server stops.
    async fn begin(self, mut stream: TcpStream, may_be_http: bool) {
        let mut closing = self.shared.closing.subscribe();
        let limit = self.shared.connector.config().handshake_timeout;
        let begun = tokio::select! {
            biased;
            begun = timeout(limit, handshake(&mut stream, self.shared, &self.terms, may_be_http)) => begun,
            () = closed(&mut closing) => return,
        };
        match begun {
            Ok(Ok(Begin::Socks { version, request, payload })) => self.socks(stream, version, request, payload).await,
            Ok(Ok(Begin::Other(first))) => self.http(stream, first).await,
            Ok(Err(failure)) => self.failed(stream, failure).await,
            Err(_) => self.shared.counters.handshake_failed(HandshakeFailure::TimedOut),
        }
    }

    async fn failed(self, stream: TcpStream, failure: Failure) {
        if let Some(reason) = failure.reason() {
            self.shared.counters.handshake_failed(reason);
            if reason == HandshakeFailure::User {
                self.shared.users(&self.terms).warn_refused(self.client);
            }
            tracing::debug!(client = %self.client.peer, reason = reason.as_str(), "a client's handshake failed");
        }
        if let Failure::Refused(refusal) = failure {
            self.last_word(stream, &refusal.answer).await;
        }
    }

    /// HTTP and datagrams are boxed: a tunnel by SOCKS or a forward need not have room for what they keep.
    async fn http(self, stream: TcpStream, first: Bytes) {
        Counters::count(&self.shared.counters.http);
        Box::pin(crate::http::serve(stream, first, self.shared.clone(), self.client, self.terms)).await;
    }

    async fn socks(self, stream: TcpStream, version: Version, request: Request, payload: Bytes) {
        let counters = &self.shared.counters;
        Counters::count(if version == Version::V5 { &counters.socks5 } else { &counters.socks4 });
        match request {
            Request::Connect(target) => self.tunnel(stream, Some(version), target, payload).await,
            Request::Associate(declared) if self.shared.connector.config().udp.enabled => {
                Box::pin(udp::associate(stream, declared, self.shared)).await;
            }
            Request::Associate(_) => self.failed(stream, Failure::Refused(socks::not_offered())).await,
        }
    }

    /// Makes the tunnel and relays. `version`: how the client is told, `None` for a forward, which is not.
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
        last_word(stream, answer).await;
    }
}
