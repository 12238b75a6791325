//! Replies that go out at ticks, in chunks of one length.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::{
    streams::{DONE, EVENT_STREAM, REPLY_HEAD, event, without_comments},
    *,
};
use crate::seal::{MAX_INFORMATIONAL, PacedSealer, Row, SealError, Tick};

const USAGE: [(&str, &str); 1] = [("sealgate-usage", "{}")];

fn row(steps: usize) -> Row {
    Row {
        least: NonZeroUsize::MIN,
        steps: NonZeroUsize::new(steps).unwrap(),
    }
}

fn paced(steps: usize) -> (ReplyOpener, PacedSealer) {
    let (opener, sealer) = Node::new().exchange();
    (opener, sealer.into_paced(row(steps)).unwrap())
}

/// Ticks up to the end of a reply that was ended; gives its number of chunks.
fn tick_to_the_end(mut sealer: PacedSealer, body: &mut Vec<u8>) {
    loop {
        match sealer.tick().unwrap() {
            Tick::Chunk(bytes, next) => {
                body.extend_from_slice(&bytes);
                sealer = next;
            }
            Tick::Last(bytes) => {
                body.extend_from_slice(&bytes);
                return;
            }
        }
    }
}

/// One tick of a reply that has not ended.
fn tick(sealer: PacedSealer, body: &mut Vec<u8>) -> PacedSealer {
    match sealer.tick().unwrap() {
        Tick::Chunk(bytes, next) => {
            body.extend_from_slice(&bytes);
            next
        }
        Tick::Last(_) => panic!("an end that nobody told"),
    }
}

/// What an event stream is made of: ticks before its head, then content with ticks after each part.
#[derive(Clone, Debug)]
struct Story {
    silent: usize,
    parts: Vec<(Vec<u8>, usize)>,
    end: Vec<u8>,
    steps: usize,
}

/// Tells it, and checks all that a paced stream promises.
fn check(story: &Story) {
    let (opener, mut sealer) = paced(story.steps);
    let mut body = Vec::new();
    for _ in 0..story.silent {
        sealer = tick(sealer, &mut body);
    }
    sealer.begin(200, &EVENT_STREAM).unwrap();
    for (part, ticks) in &story.parts {
        sealer.push(part).unwrap();
        for _ in 0..*ticks {
            sealer = tick(sealer, &mut body);
        }
    }
    sealer.push(&story.end).unwrap();
    sealer.end(&USAGE).unwrap();
    tick_to_the_end(sealer, &mut body);
    let lens = plaintext_lens(&body, REPLY_HEAD);
    assert!(lens.iter().all(|len| *len == 512), "{lens:?}: {story:?}");
    let total = row(story.steps).total(lens.len());
    assert_eq!(total, lens.len(), "{story:?}");
    let seen = read_reply(opener, [&body[..]]);
    let last = &seen.end.as_ref().unwrap().content;
    if story.end.ends_with(DONE) {
        assert!(last.ends_with(DONE), "the end event is in the final chunk");
    }
    let (head, content, trailers) = seen.complete();
    assert_eq!(head.status, 200);
    assert_eq!(trailers.usage.as_deref(), Some("{}"));
    let parts: Vec<_> = story.parts.iter().map(|(part, _)| &part[..]).collect();
    let expected = [&parts.concat()[..], &story.end].concat();
    assert!(without_comments(&content) == expected, "{story:?}");
}

fn story(parts: &[Vec<u8>], end: &[u8]) -> Story {
    Story {
        silent: 0,
        parts: parts.iter().map(|part| (part.clone(), 1)).collect(),
        end: end.to_vec(),
        steps: 1,
    }
}

#[test]
fn every_chunk_is_as_long_as_any_other_whatever_is_said() {
    for len in (0..1100).chain([4096, 20_000]) {
        // With the head before it, without, and as the last thing.
        check(&story(&[event(len)], DONE));
        check(&story(&[vec![], event(len)], DONE));
        check(&story(&[], &[&event(len)[..], DONE].concat()));
        check(&story(&[vec![], vec![]], &event(len)));
    }
    let lines = [event(100), event(3), event(0), event(230), event(700)].concat();
    check(&story(&[lines.clone(), vec![], lines], DONE));
    check(&story(&[], DONE));
    check(&story(&[], b""));
}

#[test]
fn what_comes_before_the_status_is_passed_over() {
    for silent in [1, 2, 3, 200] {
        check(&Story {
            silent,
            ..story(&[event(10)], DONE)
        });
    }
    let (mut opener, mut sealer) = paced(1);
    for opened in 1..4 {
        let mut body = Vec::new();
        sealer = tick(sealer, &mut body);
        opener.push(body.into()).unwrap();
        assert_eq!(opener.next_part(), Ok(None));
        assert_eq!(opener.chunks_opened(), opened, "a sign of life");
    }
}

#[test]
fn what_is_no_stream_has_its_own_status_and_goes_out_at_once_under_its_bucket() {
    for silent in [0, 2, 4] {
        for (len, last) in [
            (0, vec![1024]),
            (500, vec![1024]),
            (900, vec![1024]),
            (1024, vec![2048]),
            (5000, vec![8192]),
            (16_000, vec![16_384]),
            (16_384, vec![16_384, 16_384]),
            (34_000, vec![16_384, 16_384, 2048]),
        ] {
            let (opener, mut sealer) = paced(1);
            let mut body = Vec::new();
            for _ in 0..silent {
                sealer = tick(sealer, &mut body);
            }
            let fields = [("content-type", "application/json"), ("retry-after", "7")];
            let content = vec![b'x'; len];
            sealer.say(503, &fields, &content, &USAGE).unwrap();
            let again = sealer.say(503, &fields, b"", &[]);
            assert_eq!(again, Err(SealError::Failed));
            assert_eq!(sealer.push(DONE), Err(SealError::Failed));
            assert_eq!(sealer.cut(&[]), Ok(false), "it is out at the next tick");
            tick_to_the_end(sealer, &mut body);
            let lens = plaintext_lens(&body, REPLY_HEAD);
            let expected = [vec![512; silent], last].concat();
            assert_eq!(lens, expected, "{len}");
            let (head, back, trailers) = read_reply(opener, [&body[..]]).complete();
            assert_eq!(trailers.usage.as_deref(), Some("{}"));
            assert_eq!((head.status, head.retry_after.as_deref()), (503, Some("7")));
            assert!(back == content, "{len}");
        }
    }
}

#[test]
fn a_status_comes_before_readers_have_passed_over_all_that_they_do() {
    let (opener, mut sealer) = paced(1);
    let mut body = Vec::new();
    while !sealer.must_begin() {
        sealer = tick(sealer, &mut body);
    }
    assert_eq!(body.len(), REPLY_HEAD + MAX_INFORMATIONAL * (2 + 512 + 16));
    sealer.say(502, &[], b"", &[]).unwrap();
    assert!(!sealer.must_begin());
    tick_to_the_end(sealer, &mut body);
    let (head, _, _) = read_reply(opener, [&body[..]]).complete();
    assert_eq!(head.status, 502);
    let (_, mut sealer) = paced(1);
    for _ in 0..MAX_INFORMATIONAL {
        sealer = tick(sealer, &mut Vec::new());
    }
    assert_eq!(sealer.tick().map(|_| ()), Err(SealError::Failed));
}

#[test]
fn trailers_too_long_for_a_chunk_make_the_last_one_longer() {
    let long = "u".repeat(900);
    for end in [DONE.to_vec(), [&event(300)[..], DONE].concat(), vec![]] {
        let (opener, mut sealer) = paced(1);
        sealer.begin(200, &EVENT_STREAM).unwrap();
        sealer.push(&end).unwrap();
        sealer.end(&[("sealgate-usage", &long)]).unwrap();
        let mut body = Vec::new();
        tick_to_the_end(sealer, &mut body);
        let lens = plaintext_lens(&body, REPLY_HEAD);
        let (last, others) = lens.split_last().unwrap();
        assert!(*last == 1024 && others.iter().all(|len| *len == 512));
        let (_, content, trailers) = read_reply(opener, [&body[..]]).complete();
        assert!(without_comments(&content) == end);
        assert_eq!(trailers.usage.unwrap(), long);
    }
}

#[test]
fn a_cut_ends_with_the_next_tick_and_loses_what_waits_unless_that_is_the_end() {
    let cut = [("sealgate-incomplete", "cancelled")];
    let cases: [(&str, Vec<u8>, bool, bool); 4] = [
        ("nothing said", vec![], false, true),
        ("much waits", event(5000), false, true),
        (
            "much waits of an end",
            [&event(5000)[..], DONE].concat(),
            true,
            true,
        ),
        ("the end waits for its row", DONE.to_vec(), true, false),
    ];
    for (name, waiting, ended, lost) in cases {
        let (opener, mut sealer) = paced(1);
        sealer.begin(200, &EVENT_STREAM).unwrap();
        let mut body = Vec::new();
        for _ in 0..4 {
            sealer = tick(sealer, &mut body);
        }
        sealer.push(&waiting).unwrap();
        if ended {
            sealer.end(&[]).unwrap();
        }
        sealer = tick(sealer, &mut body);
        assert_eq!(sealer.cut(&cut), Ok(lost), "{name}");
        assert!(matches!(sealer.tick(), Ok(Tick::Last(last)) if {
            body.extend_from_slice(&last);
            true
        }));
        assert_eq!(plaintext_lens(&body, REPLY_HEAD), [512; 6], "{name}");
        let (_, content, trailers) = read_reply(opener, [&body[..]]).complete();
        assert_eq!(trailers.incomplete.is_some(), lost, "{name}");
        assert_eq!(content.ends_with(DONE), !lost, "{name}");
    }
}

#[test]
fn what_has_no_place_is_refused() {
    let (_, mut sealer) = paced(1);
    assert_eq!(sealer.push(DONE), Err(SealError::Failed), "before the head");
    assert_eq!(sealer.end(&[]), Err(SealError::Failed), "before the head");
    sealer.begin(200, &EVENT_STREAM).unwrap();
    assert_eq!(sealer.begin(200, &[]), Err(SealError::Failed), "two heads");
    assert_eq!(sealer.push(b"data: half"), Err(SealError::PartialLine));
    sealer.end(&[]).unwrap();
    assert_eq!(sealer.push(DONE), Err(SealError::Failed), "after the end");
    let (_, mut sealer) = paced(1);
    let long = "h".repeat(300);
    let refused = sealer.begin(200, &[EVENT_STREAM[0], ("x", &long)]);
    assert_eq!(refused, Err(SealError::Malformed("field section")));
    let refused = sealer.begin(200, &[]);
    assert_eq!(refused, Err(SealError::NotAnEventStream), "no comment fits");
    let (_, sealer) = Node::new().exchange();
    let refused = sealer.into_stream(200, &EVENT_STREAM, Padding::Paced);
    assert_eq!(refused.map(|_| ()), Err(SealError::NeedsTicks));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_lines_arrive_whenever_they_come(
        silent in 0_usize..5,
        parts in proptest::collection::vec(
            (proptest::collection::vec(0_usize..1500, 0..6), 0_usize..4), 0..8),
        end in proptest::collection::vec(0_usize..1500, 0..3),
        done in any::<bool>(),
        steps in 1_usize..5,
    ) {
        let lines = |lens: &Vec<usize>| lens.iter().flat_map(|len| event(*len)).collect::<Vec<u8>>();
        let done = if done { DONE } else { b"" };
        check(&Story {
            silent,
            parts: parts.iter().map(|(lens, ticks)| (lines(lens), *ticks)).collect(),
            end: [&lines(&end)[..], done].concat(),
            steps,
        });
    }
}

/// What is said of usage, and whether there is a receipt at all, must not show in the last chunk.
#[test]
fn the_end_has_room_for_a_receipt_whatever_it_says() {
    let lens = |content: &[u8], trailers: &[usize]| {
        trailers
            .iter()
            .map(|len| {
                let (_, sealer) = paced(1);
                let mut sealer = sealer.with_room_for_receipt();
                let mut body = Vec::new();
                sealer.begin(200, &EVENT_STREAM).unwrap();
                sealer.push(content).unwrap();
                sealer.push(DONE).unwrap();
                let text = "a".repeat(*len);
                sealer.end(&[("sealgate-receipt", &text)]).unwrap();
                tick_to_the_end(sealer, &mut body);
                plaintext_lens(&body, REPLY_HEAD)
            })
            .collect::<Vec<_>>()
    };
    for content in [&b""[..], &event(100), &event(460), &event(900)] {
        let seen = lens(content, &[0, 300, 480, 520, 1100, 1900]);
        assert!(seen.iter().all(|lens| *lens == seen[0]), "{seen:?}");
        assert_eq!(seen[0].last(), Some(&2048), "{seen:?}");
    }
}
