//! Configuration of the gateway.
