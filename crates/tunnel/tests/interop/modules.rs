//! Modules of Python and Node.js: PySocks, requests, socks.

use super::{
    gateway::{BYTES, Gateway, PASSWORD, SIZE, upload},
    program::Program,
};

/// Python with PySocks and requests. `.ci/run` has its own.
pub(crate) async fn python() -> Option<Program> {
    let python = Program::find("python3", "python3")?;
    let script = "import requests, socks; print('requests', requests.__version__, 'PySocks', socks.__version__)";
    let ran = python.run(&["-c", script]).await;
    if ran.code == Some(0) {
        println!("{}", ran.text().trim());
        return Some(python);
    }
    println!("SKIPPED: python3 has no requests or no PySocks (PyPI: requests[socks])");
    None
}

/// Node.js with the module `socks`.
async fn node() -> Option<Program> {
    let node = Program::find("node", "nodejs")?;
    let ran = node.run(&["-p", "'socks ' + require('socks/package.json').version"]).await;
    if ran.code == Some(0) {
        println!("{}", ran.text().trim());
        return Some(node);
    }
    println!("SKIPPED: node has no module socks (npm: socks)");
    None
}

const PYSOCKS: &str = r#"
import socks, sys, threading
kind, proxy, host, port, user, password = sys.argv[1:]
stream = socks.socksocket()
stream.set_proxy(getattr(socks, kind), "127.0.0.1", int(proxy), True, user or None, password or None)
stream.settimeout(30)
stream.connect((host, int(port)))
data = sys.stdin.buffer.read()
def send():
    stream.sendall(data)
    stream.shutdown(1)
sender = threading.Thread(target=send)
sender.start()
while piece := stream.recv(65536):
    sys.stdout.buffer.write(piece)
sender.join()
"#;

#[tokio::test]
async fn pysocks_carries_bytes_by_every_protocol() {
    let Some(python) = python().await else { return };
    let (open, guarded) = (Gateway::open().await, Gateway::guarded().await);
    for (gateway, kind, user, password) in [
        (&open, "SOCKS5", "", ""),
        (&open, "SOCKS4", "", ""),
        (&open, "HTTP", "", ""),
        (&guarded, "SOCKS5", "ann", PASSWORD),
        (&guarded, "HTTP", "ann", PASSWORD),
    ] {
        let port = gateway.echo.addr(0).port().to_string();
        gateway.carries(&python, &["-c", PYSOCKS, kind, &gateway.port(), "echo.test", &port, user, password]).await;
    }
    for (kind, said) in [("SOCKS5", "SOCKS5AuthError"), ("HTTP", "407")] {
        let port = guarded.echo.addr(0).port().to_string();
        let ran = python.run(&["-c", PYSOCKS, kind, &guarded.port(), "echo.test", &port, "ann", "wrong"]).await;
        assert!(ran.code == Some(1) && ran.errors.contains(said), "{}", ran.errors);
    }
    open.check().await;
    guarded.check().await;
}

const REQUESTS: &str = r#"
import hashlib, requests, sys
proxy, ca, file, download, upload = sys.argv[1:]
session = requests.Session()
session.proxies, session.verify, session.trust_env = {"http": proxy, "https": proxy}, ca, False
for again in range(2):
    with session.get(download, stream=True, timeout=30) as answer:
        answer.raise_for_status()
        print(sum(len(piece) for piece in answer.iter_content(65536)))
with open(file, "rb") as body:
    print(session.post(upload, data=body, timeout=30).text)
data = open(file, "rb").read()
print(session.post(upload, data=(data[at:at + 65536] for at in range(0, len(data), 65536)), timeout=30).text)
"#;

#[tokio::test]
async fn requests_keeps_its_connections_by_every_protocol() {
    let Some(python) = python().await else { return };
    let gateway = Gateway::guarded().await;
    let (file, checksum) = upload(gateway.folder());
    let mut clients = 0;
    for scheme in ["socks5h", "http"] {
        for url in [Gateway::plain_url, Gateway::tls_url] {
            let proxy = format!("{scheme}://ann:p%40ss%3A%20w%2Frd@{}", gateway.address);
            let (ca, urls) = (gateway.ca(), [BYTES, "/upload"].map(|path| url(&gateway, path)));
            let answer = python.run(&["-c", REQUESTS, &proxy, &ca, &file, &urls[0], &urls[1]]).await.text();
            let lines: Vec<_> = answer.lines().collect();
            assert_eq!(lines[..2], [SIZE.to_string(), SIZE.to_string()], "{scheme}: {answer}");
            assert!(lines[2].contains(&checksum) && lines[3].contains(&checksum), "{scheme}: {answer}");
            clients += 1;
            assert_eq!(gateway.watch.stats().accepted, clients, "{scheme}: one session, one connection");
        }
    }
    gateway.check().await;
}

const SOCKS: &str = r#"
const { SocksClient } = require('socks');
const [type, proxy, host, port, userId, password] = process.argv.slice(1);
SocksClient.createConnection({
  proxy: { host: '127.0.0.1', port: +proxy, type: +type, userId: userId || undefined, password: password || undefined },
  command: 'connect', destination: { host, port: +port }, timeout: 30000,
}).then(({ socket }) => {
  process.stdin.pipe(socket);
  socket.pipe(process.stdout);
}).catch(error => { console.error(error.message); process.exitCode = 3; });
"#;

#[tokio::test]
async fn the_module_socks_of_node_carries_bytes() {
    let Some(node) = node().await else { return };
    let (open, guarded) = (Gateway::open().await, Gateway::guarded().await);
    for (gateway, version, user, password) in
        [(&open, "5", "", ""), (&open, "4", "", ""), (&guarded, "5", "ann", PASSWORD)]
    {
        let port = gateway.echo.addr(0).port().to_string();
        gateway.carries(&node, &["-e", SOCKS, version, &gateway.port(), "echo.test", &port, user, password]).await;
    }
    let port = guarded.echo.addr(0).port().to_string();
    let ran = node.run(&["-e", SOCKS, "5", &guarded.port(), "echo.test", &port, "ann", "wrong"]).await;
    assert!(ran.code == Some(3) && ran.errors.contains("Authentication"), "{ran:?}");
    open.check().await;
    guarded.check().await;
}

/// Its reading of the reply, its frames, and the address that it is told.
const ASSOCIATE: &str = r#"
const { SocksClient } = require('socks');
const dgram = require('dgram');
const [proxy, host, port] = process.argv.slice(1);
const udp = dgram.createSocket('udp4');
udp.bind(0, '127.0.0.1', () => {
  const client = new SocksClient({
    proxy: { host: '127.0.0.1', port: +proxy, type: 5 },
    command: 'associate', destination: { host: '0.0.0.0', port: udp.address().port },
  });
  client.on('error', error => { console.error(error.message); process.exit(3); });
  client.on('established', ({ socket, remoteHost }) => {
    udp.on('message', message => {
      const frame = SocksClient.parseUDPFrame(message);
      console.log(frame.frameNumber, frame.remoteHost.port, frame.data.toString('hex'));
      socket.end();
      udp.close();
    });
    process.stdin.once('data', data => udp.send(
      SocksClient.createUDPFrame({ remoteHost: { host, port: +port }, data }), remoteHost.port, remoteHost.host));
  });
  client.connect();
});
"#;

#[tokio::test]
async fn the_module_socks_of_node_exchanges_datagrams() {
    let Some(node) = node().await else { return };
    let gateway = Gateway::open().await;
    let port = gateway.echo.addr(0).port();
    let tag = keepwarm_lab::Tagged::random(gateway.echo.addr(0));
    let arguments = ["-e", ASSOCIATE, &gateway.port(), "echo.test", &port.to_string()];
    let answer = node.feed(&arguments, &tag.datagram(7, 500)).await.text();
    let words: Vec<_> = answer.split_whitespace().collect();
    assert_eq!(words[..2], ["0", &port.to_string()]);
    let byte = |at: usize| u8::from_str_radix(&words[2][at..at + 2], 16).unwrap();
    let bytes: Vec<_> = (0..words[2].len()).step_by(2).map(byte).collect();
    assert_eq!(tag.check_datagram(&bytes, 500), Ok(7));
}
