//! Compressed certificates (RFC 8879).
//!
//! BoringSSL refuses a length above the limit of certificates before anything is decompressed, and the output is a
//! buffer of exactly that length.

use std::io::{self, Read, Write};

use boring::{
    error::ErrorStack,
    ssl::{CertificateCompressionAlgorithm, CertificateCompressor, SslContextBuilder},
};

/// Offers these algorithms in this order; one that is not known here is left out.
pub(super) fn add(context: &mut SslContextBuilder, names: &[String]) -> Result<(), ErrorStack> {
    for name in names {
        match name.as_str() {
            "brotli" => context.add_certificate_compression_algorithm(Brotli)?,
            "zlib" => context.add_certificate_compression_algorithm(Zlib)?,
            _ => {}
        }
    }
    Ok(())
}

struct Brotli;

struct Zlib;

impl CertificateCompressor for Brotli {
    const ALGORITHM: CertificateCompressionAlgorithm = CertificateCompressionAlgorithm::BROTLI;
    const CAN_COMPRESS: bool = false;
    const CAN_DECOMPRESS: bool = true;

    fn decompress<W: Write>(&self, input: &[u8], output: &mut W) -> io::Result<()> {
        // The large window (up to 1 GiB), which begins like this, is not in RFC 7932 section 9.1. Others end at 16 MiB.
        if input.first().is_some_and(|first| first & 0x7f == 0x11) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a window that brotli does not have"));
        }
        copy(&mut brotli::Decompressor::new(input, BUFFER), output)
    }
}

impl CertificateCompressor for Zlib {
    const ALGORITHM: CertificateCompressionAlgorithm = CertificateCompressionAlgorithm::ZLIB;
    const CAN_COMPRESS: bool = false;
    const CAN_DECOMPRESS: bool = true;

    fn decompress<W: Write>(&self, input: &[u8], output: &mut W) -> io::Result<()> {
        copy(&mut flate2::read::ZlibDecoder::new(input), output)
    }
}

/// Copies until the input ends or the output is full, which is an error.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    io::copy(from, to).map(drop)
}

const BUFFER: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_stops_at_the_end_of_the_buffer() {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![0; 1 << 24]).unwrap();
        let mut buffer = [0; 4096];
        let error = Zlib.decompress(&packed.finish().unwrap(), &mut &mut buffer[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn brotli_is_decompressed_and_its_large_window_is_not() {
        let text = vec![b'a'; 10_000];
        let mut packed = Vec::new();
        brotli::CompressorWriter::new(&mut packed, 4096, 5, 18).write_all(&text).unwrap();
        let mut output = Vec::new();
        Brotli.decompress(&packed, &mut output).unwrap();
        assert_eq!(output, text);
        assert!(Brotli.decompress(&[0x11, 0x1e, 0, 0], &mut output).is_err());
        assert!(Brotli.decompress(&packed[..packed.len() / 2], &mut output).is_err());
    }
}
