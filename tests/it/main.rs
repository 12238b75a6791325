//! Real gateway and node processes over loopback, asked as their users would ask.

mod attacks;
mod cancellation;
mod cli;
mod completions;
mod contract;
mod failures;
mod harness;
mod layers;
mod node;
mod streams;
