//! The headers in a block (RFC 7541). The decoding is `fluke-hpack`'s; here is what it is kept from.

use super::Preface;

/// The headers of a connection's first block, in order.
pub(super) fn decode(block: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    check(block)?;
    let mut decoder = fluke_hpack::Decoder::new();
    // RFC 7541 section 4.2: no more than was allowed, which is the default.
    decoder.set_max_allowed_table_size(TABLE_MAX);
    let mut headers = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let decoded = decoder.decode_with_cb(block, |name, value| {
        let name = text(&name);
        let is_secret = Preface::SECRET.contains(&name.as_str());
        let value = if is_secret { String::new() } else { text(&value) };
        headers.push((name, value));
    });
    decoded.map(|()| headers).map_err(|_| "has headers that cannot be decoded")
}

/// Walks a block without decoding it.
///
/// The decoder panics on a change of the table's size that is cut off, and takes any number of headers: one byte can stand for a
/// header of 4 KiB that was sent before.
fn check(mut block: &[u8]) -> Result<(), &'static str> {
    let mut headers = 0_usize;
    while let Some(first) = block.first() {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(&mut block, prefix)?;
        match (prefix, index) {
            // RFC 7541 section 4.2: the table changes its size at the beginning of a block.
            (5, _) if headers > 0 => return Err("changes the size of its table between headers"),
            (5, _) => continue,
            (7, _) => {}
            (_, 0) => {
                string(&mut block)?;
                string(&mut block)?;
            }
            _ => string(&mut block)?,
        }
        headers += 1;
        if headers > Preface::HEADERS_MAX {
            return Err("has more than 256 headers");
        }
    }
    Ok(())
}

/// RFC 7541 section 5.1: in the low bits of the first byte, or seven bits a byte after it. Of no more than five bytes, as the
/// decoder takes them.
fn integer(block: &mut &[u8], prefix: u8) -> Result<usize, &'static str> {
    let (first, rest) = block.split_first().ok_or(CUT_OFF)?;
    let largest = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & largest;
    *block = rest;
    if value < largest {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = block.split_first().ok_or(CUT_OFF)?;
        *block = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("has a number that is too large")
}

/// RFC 7541 section 5.2: a length and so many bytes.
fn string(block: &mut &[u8]) -> Result<(), &'static str> {
    let length = integer(block, 7)?;
    *block = block.get(length..).ok_or(CUT_OFF)?;
    Ok(())
}

const CUT_OFF: &str = "has headers that are cut off";

/// Bytes of the table that a server has without saying so (RFC 9113 section 6.5.2).
const TABLE_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_cut_off_are_refused_before_the_decoder_sees_them() {
        for block in [&[0x3f][..], &[0x82, 0x3f], &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x01], &[0x00, 0x05, b'a'], &[0x40]] {
            assert!(decode(block).is_err(), "{block:02x?}");
        }
        assert!(decode(&[0x82, 0x20]).is_err(), "the size of the table changes at the beginning only");
        assert_eq!(decode(&[0x20, 0x82]), Ok(vec![(":method".into(), "GET".into())]));
    }

    #[test]
    fn a_block_cannot_grow_to_many_times_its_size() {
        assert!(decode(&[0x82; 257]).is_err());
        assert_eq!(decode(&[0x82; 256]).map(|headers| headers.len()), Ok(256));
    }

    #[test]
    fn secrets_keep_their_place_and_lose_their_value() {
        let mut block = vec![0x82, 0x00, 6];
        block.extend(b"cookie\x05a=bcdX");
        block.truncate(block.len() - 1);
        assert_eq!(decode(&block), Ok(vec![(":method".into(), "GET".into()), ("cookie".into(), String::new())]));
    }
}
