use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::udp::{UdpOptions, connect, listen};

async fn listener(ipv6: bool) -> UdpSocket {
    let ip = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    listen(SocketAddr::new(ip, 0), false, Some(1 << 20)).unwrap()
}

fn queue(count: usize, peer: Option<SocketAddr>) -> SendQueue {
    let mut queue = SendQueue::default();
    for number in 0..count {
        queue.push(format!("message {number}").as_bytes(), peer);
    }
    queue
}

async fn send_all(batch: &mut DatagramBatch, socket: &UdpSocket, queue: &SendQueue) {
    let mut sent = 0;
    while sent < queue.len() {
        socket.writable().await.unwrap();
        sent += batch.send(socket, queue, sent).unwrap();
    }
}

/// Receives until there are `count`.
async fn receive_all(
    batch: &mut DatagramBatch,
    socket: &UdpSocket,
    kind: Kind,
    count: usize,
) -> Vec<(String, Option<SocketAddr>)> {
    let mut all = Vec::new();
    while all.len() < count {
        DatagramBatch::ready(socket).await.unwrap();
        let received = batch.receive_as(socket, kind).unwrap();
        assert_eq!(received, batch.datagrams().count());
        all.extend(batch.datagrams().map(|(bytes, peer)| (String::from_utf8(bytes.to_vec()).unwrap(), peer)));
    }
    all
}

#[tokio::test]
async fn a_batch_arrives_whole_in_order_and_with_its_sender() {
    let mut batch = DatagramBatch::new();
    for ipv6 in [false, true, false] {
        let server = listener(ipv6).await;
        let client = connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap();
        let count = 2 * BATCH + 5;
        send_all(&mut batch, &client, &queue(count, None)).await;
        let kind = if ipv6 { Kind::Ipv6 } else { Kind::Ipv4 };
        let received = receive_all(&mut batch, &server, kind, count).await;
        let sender = client.local_addr().unwrap();
        let expected: Vec<_> = (0..count).map(|number| (format!("message {number}"), Some(sender))).collect();
        assert_eq!(received, expected);

        send_all(&mut batch, &server, &queue(count, Some(sender))).await;
        let received = receive_all(&mut batch, &client, Kind::Connected, count).await;
        let expected: Vec<_> = (0..count).map(|number| (format!("message {number}"), None)).collect();
        assert_eq!(received, expected);
    }
}

#[tokio::test]
async fn one_queue_serves_many_peers() {
    let mut batch = DatagramBatch::new();
    let server = listener(false).await;
    let mut clients = Vec::new();
    let mut queue = SendQueue::default();
    for number in 0..5_u8 {
        let client = connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap();
        queue.push(&[number], Some(client.local_addr().unwrap()));
        clients.push(client);
    }
    send_all(&mut batch, &server, &queue).await;
    for (number, client) in clients.iter().enumerate() {
        let mut buffer = [0; 8];
        assert_eq!((client.recv(&mut buffer).await.unwrap(), usize::from(buffer[0])), (1, number));
    }
}

#[tokio::test]
async fn nothing_there_is_no_error_and_the_next_datagram_is_noticed() {
    let mut batch = DatagramBatch::new();
    let server = listener(false).await;
    let client = connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap();
    assert_eq!(batch.receive_from(&server, false).unwrap(), 0);
    for _ in 0..3 {
        client.send(b"one").await.unwrap();
        DatagramBatch::ready(&server).await.unwrap();
        assert_eq!(batch.receive_from(&server, false).unwrap(), 1);
        // A short batch says that the queue is empty, without another call.
        assert_eq!(batch.receive_from(&server, false).unwrap(), 0);
    }
}

#[tokio::test]
async fn the_largest_datagram_comes_whole_and_an_empty_one_too() {
    let mut batch = DatagramBatch::new();
    let server = listener(false).await;
    let client = connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap();
    let large = vec![7; 65_507];
    let mut queue = SendQueue::default();
    queue.push(&large, None);
    queue.push(b"", None);
    send_all(&mut batch, &client, &queue).await;
    let mut received = Vec::new();
    while received.len() < 2 {
        DatagramBatch::ready(&server).await.unwrap();
        batch.receive_from(&server, false).unwrap();
        received.extend(batch.datagrams().map(|(bytes, _)| bytes.to_vec()));
    }
    assert_eq!(received, [large, Vec::new()]);
}

#[tokio::test]
async fn nobody_listening_is_reported() {
    let mut batch = DatagramBatch::new();
    let gone = listener(false).await.local_addr().unwrap();
    let client = connect(gone, &UdpOptions::default()).await.unwrap();
    send_all(&mut batch, &client, &queue(1, None)).await;
    DatagramBatch::ready(&client).await.unwrap();
    assert_eq!(batch.receive(&client).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn an_emptied_queue_gives_back_what_a_burst_took() {
    let mut queue = queue(100_000, None);
    queue.clear();
    assert!(queue.is_empty() && queue.messages.capacity() < 1000 && queue.bytes.capacity() < 1 << 20);
}

/// The way without batched calls does the same.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd"))]
#[tokio::test]
async fn one_by_one_does_the_same() {
    let mut headers = single::Headers::new();
    let server = listener(false).await;
    let client = connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap();
    let mut buffer = vec![0; BATCH * DATAGRAM_MAX];
    let out = queue(BATCH, None);
    client.writable().await.unwrap();
    assert_eq!(headers.send(&client, Kind::Connected, &out.bytes, &out.messages).unwrap(), BATCH);
    let mut received = Vec::new();
    while received.len() < BATCH {
        DatagramBatch::ready(&server).await.unwrap();
        let mut lengths = Vec::new();
        match headers.receive(&server, Kind::Ipv4, &mut buffer, |length, peer| lengths.push((length, peer))) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            other => other.unwrap(),
        }
        for ((length, peer), slot) in lengths.into_iter().zip(buffer.chunks_exact(DATAGRAM_MAX)) {
            assert_eq!(peer, Some(client.local_addr().unwrap()));
            received.push(String::from_utf8(slot[..length].to_vec()).unwrap());
        }
    }
    let expected: Vec<_> = (0..BATCH).map(|number| format!("message {number}")).collect();
    assert_eq!(received, expected);
    assert_eq!(
        headers
            .send(&server, Kind::Ipv4, b"x", &[Message { start: 0, end: 1, peer: client.local_addr().ok() }])
            .unwrap(),
        1
    );
}
