//! Clients of the endpoint that are slow, many or hostile: queries do not wait for them.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{load::Load, support::Plane};

/// The body of a page.
pub async fn page(control: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(control).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_endpoint_holds_up_a_query() {
    let mut plane = Plane::new(Duration::ZERO).await;
    plane.start(&plane.config(&plane.upstream("lab", "udp", 0), &plane.exit())).await;
    let load = Load::start(plane.dns, 500);
    let mut hostile = Vec::new();
    for kind in 0..200 {
        let Ok(mut stream) = TcpStream::connect(plane.control).await else { continue };
        let text: &[u8] = match kind % 5 {
            // A head that never ends, one that is too long, a body that never comes, an answer that nobody reads, rubbish.
            0 => b"GET /api/v1/status HTTP/1.1\r\nHost: local",
            1 => &[b'a'; 60_000],
            2 => b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n",
            3 => b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        };
        // Whoever sends too much may be cut off while it does.
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.write_all(text)).await;
        hostile.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let outcome = load.stop().await;
    println!("{outcome:?}");
    assert_eq!((outcome.answered, outcome.wrong), (outcome.asked, 0), "{outcome:?}");
    drop(hostile);
    // And it serves those who behave again.
    assert!(page(plane.control, "/api/v1/status").await.contains("\"version\""));
}
