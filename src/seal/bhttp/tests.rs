//! The reader against messages written by hand, and against what the writer makes.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    reader::{Control, Event, Reader, RequestLine, StatusLine},
    *,
};

#[derive(Debug, PartialEq, Eq)]
struct Message<C> {
    head: Option<C>,
    fields: Fields,
    content: Vec<u8>,
    trailers: Option<Fields>,
}

fn read_pieces<'a, C: Control + std::fmt::Debug + PartialEq>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: u64,
) -> Result<Message<C>, FormError> {
    let mut reader = Reader::<C>::new(max);
    let mut message = Message {
        head: None,
        fields: Fields::default(),
        content: vec![],
        trailers: None,
    };
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match reader.read(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Head(head, fields))) => {
                    assert!(message.head.is_none());
                    (message.head, message.fields) = (Some(head), fields);
                }
                Ok(Some(Event::Content(content))) => message.content.extend_from_slice(&content),
                Ok(Some(Event::Trailers(trailers))) => message.trailers = Some(trailers),
                Err(error) => {
                    assert_eq!(reader.read(&mut piece), Err(FormError::Refused));
                    assert_eq!(reader.finish(), Err(FormError::Refused));
                    return Err(error);
                }
            }
        }
        assert!(piece.is_empty(), "all of it was taken");
    }
    reader.finish().map(|()| message)
}

/// Reads a message whole and a byte at a time, which must be the same.
fn read<C: Control + std::fmt::Debug + PartialEq>(bytes: &[u8]) -> Result<Message<C>, FormError> {
    let whole = read_pieces::<C>([bytes], 1000);
    let bytewise = read_pieces::<C>(bytes.chunks(1), 1000);
    assert_eq!(whole, bytewise);
    whole
}

fn request(bytes: &[u8]) -> Result<Message<RequestLine>, FormError> {
    read(bytes)
}

fn response(bytes: &[u8]) -> Result<Message<StatusLine>, FormError> {
    read(bytes)
}

/// `POST https:///p`, before the fields.
const LINE: &[u8] = b"\x04POST\x05https\x00\x02/p";

fn known(fields: &[u8], rest: &[u8]) -> Vec<u8> {
    [
        &[0],
        LINE,
        &[u8::try_from(fields.len()).unwrap()],
        fields,
        rest,
    ]
    .concat()
}

fn indeterminate(rest: &[u8]) -> Vec<u8> {
    [&[2], LINE, rest].concat()
}

#[test]
fn both_forms_say_the_same() {
    let fields = b"\x01a\x01b\x02cc\x00";
    let trailers = b"\x01t\x01u";
    let one = known(fields, &[b"\x03xyz\x04", &trailers[..], &[0; 9]].concat());
    let other = indeterminate(
        &[
            fields,
            &b"\x00\x01x\x02yz\x00"[..],
            trailers,
            b"\x00",
            &[0; 9],
        ]
        .concat(),
    );
    let message = request(&one).unwrap();
    assert_eq!(message, request(&other).unwrap());
    let line = message.head.unwrap();
    assert_eq!((line.method.as_str(), line.path.as_str()), ("POST", "/p"));
    assert_eq!(
        message.fields.iter().collect::<Vec<_>>(),
        [("a", "b"), ("cc", "")]
    );
    assert_eq!(message.content, b"xyz");
    assert_eq!(message.trailers.unwrap().get("t"), Some("u"));
}

#[test]
fn integers_of_any_length_are_read() {
    let message = [
        &[0x40, 0][..],
        b"\x80\x00\x00\x04POST\xc0\x00\x00\x00\x00\x00\x00\x05https\x40\x00\x40\x02/p",
        b"\x40\x07\x40\x01a\x80\x00\x00\x00",
        b"\x40\x01x\xc0\x00\x00\x00\x00\x00\x00\x00",
    ]
    .concat();
    let message = request(&message).unwrap();
    assert_eq!(message.fields.get("a"), Some(""));
    assert_eq!(message.content, b"x");
}

#[test]
fn a_message_cut_anywhere_is_not_complete() {
    let ended = [
        known(b"\x01a\x01b", b"\x03xyz\x00"),
        indeterminate(b"\x01a\x01b\x00\x03xyz\x00\x01t\x01u\x00"),
    ];
    for message in ended {
        assert!(request(&message).is_ok());
        for cut in 0..message.len() {
            assert_eq!(
                request(&message[..cut]).unwrap_err(),
                FormError::Incomplete,
                "{cut}"
            );
        }
    }
}

#[test]
fn flaws_of_requests() {
    let long = vec![b'x'; 9000];
    let long_path = [b"\x00\x04POST\x05https\x00\x80\x00\x23\x28", &long[..]].concat();
    let fine = b"\x00\x00";
    let cases: Vec<(&str, Vec<u8>, FormError)> = vec![
        (
            "a response",
            b"\x01\x40\xc8\x00\x00\x00".to_vec(),
            FormError::Framing,
        ),
        ("unknown framing", b"\x04".to_vec(), FormError::Framing),
        (
            "non-zero padding",
            known(b"", b"\x00\x00\x00\x01"),
            FormError::Padding,
        ),
        (
            "non-zero padding later",
            indeterminate(b"\x00\x00\x00\x00\x00\x80"),
            FormError::Padding,
        ),
        (
            "two equal bytes of padding",
            known(b"", b"\x00\x00\x01\x01"),
            FormError::Padding,
        ),
        (
            "section that ends in a length",
            known(b"\x01a\x01b\x40", fine),
            FormError::FieldLine,
        ),
        (
            "section that ends behind a length",
            known(b"\x01a\x01b\x05", fine),
            FormError::FieldLine,
        ),
        (
            "http",
            b"\x00\x04POST\x04http\x00\x01/".to_vec(),
            FormError::Scheme,
        ),
        (
            "upper-case scheme",
            b"\x00\x04POST\x05HTTPS\x00\x01/".to_vec(),
            FormError::Scheme,
        ),
        (
            "blank in method",
            b"\x00\x04PO T\x05https\x00\x01/".to_vec(),
            FormError::Control,
        ),
        (
            "no method",
            b"\x00\x00\x05https\x00\x01/".to_vec(),
            FormError::Control,
        ),
        (
            "separator in method",
            b"\x00\x04PO/T\x05https\x00\x01/".to_vec(),
            FormError::Control,
        ),
        (
            "line break in path",
            b"\x00\x04POST\x05https\x00\x03/\r\n".to_vec(),
            FormError::Control,
        ),
        (
            "high byte in path",
            b"\x00\x04POST\x05https\x00\x02/\xe9".to_vec(),
            FormError::Control,
        ),
        ("path too long", long_path, FormError::Control),
        (
            "upper-case name",
            known(b"\x01A\x01b", fine),
            FormError::FieldName,
        ),
        (
            "empty name",
            known(b"\x00\x01b", fine),
            FormError::FieldName,
        ),
        (
            "pseudo-field",
            known(b"\x05:path\x01/", fine),
            FormError::FieldName,
        ),
        (
            "blank in name",
            known(b"\x02a \x01b", fine),
            FormError::FieldName,
        ),
        (
            "NUL in value",
            known(b"\x01a\x03b\0c", fine),
            FormError::FieldValue,
        ),
        (
            "CR in value",
            known(b"\x01a\x03b\rc", fine),
            FormError::FieldValue,
        ),
        (
            "LF in value",
            known(b"\x01a\x03b\nc", fine),
            FormError::FieldValue,
        ),
        (
            "DEL in value",
            known(b"\x01a\x03b\x7fc", fine),
            FormError::FieldValue,
        ),
        (
            "blank before value",
            known(b"\x01a\x02 b", fine),
            FormError::FieldValue,
        ),
        (
            "tab after value",
            known(b"\x01a\x02b\t", fine),
            FormError::FieldValue,
        ),
        (
            "value of blanks",
            known(b"\x01a\x01 ", fine),
            FormError::FieldValue,
        ),
        (
            "value not UTF-8",
            known(b"\x01a\x01\xff", fine),
            FormError::FieldValue,
        ),
        (
            "value over the section's end",
            known(b"\x01a\x02b", fine),
            FormError::FieldLine,
        ),
        (
            "name over the section's end",
            known(b"\x05a", fine),
            FormError::FieldLine,
        ),
        (
            "name without value",
            known(b"\x01a", fine),
            FormError::FieldLine,
        ),
        (
            "half a length at the section's end",
            known(b"\x01a\x40", fine),
            FormError::FieldLine,
        ),
        (
            "content over the limit",
            known(b"", b"\x43\xe9"),
            FormError::ContentTooLong,
        ),
        (
            "content of 2^62 - 1",
            known(b"", &[0xff; 8]),
            FormError::ContentTooLong,
        ),
        (
            "chunks over the limit",
            indeterminate(&[b"\x00\x43\xe8", &[0; 1000][..], b"\x01"].concat()),
            FormError::ContentTooLong,
        ),
        (
            "upper-case trailer",
            indeterminate(b"\x00\x00\x01T\x01u\x00"),
            FormError::FieldName,
        ),
    ];
    for (name, message, error) in cases {
        assert_eq!(request(&message).unwrap_err(), error, "{name}");
    }
}

#[test]
fn flaws_and_forms_of_responses() {
    let with = |rest: &[u8]| [&[3][..], rest].concat();
    let ended = b"\x40\xc8\x00\x00\x00";
    let hints: Vec<u8> = b"\x40\x67\x01a\x01b\x00".repeat(101);
    let fine = response(&with(&[&hints[..], ended].concat())).unwrap();
    assert_eq!(fine.head, Some(StatusLine { status: 200 }));
    assert_eq!(fine.fields, Fields::default());
    let known = response(b"\x01\x40\x64\x00\x42\x57\x00\x01x\x00\x00").unwrap();
    assert_eq!(known.head, Some(StatusLine { status: 599 }));
    let cases: Vec<(&str, Vec<u8>, FormError)> = vec![
        ("a request", b"\x00\x04POST".to_vec(), FormError::Framing),
        ("status 99", with(b"\x40\x63"), FormError::Status),
        ("status 600", with(b"\x42\x58"), FormError::Status),
        (
            "status 65536 + 200",
            with(b"\x80\x01\x00\xc8"),
            FormError::Status,
        ),
        (
            "only informational",
            with(b"\x40\x64\x00"),
            FormError::Incomplete,
        ),
    ];
    for (name, message, error) in cases {
        assert_eq!(response(&message).unwrap_err(), error, "{name}");
    }
}

#[test]
fn informational_responses_are_passed_over_and_counted() {
    let most = usize::try_from(MAX_INFORMATIONAL).unwrap();
    for (count, expected) in [
        (most, Ok(())),
        (most + 1, Err(FormError::TooManyInformational)),
    ] {
        let heads = b"\x40\x66\x00".repeat(count);
        let message = [b"\x03", &heads[..], b"\x40\xc8\x00\x00\x00"].concat();
        let mut reader = Reader::<StatusLine>::new(0);
        let mut input = Bytes::from(message);
        let mut read = Ok(());
        while !input.is_empty() && read.is_ok() {
            read = reader.read(&mut input).map(|_| ());
        }
        assert_eq!(read, expected, "{count}");
    }
    for len in [100, 300, 511, 512, 16_000] {
        let mut filling = Vec::new();
        put_informational(&mut filling, 102, len).unwrap();
        assert_eq!(filling.len(), len);
        let fine = response(&[b"\x03", &filling[..], b"\x40\xc8\x00\x00\x00"].concat());
        assert_eq!(
            fine.unwrap().head,
            Some(StatusLine { status: 200 }),
            "{len}"
        );
    }
}

/// Lines that together have this many bytes of names and values.
fn lines(count: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for line in 0..count {
        let value = "v".repeat(bytes / count - 1 + if line == 0 { bytes % count } else { 0 });
        put_fields(&mut out, &[("n", &value)], usize::MAX).unwrap();
    }
    out
}

#[test]
fn fields_are_bounded_in_number_and_bytes() {
    let cases = [
        ("100 fields", lines(100, 1000), vec![], Ok(())),
        (
            "101 fields",
            lines(101, 1000),
            vec![],
            Err(FormError::TooManyFields),
        ),
        ("32 KiB", lines(3, 32 * 1024), vec![], Ok(())),
        (
            "over 32 KiB",
            lines(3, 32 * 1024 + 1),
            vec![],
            Err(FormError::FieldsTooLong),
        ),
        ("8 KiB of trailers", lines(1, 9), lines(2, 8 * 1024), Ok(())),
        (
            "more trailers",
            vec![],
            lines(2, 8 * 1024 + 1),
            Err(FormError::FieldsTooLong),
        ),
        (
            "101 in all",
            lines(60, 600),
            lines(41, 410),
            Err(FormError::TooManyFields),
        ),
    ];
    for (name, fields, trailers, expected) in cases {
        let message = indeterminate(&[&fields[..], &[0, 0], &trailers, &[0]].concat());
        assert_eq!(request(&message).map(|_| ()), expected, "{name}");
    }
}

#[test]
fn repeated_fields_are_found() {
    let message = request(&known(b"\x01a\x01b\x01c\x00\x01a\x01d", b"\x00\x00")).unwrap();
    assert_eq!(message.fields.get("a"), Some("b"), "the first");
    assert_eq!(
        message.fields.once(|name| name == "a"),
        Err(FormError::RepeatedField)
    );
    assert_eq!(message.fields.once(|name| name == "c"), Ok(()));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        fields in proptest::collection::vec(("[a-z-]{1,12}", "([!-~]([ -~é]{0,20}[!-~])?)?"), 0..20),
        content in proptest::collection::vec(any::<u8>(), 0..1000),
        padding in 0_usize..50,
        split in 1_usize..50,
    ) {
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut bytes = Vec::new();
        writer::request(&mut bytes, "/v1/x", &fields, &content).unwrap();
        prop_assert_eq!(
            bytes.len(),
            count(|out| writer::request(out, "/v1/x", &fields, &content)).unwrap()
        );
        bytes.resize(bytes.len() + padding, 0);
        let message = read_pieces::<RequestLine>(bytes.chunks(split), 1000).unwrap();
        prop_assert_eq!(message.fields.iter().collect::<Vec<_>>(), fields);
        prop_assert_eq!(message.content, content);
    }

    #[test]
    fn any_bytes_split_anywhere_read_the_same(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..8], 0..200),
        start in 0_usize..4,
    ) {
        let starts: [&[u8]; 4] = [b"", b"\x02\x04POST\x05https\x00\x01/", b"\x03\x40\xc8", b"\x01\x40\xc8"];
        let bytes = [starts[start], &bytes].concat();
        let _ = (request(&bytes), response(&bytes));
    }
}
