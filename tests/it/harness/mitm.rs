//! The attacker on the path: a proxy between gateway and node that alters what a test tells it to.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

/// A reply of the node, on its way to the gateway.
pub(crate) struct OnTheWay {
    /// The path that was asked.
    pub(crate) path: String,
    /// The body that was sent there.
    pub(crate) sent: Bytes,
    /// Status of the reply.
    pub(crate) status: u16,
    /// Media type of the reply.
    pub(crate) media_type: String,
    /// Where a redirect leads.
    pub(crate) location: Option<String>,
    /// The reply's body.
    pub(crate) body: Vec<u8>,
}

impl OnTheWay {
    /// Whether this is a sealed reply.
    pub(crate) fn is_sealed(&self) -> bool {
        self.media_type == "message/ohttp-chunked-res"
    }

    /// The sealed reply's chunks: nonce, each chunk with its length, the final chunk.
    pub(crate) fn chunks(&self) -> Vec<Vec<u8>> {
        let (nonce, mut rest) = self.body.split_at(32);
        let mut chunks = vec![nonce.to_vec()];
        loop {
            let (length, prefix) = match rest[0] >> 6 {
                0 => (usize::from(rest[0]), 1),
                1 => (
                    usize::from(u16::from_be_bytes([rest[0] & 0x3f, rest[1]])),
                    2,
                ),
                2 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
                _ => panic!("chunks are at most 16,400 bytes"),
            };
            let end = if length == 0 {
                rest.len()
            } else {
                prefix + length
            };
            chunks.push(rest[..end].to_vec());
            rest = &rest[end..];
            if length == 0 {
                return chunks;
            }
        }
    }
}

type Alter = dyn Fn(&mut OnTheWay) + Send + Sync;

/// Starts a proxy to `node` and gives its base URL. Replies are collected whole, altered, passed on.
pub(crate) async fn start(
    node: &str,
    alter: impl Fn(&mut OnTheWay) + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let node: Arc<str> = node.into();
    let alter: Arc<Alter> = Arc::new(alter);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (node, alter) = (Arc::clone(&node), Arc::clone(&alter));
            let service = service_fn(move |r| forward(Arc::clone(&node), Arc::clone(&alter), r));
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    url
}

async fn forward(
    node: Arc<str>,
    alter: Arc<Alter>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let (mut head, body) = request.into_parts();
    head.uri = format!("{node}{path}").parse().unwrap();
    head.version = http::Version::HTTP_11;
    head.headers.remove("host");
    let body = body.collect().await.unwrap().to_bytes();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let reply = client
        .request(Request::from_parts(head, Full::new(body.clone())))
        .await
        .unwrap();
    let media_type = reply
        .headers()
        .get("content-type")
        .map_or("", |v| v.to_str().unwrap());
    let mut on_the_way = OnTheWay {
        path,
        sent: body,
        status: reply.status().as_u16(),
        media_type: media_type.to_owned(),
        location: None,
        body: Vec::new(),
    };
    on_the_way.body = reply
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec();
    alter(&mut on_the_way);
    let mut altered = Response::builder()
        .status(on_the_way.status)
        .header("content-type", on_the_way.media_type);
    if let Some(location) = on_the_way.location {
        altered = altered.header("location", location);
    }
    Ok(altered.body(Full::from(on_the_way.body)).unwrap())
}
