//! A caller, who holds what he gets against the truth.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    engine::{Worked, truth},
    network::Network,
};
use crate::net::Stream;

/// No request takes longer, whatever happens: every wait in it has an end.
const LONGEST: Duration = Duration::from_secs(3600);

/// What one request is.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) prompt: String,
    pub(super) stream: bool,
    /// When he comes, and after how long he leaves.
    pub(super) at: Duration,
    pub(super) leaves_after: Option<Duration>,
}

/// How a request ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The whole truth, and it was said that it is whole.
    Complete,
    /// An error that says so.
    Error {
        /// Whether it may be repeated, since nothing was done.
        not_executed: bool,
    },
    /// The connection broke, which says so too.
    Broken,
    /// He left.
    Left,
}

impl Wanted {
    pub(super) fn draw(rng: &mut StdRng, number: usize, within: Duration) -> Self {
        let filler = "x".repeat(rng.random_range(0..40));
        let leaves = rng.random_bool(0.15);
        Self {
            prompt: format!("p{number}{filler}"),
            stream: rng.random_bool(0.6),
            at: within.mul_f64(rng.random_range(0.0..=1.0)),
            leaves_after: leaves.then(|| Duration::from_millis(rng.random_range(0..3000))),
        }
    }

    /// Asks, and holds the answer against the truth.
    pub(super) async fn ask(
        &self,
        network: &Network,
        gateway: SocketAddr,
        worked: &Worked,
    ) -> Outcome {
        sleep(self.at).await;
        let patience = self.leaves_after.unwrap_or(LONGEST);
        let outcome = timeout(patience, self.exchange(network, gateway, worked)).await;
        match (outcome, self.leaves_after) {
            (Ok(outcome), _) => outcome,
            (Err(_), Some(_)) => Outcome::Left,
            (Err(_), None) => panic!("{self:?} has no end"),
        }
    }

    async fn exchange(&self, network: &Network, gateway: SocketAddr, worked: &Worked) -> Outcome {
        let uri = format!("http://{gateway}/").parse().unwrap();
        let Ok(pipe) = network.connect(&uri).await else {
            return Outcome::Broken;
        };
        let io = TokioIo::new(Stream::Simulated(pipe));
        let Ok((mut sender, connection)) = http1::handshake(io).await else {
            return Outcome::Broken;
        };
        let body = json!({"model": "m", "prompt": self.prompt, "stream": self.stream});
        let request = Request::post("/v1/completions")
            .header("host", gateway.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())));
        let asking = async {
            match sender.send_request(request.unwrap()).await {
                Ok(response) => self.judge(response, worked).await,
                Err(_) => Outcome::Broken,
            }
        };
        // Driven here, so that whoever leaves takes his connection with him.
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            outcome = asking => outcome,
            _ = async { let _ = connection.as_mut().await; std::future::pending::<()>().await } => {
                unreachable!()
            }
        }
    }

    async fn judge(&self, response: Response<Incoming>, worked: &Worked) -> Outcome {
        let status = response.status();
        let should_retry = response.headers().get("x-should-retry").cloned();
        let mut body = response.into_body();
        if status == StatusCode::OK && self.stream {
            return self.judge_events(body).await;
        }
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap()),
                Err(_) => return Outcome::Broken,
            }
        }
        let reply: Value = serde_json::from_slice(&all).unwrap();
        if status == StatusCode::OK {
            assert_eq!(reply["choices"][0]["text"], truth(&self.prompt), "{self:?}");
            return Outcome::Complete;
        }
        let code = reply["error"]["code"].as_str().unwrap();
        // An SDK repeats such a request by itself.
        let repeated = matches!(status.as_u16(), 408 | 409 | 429 | 500..);
        let not_executed = repeated && should_retry.is_none_or(|value| value != "false");
        let times = worked.on(&self.prompt);
        assert!(
            !not_executed || times == 0,
            "{code} for {self:?}, which was worked on"
        );
        Outcome::Error { not_executed }
    }

    async fn judge_events(&self, mut body: Incoming) -> Outcome {
        let truth = truth(&self.prompt);
        let (mut text, mut said) = (Vec::new(), String::new());
        let (mut done, mut error) = (false, None);
        let broke = loop {
            match body.frame().await {
                Some(Ok(frame)) => text.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        let text = String::from_utf8(text).expect("whole characters");
        for event in text.split("\n\n") {
            let Some(data) = event.strip_prefix("data: ") else {
                assert!(
                    event.is_empty() || event.starts_with(':') || broke,
                    "{event:?}"
                );
                continue;
            };
            assert!(!done && error.is_none(), "more after the end: {event:?}");
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let Ok(chunk) = serde_json::from_str::<Value>(data) else {
                assert!(broke, "{data:?}");
                continue;
            };
            if chunk.get("error").is_some() {
                error = chunk["error"]["code"].as_str().map(str::to_owned);
                continue;
            }
            if let Some(word) = chunk["choices"][0]["text"].as_str() {
                said.push_str(word);
            }
            assert!(
                truth.starts_with(&said),
                "{said:?} is no beginning of {truth:?}"
            );
        }
        match (done, error) {
            (true, None) => {
                assert_eq!(said, truth, "{self:?}: said to be whole");
                Outcome::Complete
            }
            (false, Some(_)) => {
                assert!(broke, "a stream that failed ends as one that did not");
                Outcome::Error {
                    not_executed: false,
                }
            }
            (false, None) => {
                assert!(broke, "{self:?}: a stream ends without an end");
                Outcome::Broken
            }
            (true, Some(_)) => unreachable!(),
        }
    }
}
