//! Just enough SOCKS5 (RFC 1928, RFC 1929) to load proxies with, and to be one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::USER;

/// Connects to a proxy and asks it for a tunnel. It is ready when this returns.
pub(super) async fn open(proxy: SocketAddr, has_user: bool, to: SocketAddrV4) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let method = if has_user { PASSWORD } else { NONE };
    stream.write_all(&[VERSION, 1, method]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    expect(chosen == [VERSION, method], "the proxy chose another method")?;
    if has_user {
        stream.write_all(&login()).await?;
        let mut verdict = [0; 2];
        stream.read_exact(&mut verdict).await?;
        expect(verdict[1] == 0, "the proxy refused user and password")?;
    }
    let mut request = [VERSION, CONNECT, 0, IPV4, 0, 0, 0, 0, 0, 0];
    request[4..8].copy_from_slice(&to.ip().octets());
    request[8..].copy_from_slice(&to.port().to_be_bytes());
    stream.write_all(&request).await?;
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    expect(head[..2] == [VERSION, 0], "the proxy did not connect")?;
    // The fifth byte belongs to the address, or says how long it is. The port follows.
    let rest = match head[3] {
        IPV4 => 3 + 2,
        IPV6 => 15 + 2,
        NAME => usize::from(head[4]) + 2,
        _ => return Err(io::Error::other("the proxy's address is of no known type")),
    };
    stream.read_exact(&mut [0; 257][..rest]).await?;
    Ok(stream)
}

/// Takes a client's request. It has to be answered by [`grant`].
pub(super) async fn accept(client: &mut TcpStream, has_user: bool) -> io::Result<SocketAddrV4> {
    let mut head = [0; 2];
    client.read_exact(&mut head).await?;
    let mut methods = [0; 255];
    let methods = &mut methods[..usize::from(head[1])];
    client.read_exact(methods).await?;
    let method = if has_user { PASSWORD } else { NONE };
    expect(head[0] == VERSION && methods.contains(&method), "the client offers no method")?;
    client.write_all(&[VERSION, method]).await?;
    if has_user {
        let mut given = login();
        client.read_exact(&mut given).await?;
        expect(given == login(), "user or password is wrong")?;
        client.write_all(&[1, 0]).await?;
    }
    let mut request = [0; 10];
    client.read_exact(&mut request).await?;
    expect(request[..4] == [VERSION, CONNECT, 0, IPV4], "only connections to IPv4 addresses are made here")?;
    let ip: [u8; 4] = [request[4], request[5], request[6], request[7]];
    Ok(SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_be_bytes([request[8], request[9]])))
}

/// Tells the client that it is connected.
pub(super) async fn grant(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(&[VERSION, 0, 0, IPV4, 0, 0, 0, 0, 0, 0]).await
}

fn login() -> Vec<u8> {
    let len = u8::try_from(USER.len()).unwrap_or(u8::MAX);
    [&[1, len], USER.as_bytes(), &[len], USER.as_bytes()].concat()
}

fn expect(is_so: bool, or_else: &'static str) -> io::Result<()> {
    if is_so { Ok(()) } else { Err(io::Error::other(or_else)) }
}

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const NONE: u8 = 0;
const PASSWORD: u8 = 2;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn both_sides_agree_with_and_without_a_user() {
        for has_user in [false, true] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let proxy = listener.local_addr().unwrap();
            let wanted = SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 4567);
            let client = tokio::spawn(open(proxy, has_user, wanted));
            let mut stream = listener.accept().await.unwrap().0;
            assert_eq!(accept(&mut stream, has_user).await.unwrap(), wanted);
            grant(&mut stream).await.unwrap();
            assert!(client.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn a_refusal_is_an_error() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let client = tokio::spawn(open(proxy, false, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)));
        let mut stream = listener.accept().await.unwrap().0;
        accept(&mut stream, false).await.unwrap();
        stream.write_all(&[VERSION, 5, 0, IPV4, 0, 0, 0, 0, 0, 0]).await.unwrap();
        assert!(client.await.unwrap().unwrap_err().to_string().contains("did not connect"));
    }
}
