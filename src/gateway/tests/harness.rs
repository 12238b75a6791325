//! A gateway that serves, and a caller.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::fake::{FakeNode, folder};
use crate::{
    clock::Clock,
    config,
    gateway::{Gateway, Shared},
    reload::Reload,
};

/// Nothing in these tests takes longer, unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const BODY: &str = r#"{"model":"m","prompt":"the prompt","unknown":[1, 2]}"#;
pub(super) const STREAM_BODY: &str = r#"{"model":"m","prompt":"the prompt","stream":true}"#;

/// A gateway that serves.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) shutdown: CancellationToken,
    pub(super) served: JoinHandle<()>,
    /// Has files read again.
    pub(super) reload: Reload,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A complete reply.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    pub(super) fn code(&self) -> (u16, String) {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(self.headers[CONTENT_TYPE], "application/json");
        let code = json["error"]["code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code)
    }

    pub(super) fn should_retry(&self) -> Option<&str> {
        self.headers
            .get("x-should-retry")
            .map(|value| value.to_str().unwrap())
    }
}

impl Running {
    /// A gateway before `nodes`, with `rest` in its configuration, once it is ready.
    pub(super) async fn start(nodes: &[&FakeNode], rest: &str) -> Self {
        let running = Self::start_unready(nodes, rest).await;
        running.until_ready().await;
        for node in nodes {
            let attested = async {
                while node.attested() == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
                sleep(Duration::from_millis(100)).await;
            };
            timeout(PATIENCE, attested).await.unwrap();
        }
        running
    }

    pub(super) async fn start_unready(nodes: &[&FakeNode], rest: &str) -> Self {
        let urls: Vec<_> = nodes
            .iter()
            .map(|node| format!("http://{}", node.address))
            .collect();
        Self::start_before(&urls, rest).await
    }

    pub(super) async fn start_before(urls: &[String], rest: &str) -> Self {
        Self::start_in(folder(), urls, rest, Clock::system()).await
    }

    /// A gateway before nodes of which the configuration says more than where they are, once all are
    /// verified.
    pub(super) async fn start_described(nodes: &[(&FakeNode, &str)], rest: &str) -> Self {
        let tables = nodes.iter().map(|(node, described)| {
            let address = node.address;
            format!("[[node]]\nurl = \"http://{address}\"\n{described}\n")
        });
        let text = format!("{rest}\n{}", tables.collect::<String>());
        let running = Self::start_before(&[], &text).await;
        let verified = async {
            while running.shared.nodes.snapshot().nodes().count() < nodes.len() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, verified).await.unwrap();
        running
    }

    /// A gateway whose policy is in `folder`.
    pub(super) async fn start_in(folder: &Path, urls: &[String], rest: &str, clock: Clock) -> Self {
        Self::start_adjusted(folder, urls, rest, clock, |_| {}).await
    }

    /// The same with something in it that no configuration says.
    pub(super) async fn start_adjusted(
        folder: &Path,
        urls: &[String],
        rest: &str,
        clock: Clock,
        adjust: impl FnOnce(&mut Shared),
    ) -> Self {
        let nodes = urls
            .iter()
            .map(|url| format!("[[node]]\nurl = \"{url}\"\n"));
        let auth = if rest.contains("keys_file") {
            ""
        } else {
            "auth = \"open\"\n"
        };
        let text = format!(
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n{auth}{rest}\n{}",
            nodes.collect::<String>()
        );
        let path = folder.join("gateway.toml");
        let config = config::parse(&path, &text, std::iter::empty()).unwrap();
        let mut gateway = Gateway::bind(config, clock).await.unwrap();
        adjust(Arc::get_mut(&mut gateway.shared).unwrap());
        let (address, shared) = (gateway.address(), Arc::clone(&gateway.shared));
        let reload = gateway.reload();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(gateway.serve(shutdown.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            address,
            shared,
            shutdown,
            served,
            reload,
            client,
        }
    }

    pub(super) async fn until_ready(&self) {
        let ready = async {
            while self.get("/readyz").await.status != StatusCode::OK {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, ready).await.unwrap();
    }

    pub(super) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
    }

    pub(super) async fn get(&self, path: &str) -> Got {
        self.send(self.request("GET", path).body(Full::default()).unwrap())
            .await
    }

    pub(super) async fn post(&self, body: impl Into<Bytes>) -> Got {
        read(self.begin(body).await).await
    }

    /// A JSON body to any path, as the holder of `key`.
    pub(super) async fn post_as(&self, key: &str, path: &str, body: impl Into<Bytes>) -> Got {
        read(self.begin_as(key, path, "application/json", body).await).await
    }

    pub(super) async fn get_as(&self, key: &str, path: &str) -> Got {
        let request = self.request("GET", path);
        let request = request.header("authorization", format!("Bearer {key}"));
        self.send(request.body(Full::default()).unwrap()).await
    }

    /// The same where the reply has only begun.
    pub(super) async fn begin_as(
        &self,
        key: &str,
        path: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let request = self
            .request("POST", path)
            .header(CONTENT_TYPE, media_type)
            .header("authorization", format!("Bearer {key}"))
            .body(Full::new(body.into()))
            .unwrap();
        timeout(PATIENCE, self.client.request(request))
            .await
            .unwrap()
            .unwrap()
    }

    /// A completion request whose reply has begun.
    pub(super) async fn begin(&self, body: impl Into<Bytes>) -> Response<Incoming> {
        let request = self
            .request("POST", "/v1/completions")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
            .unwrap();
        timeout(PATIENCE, self.client.request(request))
            .await
            .unwrap()
            .unwrap()
    }

    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        read(
            timeout(PATIENCE, self.client.request(request))
                .await
                .unwrap()
                .unwrap(),
        )
        .await
    }
}

/// The rest of a body, and whether the connection was aborted there.
pub(super) async fn read_raw(mut body: Incoming) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match timeout(PATIENCE, body.frame()).await.unwrap() {
            Some(Ok(frame)) => all.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => return (all, true),
            None => return (all, false),
        }
    }
}

pub(super) async fn read(response: Response<Incoming>) -> Got {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    assert_eq!(head.headers["x-request-id"].len(), 32);
    Got {
        status: head.status,
        headers: head.headers,
        body,
    }
}

/// A stream's text up to its end, and whether the connection was aborted there.
pub(super) async fn read_stream(response: Response<Incoming>) -> (String, bool) {
    if response.status() != StatusCode::OK {
        panic!("{:?}", read(response).await);
    }
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let (mut text, mut body) = (String::new(), response.into_body());
    loop {
        match timeout(PATIENCE, body.frame()).await.unwrap() {
            Some(Ok(frame)) => {
                text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
            Some(Err(_)) => return (text, true),
            None => return (text, false),
        }
    }
}
