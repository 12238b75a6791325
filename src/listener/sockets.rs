//! Sockets that listen already, in place of addresses that a configuration names.

use std::net::TcpListener;

/// Those of one role; what is not there is listened on as the configuration says.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Where callers, or gateways, connect.
    pub public: Option<TcpListener>,
    /// Where whoever operates the role connects.
    pub admin: Option<TcpListener>,
}
