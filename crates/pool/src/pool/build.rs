//! Setting up a pool, and the seam through which it starts tasks.
//!
//! Not here: what the tasks do.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::handle::Handle;
use super::{Hosts, Inner, Pool, global, reaper};
use crate::clock::{self, Clock};
use crate::connector::Connector;
use crate::limits::{Limits, LimitsError, Options};
use crate::phases::PhaseTimes;
use crate::stats::Stats;
use crate::sync::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Mutex, RwLock};

/// Starts the pool's background tasks: dials, validations, the reaper.
pub trait Spawn: Send + Sync + 'static {
    /// Runs the task to its end, on any thread. Must not run it before returning.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send + 'static>>);
}

impl Spawn for tokio::runtime::Handle {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send + 'static>>) {
        drop(Self::spawn(self, task));
    }
}

type Wall = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// Sets up a [`Pool`].
pub struct Builder<C: Connector> {
    connector: C,
    limits: Limits,
    options: Options,
    spawner: Option<Box<dyn Spawn>>,
    wall: Wall,
}

impl<C: Connector> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Builder");
        f.field("limits", &self.limits).field("options", &self.options).finish_non_exhaustive()
    }
}

impl<C: Connector> Builder<C> {
    pub(super) fn new(connector: C) -> Self {
        let wall = Box::new(clock::wall);
        Self { connector, limits: Limits::default(), options: Options::default(), spawner: None, wall }
    }

    /// Sets how much the pool may hold. Default [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how the pool behaves over time. Default [`Options::default`].
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets what runs the background tasks. Default the tokio runtime that `build` is called in.
    #[must_use]
    pub fn spawner(mut self, spawner: impl Spawn) -> Self {
        self.spawner = Some(Box::new(spawner));
        self
    }

    /// Sets the wall clock that shows when the machine slept. Default the system's.
    #[must_use]
    pub fn wall_clock(mut self, wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.wall = Box::new(wall);
        self
    }

    /// Builds the pool.
    ///
    /// # Panics
    /// When the limits contradict each other (see [`try_build`](Self::try_build)), and outside a tokio runtime when no spawner was
    /// given.
    #[must_use]
    pub fn build(self) -> Pool<C> {
        match self.try_build() {
            Ok(pool) => pool,
            Err(error) => panic!("limits: {error}"),
        }
    }

    /// Builds the pool.
    ///
    /// # Errors
    /// When the limits contradict each other.
    ///
    /// # Panics
    /// Outside a tokio runtime when no spawner was given.
    pub fn try_build(self) -> Result<Pool<C>, LimitsError> {
        let limits = self.limits;
        limits.check()?;
        let spawner = self.spawner.unwrap_or_else(|| Box::new(tokio::runtime::Handle::current()));
        let inner = Arc::new(Inner {
            connector: self.connector,
            options: RwLock::new(Arc::new(self.options)),
            clock: Clock::new(),
            wall: self.wall,
            spawner,
            hosts: RwLock::new(Hosts {
                by_key: HashMap::new(),
                retiring: Vec::new(),
                limits,
                paused: false,
                closed: false,
            }),
            global: global::Global::new(&limits),
            timers: reaper::Timers::new(),
            idle: AtomicIsize::new(0),
            max_idle: AtomicIsize::new(isize::try_from(limits.max_idle).unwrap_or(isize::MAX)),
            ids: AtomicU64::new(1),
            subscribed: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            lifecycle: Mutex::new(None),
            events: Mutex::new(None),
            forgotten: Mutex::new(Stats::default()),
            phases: Mutex::new(PhaseTimes::default()),
            tasks: AtomicUsize::new(0),
            progress: Notify::new(),
            ended: AtomicBool::new(false),
        });
        inner.spawn(Box::pin(reaper::run(Arc::clone(&inner))));
        Ok(Pool { handle: Arc::new(Handle { inner }) })
    }
}
