//! How a connection to an upstream proxy is made ready: directly or through another one, TLS, greeting, authentication.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::{Greeted, Hop, Proxy, ProxyDialer, ProxyStream},
    resolve::Resolve,
    tcp::TcpOptions,
    tls::{RootsError, TlsRoots},
};

/// Makes connections to one proxy.
pub(crate) struct Dialer {
    proxy: ProxyDialer,
    through: Option<ProxyDialer>,
    resolver: Arc<dyn Resolve>,
}

impl Dialer {
    pub(crate) fn new(
        proxy: &Arc<Proxy>,
        through: Option<&Arc<Proxy>>,
        resolver: Arc<dyn Resolve>,
        roots: &TlsRoots,
    ) -> Result<Dialer, RootsError> {
        let dialer = |proxy: &Arc<Proxy>| ProxyDialer::new(Arc::clone(proxy), roots);
        Ok(Dialer { proxy: dialer(proxy)?, through: through.map(dialer).transpose()?, resolver })
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.proxy()
    }

    /// A connection that waits for a destination, and the time of a round trip to the first proxy.
    pub(super) async fn greeted(&self, deadline: Instant) -> Result<(Greeted<ProxyStream>, Duration), Error> {
        let (resolver, options) = (&*self.resolver, TcpOptions::default());
        let (stream, round_trip) = match &self.through {
            None => {
                let (stream, trace) = self.proxy.open(resolver, &options, deadline).await?;
                (stream, trace.connect)
            }
            Some(first) => {
                let opened = self.proxy.open_through(first, resolver, &options, deadline).await;
                let (stream, trace) = opened.map_err(|error| {
                    let Hop::First = error.hop else { return error.error };
                    // Whichever of the two failed, this way to the second is of no use now.
                    let text = format!("the proxy before it: {}", error.error);
                    match error.error.kind() {
                        ErrorKind::Proxy | ErrorKind::ProxyAuth | ErrorKind::TimedOut(Phase::Proxy) => error.error,
                        _ => Error::new(ErrorKind::Proxy, Phase::Proxy, format!("connect to {}", self.proxy()), text)
                            .with_source(error.error),
                    }
                })?;
                (stream, trace.first.connect)
            }
        };
        Ok((self.proxy.proxy().greet(stream, deadline).await?, round_trip))
    }
}
