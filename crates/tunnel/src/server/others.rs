//! Where a client's connection goes from here.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Shared;

pub(super) async fn associate(_control: TcpStream, _declared: SocketAddr, _shared: &Shared) {}
