//! Loopback peers for this crate's own tests: a certificate authority and a TLS server.
//!
//! What is deliberately not here: DNS; the lab has the grown-up peers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The deadline of things that are expected to succeed.
pub(crate) fn soon() -> Instant {
    after(Duration::from_secs(10))
}

pub(crate) fn after(time: Duration) -> Instant {
    tokio::time::Instant::now().into_std() + time
}

/// A certificate authority made for one test.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// For which years a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) struct Years(pub(crate) i32, pub(crate) i32);

impl Ca {
    pub(crate) fn new() -> Ca {
        Ca::named("test authority")
    }

    pub(crate) fn named(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Ca { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn sign(&self, params: CertificateParams, key: &KeyPair) -> rcgen::Certificate {
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// A server's settings with a fresh certificate of this authority.
    pub(crate) fn server(
        &self,
        names: &[&str],
        years: Years,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        config
    }
}

/// Accepts TLS connections in the background and hands each to `serve`.
pub(crate) async fn tls_server<F>(
    config: ServerConfig,
    serve: impl Fn(TlsStream<tokio::net::TcpStream>) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(tcp).await {
                tokio::spawn(serve(stream));
            }
        }
    });
    addr
}

/// Greets and waits for the client to leave.
pub(crate) async fn greet(mut stream: TlsStream<tokio::net::TcpStream>) {
    let _ = stream.write_all(b"!").await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}
