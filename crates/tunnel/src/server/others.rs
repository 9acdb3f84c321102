//! Where a client's connection goes from here.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{ClientInfo, Shared};
use crate::{Stream, config::TunnelConfig, connector::Traffic};

pub(super) async fn relay(mut client: TcpStream, mut upstream: Stream, _config: &TunnelConfig, traffic: &Traffic) {
    if let Ok((sent, received)) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
        traffic.sent.fetch_add(sent, Ordering::Relaxed);
        traffic.received.fetch_add(received, Ordering::Relaxed);
    }
}

pub(super) async fn http(_stream: TcpStream, _first: Bytes, _shared: Arc<Shared>, _client: ClientInfo) {}

pub(super) async fn associate(_control: TcpStream, _declared: SocketAddr, _shared: &Shared) {}
