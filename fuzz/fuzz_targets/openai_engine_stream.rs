//! An engine's stream: no panic, the same at any split, and what is levelled passes the strict
//! reader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::openai::{
    Endpoint,
    level::{LevelError, RequestOptions, StreamLeveller, level_request},
    sse::{EngineEvents, ReplyEvents},
};

const REQUESTS: [(Endpoint, &str); 2] = [
    (
        Endpoint::Completions,
        r#"{"model":"m","prompt":"p","n":2,"stream":true,"stream_options":{"include_usage":true}}"#,
    ),
    (
        Endpoint::ChatCompletions,
        r#"{"model":"m","messages":[{"role":"user","content":"p"}],"n":2,"stream":true}"#,
    ),
];

fn events(stream: &[u8], size: usize) -> Option<Vec<bytes::Bytes>> {
    let mut reader = EngineEvents::new();
    for piece in stream.chunks(size) {
        reader.push(piece).ok()?;
    }
    reader.finish().ok()?;
    Some(std::iter::from_fn(|| reader.next_event()).collect())
}

fuzz_target!(|stream: &[u8]| {
    let whole = events(stream, stream.len().max(1));
    assert_eq!(events(stream, 1), whole);
    let Some(events) = whole else { return };
    for (endpoint, request) in REQUESTS {
        level(&events, endpoint, request);
    }
});

fn level(events: &[bytes::Bytes], endpoint: Endpoint, request: &str) {
    let request = level_request(endpoint, request.as_bytes(), &RequestOptions::default())
        .expect("a valid request");
    let id = "000102030405060708090a0b0c0d0e0f".parse().expect("an id");
    let mut leveller = StreamLeveller::new(request.context(id, std::time::UNIX_EPOCH));
    let mut strict = ReplyEvents::new();
    let levelled = events.iter().try_for_each(|event| {
        let sent = leveller.event(event)?;
        strict.push(&sent).expect("what is levelled is valid");
        strict
            .push(&leveller.usage_comment().unwrap_or_default())
            .expect("a comment is valid");
        Ok::<_, LevelError>(())
    });
    if let (Ok(()), Ok(end)) = (levelled, leveller.finish(true)) {
        strict.finish(&end.events).expect("the end is valid");
    }
}
