//! Bodies: of requests, which may be sent again or only once, and of answers, which hold their connection until they end.

use std::{
    error::Error as StdError,
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;

use crate::{error::Error, exchange::Incoming, served::Served};

/// What went wrong in somebody else's body.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A body of which we know nothing.
type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>;

/// The body of a request.
pub struct RequestBody(Kind);

enum Kind {
    Empty,
    /// Known as a whole: can be sent again.
    Full(Bytes),
    /// Comes piece by piece and is gone when it was sent.
    Stream(BoxBody),
}

impl RequestBody {
    /// No body.
    pub const fn empty() -> RequestBody {
        RequestBody(Kind::Empty)
    }

    /// A body that comes piece by piece, trailers included. A request with one is not sent again once the first piece was asked for.
    pub fn stream<B>(body: B) -> RequestBody
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return RequestBody::empty();
        }
        RequestBody(Kind::Stream(Box::pin(body.map_err(Into::into))))
    }

    /// A copy to be sent again; `None` when there is only one.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        match &self.0 {
            Kind::Empty => Some(RequestBody::empty()),
            Kind::Full(bytes) => Some(bytes.clone().into()),
            Kind::Stream(_) => None,
        }
    }

    /// All of it, if it is known as a whole.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        static EMPTY: Bytes = Bytes::new();
        match &self.0 {
            Kind::Empty => Some(&EMPTY),
            Kind::Full(bytes) => Some(bytes),
            Kind::Stream(_) => None,
        }
    }
}

impl Default for RequestBody {
    fn default() -> Self {
        RequestBody::empty()
    }
}

impl From<()> for RequestBody {
    fn from((): ()) -> Self {
        RequestBody::empty()
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        RequestBody(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for RequestBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Empty"),
            Kind::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// The body of an answer.
///
/// It holds its place on the connection until it ends. Read to its end, it gives the connection back; dropped before, it resets its
/// stream (HTTP/2) or closes the connection (HTTP/1.1). Nothing is read ahead of what flow control allows: a reader that is slow slows
/// the server down.
///
/// Where a profile asked for a compressed answer and the caller did not, it is decoded on its way.
pub struct Body {
    source: Source,
    served: Served,
}

#[cfg_attr(
    feature = "browser",
    expect(
        clippy::large_enum_variant,
        reason = "the large one is the usual one, and boxing it would cost each answer an allocation"
    )
)]
enum Source {
    Plain(Plain),
    #[cfg(feature = "browser")]
    Decoded(Box<crate::decode::Decoded>),
}

/// The body as it comes over the connection.
pub(crate) struct Plain {
    incoming: Incoming,
    /// Longest pause between two pieces.
    patience: Duration,
    /// Runs while a piece is awaited.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(crate) fn new(incoming: Incoming, served: Served, patience: Duration) -> Body {
        Body { source: Source::Plain(Plain { incoming, patience, pause: None }), served }
    }

    /// The same body, decoded as Content-Encoding says; unchanged where that is not known, or there is nothing to decode.
    #[cfg(feature = "browser")]
    pub(crate) fn decoded(self, headers: &mut http::HeaderMap) -> Body {
        let Source::Plain(plain) = self.source else { return self };
        let source = if plain.incoming.is_end_stream() {
            Source::Plain(plain)
        } else {
            match crate::decode::Coding::of(headers) {
                Some(coding) => Source::Decoded(Box::new(crate::decode::Decoded::new(plain, coding, headers))),
                None => Source::Plain(plain),
            }
        };
        Body { source, ..self }
    }

    /// Which connection served the request, and what its time went to.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Reads all of it, at most `max` bytes.
    ///
    /// # Errors
    /// What ended the body early, or that it is longer than `max`.
    ///
    /// # Cancel safety
    /// What was read is lost and the stream is reset.
    pub async fn collect(mut self, max: usize) -> Result<Bytes, Error> {
        let first = match self.next_data(max).await? {
            None => return Ok(Bytes::new()),
            Some(first) if self.is_end_stream() => return Ok(first),
            Some(first) => first,
        };
        let mut all = bytes::BytesMut::from(first);
        while let Some(data) = self.next_data(max - all.len()).await? {
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    async fn next_data(&mut self, max: usize) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.frame().await {
            // Trailers are for those who read frames.
            let Ok(data) = frame?.into_data() else { continue };
            if data.len() > max {
                return Err(Error::request("the body is longer than was asked for"));
            }
            return Ok(Some(data));
        }
        Ok(None)
    }
}

impl Plain {
    /// The answer to a request that waited too long for a piece.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let patience = self.patience;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(pause.as_mut().poll(cx));
        Poll::Ready(Error::timed_out(patience, "no further piece of the body came"))
    }
}

impl Plain {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.incoming.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.pause = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Error::transport)))
            }
            Poll::Pending => {
                let error = ready!(self.poll_pause(cx));
                self.incoming.give_up();
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.source {
            Source::Plain(plain) => plain.poll_frame(cx),
            #[cfg(feature = "browser")]
            Source::Decoded(decoded) => decoded.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Plain(plain) => plain.incoming.is_end_stream(),
            #[cfg(feature = "browser")]
            Source::Decoded(decoded) => decoded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Plain(plain) => plain.incoming.size_hint(),
            #[cfg(feature = "browser")]
            Source::Decoded(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("served", &self.served).finish_non_exhaustive()
    }
}
