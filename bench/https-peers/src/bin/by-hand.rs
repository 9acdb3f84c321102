//! BoringSSL and HTTP/2 with nothing around them: what the two libraries cost that a client is built of. No pool, no retries, no
//! addresses; a handle of the connection is cloned for each request.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{Mutex, OnceLock},
};

use anyhow::{Context as _, ensure};
use boring::{
    ssl::{SslConnector, SslMethod},
    x509::{X509, store::X509StoreBuilder},
};
use bytes::Bytes;
use http::{Request, Uri};
use http2::client::SendRequest;
use keepwarm_https_driver::{Answer, Client, Mode, Task};
use tokio::{net::TcpStream, task::JoinHandle};

fn main() -> ExitCode {
    keepwarm_https_driver::main(async |task| Peer::new(task).await)
}

struct Peer {
    connector: SslConnector,
    address: SocketAddr,
    task: Task,
    url: Uri,
    /// The connection of hot requests.
    hot: OnceLock<SendRequest<Bytes>>,
    /// Connections that are only held.
    held: Mutex<Vec<SendRequest<Bytes>>>,
}

impl Peer {
    async fn new(task: &Task) -> anyhow::Result<Peer> {
        let mut roots = X509StoreBuilder::new()?;
        roots.add_cert(X509::from_pem(&std::fs::read(&task.ca).context("read the certificate")?)?)?;
        let mut connector = SslConnector::builder(SslMethod::tls())?;
        connector.set_cert_store(roots.build());
        connector.set_alpn_protos(b"\x02h2")?;
        let peer = Peer {
            connector: connector.build(),
            address: task.address,
            task: task.clone(),
            url: task.url.parse()?,
            hot: OnceLock::new(),
            held: Mutex::default(),
        };
        if task.mode == Mode::Hot {
            let (connection, _) = peer.connect(&peer.url).await?;
            ensure!(peer.hot.set(connection).is_ok(), "there is a hot connection already");
        }
        Ok(peer)
    }

    /// A new connection, and the task that serves it until its last handle is dropped.
    async fn connect(&self, url: &Uri) -> anyhow::Result<(SendRequest<Bytes>, JoinHandle<()>)> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let host = url.host().context("the URL has no host")?;
        let stream = tokio_boring::connect(self.connector.configure()?, host, stream).await;
        let stream = stream.map_err(|error| anyhow::anyhow!("{error}"))?;
        ensure!(stream.ssl().selected_alpn_protocol() == Some(b"h2"), "the server does not speak HTTP/2");
        let (sender, connection) = http2::client::Builder::new().handshake(stream).await?;
        let served = tokio::spawn(async move {
            // Whoever waits for an answer hears of a failure too.
            let _ = connection.await;
        });
        Ok((sender, served))
    }

    async fn get(sender: &SendRequest<Bytes>, url: &Uri) -> anyhow::Result<Answer> {
        let request = Request::get(url.clone()).body(())?;
        let (response, _) = sender.clone().ready().await?.send_request(request, true)?;
        let response = response.await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut octets = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            octets += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        Ok(Answer { status, octets })
    }
}

impl Client for Peer {
    async fn hot(&self) -> anyhow::Result<Answer> {
        Peer::get(self.hot.get().context("there is no hot connection")?, &self.url).await
    }

    async fn cold(&self) -> anyhow::Result<Answer> {
        let (sender, served) = self.connect(&self.url).await?;
        let answer = Peer::get(&sender, &self.url).await?;
        drop(sender);
        served.await?;
        Ok(answer)
    }

    async fn hold(&self, number: usize) -> anyhow::Result<Answer> {
        let url = if self.task.mode == Mode::Same { self.url.clone() } else { self.task.url_of(number)?.parse()? };
        let (sender, _) = self.connect(&url).await?;
        let answer = Peer::get(&sender, &url).await?;
        self.held.lock().map_err(|_| anyhow::anyhow!("a request panicked"))?.push(sender);
        Ok(answer)
    }
}
