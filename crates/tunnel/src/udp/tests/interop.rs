//! PySocks. Where it is not installed it is left out, and says so.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt as _, process::Command};

use super::*;

/// Sends to the destination by address and by name, and prints who answered what. PySocks declares its port, with the name `0`.
const SCRIPT: &str = r#"
import socket, socks, sys
proxy, port = map(int, sys.argv[1:])
client = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
client.set_proxy(socks.SOCKS5, "127.0.0.1", proxy)
client.settimeout(20)
for host in ("127.0.0.1", "peer.example"):
    for number in range(20):
        client.sendto(b"%d" % number, (host, port))
        print(*client.recvfrom(65535))
client.sendto(b"x" * 60000, ("127.0.0.1", port))
print(len(client.recvfrom(65535)[0]))
client.close()
"#;

async fn python(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("python3");
    let output = command.arg("-c").args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = output.output().await.ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Says what SOCKS5 says before the request, and reads that: what the client declares.
async fn handshake(control: &mut TcpStream) -> SocketAddr {
    let mut greeting = [0; 2];
    control.read_exact(&mut greeting).await.unwrap();
    control.read_exact(&mut vec![0; usize::from(greeting[1])]).await.unwrap();
    control.write_all(&[VERSION, 0]).await.unwrap();
    let mut request = [0; 5];
    control.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..3], [VERSION, 3, 0]);
    let rest = match request[3] {
        1 => 3,
        3 => usize::from(request[4]),
        other => panic!("address type {other}"),
    };
    control.read_exact(&mut vec![0; rest]).await.unwrap();
    port::unspecified(true, control.read_u16().await.unwrap())
}

#[tokio::test]
async fn pysocks_exchanges_datagrams() {
    let Some(version) = python(&["import socks; print(socks.__version__)"]).await else {
        println!("SKIPPED: python3 has no PySocks (PyPI: PySocks)");
        return;
    };
    println!("PySocks {}", version.trim());
    let (rig, peer) = (Rig::usual().await, Peer::new("127.0.0.1").await);
    let [proxy, port] = [rig.listener.local_addr().unwrap(), peer.address()].map(|address| address.port().to_string());
    let serve = async {
        let (mut control, _) = rig.listener.accept().await.unwrap();
        let declared = handshake(&mut control).await;
        assert_ne!(declared.port(), 0);
        serve(control, declared, &rig.connector, &rig.counters, rig.closing.subscribe()).await;
    };
    let echo = async {
        loop {
            peer.echo().await;
        }
    };
    let arguments = [SCRIPT, &proxy, &port];
    let served = async { tokio::join!(python(&arguments), serve).0 };
    let shown = tokio::select! {
        shown = served => shown,
        () = echo => unreachable!("it goes on"),
    };
    let answers: String = (0..20).map(|number| format!("b'{number}' ('127.0.0.1', {port})\n")).collect();
    assert_eq!(shown.as_deref(), Some(format!("{answers}{answers}60000\n").as_str()));
    let stats = rig.counters.stats();
    assert_eq!((stats.associations, stats.datagrams_sent, stats.datagrams_received), (0, 41, 41));
}
