//! A lab and a client before it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use keepwarm_https::{
    Body, Client,
    config::{AddressSource, HttpsConfig, OriginConfig, PoolConfig},
};
use keepwarm_lab::{Echo, OriginLab, OriginSpec, loopback_addresses};
use keepwarm_transport::{resolve::Fixed, tls::TlsRoots};

/// A lab with so many addresses.
pub(crate) async fn lab(addresses: usize) -> OriginLab {
    let spec = OriginSpec { addresses: loopback_addresses(addresses), ..OriginSpec::default() };
    OriginLab::start(spec).await.expect("a lab on loopback")
}

/// The origin of a lab, as a config names it.
pub(crate) fn origin(lab: &OriginLab) -> OriginConfig {
    OriginConfig {
        port: lab.port(),
        addresses: lab.addresses().into_iter().map(|ip| AddressSource::Net(ip.into())).collect(),
        ..OriginConfig::new(lab.host())
    }
}

/// A client before one origin.
pub(crate) fn client_of(lab: &OriginLab, origin: OriginConfig, pool: PoolConfig) -> Client {
    let config =
        HttpsConfig { origins: vec![origin], pool, roots: TlsRoots::only([lab.ca_der()]), ..HttpsConfig::default() };
    Client::new(config, Arc::new(Fixed(Vec::new()))).expect("a client")
}

/// A client before a lab with every default.
pub(crate) fn client(lab: &OriginLab) -> Client {
    client_of(lab, origin(lab), PoolConfig::default())
}

pub(crate) fn url(lab: &OriginLab, path: &str) -> String {
    format!("https://{}:{}{path}", lab.host(), lab.port())
}

pub(crate) fn authority(lab: &OriginLab) -> String {
    format!("{}:{}", lab.host(), lab.port())
}

pub(crate) async fn whole(answer: Response<Body>) -> Bytes {
    answer.into_body().collect(64 << 20).await.expect("the whole body")
}

pub(crate) async fn echo(answer: Response<Body>) -> Echo {
    serde_json::from_slice(&whole(answer).await).expect("an echo")
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

pub(crate) fn first(lab: &OriginLab) -> IpAddr {
    lab.addresses()[0]
}
