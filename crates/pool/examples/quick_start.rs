//! The example of the README, word for word.
//!
//! `cargo run -p keepwarm-pool --example quick_start`

use keepwarm_pool::{Connected, Connector, Limits, Pool, Slot};
use tokio::net::{TcpListener, TcpStream};

struct Tcp;

impl Connector for Tcp {
    type Key = std::net::SocketAddr;
    type Connection = TcpStream;
    type Error = std::io::Error;

    async fn connect(&self, key: &Self::Key, _slot: Slot<Self>) -> std::io::Result<Connected<TcpStream>> {
        Ok(Connected::new(TcpStream::connect(key).await?))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let pool = Pool::builder(Tcp).limits(Limits::per_host(4)).build();
    for _ in 0..3 {
        let lease = pool.acquire(&server.local_addr()?).await?; // dials once, then reuses
        lease.try_write(b"hello")?; // a lease derefs to the connection; dropping it gives it back
    }
    assert_eq!(pool.stats().counters.opened, 1);
    Ok(())
}
