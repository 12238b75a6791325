use super::*;
use crate::openai::Request;

/// What a request is charged of which this is known.
fn charged(endpoint: Endpoint, body: &str, known: impl FnOnce(&mut Record)) -> Option<u64> {
    let request = Request::parse(endpoint, Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let metrics = Arc::new(Metrics::new(Clock::system()));
    let mut record = Record::new(RequestId::generate(), endpoint.path(), &metrics);
    record.wants(request.asked(), request.body().len(), (None, 100));
    known(&mut record);
    let row = record.row(SystemTime::UNIX_EPOCH);
    assert!(row.tokens.is_none() || row.charged_tokens.is_none());
    row.tokens
        .map(|it| it.prompt + it.completion)
        .or(row.charged_tokens)
}

#[test]
fn what_nobody_counted_is_charged_by_what_was_seen_and_no_more_than_was_allowed() {
    use Endpoint::{ChatCompletions as Chat, Completions as Texts, Embeddings, Images};
    let text = r#"{"model":"m","prompt":"hi","max_tokens":9}"#;
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let short = chat.replace("\"messages\"", "\"max_tokens\":1,\"messages\"");
    let embed = r#"{"model":"m","input":"hi"}"#;
    let image = r#"{"model":"m","prompt":"a cat","n":2}"#;
    let prompt = |body: &str| limits::tokens_of(body.len());
    type Known = fn(&mut Record);
    let whole: Known = |it| {
        it.sends();
        it.replied(StatusCode::OK);
        it.came_whole(&[Bytes::from(vec![b' '; 4_000_000])], None);
        it.complete();
    };
    let cases: [(&str, Endpoint, &str, Known, Option<u64>); 9] = [
        ("never sent", Texts, text, |_| {}, None),
        (
            "not run",
            Texts,
            text,
            |it| {
                it.sends();
                it.was_not_run();
            },
            None,
        ),
        ("left", Texts, text, |it| it.sends(), Some(prompt(text))),
        (
            "a long whole one",
            Texts,
            text,
            whole,
            Some(prompt(text) + 9),
        ),
        (
            "of one token",
            Chat,
            &short,
            whole,
            Some(prompt(&short) + 1),
        ),
        (
            "no limit",
            Chat,
            chat,
            whole,
            Some(prompt(chat) + 1_000_000),
        ),
        ("vectors", Embeddings, embed, whole, Some(prompt(embed))),
        ("pictures", Images, image, whole, Some(prompt(image) + 200)),
        (
            "a count without its prompt",
            Texts,
            text,
            |it| {
                it.sends();
                it.came = 100;
                it.claimed(Some(Usage::new(0, 7)));
            },
            Some(prompt(text) + 7),
        ),
    ];
    for (name, endpoint, body, known, expected) in cases {
        assert_eq!(charged(endpoint, body, known), expected, "{name}");
    }
    let counted = charged(Texts, text, |it| {
        it.sends();
        it.came = 100;
        it.claimed(Some(Usage::new(2, 7)));
    });
    assert_eq!(counted, Some(9));
}
