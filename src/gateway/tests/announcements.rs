//! Nodes that announce themselves, and those who would have the gateway ask somewhere.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};

use super::{
    fake::{FakeNode, Keys},
    fleet::{A, B, keyed, start},
    harness::{BODY, Got, PATIENCE, Running},
};
use crate::{clock::Clock, gateway::announce::Resolver};

const OPEN: &str = "[announce]\nallow = [\"127.0.0.0/8\", \"node.example\", \".nodes.example\"]\n\
                    allow_http = true\nallow_private = true\nper_key_per_minute = 1000\n";

fn url(node: &FakeNode) -> String {
    format!("http://{}", node.address)
}

async fn announce(gateway: &Running, key: &str, url: &str) -> Got {
    let body = json!({"data": {"public_address": url, "node_small_id": 7, "country": "DE"},
        "signature": "AAAA"});
    gateway.post_as(key, "/v1/nodes", body.to_string()).await
}

async fn announced(gateway: &Running, url: &str) {
    let got = announce(gateway, A, url).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.body, r#"{"message":"Success"}"#);
}

async fn refused(gateway: &Running, url: &str) -> (u16, String) {
    announce(gateway, A, url).await.code()
}

/// The ids in the list of nodes, with where they are known from.
async fn listed(gateway: &Running) -> Vec<(String, String)> {
    let got = gateway.get_as(A, "/v1/nodes").await;
    let list: Value = serde_json::from_slice(&got.body).unwrap();
    let text = |node: &Value, name: &str| node[name].as_str().unwrap().to_owned();
    let nodes = list["data"].as_array().unwrap().iter();
    nodes
        .map(|it| (text(it, "id"), text(it, "origin")))
        .collect()
}

/// Waits until this many nodes are known, verified or not.
async fn until_known(gateway: &Running, count: usize) {
    let looking = async {
        while gateway.shared.nodes.all().len() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap();
}

/// A gateway for which names mean what `resolve` says.
async fn resolving(
    dir: &TempDir,
    node: &FakeNode,
    rest: &str,
    resolve: impl Fn(&str) -> Vec<SocketAddr> + Send + Sync + 'static,
) -> Running {
    let rest = format!("keys_file = \"keys.toml\"\n{rest}");
    let resolver = Resolver::new(move |host, _port| {
        let found = resolve(&host);
        Box::pin(std::future::ready(Ok(found)))
    });
    let (urls, clock) = ([url(node)], Clock::system());
    let gateway = Running::start_adjusted(dir.path(), &urls, &rest, clock, |shared| {
        let desk = shared.desk.as_mut().unwrap();
        Arc::get_mut(desk).unwrap().resolve_with(resolver);
    })
    .await;
    gateway.until_ready().await;
    gateway
}

#[tokio::test]
async fn a_node_joins_with_evidence_that_passes_and_serves() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let dir = keyed("");
    let gateway = start(&dir, &[&one], OPEN).await;
    announced(&gateway, &url(&two)).await;
    let origins = [("one", "configured"), ("two", "announced")];
    let expected = origins.map(|(id, origin)| (id.to_owned(), origin.to_owned()));
    assert_eq!(listed(&gateway).await, expected);
    let snapshot = gateway.shared.nodes.snapshot();
    snapshot.node("one").unwrap().health.bar(PATIENCE);
    assert_eq!(
        gateway.post_as(A, "/v1/completions", BODY).await.status,
        200
    );
    assert_eq!((one.asked(), two.asked()), (0, 1));

    let attested = two.attested();
    announced(&gateway, &url(&two)).await;
    announced(&gateway, &format!("{}/", url(&two))).await;
    assert_eq!(gateway.shared.nodes.all().len(), 2, "the same again");
    assert!(two.attested() > attested, "it was asked again");
    announced(&gateway, &url(&one)).await;
    assert_eq!(
        gateway.shared.nodes.all().len(),
        2,
        "one of the configuration"
    );
}

#[tokio::test]
async fn evidence_that_fails_leaves_nothing_behind() {
    let (one, liar) = (FakeNode::start("one").await, FakeNode::start("liar").await);
    let redirecting = FakeNode::start("redirecting").await;
    let target = FakeNode::start("target").await;
    redirecting.redirect(url(&target));
    liar.lie();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let dir = keyed("");
    let gateway = start(&dir, &[&one], OPEN).await;
    for (name, url, class) in [
        (
            "a statement that is not vouched for",
            url(&liar),
            "report data",
        ),
        (
            "somewhere else",
            url(&redirecting),
            "an answer of status 200",
        ),
        ("nobody there", nobody, "an answer of status 200"),
    ] {
        let got = announce(&gateway, A, &url).await;
        assert_eq!(got.code(), (422, "evidence_refused".to_owned()), "{name}");
        let text = String::from_utf8_lossy(&got.body);
        assert!(text.contains(class), "{name}: {text}");
        assert!(!text.contains("127.0.0.1"), "{name}: {text}");
        assert_eq!(gateway.shared.nodes.all().len(), 1, "{name}");
    }
    assert_eq!(target.attested(), 0, "no redirect is followed");
}

#[tokio::test]
async fn an_address_of_this_network_is_refused_however_it_is_written() {
    let one = FakeNode::start("one").await;
    let dir = keyed("");
    let strict = "[announce]\nallow = [\"0.0.0.0/0\", \"::/0\", \".nodes.example\"]\n\
                  per_key_per_minute = 1000\n";
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let gateway = resolving(&dir, &one, strict, move |host| {
        log.lock().unwrap().push(host.to_owned());
        let global: SocketAddr = "1.1.1.1:443".parse().unwrap();
        let private: SocketAddr = "10.0.0.1:443".parse().unwrap();
        match host.split('.').next().unwrap() {
            "private" => vec![private],
            "both" => vec![global, private],
            "mapped" => vec!["[::ffff:127.0.0.1]:443".parse().unwrap()],
            "metadata" => vec!["169.254.169.254:443".parse().unwrap()],
            _ => Vec::new(),
        }
    })
    .await;
    for address in [
        "https://127.0.0.1",
        "https://10.0.0.1:8443",
        "https://192.168.0.1",
        "https://169.254.169.254",
        "https://100.64.0.1",
        "https://0.0.0.0",
        "https://[::1]",
        "https://[::ffff:127.0.0.1]",
        "https://[fe80::1]",
        "https://[fd00::1]",
        "https://[ff02::1]",
        "https://[64:ff9b::7f00:1]",
        "https://private.nodes.example",
        "https://both.nodes.example",
        "https://mapped.nodes.example",
        "https://metadata.nodes.example",
        "https://nothing.nodes.example",
        "https://other.example",
        "https://localhost",
        "https://2130706433",
        "http://private.nodes.example",
    ] {
        let code = refused(&gateway, address).await;
        assert_eq!(
            code,
            (403, "announcement_not_allowed".to_owned()),
            "{address}"
        );
    }
    let malformed = [
        "ftp://a.nodes.example",
        "https://user@a.nodes.example",
        "https://a.nodes.example/path",
        "nodes.example",
    ];
    for address in malformed {
        let code = refused(&gateway, address).await;
        assert_eq!(code, (400, "invalid_request".to_owned()), "{address}");
    }
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().all(|host| host.ends_with(".nodes.example")),
        "{asked:?}"
    );
    assert_eq!(gateway.shared.nodes.all().len(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_meaning_leads_nowhere_else() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let trap = TcpListener::bind(("127.0.0.2", two.address.port()))
        .await
        .unwrap();
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (resolved, port) = (Arc::new(AtomicUsize::new(0)), two.address.port());
    let times = Arc::clone(&resolved);
    let dir = keyed("");
    let gateway = resolving(&dir, &one, OPEN, move |_| {
        let first = times.fetch_add(1, Ordering::Relaxed) == 0;
        let host = if first {
            [127, 0, 0, 1]
        } else {
            [127, 0, 0, 2]
        };
        vec![SocketAddr::from((host, port))]
    })
    .await;
    let name = format!("http://node.example:{port}");
    announced(&gateway, &name).await;
    assert_eq!(resolved.load(Ordering::Relaxed), 1, "resolved once");
    let joined = gateway.shared.nodes.at(&name.parse().unwrap()).unwrap();
    let attested = two.attested();
    joined.want_appraisal();
    timeout(PATIENCE, two.until_attested(attested + 1))
        .await
        .unwrap();
    gateway
        .shared
        .nodes
        .at(&url(&one).parse().unwrap())
        .unwrap()
        .health
        .bar(PATIENCE);
    assert_eq!(
        gateway.post_as(A, "/v1/completions", BODY).await.status,
        200
    );
    assert_eq!(two.asked(), 1);
    assert_eq!(resolved.load(Ordering::Relaxed), 1, "resolved once");
    assert_eq!(reached.load(Ordering::Relaxed), 0);
    // Announced again, the name means another place: that place has to show evidence of its own.
    let code = refused(&gateway, &name).await;
    assert_eq!(code, (422, "evidence_refused".to_owned()));
    let still = gateway.shared.nodes.at(&name.parse().unwrap()).unwrap();
    assert!(Arc::ptr_eq(&still, &joined) && still.verified().is_some());
}

#[tokio::test]
async fn nobody_takes_the_id_of_another() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let (thief, late) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let dir = keyed("");
    let gateway = start(&dir, &[&one], OPEN).await;
    let taken = (409, "node_id_taken".to_owned());
    assert_eq!(refused(&gateway, &url(&thief)).await, taken);
    announced(&gateway, &url(&two)).await;
    assert_eq!(refused(&gateway, &url(&late)).await, taken);
    assert_eq!(gateway.shared.nodes.all().len(), 2);

    // One that joined under its own id takes another's afterwards.
    let joined = gateway
        .shared
        .nodes
        .at(&url(&two).parse().unwrap())
        .unwrap();
    let before = joined.verified().unwrap();
    two.replace("one", Keys::New);
    let attested = two.attested();
    joined.want_appraisal();
    timeout(PATIENCE, two.until_attested(attested + 1))
        .await
        .unwrap();
    assert_eq!(announce(&gateway, B, &url(&two)).await.code().0, 422);
    let now = joined.verified().unwrap();
    assert_eq!((&now.id, &now.statement), (&before.id, &before.statement));
}

#[tokio::test]
async fn announcements_are_bounded_in_number_and_rate() {
    let one = FakeNode::start("one").await;
    let others = [FakeNode::start("two").await, FakeNode::start("three").await];
    let dir = keyed("");
    let rest = OPEN.replace("per_key_per_minute = 1000", "per_key_per_minute = 2");
    let gateway = start(&dir, &[&one], &format!("{rest}max_nodes = 1\n")).await;
    announced(&gateway, &url(&others[0])).await;
    let full = (503, "too_many_nodes".to_owned());
    assert_eq!(refused(&gateway, &url(&others[1])).await, full);
    let got = announce(&gateway, A, &url(&others[0])).await;
    assert_eq!(got.code(), (429, "rate_limited".to_owned()));
    let wait: u64 = got.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(announce(&gateway, B, &url(&others[0])).await.status, 200);
}

#[tokio::test]
async fn a_node_that_is_not_verified_any_more_is_forgotten() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let dir = keyed("");
    let rest = format!("{OPEN}forget_after_s = 1\n");
    let gateway = start(&dir, &[&one], &rest).await;
    announced(&gateway, &url(&two)).await;
    until_known(&gateway, 2).await;
    two.lie();
    gateway
        .shared
        .nodes
        .at(&url(&two).parse().unwrap())
        .unwrap()
        .distrust();
    until_known(&gateway, 1).await;
    let left = gateway.shared.nodes.all();
    assert_eq!(left[0].url.to_string(), url(&one));
    assert_eq!(refused(&gateway, &url(&two)).await.0, 422);
}
