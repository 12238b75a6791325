//! Strict TOML configuration, complete at start.
