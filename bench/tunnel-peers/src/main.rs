//! fast-socks5 as a server, as its own example `server` is: `fast-socks5 LISTEN [user] [upstream ADDRESS]`.
//!
//! With `upstream` each tunnel goes through another SOCKS5 proxy, by the client of the same crate: what a program does that
//! chains without spares. User and password are `bench` everywhere. One thread, which is what it has a core for.
#![forbid(unsafe_code)]

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use fast_socks5::{
    ReplyError, Socks5Command,
    client::{Config, Socks5Stream},
    server::{DnsResolveHelper as _, Socks5ServerProtocol, run_tcp_proxy, transfer},
};
use tokio::net::{TcpListener, TcpStream};

/// What a client's tunnel needs.
#[derive(Clone, Copy)]
struct Way {
    user: bool,
    upstream: Option<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen: SocketAddr = arguments.next().context("LISTEN is missing")?.parse()?;
    let mut way = Way { user: false, upstream: None };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "user" => way.user = true,
            "upstream" => way.upstream = Some(arguments.next().context("ADDRESS is missing")?.parse()?),
            other => bail!("unknown argument {other}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listen, way))
}

async fn serve(listen: SocketAddr, way: Way) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = one(client, way).await {
                eprintln!("{error:#}");
            }
        });
    }
}

async fn one(client: TcpStream, way: Way) -> anyhow::Result<()> {
    let greeted = if way.user {
        let is_ours = |name: String, password: String| name == "bench" && password == "bench";
        Socks5ServerProtocol::accept_password_auth(client, is_ours).await?.0
    } else {
        Socks5ServerProtocol::accept_no_auth(client).await?
    };
    let (client, command, target) = greeted.read_command().await?;
    if command != Socks5Command::TCPConnect {
        client.reply_error(&ReplyError::CommandNotSupported).await?;
        return Ok(());
    }
    match way.upstream {
        None => {
            let (client, _, target) = (client, command, target).resolve_dns().await?;
            run_tcp_proxy(client, &target, Duration::from_secs(10), false).await?;
        }
        Some(upstream) => {
            let (host, port) = target.into_string_and_port();
            let [name, password] = ["bench"; 2].map(str::to_owned);
            let there =
                Socks5Stream::connect_with_password(upstream, host, port, name, password, Config::default()).await;
            match there {
                Ok(there) => {
                    transfer(client.reply_success(([127, 0, 0, 1], 0).into()).await?, there.get_socket()).await
                }
                Err(error) => {
                    client.reply_error(&ReplyError::GeneralFailure).await?;
                    return Err(error.into());
                }
            }
        }
    }
    Ok(())
}
