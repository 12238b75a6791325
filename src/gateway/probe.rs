//! Watches one node's health: asks it whether it is ready, and has it put out when it fails.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    node::{Node, Verified},
    nodes::Nodes,
};
use crate::{
    chance,
    config::gateway::{HealthConfig, millis, seconds},
    sealer::{NodeBody, SendError},
};

/// Where a node says whether it can work.
const READY: &str = "/readyz";
/// Most bytes that are read of its words.
const MAX_WORDS: usize = 4 * 1024;

/// Time between two looks where the configured one is no time at all.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probed {
    Ready,
    /// It answers, and wants no work.
    NotReady,
    /// Its connection ends at another certificate than its evidence names.
    Another,
    Failed,
}

/// Watches `node` as it is to be watched at each time; never ends.
pub(super) async fn watch(nodes: &Nodes, node: &Arc<Node>) {
    let mut next = after(seconds(node.health.config().probe_s));
    loop {
        tokio::select! {
            () = node.failing.notified() => nodes.put_out(node),
            () = sleep_until(next) => {
                let config = node.health.config();
                if let Some(verified) = node.verified() {
                    take_in(probe(&verified, &config).await, nodes, node, &config);
                }
                next = after(seconds(config.probe_s));
            }
        }
        // Once its time out has passed it is asked as often as any other.
        match node.health.out_until() {
            Some(until) if Instant::now() < until => next = until,
            _ => {}
        }
    }
}

/// Not all nodes, and not all gateways, in one instant.
fn after(interval: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(interval.mul_f64(chance::draw(0.8..=1.2)))
        .unwrap_or(now + LONGEST)
}

fn take_in(probed: Probed, nodes: &Nodes, node: &Arc<Node>, config: &HealthConfig) {
    match probed {
        Probed::NotReady => node.health.avoid(seconds(config.probe_s).mul_f64(1.5)),
        // As after a restart: what it is now, another appraisal shows.
        Probed::Another => return node.want_appraisal(),
        Probed::Ready | Probed::Failed => {}
    }
    if node.health.probed(probed != Probed::Failed) {
        nodes.put_out(node);
    }
}

async fn probe(verified: &Verified, config: &HealthConfig) -> Probed {
    match timeout(millis(config.probe_timeout_ms), ask(verified)).await {
        Ok(Ok(status)) => shown_by(status),
        Ok(Err(SendError::OtherCertificate)) => Probed::Another,
        Ok(Err(_)) | Err(_) => Probed::Failed,
    }
}

/// A node need not know the path: an answer of its own shows that it lives.
fn shown_by(status: StatusCode) -> Probed {
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Probed::NotReady,
        _ if status.is_success() || status.is_client_error() => Probed::Ready,
        _ => Probed::Failed,
    }
}

async fn ask(verified: &Verified) -> Result<StatusCode, SendError> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = http::Uri::from_static(READY);
    let response = verified.channel.send(request).await?;
    let status = response.status();
    discard(response.into_body()).await;
    Ok(status)
}

/// Reads to the end, where the connection can be used again.
async fn discard(mut body: NodeBody) {
    let mut read = 0_usize;
    while let Some(Ok(data)) = body.data().await {
        read = read.saturating_add(data.len());
        if read > MAX_WORDS {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        gateway::{health::Standing, node::Terms},
        sealer::Roots,
    };

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_out_and_not_verified_is_looked_at_no_more_often() {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let node = Arc::new(Node::new(url, None, Roots::Public, Terms::default()));
        let nodes = Nodes::new(vec![Arc::clone(&node)], BTreeMap::new());
        node.health.put_out();
        let watching = watch(&nodes, &node);
        // Time goes on only while nobody has anything to do.
        assert!(timeout(LONGEST, watching).await.is_err());
        assert_eq!(node.standing(), Standing::Out);
    }

    #[test]
    fn an_answer_shows_whether_a_node_lives_and_wants_work() {
        let cases = [
            (200, Probed::Ready),
            (404, Probed::Ready),
            (503, Probed::NotReady),
            (429, Probed::NotReady),
            (302, Probed::Failed),
            (502, Probed::Failed),
        ];
        for (status, shown) in cases {
            assert_eq!(
                shown_by(StatusCode::from_u16(status).unwrap()),
                shown,
                "{status}"
            );
        }
    }
}
