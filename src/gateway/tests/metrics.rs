//! What is counted, read as a scraper reads it.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    fake::FakeNode,
    harness::{BODY, Running},
    sealed::own_table,
};
use crate::{
    gateway::metrics::{ENDPOINTS, FAMILIES, Scrape},
    listener::ConnectionCounts,
    telemetry::metrics::{Exposition, Format, documented},
};

pub(super) fn page(gateway: &Running) -> String {
    let scrape = Scrape {
        current: watch::Sender::new(Arc::clone(&gateway.shared)).subscribe(),
        connections: Arc::<ConnectionCounts>::default(),
        connection_limit: 7,
        archive: None,
    };
    let page = Exposition::new("sealgate_gateway", scrape);
    page.render(Format::OpenMetrics).unwrap();
    page.render(Format::Prometheus).unwrap()
}

/// The number of the one series that begins so.
fn number(page: &str, begin: &str) -> f64 {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(begin));
    let number = lines
        .next()
        .unwrap_or_else(|| panic!("no {begin} in {page}"));
    assert_eq!(lines.next(), None, "{begin}");
    number.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_metric_is_written_and_documented() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    documented::is_page_of(&FAMILIES, "sealgate_gateway", &page(&gateway));
    documented::are(&FAMILIES, "sealgate_gateway");
}

#[tokio::test]
async fn tries_and_what_nodes_failed_at_are_counted() {
    let (one, two) = (FakeNode::start("one").await, FakeNode::start("two").await);
    let gateway = Running::start(&[&one, &two], "").await;
    for node in [&one, &two] {
        node.play(|asked| async move { asked.problem(503, "overloaded") });
    }
    assert_eq!(gateway.post(BODY).await.status, 503);
    let text = page(&gateway);
    let expected = [
        ("tries_total ", 2.0),
        ("retries_total ", 1.0),
        ("reseals_total ", 0.0),
        ("retries_in_flight ", 0.0),
        (
            "exchange_failures_total{class=\"refused_overloaded\"} ",
            2.0,
        ),
        ("requests_in_flight ", 0.0),
        ("nodes ", 2.0),
    ];
    for (series, value) in expected {
        assert_eq!(
            number(&text, &format!("sealgate_gateway_{series}")),
            value,
            "{series}"
        );
    }
    for (id, node) in [("one", &one), ("two", &two)] {
        let labels = format!("node=\"{id}\",url=\"http://{}\"", node.address);
        let series = |name: &str| format!("sealgate_gateway_node_{name}{{{labels}");
        assert_eq!(number(&text, &series("verified")), 1.0);
        assert_eq!(number(&text, &series("requests_in_flight")), 0.0);
        assert_eq!(number(&text, &series("failures_total")), 1.0);
        assert_eq!(number(&text, &series("answers_total")), 0.0);
        assert_eq!(number(&text, &series("appraisals_total")), 1.0);
        assert!(number(&text, &series("appraisal_remaining_seconds")) > 0.0);
    }
}

#[tokio::test]
async fn a_node_that_restarted_counts_as_sealed_to_again() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    node.restart();
    assert_eq!(gateway.post(BODY).await.status, 200);
    let text = page(&gateway);
    let expected = [
        ("tries_total ", 2.0),
        ("retries_total ", 0.0),
        ("reseals_total ", 1.0),
    ];
    for (series, value) in expected {
        assert_eq!(
            number(&text, &format!("sealgate_gateway_{series}")),
            value,
            "{series}"
        );
    }
}

#[tokio::test]
async fn every_path_is_counted_under_its_own_name() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], &own_table()).await;
    let paths = [
        "/v1/attestation",
        "/.well-known/ohttp-gateway",
        "/v1/models",
        "/v1/models/m",
        "/v1/receipts/x",
        "/v1/nodes",
        "/v1/nodes/one/attestation",
    ];
    let more = [
        "/health",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/v1/nodes/one/ohttp-keys",
    ];
    for path in paths
        .into_iter()
        .chain(more)
        .chain(["/a-prompt-of-somebody"])
    {
        gateway.get(path).await;
    }
    let options = gateway.request("OPTIONS", "/v1/completions");
    gateway
        .send(options.body(http_body_util::Full::default()).unwrap())
        .await;
    gateway.post_as("k", "/v1/nodes/lock", "{}").await;
    for route in ENDPOINTS.iter().take(8).chain(&["/v1/nodes/one/ohttp"]) {
        gateway.post_as("k", route, "{}").await;
    }
    let text = page(&gateway);
    for endpoint in ENDPOINTS {
        let series = format!("sealgate_gateway_requests_total{{endpoint=\"{endpoint}\",");
        assert!(text.contains(&series), "{endpoint} in {text}");
    }
    assert!(!text.contains("a-prompt"), "{text}");
}
