//! Requests and whole replies, there and back.

use proptest::prelude::*;

use super::*;
use crate::seal::{FormError, OpenErrorKind, SealError, padding::Lengths as _};

/// Pieces of `bytes`, cut at these places.
fn cut_at(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(bytes.len()));
    starts
        .zip(ends)
        .map(|(start, end)| bytes[start..end].to_vec())
        .collect()
}

#[test]
fn a_request_and_its_reply_arrive_whole() {
    let nodes = KEMS.map(|kem| (Node::of(kem), 7 + kem.enc_len()));
    let content_lens = [0, 1, 1000, 16_200, 16_383, 16_384, 16_385, 40_000, 300_000];
    for (len, padding, (node, head)) in content_lens
        .into_iter()
        .flat_map(|len| [(len, Padding::Off), (len, Padding::Bucket)])
        .flat_map(|(len, padding)| nodes.each_ref().map(|node| (len, padding, node)))
    {
        let request_head = *head;
        let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let (request, opener) = node.sealed(&content, padding);
        let (opened, sealer) = node.open([&request[..]]).unwrap();
        assert_eq!(
            (opened.method.as_str(), opened.path.as_str()),
            ("POST", HEAD.path)
        );
        assert_eq!(opened.fields.iter().collect::<Vec<_>>(), HEAD.fields);
        assert_eq!(opened.key_id, KEY_ID);
        assert!(opened.content == content, "{len}");

        let fields = [("content-type", "application/json"), ("x-other", "dropped")];
        let trailers = [("sealgate-usage", "{}"), ("other", "dropped")];
        let reply = sealer
            .seal_whole(200, &fields, &content, &trailers, padding)
            .unwrap();
        let (head, back, trailers) = read_reply(opener, [&reply[..]]).complete();
        assert_eq!(head.status, 200);
        assert_eq!(head.content_type.as_deref(), Some("application/json"));
        assert_eq!(trailers.usage.as_deref(), Some("{}"));
        assert!(back == content, "{len}");
        if padding == Padding::Bucket {
            for (body, head) in [(&request, request_head), (&reply, 32)] {
                let plain: usize = plaintext_lens(body, head).iter().sum();
                assert_eq!(Padding::Bucket.whole(plain), Some(plain), "{len}");
            }
        }
    }
}

#[test]
fn sealing_takes_one_buffer_of_the_exact_length() {
    for kem in KEMS {
        let node = Node::of(kem);
        let (request, _) = node.sealed(&[b'x'; 50_000], Padding::Bucket);
        let buffer = request.try_into_mut().unwrap();
        assert_eq!(buffer.len(), buffer.capacity(), "{kem:?}");
    }
}

#[test]
fn one_chunk_of_content_is_given_on_without_a_copy() {
    let node = Node::new();
    let (opener, sealer) = node.exchange();
    let reply = sealer
        .seal_whole(200, &[], b"content", &[], Padding::Off)
        .unwrap();
    let body = owned(&reply);
    let at = body.as_ptr() as usize;
    let mut opener = opener;
    opener.push(body).unwrap();
    let end = opener.finish().unwrap();
    let here = end.content.as_ptr() as usize;
    assert!((at..at + reply.len()).contains(&here));
}

#[test]
fn parts_that_nobody_took_come_with_the_end() {
    let (mut opener, sealer) = Node::new().exchange();
    let content = vec![7; 40_000];
    let reply = sealer.seal_whole(429, &[("retry-after", "3")], &content, &[], Padding::Off);
    opener.push(reply.unwrap()).unwrap();
    let end = opener.finish().unwrap();
    assert_eq!(end.head.unwrap().retry_after.as_deref(), Some("3"));
    assert!(end.content == content);
}

#[test]
fn errors_tell_the_sender_what_to_do() {
    let node = Node::new();
    let (request, _) = node.sealed(b"{}", Padding::Off);
    let with = |at: usize, byte: u8| {
        let mut changed = request.to_vec();
        changed[at] = byte;
        node.open([&changed[..]]).map(|_| ()).unwrap_err()
    };
    let with_kem = |kem: Kem| {
        let mut changed = request.to_vec();
        changed[1..3].copy_from_slice(&kem.id().to_be_bytes());
        node.open([&changed[..]]).map(|_| ()).unwrap_err()
    };
    let cases = [
        ("unknown key", with(0, 6), OpenError::UnknownKey(6)),
        ("another KEM", with(2, 0x10), OpenError::UnsupportedSuite),
        (
            "the other KEM",
            with_kem(Kem::XWing),
            OpenError::UnsupportedSuite,
        ),
        ("another KDF", with(4, 2), OpenError::UnsupportedSuite),
        ("another AEAD", with(6, 3), OpenError::UnsupportedSuite),
        ("the other AEAD", with(6, 1), OpenError::FirstChunk),
        (
            "another enc",
            with(10, request[10] ^ 1),
            OpenError::FirstChunk,
        ),
        (
            "a bad tag",
            with(request.len() - 1, !request[request.len() - 1]),
            OpenError::FirstChunk,
        ),
    ];
    for (name, error, expected) in cases {
        assert_eq!(error, expected, "{name}");
        assert_eq!(error.kind(), OpenErrorKind::Key, "{name}");
    }
    let stranger = Node::new();
    assert_eq!(
        stranger.open([&request[..]]).unwrap_err(),
        OpenError::FirstChunk
    );
}

#[test]
fn content_over_the_limit_is_refused_before_it_is_kept() {
    let node = Node::new();
    for (len, fits) in [(1000, true), (1001, false), (300_000, false)] {
        let (request, _) = node.sealed(&vec![1; len], Padding::Bucket);
        let mut opener = RequestOpener::new(RequestLimits {
            content_bytes: 1000,
        });
        let opened = opener
            .push(&node.keys, request)
            .and_then(|()| opener.finish());
        let error = opened.map(|_| ()).err();
        assert_eq!(
            error,
            (!fits).then_some(OpenError::TooLarge { max: 1000 }),
            "{len}"
        );
    }
    assert_eq!(
        OpenError::TooLarge { max: 1 }.kind(),
        OpenErrorKind::TooLarge
    );
}

#[test]
fn zero_shared_secrets_are_refused_on_both_sides() {
    // RFC 7748 section 6.1: points of low order, in the encodings that X25519 accepts.
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    let node = Node::new();
    let (request, _) = node.sealed(b"{}", Padding::Off);
    for point in low_order {
        let mut public_key = [0; 32];
        hex::decode_to_slice(point, &mut public_key).unwrap();
        let recipient = Recipient {
            key_id: 1,
            public_key: &public_key,
            suite: X25519,
        };
        let sealed = seal_to(recipient, &HEAD, b"", Padding::Off, &mut rng());
        assert_eq!(sealed.map(|_| ()), Err(SealError::UnusableKey), "{point}");

        let mut changed = request.to_vec();
        changed[7..39].copy_from_slice(&public_key);
        assert_eq!(
            node.open([&changed[..]]).unwrap_err(),
            OpenError::FirstChunk,
            "{point}"
        );
    }
}

#[test]
fn a_message_of_wrong_form_can_be_refused_sealed() {
    let node = Node::new();
    let twice = [("sealgate-padding", "off"), ("sealgate-padding", "off")];
    let head = RequestHead {
        path: "/",
        fields: &twice,
    };
    let content = [0; 40_000];
    let recipient = node.recipient();
    let (request, reply) = seal_to(recipient, &head, &content, Padding::Off, &mut rng()).unwrap();
    let mut opener = RequestOpener::new(RequestLimits::default());
    opener.push(&node.keys, request.clone()).unwrap();
    let (opened, sealer) = opener.finish_or_refuse().unwrap();
    assert_eq!(opened.unwrap_err(), FormError::RepeatedField);
    let refusal = sealer
        .seal_whole(400, &[], b"no", &[], Padding::Off)
        .unwrap();
    assert_eq!(read_reply(reply, [&refusal[..]]).complete().0.status, 400);

    let error = node.open([&request[..]]).unwrap_err();
    assert_eq!(error, OpenError::Form(FormError::RepeatedField));
    assert_eq!(error.kind(), OpenErrorKind::Malformed);
}

#[test]
fn what_no_reader_accepts_is_not_sealed() {
    let node = Node::new();
    let cases: [(&str, RequestHead<'_>); 6] = [
        (
            "empty path",
            RequestHead {
                path: "",
                fields: &[],
            },
        ),
        (
            "blank in path",
            RequestHead {
                path: "/a b",
                fields: &[],
            },
        ),
        (
            "upper case",
            RequestHead {
                path: "/",
                fields: &[("Accept", "x")],
            },
        ),
        (
            "pseudo-field",
            RequestHead {
                path: "/",
                fields: &[(":path", "x")],
            },
        ),
        (
            "line break",
            RequestHead {
                path: "/",
                fields: &[("a", "x\ny")],
            },
        ),
        (
            "outer blank",
            RequestHead {
                path: "/",
                fields: &[("a", "x ")],
            },
        ),
    ];
    for (name, head) in cases {
        let recipient = node.recipient();
        let sealed = seal_to(recipient, &head, b"", Padding::Off, &mut rng());
        assert!(matches!(sealed, Err(SealError::Malformed(_))), "{name}");
    }
    for status in [0, 103, 199, 600] {
        let sealed = node
            .exchange()
            .1
            .seal_whole(status, &[], b"", &[], Padding::Off);
        assert_eq!(sealed, Err(SealError::Malformed("status")));
    }
    let long = "x".repeat(8 * 1024);
    let sealed = node
        .exchange()
        .1
        .seal_whole(200, &[], b"", &[("t", &long)], Padding::Off);
    assert_eq!(sealed, Err(SealError::TrailersTooLong { max: 8192 }));
}

#[test]
fn repeated_fields_that_a_sealer_reads_are_refused() {
    type Lines = &'static [(&'static str, &'static str)];
    let cases: [(&str, Lines, Lines, bool); 4] = [
        (
            "content-type",
            &[("content-type", "a"), ("content-type", "a")],
            &[],
            false,
        ),
        (
            "retry-after",
            &[("retry-after", "1"), ("retry-after", "2")],
            &[],
            false,
        ),
        (
            "usage",
            &[],
            &[("sealgate-usage", "1"), ("sealgate-usage", "1")],
            false,
        ),
        (
            "others",
            &[("set-cookie", "a"), ("set-cookie", "b")],
            &[],
            true,
        ),
    ];
    for (name, fields, trailers, accepted) in cases {
        let (opener, sealer) = Node::new().exchange();
        let reply = sealer
            .seal_whole(200, fields, b"", trailers, Padding::Off)
            .unwrap();
        let seen = read_reply(opener, [&reply[..]]);
        let refused = Some(OpenError::Form(FormError::RepeatedField));
        assert_eq!(seen.error, if accepted { None } else { refused }, "{name}");
    }
}

#[test]
fn nothing_shows_in_debug() {
    let node = Node::new();
    let (opener, sealer) = node.exchange();
    let (request, _) = node.sealed(b"canary", Padding::Off);
    let opened = node.open([&request[..]]).unwrap().0;
    let shown = format!("{opener:?} {sealer:?} {opened:?}");
    assert_eq!(
        shown,
        "ReplyOpener(..) ReplySealer(..) OpenedRequest { key_id: 5, content_len: 6, .. }"
    );
    let reply = sealer.seal_whole(200, &[("x-canary", "canary")], b"canary", &[], Padding::Off);
    let end = read_reply(opener, [&reply.unwrap()[..]]).end.unwrap();
    let part = ReplyPart::Content(end.content.clone());
    let shown = format!("{end:?} {part:?} {:?}", opened.fields);
    assert!(
        shown.contains("content_len: 6, .. } Content(6 bytes) {\"content-type\""),
        "{shown}"
    );
    assert!(!shown.contains("canary"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same(
        content in proptest::collection::vec(any::<u8>(), 0..60_000),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        bucket in any::<bool>(),
    ) {
        let padding = if bucket { Padding::Bucket } else { Padding::Off };
        let node = Node::new();
        let (request, opener) = node.sealed(&content, padding);
        let pieces = cut_at(&request, &cuts);
        let (opened, sealer) = node.open(pieces.iter().map(Vec::as_slice)).unwrap();
        prop_assert!(opened.content == content);
        let reply = sealer.seal_whole(200, &[], &content, &[], padding).unwrap();
        let pieces = cut_at(&reply, &cuts);
        let (_, back, _) = read_reply(opener, pieces.iter().map(Vec::as_slice)).complete();
        prop_assert!(back == content);
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same() {
    let node = Node::new();
    let content = vec![b'x'; 17_000];
    let (request, opener) = node.sealed(&content, Padding::Bucket);
    let (opened, sealer) = node.open(request.chunks(1)).unwrap();
    assert!(opened.content == content);
    let reply = sealer
        .seal_whole(200, &[], &content, &[], Padding::Bucket)
        .unwrap();
    assert!(read_reply(opener, reply.chunks(1)).complete().1 == content);
}
