//! The proxy that leads out of the operator's network to the nodes.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use http::{Uri, uri::Authority};
use serde::{Deserialize, Deserializer, de};

use super::{Allowed, ConfigError, GatewayConfig, Loaded, NodeUrl, is_loopback_host};

/// Most entries of `no_proxy`.
const MAX_STRAIGHT: usize = 1024;

/// A forward proxy. Nodes are reached through tunnels that it opens (CONNECT); left out, straight.
/// The environment's proxy variables count for nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Where it is: `http` or `https`, host and port.
    pub url: ProxyUrl,
    /// PEM file with the roots for an `https` proxy, in place of the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File with `user:password`, which the proxy gets as `Proxy-Authorization: Basic`.
    #[serde(default)]
    pub credential_file: Option<PathBuf>,
    /// Which nodes are reached straight: host names, suffixes of names that begin with a dot, and
    /// networks, which hold for addresses that are given as numbers. This machine always is.
    #[serde(default)]
    pub no_proxy: Vec<Allowed>,
}

impl ProxyConfig {
    /// Whether a node is reached without it, by the text of its address; or by what was found that
    /// it means, if it is reached there alone.
    #[must_use]
    pub fn passes_by(&self, node: &NodeUrl, addresses: Option<&[SocketAddr]>) -> bool {
        let is_straight =
            |host: &str| is_loopback_host(host) || self.no_proxy.iter().any(|it| it.covers(host));
        let at = |address: &SocketAddr| is_straight(&address.ip().to_string());
        // One that the proxy would take for its own machine keeps all of them from it.
        is_straight(node.host()) || addresses.is_some_and(|all| all.iter().any(at))
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.ca_file.iter().chain(&self.credential_file)
    }
}

/// The address of a proxy: `http` or `https`, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    https: bool,
    authority: Authority,
}

impl ProxyUrl {
    /// Whether connections to the proxy itself are TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host, an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }
}

/// A text that is no proxy's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxyUrl {
    /// It has another form.
    #[error("a proxy's url is http:// or https:// with a host and a port, and nothing more")]
    Form,
    /// It holds a secret, which does not belong into a configuration.
    #[error("a proxy's url holds no user and password: name a file with them in credential_file")]
    Credential,
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxyUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') {
            return Err(InvalidProxyUrl::Credential);
        }
        let parts = text
            .parse::<Uri>()
            .map_err(|_| InvalidProxyUrl::Form)?
            .into_parts();
        let https = match parts.scheme.as_ref().map(http::uri::Scheme::as_str) {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidProxyUrl::Form),
        };
        let bare = parts.path_and_query.is_none_or(|path| path == "/");
        match parts.authority {
            Some(authority)
                if bare
                    && !authority.host().is_empty()
                    && authority.port_u16().is_some_and(|port| port > 0) =>
            {
                Ok(Self { https, authority })
            }
            _ => Err(InvalidProxyUrl::Form),
        }
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl<'de> Deserialize<'de> for ProxyUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Checks what no type can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let Some(proxy) = &config.value.proxy else {
        return Ok(());
    };
    if proxy.ca_file.is_some() && !proxy.url.is_https() {
        let message = "roots are for a proxy that is reached by https";
        return Err(config.invalid("proxy.ca_file", message));
    }
    if proxy.no_proxy.len() > MAX_STRAIGHT {
        let message = format!("at most {MAX_STRAIGHT} places");
        return Err(config.invalid("proxy.no_proxy", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_a_scheme_a_host_and_a_port() {
        use InvalidProxyUrl::{Credential, Form};
        let cases = [
            ("http://proxy.example:3128", Ok("proxy.example")),
            ("https://proxy.example:443/", Ok("proxy.example")),
            ("http://[2001:db8::1]:3128", Ok("2001:db8::1")),
            ("http://proxy.example", Err(Form)),
            ("http://proxy.example:0", Err(Form)),
            ("proxy.example:3128", Err(Form)),
            ("socks5://proxy.example:1080", Err(Form)),
            ("http://proxy.example:3128/path", Err(Form)),
            ("http://proxy.example:3128/?a", Err(Form)),
            ("http://:3128", Err(Form)),
            ("", Err(Form)),
            ("http://user:password@proxy.example:3128", Err(Credential)),
            ("http://user@proxy.example:3128", Err(Credential)),
        ];
        for (text, expected) in cases {
            let url = text.parse::<ProxyUrl>();
            assert_eq!(url.as_ref().map(ProxyUrl::host), expected.as_ref().copied());
            if let Ok(url) = url {
                assert_eq!(url.to_string(), text.trim_end_matches('/'), "{text}");
                assert_eq!(url.is_https(), text.starts_with("https"), "{text}");
            }
        }
    }

    #[test]
    fn a_node_is_reached_straight_where_the_configuration_says_so() {
        let proxy: ProxyConfig = toml::from_str(
            "url = \"http://proxy.example:3128\"\nno_proxy = [\"node.example\", \".internal\", \
             \"10.0.0.0/8\", \"2001:db8::/32\", \"198.51.100.7\"]",
        )
        .unwrap();
        let cases: [(&str, &[&str], bool); 21] = [
            ("http://node.example:8090", &[], true),
            ("https://Node.Example", &[], true),
            ("https://a.node.example", &[], false),
            ("http://node.example.evil", &[], false),
            ("http://a.internal", &[], true),
            ("http://a.b.INTERNAL:1", &[], true),
            ("http://internal", &[], false),
            ("http://notinternal", &[], false),
            ("http://10.1.2.3", &[], true),
            ("http://11.1.2.3", &[], false),
            ("http://[2001:db8::9]:1", &[], true),
            ("http://198.51.100.7", &[], true),
            ("http://198.51.100.8", &[], false),
            ("http://127.0.0.1:8090", &[], true),
            ("http://127.8.0.1", &[], true),
            ("http://[::1]:8090", &[], true),
            ("http://LOCALHOST:8090", &[], true),
            ("https://other.example", &["203.0.113.7:443"], false),
            ("https://other.example", &["10.0.0.1:443"], true),
            (
                "https://other.example",
                &["203.0.113.7:443", "127.0.0.1:443"],
                true,
            ),
            ("https://a.internal", &["203.0.113.7:443"], true),
        ];
        for (url, addresses, expected) in cases {
            let node = url.parse().unwrap();
            let found: Vec<_> = addresses.iter().map(|it| it.parse().unwrap()).collect();
            let found = (!found.is_empty()).then_some(&*found);
            assert_eq!(
                proxy.passes_by(&node, found),
                expected,
                "{url} {addresses:?}"
            );
        }
    }
}
