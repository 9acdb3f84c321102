use super::*;

const MAGIC: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(4, 0, 0, &payload)
}

/// `:method GET`, `:authority`, `:scheme https`, `:path /`, and a header by itself.
fn block() -> Vec<u8> {
    [&[0x82, 0x41, 1, b'a', 0x87, 0x84][..], b"\x00\x06cookie\x03a=b"].concat()
}

/// As Chromium begins.
fn chromium(headers: &[u8]) -> Vec<u8> {
    let settings = settings(&[(1, 65536), (2, 0), (4, 6_291_456), (6, 262_144)]);
    [MAGIC, &settings, &frame(8, 0, 0, &15_663_105_u32.to_be_bytes()), headers].concat()
}

#[test]
fn a_preface_is_read_up_to_the_first_headers_and_not_before_they_are_whole() {
    let headers = [&[0x80, 0, 0, 0, 255][..], &block()].concat();
    let stream = chromium(&frame(1, 0x25, 1, &headers));
    for end in 0..stream.len() {
        assert_eq!(Preface::read(&stream[..end]), Ok(None), "{end}");
    }
    let preface = Preface::read(&[&stream[..], b"anything"].concat()).unwrap().unwrap();
    assert_eq!(preface.akamai(), "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p");
    assert_eq!(preface.akamai_hash(), "52d84b11737d980aef856699f885ca86");
    assert_eq!(preface.headers_priority, Some(HeadersPriority { exclusive: true, depends_on: 0, weight: 256 }));
    assert_eq!(preface.first_stream, 1);
    let frames: Vec<&str> = preface.frames.iter().map(|frame| frame.kind.as_str()).collect();
    assert_eq!(frames, ["SETTINGS", "WINDOW_UPDATE", "HEADERS"]);
    assert_eq!(preface.header(":authority"), Some("a"));
    assert_eq!(preface.header("cookie"), Some(""), "its place is kept and its value is not");
}

#[test]
fn headers_may_be_padded_and_continued() {
    let block = block();
    let (first, second) = block.split_at(5);
    let padded = [&[3][..], first, &[0; 3]].concat();
    let stream = chromium(&[frame(1, 0x08, 1, &padded), frame(9, 4, 1, second)].concat());
    let preface = Preface::read(&stream).unwrap().unwrap();
    assert_eq!((preface.pseudo_order().as_str(), preface.headers.len()), ("m,a,s,p", 5));
    assert_eq!(preface.frames.len(), 3);
}

#[test]
fn priority_frames_stand_in_akamais_string() {
    let priorities = [frame(2, 0, 3, &[0, 0, 0, 0, 200]), frame(2, 0, 5, &[0x80, 0, 0, 3, 0])].concat();
    let stream = [MAGIC, &settings(&[(4, 131_072)]), &priorities, &frame(1, 4, 15, &block())].concat();
    let preface = Preface::read(&stream).unwrap().unwrap();
    assert_eq!(preface.akamai(), "4:131072|00|3:0:0:201,5:1:3:1|m,a,s,p");
}

#[test]
fn what_breaks_a_rule_is_refused_with_its_place() {
    let settings = settings(&[]);
    let after = |frames: &[u8]| [MAGIC, &settings, frames].concat();
    for (stream, text) in [
        (b"GET / HTTP/1.1".to_vec(), "preface at byte 0: is not that of HTTP/2"),
        ([MAGIC, &frame(8, 0, 0, &[0; 4])].concat(), "WINDOW_UPDATE at byte 24: comes before SETTINGS"),
        ([MAGIC, &frame(4, 0, 0, &[0; 5])].concat(), "SETTINGS at byte 24: has another length than its type has"),
        (after(&frame(8, 0, 0, &[0; 3])), "WINDOW_UPDATE at byte 33: has another length than its type has"),
        (after(&frame(2, 0, 1, &[0; 4])), "PRIORITY at byte 33: has another length than its type has"),
        (after(&frame(1, 0x08, 1, &[9, 0])), "HEADERS at byte 33: has another length than its type has"),
        (after(&frame(1, 0x24, 1, &[0; 4])), "HEADERS at byte 33: has another length than its type has"),
        (after(&frame(1, 4, 1, &[0x3f])), "HEADERS at byte 33: has headers that are cut off"),
        (after(&frame(9, 4, 1, &[0x82])), "CONTINUATION at byte 33: is not the frame that has to come here"),
        (
            after(&[frame(1, 0, 1, &[0x82]), frame(9, 4, 3, &[0x84])].concat()),
            "CONTINUATION at byte 43: is not the frame that has to come here",
        ),
        (after(&[0, 0x40, 1, 0, 0, 0, 0, 0, 0]), "frame at byte 33: is longer than 16 KiB"),
    ] {
        assert_eq!(Preface::read(&stream).unwrap_err().to_string(), text);
    }
}

#[test]
fn what_never_comes_to_a_request_is_given_up() {
    let pings = frame(6, 0, 0, &[0; 8]).repeat(Preface::FRAMES_MAX);
    let error = Preface::read(&[MAGIC, &settings(&[]), &pings].concat()).unwrap_err();
    assert!(error.to_string().ends_with("is one too many before a request"), "{error}");
    let endless = [frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[0x82; 16384]).repeat(5)].concat();
    let error = Preface::read(&chromium(&endless)).unwrap_err();
    assert!(error.to_string().ends_with("its headers are none or too many"), "{error}");
    let empty = [frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[]).repeat(5)].concat();
    assert!(Preface::read(&chromium(&empty)).is_err(), "CONTINUATION without end and without bytes");
}
