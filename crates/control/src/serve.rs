//! The listener: connections, their number, their time, and what all requests share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore, watch},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    access::{Access, Token},
    events::{self, Events},
    heavy::Heavy,
    history::{self, History},
    ready::Ready,
    routes::{QUERIES_MAX, router},
    rows::ReloadRow,
    sample::Sampler,
    snapshots::{Refusal, Snapshots},
};

/// The control plane of a daemon.
pub struct Control {
    pub(crate) snapshots: Arc<dyn Snapshots>,
    pub(crate) access: Access,
    pub(crate) address: SocketAddr,
    pub(crate) sampler: Sampler,
    pub(crate) history: History,
    pub(crate) ready: Ready,
    pub(crate) heavy: Heavy,
    pub(crate) events: Events,
    /// Places of those who listen to events.
    pub(crate) streams: Arc<Semaphore>,
    /// Places of requests that take upstreams' time.
    pub(crate) queries: Arc<Semaphore>,
    /// One reload at a time,
    reloading: Mutex<()>,
    /// and at most one that waits: that reads what is written until then, and a third one would change nothing.
    reloads: Arc<Semaphore>,
    pub(crate) stop: watch::Receiver<()>,
}

/// Settings of the control plane.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// What a request must come with; none: nothing, which is for a listener on loopback alone.
    pub token: Option<Token>,
    /// How much of the past is kept. Default 1 h, at most a day; each pool takes about 40 KiB an hour.
    pub history: Duration,
}

impl Default for ControlOptions {
    fn default() -> Self {
        ControlOptions { token: None, history: Duration::from_secs(3600) }
    }
}

impl Control {
    /// The control plane of what `snapshots` shows, for a listener at `address`. It ends its streams when `stop` is sent or its sender is
    /// gone.
    pub fn new(
        snapshots: Arc<dyn Snapshots>,
        address: SocketAddr,
        options: ControlOptions,
        stop: watch::Receiver<()>,
    ) -> Arc<Control> {
        Arc::new(Control {
            snapshots,
            access: Access::new(options.token),
            address,
            sampler: Sampler::default(),
            history: History::new(options.history),
            ready: Ready::default(),
            heavy: Heavy::default(),
            events: Events::default(),
            streams: Arc::new(Semaphore::new(events::STREAMS_MAX)),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            reloading: Mutex::new(()),
            reloads: Arc::new(Semaphore::new(RELOADS_MAX)),
            stop,
        })
    }

    /// Another token, or none. Sessions that were opened with the former one end.
    pub fn set_token(&self, token: Option<Token>) {
        self.access.set_token(token);
    }

    /// Reads the config again, after a reload that is under way. At most one waits for that.
    ///
    /// # Errors
    /// When the config is refused, or another reload waits already: then nothing has changed.
    ///
    /// # Cancel safety
    /// A reload that has begun goes on.
    pub async fn reload(self: &Arc<Self>) -> Result<ReloadRow, Refusal> {
        let Ok(place) = Arc::clone(&self.reloads).try_acquire_owned() else {
            return Err(Refusal::Failed("a reload is under way already, and another one waits for it".into()));
        };
        let control = Arc::clone(self);
        let done = tokio::spawn(async move {
            let _place = place;
            let _turn = control.reloading.lock().await;
            let done = control.snapshots.reload().await;
            control.sampler.forget();
            done
        });
        done.await.unwrap_or_else(|error| Err(Refusal::Failed(format!("the reload ended by itself: {error}"))))
    }

    /// Serves on `listener` until the stop, then lets requests in progress end. How long that may take is the caller's to bound: a client
    /// may never send the rest of its request.
    ///
    /// At most 64 connections; further ones wait to be accepted. A connection that sends no request head within 10 s is closed, and one
    /// that does not take an answer for 30 s.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener and every connection.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut stop = self.stop.clone();
        let past = tokio::spawn(history::record(Arc::downgrade(&self)));
        let router = router(self);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                next = next => next,
                _ = stop.changed() => break,
            };
            while connections.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Mostly EMFILE. Accepting again at once would spin until a descriptor is free.
                    tracing::warn!(%error, "status endpoint cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(router.clone());
            let mut stop = stop.clone();
            connections.spawn(async move {
                let mut stream = TimeoutStream::new(stream);
                stream.set_write_timeout(Some(WRITE_TIMEOUT));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(Box::pin(stream)), service);
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    _ = stop.changed() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "status connection ended");
                }
                drop(permit);
            });
        }
        drop(listener);
        past.abort();
        while connections.join_next().await.is_some() {}
    }
}

const CONNECTIONS_MAX: usize = 64;
/// Reloads: one that runs and one that waits.
const RELOADS_MAX: usize = 2;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
