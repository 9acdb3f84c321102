//! Who changes what the made-up daemon does while a browser looks: an endpoint of its own, for the test alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use keepwarm_control::{Control, ControlOptions, Token, rows::BreakerState};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::fake::Fake;

/// The made-up daemon and who leads it; both end with the test's runtime.
pub struct Director {
    pub control: SocketAddr,
    pub address: SocketAddr,
}

/// A control plane that serves.
struct Served {
    control: Arc<Control>,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

struct Stage {
    fake: Arc<Fake>,
    address: SocketAddr,
    served: Mutex<Option<Served>>,
}

impl Director {
    /// Starts both, with an hour behind them.
    pub async fn start() -> Director {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = listener.local_addr().unwrap();
        tokio::time::pause();
        let fake = Fake::new();
        let stage = Arc::new(Stage { fake: Arc::clone(&fake), address: control, served: Mutex::default() });
        stage.serve(listener).await;
        for _ in 0..3590 {
            fake.tick();
            // Dials end in between.
            for _ in 0..20 {
                tokio::time::advance(Duration::from_millis(50)).await;
            }
        }
        tokio::time::resume();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                fake.tick();
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/calls", get(calls)).route("/{what}/{how}", post(lead)).with_state(stage);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Director { control, address }
    }
}

impl Stage {
    async fn serve(&self, listener: TcpListener) {
        let (stop, stopped) = watch::channel(());
        let control = Control::new(Arc::clone(&self.fake) as _, self.address, ControlOptions::default(), stopped);
        let task = tokio::spawn(Arc::clone(&control).serve(listener));
        *self.served.lock().await = Some(Served { control, stop, task });
    }
}

/// What the daemon was asked to do so far.
async fn calls(State(stage): State<Arc<Stage>>) -> Json<Vec<String>> {
    Json(stage.fake.script.lock().calls.clone())
}

async fn lead(State(stage): State<Arc<Stage>>, Path((what, how)): Path<(String, String)>) -> &'static str {
    match (&*what, &*how) {
        ("breaker", "open") => stage.fake.script.lock().breaker = BreakerState::Open,
        ("breaker", _) => stage.fake.script.lock().breaker = BreakerState::Closed,
        ("markup", how) => stage.fake.script.lock().markup = how == "on",
        ("rush", how) => stage.fake.script.lock().rush = how == "on",
        ("config", how) => {
            stage.fake.script.lock().last_error = (how == "bad").then(|| "line 12: unknown key `tiemout`".into());
        }
        ("queries", how) => stage.fake.script.lock().queries += how.parse::<u64>().unwrap(),
        ("frozen", "on") => stage.fake.script.lock().frozen = Some(Instant::now()),
        ("frozen", _) => stage.fake.script.lock().frozen = None,
        ("token", how) => {
            let token = (how == "on").then(|| Token::new("a-token-for-the-test").unwrap());
            let served = stage.served.lock().await;
            served.as_ref().unwrap().control.set_token(token);
        }
        ("daemon", "stop") => {
            let Served { stop, task, .. } = stage.served.lock().await.take().unwrap();
            drop(stop);
            // What is in progress may end; a browser that keeps its connection has it closed.
            let _ = tokio::time::timeout(Duration::from_secs(2), task).await;
        }
        ("daemon", "start") => {
            stage.fake.script.lock().started = Instant::now();
            let listener = TcpListener::bind(stage.address).await.unwrap();
            stage.serve(listener).await;
        }
        _ => panic!("{what} {how} is not known"),
    }
    "done"
}
