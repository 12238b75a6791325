//! Receipts of nodes that a test plays, good ones and wrong ones.

use std::time::Duration;

use attestation::StatementDigest;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{
    fake::{Asked, FakeNode, receipt_key},
    harness::{BODY, Got, PATIENCE, Running, STREAM_BODY, read_stream},
};
use crate::{
    clock::{Clock, unix_seconds},
    seal::{Commitments, Committer, Receipt, ReceiptKey, Salts},
};

const USAGE: &str = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
const REPLY: &str = r#"{"object":"text_completion"}"#;
const EVENTS: &str = "data: {\"choices\":[]}\n\n:   \ndata: [DONE]\n\n";

/// A receipt before it is signed.
pub(super) struct Draft {
    pub(super) receipt: Receipt,
    salts: Option<Salts>,
    /// What stands in the head.
    early: Option<String>,
    key: ReceiptKey,
    /// Whether it is sent at all.
    is_there: bool,
}

/// What is wrong with one.
pub(super) type Change = fn(&mut Draft);

/// A receipt's fields as they go out.
struct Fields {
    head: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
}

/// Those of a reply, with a receipt that was changed before it was signed; with salts in the head too if
/// they are to be `early`.
fn fields(asked: &Asked, (status, content): (u16, &str), early: bool, change: Change) -> Fields {
    let scope = asked.field("sealgate-receipt");
    let salts = (scope.as_deref() == Some("content")).then(|| Salts::generate().unwrap());
    let id = hex::decode(asked.field("sealgate-request-id").unwrap()).unwrap();
    let response = |salts: &Salts| {
        let mut committer = if content.starts_with("data") {
            Committer::of_events(&salts.response)
        } else {
            Committer::of_bytes(&salts.response)
        };
        committer.update(content.as_bytes());
        committer.commitment()
    };
    let receipt = Receipt {
        request_id: id.try_into().unwrap(),
        statement: asked.field("sealgate-statement").unwrap().parse().unwrap(),
        key_id: asked.request.key_id,
        path: asked.request.path.clone(),
        model: "m".to_owned(),
        status,
        usage: Some(USAGE.to_owned()),
        iat: unix_seconds(Clock::system().now()),
        content: salts.as_ref().map(|salts| Commitments {
            request: salts.request.commit(&asked.request.content),
            response: response(salts),
        }),
    };
    let mut draft = Draft {
        receipt,
        early: salts.as_ref().filter(|_| early).map(Salts::to_string),
        salts,
        key: receipt_key(),
        is_there: true,
    };
    change(&mut draft);
    let mut trailers = vec![("sealgate-usage".to_owned(), USAGE.to_owned())];
    if draft.is_there {
        let jws = draft.key.sign(&draft.receipt).unwrap();
        trailers.push(("sealgate-receipt".to_owned(), jws));
    }
    let field = |salts: String| ("sealgate-receipt-salts".to_owned(), salts);
    trailers.extend(draft.salts.map(|salts| field(salts.to_string())));
    Fields {
        head: draft.early.map(field).into_iter().collect(),
        trailers,
    }
}

fn as_fields(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// Has the node answer whole and in streams, with receipts that are changed so.
pub(super) fn play(node: &FakeNode, status: u16, change: Change) {
    play_early(node, status, false, change);
}

pub(super) fn play_early(node: &FakeNode, status: u16, early: bool, change: Change) {
    node.play(move |asked| async move {
        let streams = asked.request.content == STREAM_BODY.as_bytes();
        if streams {
            let fields = fields(&asked, (200, EVENTS), early, change);
            let (mut sealer, writer, response) = asked.stream_with(&as_fields(&fields.head));
            let first = sealer.chunk(&EVENTS.as_bytes()[..22]).unwrap();
            let trailers = as_fields(&fields.trailers);
            let last = sealer.finish(&EVENTS.as_bytes()[22..], &trailers);
            writer.try_send(Ok(first)).unwrap();
            writer.try_send(Ok(last.unwrap())).unwrap();
            return response;
        }
        let fields = fields(&asked, (status, REPLY), early, change);
        let mut head = as_fields(&fields.head);
        head.push(("content-type", "application/json"));
        asked.whole(status, &head, REPLY, &as_fields(&fields.trailers))
    });
}

pub(super) async fn start(mode: &str) -> (FakeNode, Running) {
    let node = FakeNode::start("n").await;
    let rest = format!("[receipts]\n{mode}\n");
    let running = Running::start(&[&node], &rest).await;
    (node, running)
}

impl Running {
    /// Waits until so many receipts came to an end, and gives how.
    pub(super) async fn outcomes(&self, all: u64) -> Vec<(&'static str, u64)> {
        let counts = || self.shared.receipts.counts();
        let ended = async {
            while counts().iter().map(|(_, count)| count).sum::<u64>() < all {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap();
        counts().into_iter().map(|([word], n)| (word, n)).collect()
    }

    async fn receipt_of(&self, got: &Got) -> Got {
        let id = got.headers["x-request-id"].to_str().unwrap();
        self.get(&format!("/v1/receipts/{id}")).await
    }
}

/// What can be wrong, with content or without, and its word.
const WRONG: [(&str, Change, &str); 18] = [
    ("none", |it| it.is_there = false, "missing"),
    (
        "another key",
        |it| it.key = ReceiptKey::generate().unwrap(),
        "signature",
    ),
    (
        "request_id",
        |it| it.receipt.request_id[15] ^= 1,
        "mismatch",
    ),
    (
        "statement",
        |it| it.receipt.statement = StatementDigest::of(b""),
        "mismatch",
    ),
    ("key_id", |it| it.receipt.key_id ^= 1, "mismatch"),
    ("path", |it| it.receipt.path.push('/'), "mismatch"),
    (
        "model",
        |it| it.receipt.model = "org/n".to_owned(),
        "mismatch",
    ),
    ("status", |it| it.receipt.status = 201, "mismatch"),
    (
        "usage",
        |it| it.receipt.usage = Some("{}".to_owned()),
        "mismatch",
    ),
    ("no usage", |it| it.receipt.usage = None, "mismatch"),
    ("too early", |it| it.receipt.iat -= 302, "mismatch"),
    ("too late", |it| it.receipt.iat += 302, "mismatch"),
    ("no commitments", |it| it.receipt.content = None, "missing"),
    ("no salts", |it| it.salts = None, "missing"),
    (
        "other salts",
        |it| it.salts = Some(Salts::generate().unwrap()),
        "mismatch",
    ),
    (
        "other early salts",
        |it| it.early = Some(Salts::generate().unwrap().to_string()),
        "mismatch",
    ),
    (
        "early salts that are none",
        |it| it.early = Some("salts".to_owned()),
        "mismatch",
    ),
    (
        "salts for each other",
        |it| {
            let salts = it.salts.as_mut().unwrap();
            std::mem::swap(&mut salts.request, &mut salts.response);
            it.early = it.early.as_ref().map(|_| salts.to_string());
        },
        "mismatch",
    ),
];

#[tokio::test]
async fn a_good_receipt_is_kept_for_who_asked() {
    for (mode, early) in [
        ("mode = \"on\"", false),
        ("mode = \"required\"\ncontent = true", false),
        ("mode = \"required\"\ncontent = true", true),
    ] {
        let (node, running) = start(mode).await;
        play_early(&node, 200, early, |_| {});
        let got = running.post(BODY).await;
        assert_eq!(
            (got.status.as_u16(), &got.body[..]),
            (200, REPLY.as_bytes())
        );
        assert_eq!(got.headers["sealgate-receipt"], "yes");
        assert!(!got.headers.contains_key("sealgate-receipt-salts"));
        assert_eq!(running.outcomes(1).await, [("kept", 1)], "{mode}");
        let kept = running.receipt_of(&got).await;
        assert_eq!(kept.status.as_u16(), 200, "{mode}");
        let json: Value = serde_json::from_slice(&kept.body).unwrap();
        assert_eq!(
            json["request_id"],
            got.headers["x-request-id"].to_str().unwrap()
        );
        let key = receipt_key().public_key().unwrap();
        let receipt = Receipt::verify(json["receipt"].as_str().unwrap(), &key).unwrap();
        assert_eq!(json["statement"], receipt.statement.to_string());
        assert_eq!(json["node"], "n");
        assert_eq!(receipt.content.is_some(), mode.contains("content"));
        assert_eq!(json["salts"].is_string(), mode.contains("content"));

        let response = running.begin(STREAM_BODY).await;
        assert_eq!(response.headers()["sealgate-receipt"], "yes");
        assert!(!response.headers().contains_key("sealgate-receipt-salts"));
        let id = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let (text, aborted) = read_stream(response).await;
        assert!(text.ends_with("data: [DONE]\n\n") && !aborted, "{text}");
        assert_eq!(running.outcomes(2).await, [("kept", 2)], "{mode}");
        let kept = running.get(&format!("/v1/receipts/{id}")).await;
        assert_eq!(kept.status.as_u16(), 200, "{mode}");
        let bundled = running.get(&format!("/v1/receipts/{id}?bundle=1")).await;
        assert_eq!(bundled.code(), (404, "evidence_not_archived".to_owned()));
        let other = running.get(&format!("/v1/receipts/{id}?bundle=2")).await;
        assert_eq!(other.code(), (400, "invalid_request".to_owned()));
    }
}

#[tokio::test]
async fn a_wrong_receipt_is_not_kept_and_where_one_is_required_the_reply_is_none() {
    for (content, early) in [(true, true), (true, false), (false, false)] {
        for mode in ["on", "required"] {
            let config = format!("mode = \"{mode}\"\ncontent = {content}");
            let (node, running) = start(&config).await;
            let mut all = 0;
            for (name, change, word) in WRONG {
                if !content && (name.contains("salts") || name.contains("commitments")) {
                    continue;
                }
                let name = format!("{name}, {config}, {early}");
                play_early(&node, 200, early, change);
                let counted = |outcomes: &[(&str, u64)]| {
                    let found = outcomes.iter().find(|(known, _)| *known == word);
                    found.map_or(0, |(_, count)| *count)
                };
                let before = counted(&running.outcomes(all).await);
                let got = running.post(BODY).await;
                let (text, aborted) = read_stream(running.begin(STREAM_BODY).await).await;
                if mode == "required" {
                    let expected = (502, "node_reply_invalid".to_owned());
                    assert_eq!(got.code(), expected, "{name}");
                    assert!(text.contains("node_reply_invalid"), "{name}: {text}");
                    assert!(aborted && !text.contains("[DONE]"), "{name}: {text}");
                } else {
                    assert_eq!(got.status.as_u16(), 200, "{name}");
                    assert!(text.ends_with("[DONE]\n\n") && !aborted, "{name}: {text}");
                }
                all += 2;
                let after = running.outcomes(all).await;
                assert_eq!(counted(&after), before + 2, "{name}: {after:?}");
                let kept = running.receipt_of(&got).await;
                assert_eq!(kept.code(), (404, "receipt_not_found".to_owned()), "{name}");
                node_is_good_again(&running, &node).await;
            }
        }
    }
}

/// A node that fails too often is left alone for a while; here it must not be.
async fn node_is_good_again(running: &Running, node: &FakeNode) {
    play(node, 200, |_| {});
    let before = running.shared.receipts.counts();
    let kept = before.iter().find(|([word], _)| *word == "kept");
    let kept = kept.map_or(0, |(_, count)| *count);
    let good = async {
        while running.post(BODY).await.status.as_u16() != 200 {
            sleep(Duration::from_millis(5)).await;
        }
        loop {
            let counts = running.shared.receipts.counts();
            if counts
                .iter()
                .any(|([word], n)| *word == "kept" && *n > kept)
            {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, good).await.unwrap();
}

#[tokio::test]
async fn an_error_needs_no_receipt_and_must_have_no_wrong_one() {
    let (node, running) = start("mode = \"required\"").await;
    let cases: [(Change, u16, bool); 3] = [
        (|_| {}, 422, true),
        (|it| it.is_there = false, 422, false),
        (|it| it.receipt.key_id ^= 1, 502, false),
    ];
    for (change, status, is_kept) in cases {
        play(&node, 422, change);
        let got = running.post(BODY).await;
        assert_eq!(got.status.as_u16(), status);
        assert_eq!(got.headers.contains_key("sealgate-receipt"), is_kept);
        let kept = running.receipt_of(&got).await.status.as_u16();
        assert_eq!(kept, if is_kept { 200 } else { 404 });
    }
}

#[tokio::test]
async fn a_stream_that_the_node_broke_has_its_receipt_kept() {
    let (node, running) = start("mode = \"required\"\ncontent = true").await;
    node.play(|asked| async move {
        let content = "data: {\"choices\":[]}\n\n";
        let fields = fields(&asked, (200, content), true, |_| {});
        let mut trailers = fields.trailers;
        trailers.push(("sealgate-incomplete".to_owned(), "engine-failed".to_owned()));
        let (sealer, writer, response) = asked.stream_with(&as_fields(&fields.head));
        let last = sealer.finish(content.as_bytes(), &as_fields(&trailers));
        writer.try_send(Ok(last.unwrap())).unwrap();
        response
    });
    let response = running.begin(STREAM_BODY).await;
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let (text, aborted) = read_stream(response).await;
    assert!(text.contains("engine_error") && aborted, "{text}");
    assert_eq!(running.outcomes(1).await, [("kept", 1)]);
    let kept = running.get(&format!("/v1/receipts/{id}")).await;
    assert_eq!(kept.status.as_u16(), 200);
}

#[tokio::test]
async fn where_receipts_are_off_none_is_asked_for() {
    let (node, running) = start("content = true").await;
    node.play(|asked| async move {
        assert_eq!(asked.field("sealgate-receipt"), None);
        asked.json(200, REPLY)
    });
    let got = running.post(BODY).await;
    assert_eq!(got.status.as_u16(), 200);
    assert!(!got.headers.contains_key("sealgate-receipt"));
    assert_eq!(running.outcomes(0).await, []);
    let none = running.receipt_of(&got).await;
    assert_eq!(none.code(), (404, "receipt_not_found".to_owned()));
    let none = running.get("/v1/receipts/x").await;
    assert_eq!(none.code(), (404, "receipt_not_found".to_owned()));
}

#[tokio::test]
async fn more_receipts_than_can_be_checked_at_once_hold_nobody_up() {
    let (node, running) = start("mode = \"on\"").await;
    play(&node, 200, |_| {});
    let all = running.shared.receipts.fill();
    let got = running.post(BODY).await;
    assert_eq!(got.status.as_u16(), 200);
    assert_eq!(running.outcomes(1).await, [("shed", 1)]);
    let kept = running.receipt_of(&got).await;
    assert_eq!(kept.code(), (404, "receipt_not_found".to_owned()));
    drop(all);
    running.post(BODY).await;
    assert_eq!(running.outcomes(2).await, [("kept", 1), ("shed", 1)]);
}
