//! Resolves the host names of upstreams through plain resolvers given by address, since an encrypted one cannot resolve
//! its own name. Small on purpose: it runs a few times an hour.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind, Phase},
    resolve::{LookingUp, Resolve, Resolved, Resolving, literal},
    tcp::{self, TcpOptions},
    udp::{self, UdpOptions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant as Clock, timeout_at},
};

use crate::message;

/// Asks the `bootstrap` resolvers of the config, one after the other, for A and AAAA.
#[derive(Debug, Clone)]
pub struct BootstrapResolver {
    servers: Arc<[SocketAddr]>,
}

impl BootstrapResolver {
    /// A resolver that asks these servers in this order.
    pub fn new(servers: &[SocketAddr]) -> BootstrapResolver {
        BootstrapResolver { servers: servers.into() }
    }

    /// Asks the servers one after the other for records of one type; the first answer that says whether there are any
    /// (NOERROR or NXDOMAIN) is it.
    ///
    /// # Errors
    /// When none of them says.
    pub(crate) async fn query(&self, name: &str, qtype: u16) -> Result<Vec<u8>, TransportError> {
        let mut last = None;
        for &server in self.servers.iter() {
            match exchange(server, name, qtype).await {
                Ok(answer) => match message::verify_answer(&answer).map(|info| info.rcode) {
                    Ok(message::NOERROR | message::NXDOMAIN) => return Ok(answer),
                    Ok(rcode) => {
                        let why = format!("bootstrap resolver {server} answered {}", message::rcode_name(rcode));
                        last = Some(unresolved(name, &why));
                    }
                    Err(error) => last = Some(unresolved(name, &format!("bootstrap resolver {server}: {error}"))),
                },
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| unresolved(name, "there is no bootstrap resolver")))
    }

    async fn find(&self, host: &str) -> Result<Resolved, TransportError> {
        if let Some(ip) = literal(host) {
            return Ok(Resolved { addresses: vec![ip], ttl: None });
        }
        let mut last = None;
        for &server in self.servers.iter() {
            let (v4, v6) =
                tokio::join!(exchange(server, host, message::TYPE_A), exchange(server, host, message::TYPE_AAAA));
            let mut answers = Vec::new();
            for found in [v6, v4] {
                match found {
                    Ok(answer) => answers.push(answer),
                    Err(error) => last = Some(error),
                }
            }
            if let Some(found) = resolved(&answers, ADDRESSES_MAX) {
                return Ok(found);
            }
        }
        Err(last.unwrap_or_else(|| unresolved(host, "the bootstrap resolvers know no address of it")))
    }
}

impl Resolve for BootstrapResolver {
    fn resolve(&self, host: &str) -> Resolving {
        let resolver = self.clone();
        let host = host.to_owned();
        Box::pin(async move { resolver.find(&host).await.map(|found| found.addresses) })
    }

    fn lookup(&self, host: &str) -> LookingUp {
        let resolver = self.clone();
        let host = host.to_owned();
        Box::pin(async move { resolver.find(&host).await })
    }
}

/// One question to a plain resolver: two datagrams, then TCP where the answer was truncated.
pub(crate) async fn exchange(server: SocketAddr, name: &str, qtype: u16) -> Result<Vec<u8>, TransportError> {
    let Some(mut query) = message::build_query(name, qtype) else {
        return Err(unresolved(name, "not a valid name"));
    };
    for _ in 0..TRIES {
        query[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
        // A socket a try: a fresh random port each time (RFC 5452 section 9.2).
        let socket = udp::connect(server, &UdpOptions::default()).await?;
        let send = async {
            socket.send(&query).await?;
            let mut buffer = [0; 4096];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if is_answer(&query, &buffer[..length]) {
                    return std::io::Result::Ok(buffer[..length].to_vec());
                }
            }
        };
        match timeout_at(Clock::now() + TRY, send).await {
            Ok(Ok(answer)) if message::is_truncated(&answer) => return ask_tcp(server, &query, name).await,
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(unresolved(name, &format!("no answer from resolver {server}")))
}

/// One question to a plain resolver over TCP.
pub(crate) async fn exchange_tcp(server: SocketAddr, name: &str, qtype: u16) -> Result<Vec<u8>, TransportError> {
    let Some(mut query) = message::build_query(name, qtype) else {
        return Err(unresolved(name, "not a valid name"));
    };
    query[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
    ask_tcp(server, &query, name).await
}

async fn ask_tcp(server: SocketAddr, query: &[u8], name: &str) -> Result<Vec<u8>, TransportError> {
    let deadline = Clock::now() + TRY * 2;
    let (mut stream, _) = tcp::connect(&[server], &TcpOptions::default(), deadline.into_std()).await?;
    let exchange = async {
        let length = u16::try_from(query.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match timeout_at(deadline, exchange).await {
        Ok(Ok(answer)) if is_answer(query, &answer) => Ok(answer),
        _ => Err(unresolved(name, &format!("no answer from resolver {server} over tcp"))),
    }
}

fn is_answer(query: &[u8], answer: &[u8]) -> bool {
    query.get(..2) == answer.get(..2) && message::answer_matches(query, answer, false, false)
}

fn unresolved(host: &str, why: &str) -> TransportError {
    TransportError::new(ErrorKind::Resolve, Phase::Resolve, format!("resolve {host}"), why)
}

/// The addresses in an answer.
pub(crate) fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    message::addresses(answer).map(|(address, _)| address).take(ADDRESSES_MAX).collect()
}

/// The addresses in answers about the same name, up to `max` of each answer, and for how long all of them hold; `None` when there is
/// no address.
pub(crate) fn resolved(answers: &[Vec<u8>], max: usize) -> Option<Resolved> {
    let found = |answer| message::addresses(answer).map(|(address, _)| address).take(max);
    let addresses: Vec<IpAddr> = answers.iter().map(Vec::as_slice).flat_map(found).collect();
    // An answer without an address says nothing of those in the other one.
    let with_address = answers.iter().filter(|answer| message::addresses(answer).next().is_some());
    let ttl = with_address.filter_map(|answer| message::addresses_ttl(answer)).min();
    (!addresses.is_empty()).then_some(Resolved { addresses, ttl })
}

/// Datagrams a server and record type.
const TRIES: usize = 2;

/// Patience for one datagram.
const TRY: Duration = Duration::from_millis(1500);

/// More addresses of one name are not kept.
const ADDRESSES_MAX: usize = 16;
