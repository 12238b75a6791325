//! The public contract: requests, replies, errors, server-sent events.
//!
//! Everything that knows OpenAI's JSON is here. [`Endpoint`] names the kinds of request; [`Request`]
//! is the strict reading of a caller's body; [`Code`] is the one table of errors; [`sse`] reads event streams, strictly from a
//! node and leniently from an engine; [`level`] turns what engines really say into the contract.
//! Nothing here does IO, reads a clock or logs, and no error holds a value of a body.

pub mod echo;
mod endpoint;
mod error;
mod json;
pub mod level;
pub mod models;
pub mod nodes;
mod request;
pub mod schemas;
pub mod sse;
mod usage;

pub use endpoint::Endpoint;
pub use error::{Code, ErrorObject, MAX_RETRY_AFTER_S};
pub use request::{Asked, DEFAULT_MAX_TOKENS, Encoding, MAX_MODEL, Request, RequestError};
pub use usage::{MalformedUsage, Usage};
