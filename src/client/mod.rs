//! A client that seals for itself: a gateway's or node's address and a policy in, a verified
//! [`Channel`] and completions out.
//!
//! Whoever uses it needs to believe nobody on the way. [`Client::verify`] draws a nonce, has the
//! node's evidence brought, and judges it by the policy here, in this process, as a gateway does;
//! what is asked over the [`Channel`] is sealed to the key that the evidence vouches for. A gateway
//! between sees lengths, times and ciphertext, and whose API key it was.
//!
//! ```no_run
//! use sealgate::client::{Client, Policy, Reply};
//! use serde_json::json;
//!
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! let text = std::fs::read_to_string("policy.toml")?;
//! let policy = Policy::from_toml(&text, &mut |name| std::fs::read(name))?;
//! let client = Client::at_gateway("https://gateway.example", policy)
//!     .api_key("sk-…")
//!     .build()?;
//!
//! let channel = client.verify("tiny").await?;
//! println!("{}, vouched for by: {}", channel.node().tee(), channel.node().root().as_str());
//!
//! let body = json!({"model": "tiny", "prompt": "Hello", "stream": true});
//! if let Reply::Stream(mut events) = channel.completions(&body).await? {
//!     while let Some(event) = events.next().await? {
//!         let event: serde_json::Value = event.json()?;
//!         print!("{}", event["choices"][0]["text"].as_str().unwrap_or_default());
//!     }
//!     // Only a stream that was read to its proved end has one.
//!     let complete = events.finish()?;
//!     println!("\n{:?}", complete.usage());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! - Nothing is sealed to a node that did not pass the policy, or whose appraisal has ended. A policy
//!   that refuses means that no prompt leaves.
//! - What is sealed is sealed with X-Wing where the node's statement has a key for it; nobody on the
//!   way can take the key from the statement, which the evidence covers. [`ClientBuilder::require_pq`]
//!   refuses nodes without one.
//! - Nothing is given on that did not open. A whole reply is given when its end was proved; a stream's
//!   events are each proved, and [`Events::finish`] gives [`Complete`] only after the proved end. A
//!   stream that was cut is an error, and one that is dropped early never yields a [`Complete`].
//! - A request is sealed once. Nothing here tries again: [`AskError::may_have_run`] says when a repeat
//!   could run twice, [`AskError::wants_verification`] when [`Client::verify`] comes first.
//! - Where a node names its certificate, a connection straight to it ends at that certificate; over
//!   plain http such a node is refused. Through a gateway, connections end at the gateway, and the
//!   seal alone protects.
//! - No error holds a byte of a prompt or a reply, or a key.
//!
//! What was sealed before an appraisal ended is read to its end. Everything here runs on tokio.

mod builder;
mod channel;
mod evidence;
mod reply;
#[cfg(test)]
mod tests;

pub use attestation::{Bundle, Policy, VerifiedNode};

pub use self::{
    builder::{BuildError, ClientBuilder},
    channel::{AskError, Channel},
    evidence::{Client, VerifyError},
    reply::{Complete, Event, Events, NotJson, Reply, Unfinished, Whole},
};
pub use crate::{
    config::gateway::InvalidNodeUrl,
    openai::{Endpoint, RequestError, Usage},
    seal::Padding,
    sealer::{
        ExchangeError, Incomplete, InvalidCredential, Problem, ProxyError, SendError, TlsError,
    },
};
