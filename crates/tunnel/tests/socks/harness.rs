//! A server in this process, its destinations, and clients that send what they are told to.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::Target,
    resolve::{Resolve, Resolving},
};
use keepwarm_tunnel::{
    Connector, Server, ServerStats, ServerWatch,
    config::{Listen, ListenKind, TunnelConfig, User},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// A server that runs until it is told to stop, or dropped.
pub(crate) struct Running {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) watch: ServerWatch,
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

/// Names of the tests. One that is not there does not exist; `waits.example` is found once it is told.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    addresses: Arc<Mutex<HashMap<String, IpAddr>>>,
    /// Look-ups of `waits.example` under way, and whether they may end.
    pub(crate) waiting: Arc<watch::Sender<usize>>,
    pub(crate) may_end: Arc<watch::Sender<bool>>,
}

/// A listener on a loopback address of the system's choice.
pub(crate) fn listen(kind: ListenKind) -> Listen {
    Listen { address: "127.0.0.1:0".parse().unwrap(), kind }
}

/// One listener for everything, no users, no limit that a test would notice.
pub(crate) fn open() -> TunnelConfig {
    TunnelConfig { listen: vec![listen(ListenKind::Mixed)], ..TunnelConfig::default() }
}

/// The same for the user `ann` with the password `one`, and one whose name and password are as long as can be.
pub(crate) fn guarded() -> TunnelConfig {
    let user = |name: &str, password: &str| User { name: name.to_owned(), password: password.to_owned() };
    TunnelConfig { users: vec![user("ann", "one"), user(&"n".repeat(255), &"p".repeat(255))], ..open() }
}

impl Running {
    pub(crate) fn start(config: TunnelConfig) -> Running {
        Running::start_with(config, &Names::default(), Duration::from_secs(30))
    }

    pub(crate) fn start_with(config: TunnelConfig, names: &Names, patience: Duration) -> Running {
        let connector = Connector::new(config, Arc::new(names.clone())).unwrap();
        Running::of_with(Server::bind(connector).unwrap(), patience)
    }

    pub(crate) fn of(server: Server) -> Running {
        Running::of_with(server, Duration::from_secs(30))
    }

    fn of_with(server: Server, patience: Duration) -> Running {
        let (addresses, watch) = (server.addresses().to_vec(), server.watch());
        let (stop, told) = oneshot::channel();
        let task = tokio::spawn(server.run(told, patience));
        Running { addresses, watch, stop, task }
    }

    pub(crate) async fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addresses[0]).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Waits until the figures are as wanted.
    pub(crate) async fn until(&self, what: impl Fn(ServerStats) -> bool) {
        let wanted = async {
            while !what(self.watch.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wanted).await;
        assert!(waited.is_ok(), "{:?}", self.watch.stats());
    }

    pub(crate) fn tell(self) -> JoinHandle<usize> {
        self.stop.send(()).unwrap();
        self.task
    }

    /// Stops; returns how many clients were cut off.
    pub(crate) async fn stop(self) -> usize {
        self.tell().await.unwrap()
    }
}

impl Default for Names {
    fn default() -> Self {
        Names {
            addresses: Arc::default(),
            waiting: Arc::new(watch::Sender::new(0)),
            may_end: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Names {
    pub(crate) fn with(name: &str, ip: IpAddr) -> Names {
        let names = Names::default();
        names.addresses.lock().unwrap().insert(name.to_owned(), ip);
        names
    }

    /// Waits until as many look-ups of `waits.example` are under way.
    pub(crate) async fn until_waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting.wait_for(|now| *now == count)).await;
        assert!(waited.is_ok(), "{} look-ups wait, not {count}", *self.waiting.borrow());
    }
}

impl Resolve for Names {
    fn resolve(&self, host: &str) -> Resolving {
        let (host, names) = (host.to_owned(), self.clone());
        Box::pin(async move {
            if host == "waits.example" {
                let _one = One::new(names.waiting.clone());
                names.may_end.subscribe().wait_for(|may| *may).await.unwrap();
            }
            let ip = names.addresses.lock().unwrap().get(&host).copied();
            ip.map(|ip| vec![ip]).ok_or_else(|| {
                Error::new(ErrorKind::Resolve, Phase::Resolve, format!("resolve {host}"), "there is no such name")
            })
        })
    }
}

struct One(Arc<watch::Sender<usize>>);

impl One {
    fn new(count: Arc<watch::Sender<usize>>) -> One {
        count.send_modify(|count| *count += 1);
        One(count)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A destination that sends back what it gets, and ends when its client has ended.
pub(crate) async fn echo(ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// A destination whose connections the test takes itself.
pub(crate) async fn destination() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port that nobody listens on.
pub(crate) async fn nobody() -> SocketAddr {
    destination().await.1
}

pub(crate) fn target(address: SocketAddr) -> Target {
    address.into()
}

/// SOCKS5's request to connect.
pub(crate) fn connect(address: SocketAddr) -> Vec<u8> {
    let mut request = vec![5, 1, 0];
    match address.ip() {
        IpAddr::V4(ip) => {
            request.push(1);
            request.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(4);
            request.extend(ip.octets());
        }
    }
    request.extend(address.port().to_be_bytes());
    request
}

/// The same by name.
pub(crate) fn connect_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[5, 1, 0, 3, length], name.as_bytes(), &port.to_be_bytes()].concat()
}

/// The greeting of a client without a password.
pub(crate) const GREETING: &[u8] = &[5, 1, 0];

/// The reply of SOCKS5 with this code and no address.
pub(crate) fn reply(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// Reads exactly this.
pub(crate) async fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    assert_eq!(String::from_utf8_lossy(&take(stream, wanted.len()).await), String::from_utf8_lossy(wanted));
}

pub(crate) async fn take(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Reads to the end, which is a clean one.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// Reads up to what is not a clean end.
pub(crate) async fn broken(stream: &mut TcpStream) -> io::Error {
    within(stream.read_to_end(&mut Vec::new())).await.expect_err("the connection was closed cleanly")
}

/// Greets and connects; the stream then is one to the destination. Returns our end as the server tells it.
pub(crate) async fn through(running: &Running, request: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = running.client().await;
    stream.write_all(GREETING).await.unwrap();
    expect(&mut stream, &[5, 0]).await;
    stream.write_all(request).await.unwrap();
    let head = take(&mut stream, 4).await;
    assert_eq!(head[..3], [5, 0, 0]);
    let bound = take(&mut stream, if head[3] == 1 { 6 } else { 18 }).await;
    (stream, bound)
}

/// The same to a destination whose connections the test takes itself: the client, our end as the server tells it, and the
/// destination's connection with the address that it sees.
pub(crate) async fn pair(
    running: &Running,
    destination: &TcpListener,
) -> ((TcpStream, Vec<u8>), (TcpStream, SocketAddr)) {
    let request = connect(destination.local_addr().unwrap());
    let both = async { tokio::join!(through(running, &request), async { destination.accept().await.unwrap() }) };
    within(both).await
}

/// What takes longer than this does not come.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes in time")
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}
