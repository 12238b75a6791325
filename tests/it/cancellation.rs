//! Who leaves takes the work along: the engine stops, in every phase.

use serde_json::json;

use crate::harness::{Reply, Setup, prompt, soon};

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_stops_the_engine() {
    let setup = Setup::start().await;
    for stream in [false, true] {
        setup.engine.reply(Reply::Hang);
        let asked = setup.engine.received().len() + 1;
        tokio::select! {
            _ = setup.complete(json!({"prompt": prompt("x"), "stream": stream})) => panic!("answered"),
            () = setup.engine.arrived(asked) => {}
        }
        setup.engine.idle().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_a_stream_stops_the_engine() {
    let setup = Setup::start().await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    drop(stream);
    feed.abandoned().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_its_request_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let setup = Setup::with("", "[limits]\nin_flight = 1\n").await;
    let address = setup
        .gateway
        .url
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"model\"",
        crate::harness::KEY
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    drop(socket);
    // Its permit comes back: the only place is free again.
    let answered = async {
        loop {
            let reply = setup.complete(json!({"prompt": prompt("x")})).await;
            if reply.status() == 200 {
                return;
            }
            assert_eq!(reply.status(), 429);
            tokio::task::yield_now().await;
        }
    };
    soon("the permit comes back", answered).await;
}

#[tokio::test]
async fn a_node_that_is_killed_ends_its_streams_as_errors() {
    let mut setup = Setup::start().await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    setup.node.kill().await;
    feed.abandoned().await;
    let (events, end) = stream.rest().await;
    assert!(end.is_err());
    assert_eq!(events.len(), 1, "{events:?}");
    let last: serde_json::Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(last["error"]["code"], "upstream_truncated");
}
