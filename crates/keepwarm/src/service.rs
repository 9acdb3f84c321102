//! Life under a service manager: what it is told, and what it hands over.
//!
//! [`Service`] speaks to systemd, or to whatever set `NOTIFY_SOCKET`: ready, reloading, stopping, a line of status, and the watchdog, which
//! is fed only while the data path answers. Without that variable nothing happens. [`ready`] judges readiness for probes over HTTP,
//! [`Privileges`] gives up root where no service manager did. What is deliberately not here: the reload itself, and the pages of the status
//! endpoint.

mod notify;
mod privileges;
pub mod ready;
mod sockets;
mod summary;
#[cfg(unix)]
pub mod user;
mod watchdog;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use notify::Notifier;
pub use privileges::Privileges;
pub use sockets::take_listener;
pub use summary::summary;
pub use watchdog::{Alive, Watchdog};

/// Says how the daemon is in one line, such as [`summary`].
pub type StatusLine = Arc<dyn Fn() -> String + Send + Sync>;

/// What the service manager is told. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    notifier: Notifier,
    watchdog: Option<Watchdog>,
    /// The last reload was refused: said in the status until one is not.
    refused: AtomicBool,
    /// Somebody else wrote the status line: it is to be said again.
    restate: AtomicBool,
    stopping: AtomicBool,
}

/// Status and watchdog while the daemon runs; they end when it is dropped.
#[derive(Debug)]
pub struct Reports {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Service {
    /// The service manager that started this process, by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` (sd_notify(3),
    /// sd_watchdog_enabled(3)); nobody where they are not set.
    pub fn from_environment() -> Service {
        let variable = |name: &str| std::env::var_os(name);
        let notifier = Notifier::new(variable("NOTIFY_SOCKET").as_deref());
        let text = |name| variable(name)?.into_string().ok();
        let watchdog = Watchdog::new(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref());
        Service::new(notifier, watchdog)
    }

    fn new(notifier: Notifier, watchdog: Option<Watchdog>) -> Service {
        let watchdog = watchdog.filter(|_| notifier.is_listened_to());
        let shared = Shared {
            notifier,
            watchdog,
            refused: AtomicBool::new(false),
            restate: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        };
        Service { shared: Arc::new(shared) }
    }

    /// Every listener is bound and everything runs.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it unsaid.
    pub async fn ready(&self) {
        self.tell("READY=1").await;
    }

    /// Keeps the status line up to date, which `status` says, and feeds the watchdog, which asks `alive` each time.
    pub fn report(&self, status: StatusLine, alive: Alive) -> Reports {
        let mut tasks = Vec::new();
        if self.shared.notifier.is_listened_to() {
            tasks.push(tokio::spawn(self.clone().keep_status(status)));
        }
        if let Some(watchdog) = self.shared.watchdog {
            tasks.push(tokio::spawn(self.clone().feed(watchdog, alive)));
        }
        Reports { tasks }
    }

    /// A reload has begun; [`reloaded`](Self::reloaded) must follow.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it unsaid.
    pub async fn reloading(&self) {
        // The time tells which reload is meant (Type=notify-reload, systemd.service(5)).
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", notify::monotonic_micros())).await;
    }

    /// A reload is over; `refused`: why nothing was changed, where that is so. Either way the daemon runs on, and is ready.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it unsaid.
    pub async fn reloaded(&self, refused: Option<&str>) {
        self.shared.refused.store(refused.is_some(), Ordering::Relaxed);
        self.shared.restate.store(true, Ordering::Relaxed);
        match refused {
            None => self.tell("READY=1").await,
            Some(why) => self.tell(&format!("READY=1\nSTATUS=reload refused: {}", notify::line(why))).await,
        }
    }

    /// The daemon was told to stop. The watchdog is fed to the end, but what drains is not asked any more.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it unsaid.
    pub async fn stopping(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.tell("STOPPING=1\nSTATUS=stopping: what is in flight may end").await;
    }

    async fn tell(&self, state: &str) {
        if let Err(error) = self.shared.notifier.send(state).await {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Tells the status when it has changed.
    async fn keep_status(self, status: StatusLine) {
        let mut told = String::new();
        while !self.is_stopping() {
            let mut line = status();
            if self.shared.refused.load(Ordering::Relaxed) {
                line += "; the last reload was refused, see the log";
            }
            if self.shared.restate.swap(false, Ordering::Relaxed) {
                told.clear();
            }
            // What could not be told is told the next time.
            if line != told && self.shared.notifier.send(&format!("STATUS={line}")).await.is_ok() {
                told = line;
            }
            tokio::time::sleep(STATUS_EVERY).await;
        }
    }

    /// Feeds the watchdog for as long as the data path answers. That this runs at all shows that the daemon's runtime does.
    async fn feed(self, watchdog: Watchdog, alive: Alive) {
        let mut was_alive = true;
        loop {
            let next = Instant::now() + watchdog.every();
            let is_alive = self.is_stopping() || alive(watchdog.patience()).await;
            if is_alive {
                // The service manager's queue may be full; the next one is not far.
                if let Err(error) = self.shared.notifier.send("WATCHDOG=1").await {
                    tracing::debug!(%error, "the watchdog was not fed");
                }
            } else if was_alive {
                tracing::error!(within = ?watchdog.patience(), "a dns worker does not answer: the watchdog is not fed");
            }
            was_alive = is_alive;
            tokio::time::sleep_until(next).await;
        }
    }
}

/// How often it is looked whether the status has changed.
const STATUS_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
