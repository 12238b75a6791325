//! Event streams, padded and not.

use proptest::prelude::*;

use super::*;
use crate::seal::SealError;

pub(super) const EVENT_STREAM: [(&str, &str); 1] = [("content-type", "text/event-stream")];
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";
pub(super) const REPLY_HEAD: usize = 32;

/// What is left when comments go, each with its own LF.
pub(super) fn without_comments(content: &[u8]) -> Vec<u8> {
    content
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b":"))
        .collect::<Vec<_>>()
        .concat()
}

pub(super) fn event(len: usize) -> Vec<u8> {
    [b"data: ", &vec![b'x'; len][..], b"\n\n"].concat()
}

/// Seals `parts` and then the end, and checks all that a padded stream promises.
fn check_padded(parts: &[Vec<u8>], end: &[u8]) {
    let (opener, sealer) = Node::new().exchange();
    let mut stream = sealer
        .into_stream(200, &EVENT_STREAM, Padding::Bucket)
        .unwrap();
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(&stream.chunk(part).unwrap());
    }
    body.extend_from_slice(&stream.finish(end, &[("sealgate-usage", "{}")]).unwrap());
    for len in plaintext_lens(&body, REPLY_HEAD) {
        assert!(len % 512 == 0 && (512..=16_384).contains(&len), "{len}");
    }
    let seen = read_reply(opener, [&body[..]]);
    let last = seen.end.as_ref().unwrap().content.clone();
    assert!(
        end.ends_with(&last),
        "the final chunk has nothing but the last content"
    );
    if end.ends_with(DONE) {
        assert!(
            last.ends_with(DONE),
            "the end event stands in the final chunk"
        );
    }
    let (head, content, trailers) = seen.complete();
    assert_eq!(head.content_type.as_deref(), Some("text/event-stream"));
    assert_eq!(trailers.usage.as_deref(), Some("{}"));
    let expected = [parts.concat(), end.to_vec()].concat();
    assert!(without_comments(&content) == expected);
}

#[test]
fn every_length_of_event_is_hidden() {
    for len in (0..520)
        .chain(15_840..15_890)
        .chain(16_340..16_390)
        .chain(16_850..16_900)
    {
        check_padded(&[event(len), event(0)], DONE);
    }
    for len in [30_000, 100_000, 1_000_000] {
        check_padded(
            &[event(len), vec![], event(3)],
            &[event(20_000), DONE.to_vec()].concat(),
        );
    }
    check_padded(&[], DONE);
    check_padded(&[vec![]], DONE);
    check_padded(&[], b"");
    check_padded(&[], &event(40_000));
}

#[test]
fn lines_around_the_end_of_a_chunk_are_cut_where_comments_fit() {
    for short in [0, 1, 2, 7, 39] {
        for long in 16_340..16_390 {
            check_padded(
                &[event(1), [event(short), event(long - short)].concat()],
                DONE,
            );
        }
    }
}

#[test]
fn short_events_look_alike() {
    let lens = [1, 100, 400].map(|len| {
        let (_, sealer) = Node::new().exchange();
        let mut stream = sealer
            .into_stream(200, &EVENT_STREAM, Padding::Bucket)
            .unwrap();
        let head = stream.chunk(b"").unwrap().len();
        (head, stream.chunk(&event(len)).unwrap().len())
    });
    assert_eq!(lens, [(32 + 2 + 512 + 16, 2 + 512 + 16); 3]);
}

#[test]
fn an_unpadded_stream_is_the_content_as_it_comes() {
    let (opener, sealer) = Node::new().exchange();
    let mut stream = sealer.into_stream(200, &[], Padding::Off).unwrap();
    let head = stream.chunk(b"").unwrap();
    assert_eq!(
        plaintext_lens(&[&head[..], &[0; 17]].concat(), REPLY_HEAD),
        [4, 0]
    );
    assert!(stream.chunk(b"").unwrap().is_empty(), "nothing to say");
    let large = vec![b'x'; 40_000];
    let rest = stream.chunk(&large).unwrap();
    let end = stream.finish(b"end", &[]).unwrap();
    let body = [&head[..], &rest, &end].concat();
    assert_eq!(
        plaintext_lens(&body, REPLY_HEAD),
        [4, 16_384, 16_384, 7_238, 7]
    );
    let seen = read_reply(opener, [&body[..]]);
    assert_eq!(seen.end.as_ref().unwrap().content, &b"end"[..]);
    assert!(seen.complete().1 == [&large[..], b"end"].concat());
}

#[test]
fn a_large_head_and_large_trailers_fit_around_any_end() {
    let (head, usage) = ("h".repeat(8000), "u".repeat(8000));
    for len in (0..20_000).step_by(997) {
        let (opener, sealer) = Node::new().exchange();
        let stream = sealer
            .into_stream(200, &[("x", &head)], Padding::Off)
            .unwrap();
        let content = vec![b'c'; len];
        let body = stream
            .finish(&content, &[("sealgate-usage", &usage)])
            .unwrap();
        assert!(
            plaintext_lens(&body, REPLY_HEAD)
                .iter()
                .all(|len| *len <= 16_384),
            "{len}"
        );
        let (_, back, trailers) = read_reply(opener, [&body[..]]).complete();
        assert!(back == content && trailers.usage.unwrap() == usage, "{len}");
    }
}

#[test]
fn padding_never_goes_where_it_would_be_content() {
    let (_, sealer) = Node::new().exchange();
    let refused = sealer.into_stream(200, &[("content-type", "text/plain")], Padding::Bucket);
    assert_eq!(refused.map(|_| ()), Err(SealError::NotAnEventStream));
    let (_, sealer) = Node::new().exchange();
    let charset = [("content-type", "text/event-stream; charset=utf-8")];
    let mut stream = sealer.into_stream(200, &charset, Padding::Bucket).unwrap();
    assert_eq!(
        stream.chunk(b"data: half a li"),
        Err(SealError::PartialLine)
    );
    assert_eq!(
        stream.chunk(DONE),
        Err(SealError::Failed),
        "and stays failed"
    );
    assert_eq!(stream.finish(DONE, &[]), Err(SealError::Failed));
}

#[test]
fn chunks_that_opened_are_counted() {
    let (mut opener, sealer) = Node::new().exchange();
    let mut stream = sealer
        .into_stream(200, &EVENT_STREAM, Padding::Bucket)
        .unwrap();
    let first = stream.chunk(b"").unwrap();
    opener.push(first.slice(..40)).unwrap();
    assert_eq!(opener.next_part(), Ok(None));
    assert_eq!(opener.chunks_opened(), 0);
    opener.push(first.slice(40..)).unwrap();
    assert!(matches!(opener.next_part(), Ok(Some(ReplyPart::Head(_)))));
    assert_eq!(opener.chunks_opened(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_lines_arrive(
        parts in proptest::collection::vec(
            proptest::collection::vec(0_usize..20_000, 0..4), 0..6),
        end in proptest::collection::vec(0_usize..20_000, 0..3),
    ) {
        let lines = |lens: &Vec<usize>| lens.iter().flat_map(|len| event(*len)).collect::<Vec<u8>>();
        let parts: Vec<Vec<u8>> = parts.iter().map(lines).collect();
        check_padded(&parts, &[lines(&end), DONE.to_vec()].concat());
    }
}
