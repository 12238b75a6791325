//! Bytes that come one by one say the same as bytes that come at once.

use serde_json::{Value, json};

use super::between;
use crate::harness::{
    Reply, Setup,
    engine::chunk,
    fault::{Faults, Leg},
    prompt,
};

/// Characters of one to four bytes, and what would break a line.
const TEXTS: [&str; 4] = ["🦀é", "日本語\u{2028}", "𝒳\r\n", "data: x\n\n🏳️‍🌈"];

/// The same stream in one of the forms that servers write: ends of lines, and how it ends.
fn form(newline: &str, space: &str, ends_open: bool) -> Vec<u8> {
    let event = |data: &str| format!("data:{space}{data}{newline}{newline}");
    let mut stream = format!("\u{feff}: hello{newline}event: message{newline}id: 7{newline}");
    for text in TEXTS {
        stream += &event(&chunk(text, Value::Null).to_string());
        stream += &format!(":{newline}retry: 5{newline}{newline}");
    }
    stream += &event(&chunk("", json!("stop")).to_string());
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7});
    let mut last = chunk("", Value::Null);
    last["choices"] = json!([]);
    last["usage"] = usage;
    stream += &event(&last.to_string());
    stream += &event("[DONE]");
    if ends_open {
        stream.truncate(stream.len() - 2 * newline.len());
    }
    stream.into_bytes()
}

/// All events of one stream that the engine gives as `bytes`.
async fn events(setup: &Setup, bytes: &[u8], name: &str) -> Vec<String> {
    let media_type = "text/event-stream";
    setup
        .engine
        .reply(Reply::Raw(200, media_type, bytes.to_vec()));
    let request = json!({"prompt": prompt("x"), "stream_options": {"include_usage": true}});
    let (events, end) = setup.stream(request).await.rest().await;
    end.expect(name);
    events
}

#[tokio::test]
async fn a_stream_is_the_same_in_every_form_and_sliced_at_every_byte_on_every_leg() {
    let (setup, legs) = between("", "").await;
    let whole = events(&setup, &form("\n", " ", false), "whole").await;
    let (done, chunks) = whole.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks = chunks
        .iter()
        .map(|it| serde_json::from_str::<Value>(it).unwrap());
    let chunks: Vec<Value> = chunks.collect();
    let texts = chunks
        .iter()
        .filter_map(|it| it["choices"][0]["text"].as_str());
    assert_eq!(texts.collect::<String>(), TEXTS.concat());
    assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 7);

    let byte = Faults::both(Leg::sliced(1));
    let all = [&legs.client, &legs.node, &legs.engine];
    let ways = [
        ("at once", &all[..0]),
        ("client", &all[..1]),
        ("node", &all[1..2]),
        ("engine", &all[2..]),
        ("every leg", &all[..]),
    ];
    for (leg, sliced) in ways {
        for proxy in all {
            proxy.set(Faults::default()).await;
        }
        for proxy in sliced {
            proxy.set(byte).await;
        }
        for newline in ["\n", "\r\n", "\r"] {
            for (space, ends_open) in [(" ", false), ("", false), ("", true)] {
                let name = format!("{leg}, {newline:?}, {space:?}, {ends_open}");
                let given = form(newline, space, ends_open);
                assert_eq!(events(&setup, &given, &name).await, whole, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_whole_reply_and_its_errors_are_the_same_in_pieces_of_any_size() {
    let (setup, legs) = between("", "").await;
    let refused = json!({"error": {"message": "no 🦀", "type": "x", "param": "n", "code": 400}});
    let mut first = None;
    for slice in [usize::MAX, 1, 2, 3, 7, 1000] {
        for proxy in [&legs.client, &legs.node, &legs.engine] {
            proxy.set(Faults::both(Leg::sliced(slice))).await;
        }
        let reply = setup.complete(json!({"prompt": prompt("🦀 日本語")})).await;
        let complete = (reply.status(), reply.text().await.unwrap());
        setup.engine.reply(Reply::Json(400, refused.clone()));
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        let error = (reply.status(), reply.text().await.unwrap());
        assert!(
            complete.1.contains("🦀 日本語") && error.1.contains("no 🦀"),
            "{complete:?}"
        );
        let got = (complete, error);
        assert_eq!(&got, first.get_or_insert_with(|| got.clone()), "{slice}");
    }
}

/// What a stream tells of usage, by what was asked for.
#[tokio::test]
async fn usage_stands_where_it_was_asked_for_and_nowhere_else() {
    let (setup, _legs) = between("", "").await;
    for engine_says_it in [true, false] {
        for asked in [None, Some(false), Some(true)] {
            let name = format!("{engine_says_it} {asked:?}");
            if !engine_says_it {
                let stream = format!(
                    "data: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
                    chunk("a", Value::Null),
                    chunk("", json!("stop"))
                );
                setup
                    .engine
                    .reply(Reply::Raw(200, "text/event-stream", stream.into_bytes()));
            }
            let mut request = json!({"prompt": prompt("a b")});
            if let Some(asked) = asked {
                request["stream_options"] = json!({"include_usage": asked});
            }
            let (events, end) = setup.stream(request).await.rest().await;
            end.expect(&name);
            let sent = setup.engine.received().last().unwrap().clone();
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            assert_eq!(
                sent["stream_options"]["include_usage"], true,
                "{name}: always asked"
            );
            let (done, chunks) = events.split_last().unwrap();
            assert_eq!(done, "[DONE]", "{name}");
            let chunks = chunks
                .iter()
                .map(|it| serde_json::from_str(it).expect(&name));
            let mut chunks: Vec<Value> = chunks.collect();
            if asked == Some(true) {
                let last = chunks.pop().unwrap();
                assert_eq!(last["choices"], json!([]), "{name}");
                assert!(
                    last["usage"]["completion_tokens"].as_u64() > Some(0),
                    "{name}: {last}"
                );
            }
            for chunk in chunks {
                let expected = (asked == Some(true)).then_some(&Value::Null);
                assert_eq!(chunk.get("usage"), expected, "{name}: {chunk}");
            }
        }
    }
}
