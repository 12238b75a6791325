//! The strict reader: no panic, no torn event, and the same whole or one byte at a time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::openai::sse::{END, Obfuscation, ReplyEvents, SseError};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, end: &[u8]) -> Result<Vec<u8>, SseError> {
    let mut events = ReplyEvents::new();
    let mut given = Vec::new();
    for piece in pieces {
        given.extend_from_slice(&events.push(piece)?);
    }
    given.extend_from_slice(&events.finish(end)?);
    Ok(given)
}

fuzz_target!(|content: &[u8]| {
    let whole = read(std::iter::once(content), END);
    assert_eq!(read(content.chunks(1), END), whole);
    if let Ok(given) = whole {
        assert!(given.ends_with(END) && !given.contains(&b'\r'));
        assert_eq!(read(std::iter::empty(), &given).as_ref(), Ok(&given));
        let levelled = Obfuscation::new(64).level_seeded(&given, 1);
        assert_eq!(read(std::iter::empty(), &levelled).as_ref(), Ok(&levelled));
    }
    let _ = read(std::iter::empty(), content);
});
