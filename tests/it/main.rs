//! Real gateway and node processes over loopback, asked as their users would ask.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its helpers are as much test as its cases"
)]

mod admin;
mod admin_api;
mod appraisals;
mod attacks;
mod attested_gateway;
mod audit;
mod cancellation;
mod cli;
mod client;
mod completions;
mod contract;
mod credential;
mod dialects;
mod doctor;
mod endpoints;
mod failures;
mod faults;
mod fleet;
mod hardening;
mod harness;
mod layers;
mod lengths;
mod limits;
mod metrics;
mod node;
mod policy;
mod post_quantum;
mod protocols;
mod proxies;
mod receipts;
mod reload;
mod sealed_gateway;
mod service;
mod shutdown;
mod slow;
mod store;
mod streams;
mod tls;
