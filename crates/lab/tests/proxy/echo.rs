//! Destinations without a proxy.

use keepwarm_lab::{EchoLab, EchoMode, Tagged};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use crate::client::{ends, exchange, is_reset, never, read, read_end, soon, tcp, until};

#[tokio::test]
async fn each_mode_does_what_it_says() {
    let echo = EchoLab::start(1).await.unwrap();
    let address = echo.addr(0);
    for mode in [EchoMode::Echo, EchoMode::Banner] {
        echo.set_mode(0, mode);
        let (mut stream, mut tagged) = (tcp(address).await, Tagged::random(address));
        if mode == EchoMode::Banner {
            assert_eq!(read(&mut stream, 16).await.unwrap(), tagged.banner());
        }
        exchange(&mut stream, &mut tagged, 100_000).await;
        stream.shutdown().await.unwrap();
        ends(&mut stream).await.unwrap();
    }

    echo.set_mode(0, EchoMode::Digest);
    let (mut stream, mut tagged) = (tcp(address).await, Tagged::random(address));
    stream.write_all(&tagged.request(100_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_end(&mut stream).await.0, tagged.digest());
    assert_ne!(tagged.digest(), Tagged::random(address).digest());

    echo.set_mode(0, EchoMode::Sink);
    let (mut stream, mut tagged) = (tcp(address).await, Tagged::random(address));
    stream.write_all(&tagged.request(0)).await.unwrap();
    stream.write_all(&vec![0; 1_000_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_end(&mut stream).await.0, 1_000_000_u64.to_be_bytes());

    echo.set_mode(0, EchoMode::Source);
    let (mut stream, mut tagged) = (tcp(address).await, Tagged::random(address));
    stream.write_all(&tagged.source(1_000_001)).await.unwrap();
    let (bytes, end) = read_end(&mut stream).await;
    end.unwrap();
    assert_eq!(bytes.len(), 1_000_001);
    tagged.clone().check_source(&bytes).unwrap();
    Tagged::random(address).check_source(&bytes).unwrap_err();

    echo.set_mode(0, EchoMode::Reset);
    let (mut stream, mut tagged) = (tcp(address).await, Tagged::random(address));
    stream.write_all(&tagged.request(0)).await.unwrap();
    assert!(is_reset(&ends(&mut stream).await));

    echo.set_mode(0, EchoMode::Silent);
    let (mut stream, mut tagged) = (tcp(address).await, Tagged::random(address));
    stream.write_all(&tagged.request(10)).await.unwrap();
    never(read(&mut stream, 1)).await;
    assert_eq!(echo.counters(0).connections.now, 1);
    assert_eq!((echo.foreign(), echo.counters(0).connections.total, echo.counters(0).connections.max), (0, 7, 1));
}

#[tokio::test]
async fn bytes_of_others_are_noticed_on_both_sides() {
    let echo = EchoLab::start(2).await.unwrap();
    let (mut one, mut two) = (Tagged::random(echo.addr(0)), Tagged::random(echo.addr(0)));
    let (mut first, mut second) = (tcp(echo.addr(0)).await, tcp(echo.addr(0)).await);
    first.write_all(&one.request(100)).await.unwrap();
    second.write_all(&two.request(100)).await.unwrap();
    // The answers change hands.
    assert!(one.check(&read(&mut second, 100).await.unwrap()).is_err());
    assert!(two.check(&read(&mut first, 100).await.unwrap()).is_err());
    assert_eq!(echo.foreign(), 0);
    // The requests do, and their senders go away.
    first.write_all(&two.request(1000)).await.unwrap();
    read(&mut first, 1000).await.unwrap();
    let foreign = echo.foreign();
    assert!((950..=1000).contains(&foreign), "{foreign} of 1000; one in 256 is right by chance");
    // To another destination, with everything else right.
    let mut astray = Tagged::random(echo.addr(0));
    let mut third = tcp(echo.addr(1)).await;
    third.write_all(&astray.request(1000)).await.unwrap();
    assert!(astray.check(&read(&mut third, 1000).await.unwrap()).is_err());
    assert!(echo.counters(1).foreign > 950);
}

#[tokio::test]
async fn datagrams_are_tagged_too() {
    let echo = EchoLab::start(1).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(echo.addr(0)).await.unwrap();
    let tagged = Tagged::random(echo.addr(0));
    let mut buffer = [0; 2000];
    for (number, length) in [(0, 0), (1, 1), (u64::MAX, 1000)] {
        socket.send(&tagged.datagram(number, length)).await.unwrap();
        let count = soon(socket.recv(&mut buffer)).await.unwrap();
        assert_eq!(tagged.check_datagram(&buffer[..count], length), Ok(number));
        assert!(tagged.check_datagram(&buffer[..count], length + 1).is_err());
    }
    let mut foreign = tagged.datagram(5, 100);
    foreign[50] ^= 1;
    socket.send(&foreign).await.unwrap();
    let count = soon(socket.recv(&mut buffer)).await.unwrap();
    assert_eq!(tagged.check_datagram(&buffer[..count], 100).unwrap_err().offset, 50);
    assert_eq!((echo.foreign(), echo.counters(0).datagrams), (1, 4));
    socket.send(b"short").await.unwrap();
    until(|| echo.foreign() == 6).await;
}

#[tokio::test]
async fn ipv6_destinations_work_where_there_is_ipv6() {
    let Ok(echo) = EchoLab::start_on("::1".parse().unwrap(), 1).await else {
        eprintln!("skipped: this machine has no ::1");
        return;
    };
    exchange(&mut tcp(echo.addr(0)).await, &mut Tagged::random(echo.addr(0)), 1000).await;
}
