//! wreq with its own hello, as its users use it: one client, kept.

use std::process::ExitCode;

use anyhow::Context as _;
use keepwarm_https_driver::{Answer, Client, Mode, Task};
use wreq::{
    Uri,
    dns::{Addrs, Name, Resolve, Resolving},
    tls::trust::CertStore,
};

fn main() -> ExitCode {
    keepwarm_https_driver::main(async |task| Peer::new(task))
}

struct Peer {
    client: wreq::Client,
    task: Task,
    url: Uri,
}

impl Peer {
    fn new(task: &Task) -> anyhow::Result<Peer> {
        let ca = std::fs::read(&task.ca).context("read the certificate")?;
        let mut client = wreq::Client::builder()
            .no_proxy()
            .tls_cert_store(CertStore::from_pem_certs([&ca])?)
            .dns_resolver(Everywhere(task.address));
        if task.mode == Mode::Cold {
            // Nothing is kept, so each request has a connection of its own.
            client = client.pool_max_idle_per_host(0);
        }
        Ok(Peer { client: client.build()?, task: task.clone(), url: task.url.parse()? })
    }

    async fn get(&self, url: Uri) -> anyhow::Result<Answer> {
        let response = self.client.get(url).send().await?;
        let status = response.status().as_u16();
        Ok(Answer { status, octets: response.bytes().await?.len() })
    }
}

impl Client for Peer {
    async fn hot(&self) -> anyhow::Result<Answer> {
        self.get(self.url.clone()).await
    }

    async fn cold(&self) -> anyhow::Result<Answer> {
        self.get(self.url.clone()).await
    }

    async fn hold(&self, number: usize) -> anyhow::Result<Answer> {
        self.get(self.task.url_of(number)?.parse()?).await
    }
}

/// Every name has this address.
struct Everywhere(std::net::SocketAddr);

impl Resolve for Everywhere {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(addresses)))
    }
}
