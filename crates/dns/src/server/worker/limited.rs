//! What single clients may not exceed, and how their way shapes their answers.

use std::time::Instant;

use super::Worker;
use crate::{
    config::ListenTransport,
    message::{self, ClientView, Hop, Query},
    server::{
        flight::{Client, Origin},
        limit::{Limiter, Verdict},
    },
    upstream::count,
};

impl Worker {
    /// How a client on this transport is connected; `None` where its answers do not depend on it.
    pub(super) fn hop(&self, transport: ListenTransport) -> Option<Hop> {
        let encrypted = transport.is_encrypted();
        let idle_timeout = match transport {
            ListenTransport::Plain | ListenTransport::Udp => return None,
            ListenTransport::Tcp | ListenTransport::Tls => Some(self.era.borrow().config.clients.tcp_idle_timeout),
            ListenTransport::Https | ListenTransport::H3 | ListenTransport::Quic => None,
        };
        Some(Hop { encrypted, idle_timeout })
    }

    /// What the rate limit says of a query, if it is over; the daemon's own are not counted.
    pub(super) fn over_rate(&self, limiter: &Limiter, origin: &Origin, now: Instant) -> Option<bool> {
        let (rate, client) = limiter.rate.as_ref().zip(origin.client)?;
        match rate.take(client, now) {
            Verdict::Within => None,
            Verdict::Over { slip } => Some(slip),
        }
    }

    /// Answers a query beyond the rate limit, if at all. Over UDP, whose addresses can be forged, at most with as many bytes
    /// as came in.
    pub(super) fn turn_away(&self, answer: &mut Vec<u8>, bytes: &[u8], client: Client, slip: bool) {
        count(&self.shared.counters.rate_limited);
        let Ok(parsed) = Query::parse(bytes) else { return client.dismiss() };
        let payload_size = self.era.borrow().config.clients.udp_payload_size;
        let view = ClientView::new(&parsed, u16::MAX, payload_size);
        match client {
            Client::Udp { .. } if !slip => return client.dismiss(),
            Client::Udp { .. } => message::build_truncated(bytes, &view, answer),
            _ => message::build_error(bytes, &view, message::REFUSED, Some(TOO_FAST), answer),
        }
        client.deliver(answer, None);
    }

    /// Takes a place among the client's queries in flight, where these are limited, for as long as it waits.
    ///
    /// # Errors
    /// The client as it was, and what it is told, when it has too many.
    pub(super) fn charge(
        &self,
        limiter: &Limiter,
        client: Client,
        origin: &Origin,
    ) -> Result<Client, (Client, &'static str)> {
        let Some((counts, address)) = limiter.in_flight.as_ref().zip(origin.client) else { return Ok(client) };
        match counts.charge(address) {
            Some(charge) => Ok(Client::Limited(Box::new((client, charge)))),
            None => {
                count(&self.shared.counters.client_limited);
                Err((client, TOO_MANY))
            }
        }
    }
}

const TOO_FAST: &str = "keepwarm: too many queries a second from this client";
const TOO_MANY: &str = "keepwarm: too many queries in flight of this client";
