//! A lab, a client before it, and a gateway before that.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keepwarm_https::{
    Client, Gateway, GatewayWatch,
    config::{AddressSource, GatewayConfig, HttpVersions, HttpsConfig, OriginConfig, PoolConfig},
};
use keepwarm_lab::{Echo, OriginLab, OriginSpec, loopback_addresses};
use keepwarm_transport::{
    proxy::{Proxy, ProxyProtocol},
    resolve::Fixed,
    tls::TlsRoots,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

pub(crate) const BOTH: [HttpVersions; 2] = [HttpVersions::Both, HttpVersions::Http1];

/// A gateway that runs.
pub(crate) struct Rig {
    pub(crate) lab: OriginLab,
    pub(crate) gateway: SocketAddr,
    pub(crate) watch: GatewayWatch,
    stop: oneshot::Sender<()>,
    running: JoinHandle<usize>,
}

/// What a test changes.
pub(crate) struct Settings {
    pub(crate) http: HttpVersions,
    pub(crate) addresses: usize,
    pub(crate) gateway: GatewayConfig,
    pub(crate) timeout: Duration,
    /// How long the gateway waits for answers under way when it stops.
    pub(crate) patience: Duration,
    /// Whether the origin is at port 443, as those who ask for `http://HOST` expect.
    pub(crate) is_at_443: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            http: HttpVersions::Both,
            addresses: 1,
            gateway: GatewayConfig { listen: vec!["127.0.0.1:0".parse().expect("valid")], ..GatewayConfig::default() },
            timeout: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            is_at_443: false,
        }
    }
}

pub(crate) async fn rig() -> Rig {
    start(Settings::default()).await
}

pub(crate) async fn start(settings: Settings) -> Rig {
    let spec = OriginSpec { addresses: loopback_addresses(settings.addresses), ..OriginSpec::default() };
    let lab = OriginLab::start(spec).await.expect("a lab on loopback");
    let client = client(&lab, &settings).await;
    let gateway = Gateway::bind(&settings.gateway, client).expect("a gateway on loopback");
    let (address, watch) = (gateway.addresses()[0], gateway.watch());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(gateway.run(stopped, settings.patience));
    Rig { lab, gateway: address, watch, stop, running }
}

async fn client(lab: &OriginLab, settings: &Settings) -> Client {
    let origin = OriginConfig {
        port: if settings.is_at_443 { 443 } else { lab.port() },
        proxy: if settings.is_at_443 { Some(way_to(lab).await) } else { None },
        http: settings.http,
        timeout: settings.timeout,
        addresses: lab.addresses().into_iter().map(|ip| AddressSource::Net(ip.into())).collect(),
        ..OriginConfig::new(lab.host())
    };
    let config = HttpsConfig {
        origins: vec![origin],
        pool: PoolConfig::default(),
        roots: TlsRoots::only([lab.ca_der()]),
        ..HttpsConfig::default()
    };
    Client::new(config, Arc::new(Fixed(Vec::new()))).expect("a client")
}

/// A proxy that leads to the lab's port whatever port is asked for.
async fn way_to(lab: &OriginLab) -> Arc<Proxy> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let origin = SocketAddr::new(lab.addresses()[0], lab.port());
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(inner.read_u8().await?);
                }
                inner.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut outer = TcpStream::connect(origin).await?;
                tokio::io::copy_bidirectional(&mut inner, &mut outer).await
            });
        }
    });
    Arc::new(Proxy { protocol: ProxyProtocol::Http, host: "127.0.0.1".to_owned(), port, credential: None })
}

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Whole {
    pub(crate) fn echo(&self) -> Echo {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible"))
    }

    /// Of an answer of the gateway's own.
    pub(crate) fn error(&self) -> (u16, &str) {
        let text = std::str::from_utf8(&self.body).expect("text");
        assert_eq!(text.lines().count(), 1, "{text:?}");
        (self.status, self.header("keepwarm-error"))
    }
}

impl Rig {
    /// The path of a URL of the origin at the gateway.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("/https/{}:{}{path}", self.lab.host(), self.lab.port())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{}", self.gateway, self.path(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Whole {
        self.ask(self.request("GET", &self.path(path), &[])).await
    }

    pub(crate) fn request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.gateway.to_string());
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Empty::new()).expect("a valid request")
    }

    /// Asks over a connection of its own.
    pub(crate) async fn ask<B>(&self, request: Request<B>) -> Whole
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        whole(self.send(request).await).await
    }

    pub(crate) async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.connect().await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.gateway).await.expect("the gateway listens")
    }

    /// Writes bytes and reads until the gateway closes.
    pub(crate) async fn raw(&self, bytes: &str) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        answer
    }

    /// Tells the gateway to stop. The lab goes on.
    pub(crate) fn stop(self) -> (OriginLab, JoinHandle<usize>) {
        self.stop.send(()).expect("it runs");
        (self.lab, self.running)
    }
}

pub(crate) async fn whole(answer: Response<Incoming>) -> Whole {
    let (head, body) = answer.into_parts();
    let collected = body.collect().await.expect("the whole body");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Whole { status: head.status.as_u16(), headers: head.headers, body: collected.to_bytes(), trailers }
}

/// Waits until something holds; fails after ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}
