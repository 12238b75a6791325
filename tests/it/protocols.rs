//! What is spoken between the gateway and nodes without TLS: HTTP/2 where a node shows that it speaks it,
//! and HTTP/1.1 to whatever stands before one and does not.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::harness::{
    Engine, Process, Setup,
    engine::Feed,
    fault::{FaultProxy, Faults, Leg, Stop},
    metrics::metric,
    prompt,
    setup::{EventStream, Files},
};

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";

async fn finish(files: Files, engine: Engine, node: Process, at: &str, more: &str) -> Setup {
    let config = files.gateway(&[at], more);
    let gateway = Process::start("gateway", &config).await;
    Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    }
}

/// Opens so many streams at once, each with a word that came.
async fn streams(setup: &Setup, count: usize) -> (Vec<Feed>, Vec<EventStream>) {
    let feeds: Vec<_> = (0..count).map(|_| setup.engine.stream()).collect();
    let ask = |n: usize| setup.stream(json!({"prompt": prompt(&n.to_string())}));
    let asking = futures_util::future::join_all((0..count).map(ask));
    let feeding = async {
        for feed in &feeds {
            feed.text("word").await;
        }
    };
    let (mut streams, ()) = tokio::join!(asking, feeding);
    for stream in &mut streams {
        assert_eq!(stream.text().await, "word");
    }
    (feeds, streams)
}

#[tokio::test]
async fn requests_to_a_node_without_tls_share_a_connection() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, ADMIN)).await;
    let url = node.url.clone();
    let setup = finish(files, engine, node, &url, "").await;
    // Nobody has asked before: what the first opens, the others wait for.
    let (feeds, streams) = streams(&setup, 16).await;
    let open = metric(&setup.node.admin, "sealgate_node_connections_open", &[]).await;
    // That on which it was attested may not be closed yet.
    assert!(open <= 2.0, "{open}");
    for feed in &feeds {
        feed.done().await;
    }
    for stream in streams {
        let (events, end) = stream.rest().await;
        end.unwrap();
        assert_eq!(events.last().unwrap(), "[DONE]");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_ends_all_its_streams_and_nothing_runs_again() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let leg = FaultProxy::before(&node.url).await;
    let setup = finish(files, engine, node, &leg.url(), "").await;
    for (round, stop) in [Stop::Reset, Stop::Fin].into_iter().enumerate() {
        let (feeds, streams) = streams(&setup, 8).await;
        leg.set(Faults::both(Leg::stopped(0, stop))).await;
        for feed in &feeds {
            // So that the direction back finds out, too.
            feed.text("lost").await;
        }
        for stream in streams {
            let (events, end) = stream.rest().await;
            assert!(end.is_err(), "{stop:?}: {events:?}");
            let last = events.last().unwrap();
            assert!(last.contains("upstream_truncated"), "{stop:?}: {events:?}");
        }
        for feed in &feeds {
            feed.abandoned().await;
        }
        leg.set(Faults::default()).await;
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
        assert_eq!(setup.engine.received().len(), (round + 1) * 9, "each once");
    }
}

/// What a front does with whoever speaks HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It answers that this is no request.
    Answer,
    /// It ends the connection.
    End,
    /// It waits for more.
    Silence,
    /// It passes everything on.
    Pass,
}

/// Something before a node that passes connections on by what they begin with.
struct Front {
    url: String,
    to_http2: watch::Sender<Then>,
    /// Connections of HTTP/2 and of HTTP/1.1 so far.
    seen: Arc<[AtomicUsize; 2]>,
    /// The paths of requests over HTTP/1.1.
    first_lines: Arc<Mutex<Vec<String>>>,
}

impl Front {
    async fn before(node: &Process, to_http2: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let front = Self {
            url,
            to_http2: watch::Sender::new(to_http2),
            seen: Arc::default(),
            first_lines: Arc::default(),
        };
        let (to, seen) = (front.to_http2.subscribe(), Arc::clone(&front.seen));
        let first_lines = Arc::clone(&front.first_lines);
        let node = node.url.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (to, seen, node) = (to.clone(), Arc::clone(&seen), node.clone());
                let first_lines = Arc::clone(&first_lines);
                tokio::spawn(async move {
                    let _ = pass(stream, to, &seen, &first_lines, &node).await;
                });
            }
        });
        front
    }

    fn seen(&self) -> (usize, usize) {
        let [http2, http1] = &*self.seen;
        (http2.load(Ordering::SeqCst), http1.load(Ordering::SeqCst))
    }
}

async fn pass(
    mut near: TcpStream,
    mut to: watch::Receiver<Then>,
    seen: &[AtomicUsize; 2],
    first_lines: &Mutex<Vec<String>>,
    node: &str,
) -> std::io::Result<()> {
    let mut begun = Vec::new();
    while !begun.ends_with(b"\r\n") {
        begun.push(near.read_u8().await?);
    }
    let is_http2 = begun.starts_with(b"PRI ");
    seen[usize::from(!is_http2)].fetch_add(1, Ordering::SeqCst);
    let how = *to.borrow_and_update();
    if !is_http2 {
        let line = String::from_utf8(begun.clone()).unwrap();
        first_lines.lock().unwrap().push(line);
    } else {
        match how {
            Then::Answer => {
                let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
                near.write_all(answer).await?;
                near.shutdown().await?;
                // So that the answer is not lost over what was not read.
                return near.read_to_end(&mut begun).await.map(drop);
            }
            Then::End => return Ok(()),
            Then::Silence => return std::future::pending().await,
            Then::Pass => {}
        }
    }
    let mut far = TcpStream::connect(node).await?;
    far.write_all(&begun).await?;
    tokio::select! {
        passed = copy_bidirectional(&mut near, &mut far) => passed.map(drop),
        _ = to.changed() => Ok(()),
    }
}

#[tokio::test]
async fn a_front_that_speaks_http_1_alone_is_asked_over_that_and_for_each_request_once() {
    for to in [Then::Answer, Then::End, Then::Silence] {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let front = Front::before(&node, to).await;
        let more = "[timeouts]\nconnect_ms = 1000\n";
        let setup = finish(files, engine, node, &front.url, more).await;
        setup.gateway.logged("node verified", 1).await;
        let (http2, _) = front.seen();
        assert!(http2 > 0, "{to:?}: it was tried");
        for n in 1..=3 {
            let reply = setup.complete(json!({"prompt": prompt("x")})).await;
            assert_eq!(reply.status(), 200, "{to:?}: {}", setup.gateway.log());
            assert_eq!(setup.engine.received().len(), n, "{to:?}");
        }
        let (feeds, streams) = streams(&setup, 4).await;
        for feed in &feeds {
            feed.done().await;
        }
        for stream in streams {
            stream.rest().await.1.unwrap();
        }
        assert_eq!(setup.engine.received().len(), 7, "{to:?}");
        assert_eq!(
            front.seen().0,
            http2,
            "{to:?}: requests do not try it again"
        );
    }
}

#[tokio::test]
async fn a_node_that_comes_to_stand_behind_such_a_front_gets_each_request_once() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let front = Front::before(&node, Then::Pass).await;
    let setup = finish(files, engine, node, &front.url, "").await;
    for n in 1..=3 {
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
        assert_eq!(setup.engine.received().len(), n);
    }
    // Nothing went over HTTP/1.1, and all requests over one connection.
    assert_eq!(front.seen(), (2, 0));
    front.to_http2.send_replace(Then::Answer);
    // What was passed on is cut, whether the gateway knows that by its next request or not.
    for n in 4..=6 {
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
        assert_eq!(setup.engine.received().len(), n);
    }
    let (http2, http1) = front.seen();
    assert!(http2 == 3 && http1 > 0, "tried once more: {http2} {http1}");
    let lines = front.first_lines.lock().unwrap().clone();
    let asks = |line: &String| !line.contains("/v1/attestation");
    assert!(lines.iter().all(asks), "found out by requests: {lines:?}");
}
