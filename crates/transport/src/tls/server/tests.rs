use std::{fs, net::Ipv4Addr};

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    testing::{Ca, soon},
    tls::{TlsClient, TlsRoots},
};

/// A folder with `chain.pem` and `key.pem`.
struct Files {
    folder: TempDir,
    ca: Ca,
}

impl Files {
    fn new(name: &str) -> Files {
        let files = Files { folder: TempDir::new().unwrap(), ca: Ca::new() };
        files.issue(name, 2099);
        files
    }

    fn issue(&self, name: &str, until: i32) {
        let (chain, key) = self.pair(name, until);
        fs::write(self.chain(), chain).unwrap();
        fs::write(self.key(), key).unwrap();
    }

    fn pair(&self, name: &str, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (self.ca.sign(params, &key).pem() + &self.ca.pem(), key.serialize_pem())
    }

    fn chain(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn load(&self) -> Result<TlsServer, CertificateError> {
        TlsServer::load(self.chain(), self.key())
    }
}

/// Accepts one connection after the other; whether a client of these names gets in.
async fn shakes_hands(
    tls: &TlsServer,
    files: &Files,
    name: &str,
    offered: &[&[u8]],
) -> Result<super::super::TlsInfo, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(tls.config(&[b"dot"]));
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await
    };
    let client = TlsClient::new(&TlsRoots::only([files.ca.der()]), offered).unwrap();
    let connect = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        client.connect(tcp, name, soon()).await.map_err(|error| error.to_string())
    };
    let (_accepted, connected) = tokio::join!(accept, connect);
    Ok(connected?.1)
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on_and_a_broken_one_never() {
    let files = Files::new("old.example");
    let tls = files.load().unwrap();
    assert_eq!(tls.reload(), Reload::Unchanged);
    assert!(shakes_hands(&tls, &files, "old.example", &[b"dot"]).await.is_ok());

    // As a renewal writes it: the chain first, and the key is not there yet.
    let (chain, key) = files.pair("new.example", 2098);
    fs::write(files.chain(), chain).unwrap();
    let Reload::Failed(error) = tls.reload() else { panic!("half of a pair") };
    assert!(matches!(error.fault(), CertificateFault::Mismatch(_)), "{error}");
    assert_eq!(tls.reload(), Reload::Unchanged, "said once");
    assert!(shakes_hands(&tls, &files, "old.example", &[b"dot"]).await.is_ok());

    fs::write(files.key(), key).unwrap();
    let Reload::Loaded(info) = tls.reload() else { panic!("a whole pair") };
    assert_eq!(
        (info.names(), info.not_after_date()),
        (vec!["new.example".into(), "127.0.0.1".into()], "2098-01-01".into())
    );
    assert_eq!(tls.certificate(), info);
    assert!(shakes_hands(&tls, &files, "new.example", &[b"dot"]).await.is_ok());
    let refused = shakes_hands(&tls, &files, "old.example", &[b"dot"]).await.unwrap_err();
    assert!(refused.contains("it is for new.example"), "{refused}");

    fs::remove_file(files.key()).unwrap();
    assert!(matches!(tls.reload(), Reload::Failed(_)));
    assert!(shakes_hands(&tls, &files, "new.example", &[b"dot"]).await.is_ok());
}

#[tokio::test]
async fn a_client_that_wants_another_protocol_is_refused_and_one_that_names_none_is_not() {
    let files = Files::new("dns.example");
    let tls = files.load().unwrap();
    let info = shakes_hands(&tls, &files, "dns.example", &[b"dot"]).await.unwrap();
    assert_eq!(info.alpn.as_deref(), Some(&b"dot"[..]));
    assert_eq!(shakes_hands(&tls, &files, "127.0.0.1", &[]).await.unwrap().alpn, None);
    let refused = shakes_hands(&tls, &files, "dns.example", &[b"http/1.1"]).await.unwrap_err();
    assert!(refused.contains("no common application protocol"), "{refused}");
}

#[test]
fn what_is_shown_is_told() {
    let files = Files::new("dns.example");
    let info = files.load().unwrap().certificate();
    assert_eq!((&*info.subject, &*info.issuer), ("CN=dns.example", "CN=test authority"));
    assert_eq!(info.alternative_names, ["dns.example", "127.0.0.1"]);
    assert_eq!((info.chain_length, &*info.not_after_date()), (2, "2099-01-01"));
    assert!(info.loaded > info.not_before && info.is_valid_at(info.loaded));
}

#[test]
fn an_expired_certificate_is_shown_all_the_same() {
    let files = Files::new("dns.example");
    files.issue("dns.example", 2021);
    let info = files.load().unwrap().certificate();
    assert!(!info.is_valid_at(info.loaded));
}

#[test]
fn each_fault_names_its_file() {
    let files = Files::new("dns.example");
    let (chain, key) = (fs::read(files.chain()).unwrap(), fs::read(files.key()).unwrap());
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (change, content, said) in [
        (files.chain(), &b"hello"[..], "chain.pem has no certificate"),
        (files.chain(), &key, "chain.pem has no certificate"),
        (files.chain(), garbage.as_bytes(), "chain.pem cannot be used: malformed certificate"),
        (files.chain(), files.ca.pem().as_bytes(), "key.pem is not that of the first certificate in"),
        (files.key(), b"", "key.pem has no private key"),
        (files.key(), encrypted.as_bytes(), "key.pem is encrypted"),
        (files.key(), KeyPair::generate().unwrap().serialize_pem().as_bytes(), "is not that of the first certificate"),
        (files.key(), b"-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----\n", "key.pem is not valid pem"),
    ] {
        fs::write(&change, content).unwrap();
        let error = files.load().unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(
            error.path(),
            change.as_path().with_file_name(if said.contains("chain.pem ") { "chain.pem" } else { "key.pem" })
        );
        fs::write(files.chain(), &chain).unwrap();
        fs::write(files.key(), &key).unwrap();
    }
    fs::remove_file(files.chain()).unwrap();
    let error = files.load().unwrap_err();
    assert_eq!(error.path(), files.chain());
    assert!(error.to_string().contains("no such file"), "{error}");
    // Both in one file will do.
    fs::write(files.chain(), [key, chain].concat()).unwrap();
    assert!(TlsServer::load(files.chain(), files.chain()).is_ok());
}
