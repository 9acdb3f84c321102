//! A server of DNS over TLS that decrypts client hellos, before a lab that answers.
//!
//! rustls has no such server. This one decrypts the hello itself and has rustls answer the inner one twice: the first answer
//! tells what the server hello will be, the second one carries the proof of acceptance in its random bytes (RFC 9849
//! section 7.2). For that the random bytes and the key share must be the same both times.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use keepwarm_lab::Ca;
use rustls::{
    Error, NamedGroup, ServerConfig, ServerConnection,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
        SupportedKxGroup,
        aws_lc_rs::{self, cipher_suite::TLS13_AES_128_GCM_SHA256, kx_group::X25519},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

use super::hello::{Hello, Key, u16_at};

/// What the server saw of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The name in plain sight.
    pub outer: Option<String>,
    pub offer: Offer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// No encrypted client hello.
    None,
    /// Something that looks like one, and is not for our key.
    Opaque,
    /// This name, encrypted for our key.
    Name(String),
}

/// What becomes of encrypted client hellos.
#[derive(Clone)]
pub enum Answer {
    /// They are accepted, with a certificate of this authority for these names.
    Accept(Arc<Ca>, &'static str),
    /// The server at this address answers, which knows nothing of them.
    Ignore,
}

/// The server. It ends when it is dropped.
pub struct EchServer {
    pub address: SocketAddr,
    key: Arc<Key>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl EchServer {
    /// A server with this public name before `lab`: a listener over TCP where it accepts, over TLS where it ignores.
    pub async fn start(public_name: &str, answer: Answer, lab: SocketAddr) -> EchServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().unwrap();
        let (key, seen) = (Arc::new(Key::new(public_name)), Arc::<Mutex<Vec<Seen>>>::default());
        let (the_key, all_seen) = (key.clone(), seen.clone());
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (key, seen, answer) = (the_key.clone(), all_seen.clone(), answer.clone());
                tokio::spawn(async move { serve(tcp, &key, &seen, &answer, lab).await });
            }
        });
        EchServer { address, key, seen, task: task.abort_handle() }
    }

    /// What the server publishes.
    pub fn list(&self) -> Vec<u8> {
        self.key.list()
    }

    /// What it saw, in the order in which connections were made.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for EchServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut tcp: TcpStream,
    key: &Key,
    seen: &Mutex<Vec<Seen>>,
    answer: &Answer,
    lab: SocketAddr,
) -> io::Result<()> {
    let mut record = vec![0; 5];
    tcp.read_exact(&mut record).await?;
    record.resize(5 + usize::from(u16_at(&record, 3)), 0);
    tcp.read_exact(&mut record[5..]).await?;
    let hello = Hello::read(&record[9..]);
    let inner = hello.decrypt(key);
    let offer = match &inner {
        Some(inner) => Offer::Name(inner.server_name().unwrap()),
        None if hello.has_ech() => Offer::Opaque,
        None => Offer::None,
    };
    seen.lock().unwrap().push(Seen { outer: hello.server_name(), offer });
    let mut lab = TcpStream::connect(lab).await?;
    match (answer, inner) {
        (Answer::Ignore, _) => {
            lab.write_all(&record).await?;
            tokio::io::copy_bidirectional(&mut tcp, &mut lab).await?;
        }
        (Answer::Accept(ca, name), inner) => {
            let backend = Backend::new(ca, name);
            let record = match inner {
                Some(inner) => {
                    let record = as_record(&inner);
                    backend.prove(&record, &inner);
                    record
                }
                None => record,
            };
            let (read, write) = tcp.into_split();
            let stream = tokio::io::join(io::Cursor::new(record).chain(read), write);
            let mut tls = TlsAcceptor::from(backend.config.clone()).accept(stream).await?;
            tokio::io::copy_bidirectional(&mut tls, &mut lab).await?;
        }
    }
    Ok(())
}

/// The message with its handshake header, in a record in plain.
fn as_record(hello: &Hello) -> Vec<u8> {
    let length = u16::try_from(hello.body.len()).unwrap();
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(&hello.body);
    record
}

/// A TLS server whose server hello is the same each time, but for the proof.
struct Backend {
    config: Arc<ServerConfig>,
    random: &'static Random,
}

impl Backend {
    fn new(ca: &Ca, name: &str) -> Backend {
        // rustls wants these for ever; a test makes a few.
        let random: &'static Random = Box::leak(Box::default());
        let group: &'static SameShare = Box::leak(Box::default());
        let provider = CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![group],
            secure_random: random,
            ..aws_lc_rs::default_provider()
        };
        let (chain, private) = ca.issue(&[name]).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .unwrap();
        Backend { config: Arc::new(config), random }
    }

    /// Has the next server hello prove that `inner` was read.
    fn prove(&self, record: &[u8], inner: &Hello) {
        let mut connection = ServerConnection::new(self.config.clone()).unwrap();
        connection.read_tls(&mut &*record).unwrap();
        connection.process_new_packets().unwrap();
        let mut out = Vec::new();
        connection.write_tls(&mut out).unwrap();
        let mut server_hello = out[5..5 + usize::from(u16_at(&out, 3))].to_vec();
        assert_eq!(server_hello[0], 2, "the server answers with a server hello");
        server_hello[30..38].fill(0);
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        let transcript = suite.common.hash_provider.hash(&[&record[5..], &server_hello].concat());
        let label = b"tls13 ech accept confirmation";
        let mut info = vec![0, 8, u8::try_from(label.len()).unwrap()];
        info.extend(label);
        info.push(32);
        info.extend(transcript.as_ref());
        let mut random = self.random.0.lock().unwrap();
        let secret = suite.hkdf_provider.extract_from_secret(None, inner.random());
        secret.expand_slice(&[&info], &mut random[24..]).unwrap();
    }
}

/// Random bytes that are always the same.
#[derive(Debug, Default)]
struct Random(Mutex<[u8; 32]>);

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        let random = self.0.lock().unwrap();
        buffer.iter_mut().zip(random.iter().cycle()).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

/// X25519 with one key share for all.
#[derive(Debug, Default)]
struct SameShare(Mutex<Option<(Vec<u8>, Vec<u8>)>>);

impl SupportedKxGroup for SameShare {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        X25519.start()
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let mut kept = self.0.lock().unwrap();
        if kept.is_none() {
            let completed = X25519.start_and_complete(peer)?;
            *kept = Some((completed.pub_key, completed.secret.secret_bytes().to_vec()));
        }
        let (pub_key, secret) = kept.as_ref().expect("it was just made");
        let secret = SharedSecret::from(&secret[..]);
        Ok(CompletedKeyExchange { group: NamedGroup::X25519, pub_key: pub_key.clone(), secret })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
