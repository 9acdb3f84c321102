//! Answers that come compressed because a profile asked for them so, decoded for callers who did not.
//!
//! Piece by piece: nothing is decoded before it is read, and no more of it than one buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_compression::{
    tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, header};
use http_body::Frame;
use keepwarm_transport::error::{Error as TransportError, ErrorKind, Phase};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use crate::{body::Plain, error::Error};

/// A body that is decoded as it is read.
pub(crate) struct Decoded {
    decoder: Decoder,
    buffer: Box<[u8]>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// -> `Rest` with the end of the coding.
    Coded,
    /// The coding has ended; what is left is the end of the body and its trailers. -> `Over` with it.
    Rest,
    /// Ended, or failed.
    Over,
}

enum Decoder {
    Brotli(Box<BrotliDecoder<Coded>>),
    Gzip(Box<GzipDecoder<Coded>>),
    Zlib(Box<ZlibDecoder<Coded>>),
    Zstd(Box<ZstdDecoder<Coded>>),
}

/// A coding that is known (RFC 9110 section 8.4.1, RFC 7932, RFC 8878).
#[derive(Clone, Copy)]
pub(crate) enum Coding {
    Brotli,
    Gzip,
    Zlib,
    Zstd,
}

impl Coding {
    /// The coding that headers speak of; `None` where there is none, an unknown one, or several.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Coding> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let (Some(coding), None) = (codings.next(), codings.next()) else { return None };
        match coding.as_bytes().to_ascii_lowercase().as_slice() {
            b"br" => Some(Coding::Brotli),
            b"gzip" | b"x-gzip" => Some(Coding::Gzip),
            b"deflate" => Some(Coding::Zlib),
            b"zstd" => Some(Coding::Zstd),
            _ => None,
        }
    }
}

impl Decoded {
    /// Takes over a body, and the headers that are no longer true of it.
    pub(crate) fn new(body: Plain, coding: Coding, headers: &mut HeaderMap) -> Decoded {
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        let is_brotli = matches!(coding, Coding::Brotli);
        let coded = Coded { body, piece: Bytes::new(), trailers: None, has_ended: false, is_brotli };
        let decoder = match coding {
            Coding::Brotli => Decoder::Brotli(Box::new(BrotliDecoder::new(coded))),
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(coded);
                decoder.multiple_members(true);
                Decoder::Gzip(Box::new(decoder))
            }
            Coding::Zlib => Decoder::Zlib(Box::new(ZlibDecoder::new(coded))),
            Coding::Zstd => {
                let params = [DParameter::window_log_max(WINDOW_LOG_MAX)];
                Decoder::Zstd(Box::new(ZstdDecoder::with_params(coded, &params)))
            }
        };
        Decoded { decoder, buffer: vec![0; BUFFER].into(), state: State::Coded }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.state == State::Coded {
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match ready!(self.decoder.poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => self.state = State::Rest,
                Ok(()) => return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled()))))),
                Err(error) => {
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(explain(error))));
                }
            }
        }
        if self.state == State::Over {
            return Poll::Ready(None);
        }
        let end = ready!(self.decoder.coded().poll_end(cx));
        self.state = State::Over;
        Poll::Ready(match end {
            Ok(()) => self.decoder.coded().trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(explain(error))),
        })
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.state == State::Over
    }
}

impl Decoder {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Decoder::Brotli(decoder) => Pin::new(decoder).poll_read(cx, buffer),
            Decoder::Gzip(decoder) => Pin::new(decoder).poll_read(cx, buffer),
            Decoder::Zlib(decoder) => Pin::new(decoder).poll_read(cx, buffer),
            Decoder::Zstd(decoder) => Pin::new(decoder).poll_read(cx, buffer),
        }
    }

    fn coded(&mut self) -> &mut Coded {
        match self {
            Decoder::Brotli(decoder) => decoder.get_mut(),
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Zlib(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

/// The coded bytes, as decoders want them.
struct Coded {
    body: Plain,
    piece: Bytes,
    trailers: Option<HeaderMap>,
    has_ended: bool,
    /// A coding by brotli whose first byte has not come.
    is_brotli: bool,
}

impl Coded {
    /// Whether there is a piece, waited for until the body ends.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() && !self.has_ended {
            let Some(frame) = ready!(self.body.poll_frame(cx)) else {
                self.has_ended = true;
                break;
            };
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => {
                    let first = data.first().copied();
                    self.piece = data;
                    if let Some(first) = first
                        && std::mem::take(&mut self.is_brotli)
                        && first & 0x7f == LARGE_WINDOW
                    {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a window above 16 MiB")));
                    }
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The end of the body after that of the coding: nothing but trailers may come.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_piece(cx))?;
        Poll::Ready(if self.piece.is_empty() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the end of the coding"))
        })
    }
}

impl AsyncBufRead for Coded {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_piece(cx))?;
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.piece.advance(count);
    }
}

impl AsyncRead for Coded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_piece(cx))?;
        let count = self.piece.len().min(buffer.remaining());
        buffer.put_slice(&self.piece.split_to(count));
        Poll::Ready(Ok(()))
    }
}

/// The connection's own error, or that of the coding.
fn explain(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| {
        let happened = format!("the compressed body is not valid: {error}");
        Error::transport(TransportError::new(ErrorKind::Protocol, Phase::Read, "decode the answer", happened))
    })
}

/// The largest window of zstd over HTTP, 8 MiB (RFC 9659).
const WINDOW_LOG_MAX: u32 = 23;

/// How brotli's large windows begin, of up to a gibibyte, which RFC 7932 does not know.
const LARGE_WINDOW: u8 = 0x11;

/// Bytes that are decoded at a time.
const BUFFER: usize = 16 * 1024;
