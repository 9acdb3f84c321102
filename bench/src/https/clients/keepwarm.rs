//! keepwarm's client, as one process of the comparison.

use std::{net::IpAddr, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use http::{Request, Response};
use keepwarm_https::{
    Body, Client, RequestBody, RequestOptions,
    config::{AddressSource, HttpsConfig, OriginConfig, PoolConfig},
    profile::Profile,
};
use keepwarm_https_driver::{Answer, Mode, Task};
use keepwarm_transport::{resolve::SystemResolver, tls::TlsRoots};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Which keepwarm, and what it is to do.
#[derive(Args)]
pub(crate) struct KeepwarmArgs {
    /// The profile that its connections have.
    #[arg(long)]
    profile: String,
    #[command(flatten)]
    task: Task,
}

/// Does the task.
pub(in crate::https) fn run(args: &KeepwarmArgs) -> anyhow::Result<()> {
    keepwarm_https_driver::run(&args.task, async |task| Peer::new(task, &args.profile))
}

struct Peer {
    client: Client,
    task: Task,
}

impl Peer {
    /// Must be called in a runtime.
    fn new(task: &Task, profile: &str) -> anyhow::Result<Peer> {
        let profile = Profile::named(profile)?;
        // Nothing is looked up: every origin has its address.
        let client = Client::new(config(task, &profile)?, Arc::new(SystemResolver::default()))?;
        Ok(Peer { client, task: task.clone() })
    }

    /// Over a new connection.
    async fn fresh(&self) -> anyhow::Result<Answer> {
        let request = Request::get(&self.task.url).body(RequestBody::empty())?;
        let options = RequestOptions { fresh: true, ..RequestOptions::default() };
        self.answer(self.client.request_with(request, options).await?).await
    }

    async fn answer(&self, response: Response<Body>) -> anyhow::Result<Answer> {
        let status = response.status().as_u16();
        let body = response.into_body().collect(2 * self.task.octets).await?;
        Ok(Answer { status, octets: body.len() })
    }
}

impl keepwarm_https_driver::Client for Peer {
    async fn hot(&self) -> anyhow::Result<Answer> {
        self.answer(self.client.get(&self.task.url).await?).await
    }

    async fn cold(&self) -> anyhow::Result<Answer> {
        self.fresh().await
    }

    async fn hold(&self, number: usize) -> anyhow::Result<Answer> {
        match self.task.mode {
            Mode::Same => self.fresh().await,
            _ => self.answer(self.client.get(&self.task.url_of(number)?).await?).await,
        }
    }
}

/// Default settings, but for what the task makes different: where the origin is, and how many connections are kept.
fn config(task: &Task, profile: &Arc<Profile>) -> anyhow::Result<HttpsConfig> {
    let root = CertificateDer::from_pem_file(&task.ca).context("read the certificate")?;
    let many = task.requests + 100;
    let (origins, pool) = match task.mode {
        Mode::Hot | Mode::Cold => (vec![origin(task, &task.url, profile)?], PoolConfig::default()),
        Mode::Idle => {
            let urls = (0..many).map(|number| task.url_of(number));
            let origins = urls.map(|url| origin(task, &url?, profile)).collect::<anyhow::Result<_>>()?;
            (origins, PoolConfig { max_total: many, max_idle: many, ..PoolConfig::default() })
        }
        Mode::Same => {
            let pool = PoolConfig { max_total: many, max_idle: many, max_per_host: many, ..PoolConfig::default() };
            (vec![origin(task, &task.url, profile)?], pool)
        }
    };
    Ok(HttpsConfig { origins, pool, roots: TlsRoots::only([root]), ..HttpsConfig::default() })
}

fn origin(task: &Task, url: &str, profile: &Arc<Profile>) -> anyhow::Result<OriginConfig> {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split([':', '/']).next());
    let host = host.with_context(|| format!("{url} has no host"))?;
    let ip: IpAddr = task.address.ip();
    Ok(OriginConfig {
        port: task.address.port(),
        profile: Arc::clone(profile),
        addresses: vec![AddressSource::Net(ip.into())],
        ..OriginConfig::new(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_have_an_origin_each_and_room_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, keepwarm_lab::Ca::new().pem()).unwrap();
        let task = |mode| Task {
            url: "https://hot.lab.test:8443/1k".to_owned(),
            address: ([127, 0, 0, 1], 8443).into(),
            ca: ca.clone(),
            mode,
            concurrency: 1,
            requests: 50,
            octets: 1024,
        };
        let made = |mode| config(&task(mode), &Profile::plain()).unwrap();
        let idle = made(Mode::Idle);
        assert_eq!((idle.origins.len(), idle.pool.max_total), (150, 150));
        assert_eq!((idle.origins[7].host.as_str(), idle.origins[7].port), ("c7.lab.test", 8443));
        let hot = made(Mode::Hot);
        assert_eq!((hot.origins.len(), &hot.pool), (1, &PoolConfig::default()));
        assert_eq!(made(Mode::Same).pool.max_per_host, 150);
    }
}
