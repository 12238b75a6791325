//! sealgate: a drop-in private endpoint for confidential inference.
//!
//! A request goes through the modules in this order: [`gateway`] reads it with [`openai`], seals it
//! with [`seal`] to a key that [`attestation`] verified, and sends it to a [`node`], which opens it,
//! asks its engine and seals the reply. [`config`], [`listener`], [`tls`], [`reload`], [`telemetry`], [`clock`] and [`ids`] serve
//! both roles, which never import each other; each can have an admin listener, `admin`. [`client`] seals for whoever uses this
//! library. [`fetch`] asks vendors' services for the command line alone.

mod admin;
mod attester;
mod chance;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod fetch;
pub mod gateway;
pub mod ids;
#[cfg(test)]
mod leftovers;
pub mod listener;
mod net;
pub mod node;
pub mod openai;
mod pace;
pub mod receipts;
pub mod reload;
pub mod seal;
mod sealer;
#[cfg(test)]
mod simulation;
mod store;
pub mod telemetry;
pub mod tls;
