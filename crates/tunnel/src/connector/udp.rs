//! How datagrams for a destination leave.

use std::{net::SocketAddr, sync::Arc};

use keepwarm_transport::proxy::Target;
use tokio::time::Instant as Clock;

use super::Connector;
use crate::{
    error::{Error, ErrorKind, Side},
    meaning,
    stream::Stream,
};

/// How datagrams for a destination leave.
#[derive(Debug)]
pub(crate) enum UdpWay {
    /// From a socket of ours.
    Direct,
    /// Over a relay of an upstream proxy (RFC 1928 section 7).
    Proxy {
        /// The upstream's name: one association with it serves all its destinations.
        upstream: Arc<str>,
        /// Ends the relay when it is dropped, and ends with it.
        control: Stream,
        /// Where datagrams are sent, with the header.
        relay: SocketAddr,
    },
}

impl Connector {
    /// Whether the datagrams of two destinations leave the same way: the name of their upstream, `None` where this machine sends them.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] by a rule.
    pub(crate) fn udp_upstream(&self, target: &Target) -> Result<Option<Arc<str>>, Error> {
        let state = self.inner.state();
        let rejected =
            || Error::new(ErrorKind::Rejected, Side::Client, format!("datagrams to {target}: forbidden by a rule"));
        let route = state.routes.find(state.rules.decide(target).via).ok_or_else(rejected)?;
        let order = route.order(&state, Clock::now().into_std());
        // The first that can: HTTP proxies carry none, and of the others some say so when they are asked. One that is paused gets nothing
        // new, and is named only where there is no other, so that it is said why.
        let able = || order.iter().map(|&index| &state.upstreams[index]).filter(|upstream| upstream.carries_udp());
        let free = || able().filter(|upstream| !upstream.is_paused());
        let now = Clock::now().into_std();
        let first = free().find(|upstream| !upstream.declines_udp(now));
        let able = first.or_else(|| free().next()).or_else(|| able().next());
        let unsupported = || {
            Error::new(ErrorKind::Unsupported, Side::Local, format!("datagrams to {target}: no upstream carries them"))
        };
        let upstream = able.ok_or_else(unsupported)?;
        Ok((!upstream.is_direct()).then(|| Arc::clone(upstream.name())))
    }

    /// Opens a way for datagrams by an upstream that [`udp_upstream`](Self::udp_upstream) named.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub(crate) async fn udp_way(&self, upstream: Option<&str>) -> Result<UdpWay, Error> {
        let Some(name) = upstream else { return Ok(UdpWay::Direct) };
        let gone = || Error::new(ErrorKind::Closed, Side::Local, format!("upstream {name} is not there"));
        let state = self.inner.state();
        let upstream = state.upstreams.iter().find(|upstream| **upstream.name() == *name).ok_or_else(gone)?;
        let deadline = (Clock::now() + state.config.timeout).into_std();
        let (control, relay) = upstream.associate(deadline).await.map_err(|error| meaning::of_upstream(name, error))?;
        Ok(UdpWay::Proxy { upstream: Arc::clone(upstream.name()), control, relay })
    }
}
