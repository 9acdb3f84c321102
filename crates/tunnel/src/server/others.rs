//! Where a client's connection goes from here.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{ClientInfo, Shared};

pub(super) async fn http(_stream: TcpStream, _first: Bytes, _shared: Arc<Shared>, _client: ClientInfo) {}

pub(super) async fn associate(_control: TcpStream, _declared: SocketAddr, _shared: &Shared) {}
