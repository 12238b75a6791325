//! Receipts that are good and cannot be checked or kept, and the nodes of which that says nothing.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use super::{
    fake::{FakeNode, folder},
    harness::{BODY, PATIENCE, Running, STREAM_BODY, read, read_stream},
    health::{QUICK, ask_until, standing},
    metrics::page,
    receipts::{play, play_early, start},
};
use crate::{
    clock::Clock,
    gateway::{
        health::Standing,
        receipts::{Desk, KeptReceipt, ReceiptSink, SinkFull, Slot, Unreached},
    },
    ids::RequestId,
};

/// Salts that come with the end alone need prompt and answer kept until then.
#[tokio::test]
async fn where_there_is_no_room_to_keep_a_stream_its_receipt_is_not_passed_as_checked() {
    for mode in ["on", "required"] {
        let (node, running) = start(&format!("mode = \"{mode}\"\ncontent = true")).await;
        let mut room = running.shared.admission.body_room();
        // What is left is for the body, as it comes.
        let most = running.shared.admission.most_bodies_bytes() - 1024;
        room.grow_to(most).unwrap();
        play(&node, 200, |_| {});
        let response = running.begin(STREAM_BODY).await;
        assert_eq!(response.status().as_u16(), 200);
        let (text, aborted) = read_stream(response).await;
        if mode == "required" {
            assert!(text.contains("internal_error") && aborted, "{text}");
            assert!(!text.contains("[DONE]"), "{text}");
        } else {
            assert!(text.ends_with("[DONE]\n\n") && !aborted, "{text}");
        }
        assert_eq!(running.outcomes(1).await, [("unchecked", 1)], "{mode}");
        // With salts in the head nothing has to be kept.
        play_early(&node, 200, true, |_| {});
        let (text, aborted) = read_stream(running.begin(STREAM_BODY).await).await;
        assert!(text.ends_with("[DONE]\n\n") && !aborted, "{text}");
        let expected = [("kept", 1), ("unchecked", 1)];
        assert_eq!(running.outcomes(2).await, expected, "{mode}");
        drop(room);
        play(&node, 200, |_| {});
        let (text, aborted) = read_stream(running.begin(STREAM_BODY).await).await;
        assert!(text.ends_with("[DONE]\n\n") && !aborted, "{text}");
        running.outcomes(3).await;
        let idle = async {
            while running.shared.admission.bodies_bytes() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, idle).await.unwrap();
    }
}

/// Has no place for a receipt, or loses it.
#[derive(Debug)]
struct Full {
    reserves: bool,
}

impl ReceiptSink for Full {
    fn reserve(&self) -> Result<Slot, SinkFull> {
        self.reserves.then(Slot::of_memory).ok_or(SinkFull)
    }

    fn keep(&self, _: KeptReceipt, _: Slot) -> Result<(), SinkFull> {
        Err(SinkFull)
    }

    fn find<'a>(
        &'a self,
        _: RequestId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<KeptReceipt>>, Unreached>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

#[tokio::test]
async fn where_there_is_no_place_for_a_required_receipt_no_node_is_asked() {
    for (mode, reserves) in [("on", false), ("required", false), ("required", true)] {
        let node = FakeNode::start("n").await;
        let rest = format!("[receipts]\nmode = \"{mode}\"\n");
        let urls = [format!("http://{}", node.address)];
        let clock = Clock::system();
        let running = Running::start_adjusted(folder(), &urls, &rest, clock, |shared| {
            shared.receipts = Arc::new(Desk::keeping(None, Full { reserves }));
        })
        .await;
        running.until_ready().await;
        play(&node, 200, |_| {});
        let failures = || {
            let page = page(&running);
            let failed = page
                .lines()
                .filter(|line| line.starts_with("sealgate_gateway_node_failures_total{"));
            failed.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = node.asked();
        for body in [BODY, STREAM_BODY] {
            let response = running.begin(body).await;
            let status = response.status().as_u16();
            let text = if response.headers()["content-type"] == "text/event-stream" {
                read_stream(response).await.0
            } else {
                String::from_utf8(read(response).await.body.to_vec()).unwrap()
            };
            match (mode, reserves) {
                ("on", _) => assert_eq!(status, 200, "{text}"),
                (_, false) => {
                    assert_eq!(status, 503, "{text}");
                    assert!(text.contains("store_unavailable"), "{text}");
                }
                // The node answered well, and nobody has that in writing.
                _ => assert!(text.contains("internal_error"), "{text}"),
            }
        }
        let asked = node.asked() - before;
        assert_eq!(
            asked,
            if mode == "required" && !reserves {
                0
            } else {
                2
            }
        );
        if asked > 0 {
            assert_eq!(running.outcomes(2).await, [("not_kept", 2)]);
        }
        assert!(failures().is_empty(), "blamed: {:?}", failures());
    }
}

#[tokio::test]
async fn a_node_has_done_well_only_once_its_required_receipt_was_checked() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let rest = format!("{QUICK}[receipts]\nmode = \"required\"\n");
    let gateway = Running::start(&[&one, &two], &rest).await;
    play(&one, 200, |it| it.receipt.status = 201);
    play(&two, 200, |_| {});
    // Two failures in a row put it out: no success stands between them.
    let mut refused = 0;
    let asking = async {
        while standing(&gateway, "one") != Standing::Out {
            refused += usize::from(gateway.post(BODY).await.status == 502);
        }
    };
    timeout(PATIENCE, asking).await.unwrap();
    assert_eq!(refused, 2);
    ask_until(&gateway, |got| got.status == 200).await;
}
