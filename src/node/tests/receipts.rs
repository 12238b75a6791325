//! Receipts, as whoever sealed reads them.

use super::{
    BODY, STREAM_BODY,
    harness::{FakeEngine, Opened, Running, Sent},
};
use crate::seal::{
    Commitment, Committer, Padding, Receipt, ReceiptScope, Salt, Salts, UnknownScope,
};

const REPLY: &str = r#"{"id":"c","object":"text_completion","created":1,"model":"m",
    "choices":[{"index":0,"text":" yes","finish_reason":"stop","logprobs":null}],
    "usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}"#;
const FLAW: &str = r#"{"error":{"message":"no such canary"}}"#;
const ID: &str = "00112233445566778899aabbccddeeff";

fn event(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"text\":\"{text}\",\"finish_reason\":null}}]}}\n\n"
    )
}

/// What the engine does.
#[derive(Clone, Copy, Debug)]
enum Plays {
    Whole(u16, &'static str),
    Stream,
    /// A stream that ends early.
    Broken,
}

struct Asks {
    node: Running,
    engine: FakeEngine,
}

impl Asks {
    async fn start() -> Self {
        let engine = FakeEngine::start().await;
        let rest = format!(
            "padding = {{ tick_ms = 20, least_chunks = 1 }}\n{}",
            engine.config()
        );
        let node = Running::start(&rest).await;
        Self { node, engine }
    }

    async fn ask(&mut self, scope: &str, padding: Padding, plays: Plays) -> Opened {
        let fields = [("sealgate-receipt", scope), ("sealgate-request-id", ID)];
        let content = match plays {
            Plays::Whole(200, _) => BODY,
            _ => STREAM_BODY,
        };
        let sent = Sent {
            fields: &fields,
            content,
            padding,
            ..Sent::default()
        };
        let engine = &mut self.engine;
        let played = async {
            let mut asked = engine.asked().await;
            match plays {
                Plays::Whole(status, body) => asked.reply(status, body).await,
                Plays::Stream | Plays::Broken => {
                    asked.begin_stream().await;
                    for text in ["one", "two \u{263a}"] {
                        asked.write(&event(text)).await;
                    }
                    if matches!(plays, Plays::Stream) {
                        asked.write("data: [DONE]\n\n").await;
                    }
                }
            }
        };
        tokio::join!(self.node.ask(sent), played).0
    }

    async fn receipt(&self, reply: &Opened) -> Receipt {
        let node = self.node.attest().await;
        let jws = reply.trailers.receipt.as_deref().unwrap();
        let receipt = Receipt::verify(jws, node.receipt_key()).unwrap();
        assert_eq!(hex::encode(receipt.request_id), ID);
        assert_eq!(receipt.statement, node.statement_digest());
        let keys = node.statement().keys();
        assert!(keys.iter().any(|key| key.key_id == receipt.key_id));
        assert_eq!(
            (receipt.path.as_str(), receipt.model.as_str()),
            ("/v1/completions", "m")
        );
        assert_eq!(receipt.status, reply.status);
        assert_eq!(receipt.usage, reply.trailers.usage);
        receipt
    }
}

/// What stands for the content of a reply.
fn committed(reply: &Opened, salt: &Salt) -> Commitment {
    let mut committer = match reply.content_type.as_deref() {
        Some("text/event-stream") => Committer::of_events(salt),
        _ => Committer::of_bytes(salt),
    };
    committer.update(&reply.content);
    committer.commitment()
}

#[tokio::test]
async fn every_reply_that_an_engine_made_has_a_receipt_where_one_is_asked_for() {
    let mut asks = Asks::start().await;
    let cases = [
        (Plays::Whole(200, REPLY), 200, None),
        (Plays::Whole(422, FLAW), 422, None),
        (Plays::Stream, 200, None),
        (Plays::Broken, 200, Some("engine-failed")),
    ];
    for (plays, status, incomplete) in cases {
        for padding in Padding::ALL {
            let name = format!("{plays:?} {padding:?}");
            let reply = asks.ask("none", padding, plays).await;
            assert_eq!(reply.status, status, "{name}");
            assert_eq!(reply.trailers.receipt, None, "{name}");

            let reply = asks.ask("usage", padding, plays).await;
            assert_eq!(asks.receipt(&reply).await.content, None, "{name}");
            assert_eq!(reply.trailers.receipt_salts, None, "{name}");
            assert_eq!(reply.receipt_salts, None, "{name}");

            let reply = asks.ask("content", padding, plays).await;
            assert_eq!(reply.trailers.incomplete.as_deref(), incomplete, "{name}");
            let receipt = asks.receipt(&reply).await;
            let content = receipt.content.unwrap();
            let salts: Salts = reply
                .trailers
                .receipt_salts
                .as_deref()
                .unwrap()
                .parse()
                .unwrap();
            let sent = if matches!(plays, Plays::Whole(200, _)) {
                BODY
            } else {
                STREAM_BODY
            };
            assert_eq!(
                content.request,
                salts.request.commit(sent.as_bytes()),
                "{name}"
            );
            let got = committed(&reply, &salts.response);
            assert_eq!(content.response, got, "{name}");
            // Whoever reads them first need not keep the content.
            assert_eq!(reply.receipt_salts, reply.trailers.receipt_salts, "{name}");
        }
    }
}

#[tokio::test]
async fn what_no_engine_made_has_none() {
    let mut asks = Asks::start().await;
    let fields = [("sealgate-receipt", "content")];
    for content in ["{", &BODY.replace("\"m\"", "\"other\"")] {
        let sent = Sent {
            fields: &fields,
            content,
            ..Sent::default()
        };
        let reply = asks.node.ask(sent).await;
        assert!((400..500).contains(&reply.status));
        assert_eq!(reply.trailers.receipt, None, "{}", reply.status);
        assert_eq!(reply.receipt_salts, None, "{}", reply.status);
    }
    for padding in Padding::ALL {
        let reply = asks.ask("content", padding, Plays::Whole(500, "{}")).await;
        assert_eq!(reply.problem(), (502, "engine-failed".to_owned()));
        assert_eq!(reply.trailers.receipt, None, "{padding:?}");
        assert_eq!(reply.receipt_salts, None, "{padding:?}");
    }
}

#[tokio::test]
async fn a_stream_that_the_node_cuts_has_the_receipt_of_what_went_out() {
    for padding in [Padding::Bucket, Padding::Paced] {
        let mut asks = Asks::start().await;
        let fields = [("sealgate-receipt", "content")];
        let sent = Sent {
            fields: &fields,
            content: STREAM_BODY,
            padding,
            ..Sent::default()
        };
        let engine = &mut asks.engine;
        let played = async {
            let mut asked = engine.asked().await;
            asked.begin_stream().await;
            // More than goes out at once, so that some of it is lost.
            asked.write(&event("one").repeat(300)).await;
            asked
        };
        let (mut reply, _asked) = tokio::join!(asks.node.begin(sent), played);
        let first = reply.content().await;
        let node = asks.node.attest().await;
        asks.node.state.cut.cancel();
        let mut reply = reply.finish().await;
        reply.content.splice(..0, first);
        assert_eq!(
            reply.trailers.incomplete.as_deref(),
            Some("cancelled"),
            "{padding:?}"
        );
        let jws = reply.trailers.receipt.as_deref().unwrap();
        let receipt = Receipt::verify(jws, node.receipt_key()).unwrap();
        assert_eq!((receipt.status, receipt.usage), (200, reply.trailers.usage));
        let salts: Salts = reply.trailers.receipt_salts.unwrap().parse().unwrap();
        let mut got = Committer::of_events(&salts.response);
        got.update(&reply.content);
        let content = receipt.content.unwrap();
        assert_eq!(content.response, got.commitment(), "{padding:?}");
    }
}

#[test]
fn a_scope_has_one_name() {
    for scope in [
        ReceiptScope::None,
        ReceiptScope::Usage,
        ReceiptScope::Content,
    ] {
        assert_eq!(scope.as_str().parse(), Ok(scope));
    }
    for text in ["", "None", "all", "usage,content"] {
        assert_eq!(text.parse::<ReceiptScope>(), Err(UnknownScope), "{text}");
    }
}
