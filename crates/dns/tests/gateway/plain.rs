//! A plain resolver that publishes service bindings, and passes everything else on to a lab.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_dns::message;
use tokio::{
    net::UdpSocket,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

/// The resolver. It ends when it is dropped.
pub struct Plain {
    pub address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

/// Record data by name and type.
type Records = HashMap<(Vec<u8>, u16), Vec<u8>>;

struct State {
    records: Mutex<Records>,
    lab: Option<SocketAddr>,
    /// Questions about service bindings, whether they were answered or not.
    asked: AtomicUsize,
    /// Everything else.
    passed: AtomicUsize,
    /// Answers about service bindings that may leave.
    gate: Semaphore,
}

impl Plain {
    /// Listens on `ip`, and asks `lab` what it does not publish itself; without one it says that there is nothing.
    pub async fn start(ip: &str, lab: Option<SocketAddr>) -> Plain {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = Arc::new(UdpSocket::bind((ip, 0)).await.expect("loopback has ports"));
        let address = socket.local_addr().unwrap();
        let state = Arc::new(State {
            records: Mutex::default(),
            lab,
            asked: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let task = tokio::spawn(serve(socket, state.clone())).abort_handle();
        Plain { address, state, task }
    }

    /// Publishes this record data in place of what was there.
    pub fn publish(&self, name: &str, rtype: u16, data: Vec<u8>) {
        let name = message::name_from_text(name).unwrap();
        self.state.records.lock().unwrap().insert((name, rtype), data);
    }

    /// Has answers about service bindings wait until [`release`](Self::release).
    pub fn hold(&self) {
        self.state.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release(&self) {
        self.state.gate.add_permits(1000);
    }

    /// Questions about service bindings so far.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Other questions so far.
    pub fn passed(&self) -> usize {
        self.state.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: Arc<UdpSocket>, state: Arc<State>) {
    let mut answers = JoinSet::new();
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let (query, socket, state) = (buffer[..length].to_vec(), socket.clone(), state.clone());
        answers.spawn(async move {
            if let Some(answer) = state.answer(&query).await {
                let _ = socket.send_to(&answer, peer).await;
            }
        });
    }
}

impl State {
    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 1;
        let rtype = u16::from_be_bytes([query[end], query[end + 1]]);
        let binding = rtype == message::TYPE_SVCB || rtype == message::TYPE_HTTPS;
        let counter = if binding { &self.asked } else { &self.passed };
        counter.fetch_add(1, Ordering::SeqCst);
        if binding {
            self.gate.acquire().await.ok()?.forget();
        }
        let record = self.records.lock().unwrap().get(&(query[12..end].to_vec(), rtype)).cloned();
        match (record, self.lab) {
            (None, Some(lab)) if !binding => {
                let socket = UdpSocket::bind("127.0.0.1:0").await.ok()?;
                socket.send_to(query, lab).await.ok()?;
                let mut buffer = vec![0; 4096];
                let receive = tokio::time::timeout(Duration::from_secs(6), socket.recv(&mut buffer));
                let length = receive.await.ok()?.ok()?;
                Some(buffer[..length].to_vec())
            }
            (record, _) => Some(answer(&query[..end + 4], record.as_deref())),
        }
    }
}

fn answer(question: &[u8], record: Option<&[u8]>) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    let rtype = [question[question.len() - 4], question[question.len() - 3]];
    if let Some(data) = record {
        answer.extend([0xc0, 12, rtype[0], rtype[1], 0, 1, 0, 0, 1, 44]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}

/// The data of an SVCB or HTTPS record.
pub fn binding(priority: u16, target: &str, params: &[(u16, &[u8])]) -> Vec<u8> {
    let mut data = priority.to_be_bytes().to_vec();
    data.extend(message::name_from_text(target).unwrap());
    for (key, value) in params {
        data.extend(key.to_be_bytes());
        data.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        data.extend(*value);
    }
    data
}

/// Waits until `condition` holds, 10 s at most.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "10 s passed without: {what}");
}
