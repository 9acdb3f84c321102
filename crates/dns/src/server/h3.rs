//! DNS over HTTP/3: the requests of [`doh`](super::doh), a stream each.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{Request, Response, header::CONTENT_TYPE};
use keepwarm_transport::quic::server::h3::{H3Request, H3Server, H3Stream};
use quinn::{Connection, VarInt};

use super::{
    doh::{self, BODY_MAX, Head, Refusal},
    quic::{Held, Session},
};

/// One client's connection until its end.
pub(super) async fn serve(session: &Session, connection: Connection, path: &str) {
    let mut idle = pin!(session.idle());
    let server = tokio::select! {
        server = H3Server::new(connection) => server,
        // A client that lets us open no streams.
        () = &mut idle => return,
    };
    let Ok(mut server) = server else { return };
    let mut requests = FuturesUnordered::new();
    let mut stopping = pin!(session.stopping().fuse());
    let mut told = false;
    loop {
        if session.is_stopping() {
            if !told && server.go_away().await.is_err() || session.is_quiet() {
                return;
            }
            told = true;
        }
        tokio::select! {
            biased;
            Some(()) = requests.next() => {}
            accepted = server.accept() => match accepted {
                Ok(Some(request)) if session.has_room() => requests.push(exchange(session, request, path)),
                Ok(Some(request)) => request.reject(),
                // The client wants no more, or has left.
                Ok(None) | Err(_) => return,
            },
            () = &mut stopping => {}
            () = &mut idle => return,
        }
    }
}

/// One request and its response.
async fn exchange(session: &Session, request: H3Request, path: &str) {
    // A request without its head gets what HTTP/3 says, which h3 has done.
    let Ok((request, mut stream)) = request.read().await else { return };
    let query = match read(session, &request, &mut stream, path).await {
        Ok(query) => query,
        Err(End::Refused(refusal)) => return respond(session, stream, refusal.response()).await,
        Err(End::Lost) => return,
    };
    let _busy = session.busy();
    let answer = tokio::select! {
        answer = session.ask(&query) => answer,
        () = stream.cancelled() => return,
    };
    let response = answer.map_or_else(doh::unavailable, |answer| doh::response(&answer));
    let _ = stream.respond(response).await;
}

/// Why a request is not asked.
enum End {
    Refused(Refusal),
    /// The client gave it up.
    Lost,
}

/// Reads the query of a request.
async fn read(session: &Session, request: &Request<()>, stream: &mut H3Stream, path: &str) -> Result<Bytes, End> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let content_type = request.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let head = doh::read_head(path, request.method(), target, content_type).map_err(End::Refused)?;
    match head {
        Head::Query(query) => Ok(query.into()),
        Head::Body => {
            let body = read_body(session, stream).await?;
            doh::read_body(&body).map_err(End::Refused)?;
            Ok(body.into())
        }
    }
}

/// Reads a body, as far as it may go.
async fn read_body(session: &Session, stream: &mut H3Stream) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    // What a stream keeps while it waits for the rest.
    let mut held: Option<Held<'_>> = None;
    while let Some(piece) = stream.read().await.map_err(|_| End::Lost)? {
        body.extend_from_slice(&piece);
        drop(held.take());
        let kept = session.unfinished(body.len()).filter(|_| body.len() <= BODY_MAX);
        held = Some(kept.ok_or(End::Refused(Refusal::TooLarge))?);
    }
    Ok(body)
}

async fn respond(session: &Session, stream: H3Stream, response: Response<Bytes>) {
    let _busy = session.busy();
    // A client that stops the stream or leaves loses the response.
    let _ = stream.respond(response).await;
}

/// H3_EXCESSIVE_LOAD (RFC 9114 section 8.1).
pub(super) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
