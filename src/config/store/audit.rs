//! `[store.audit]`: how long the audit log is kept, and where its head is told.

use std::{
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::Uri;
use serde::{Deserialize, Deserializer, de};

use super::super::{
    ConfigError, Loaded,
    gateway::{GatewayConfig, NodeUrl, is_loopback_host},
};

/// How long the audit log is kept, and where its head is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// File that its head is written to, to be kept where nobody who can write into the store can write.
    pub head_file: Option<PathBuf>,
    /// Where its head is posted to as well.
    pub head_url: Option<HeadUrl>,
    /// File with the bearer token for that.
    pub head_token_file: Option<PathBuf>,
    /// PEM file with the roots of that server's certificate, in place of the public ones.
    pub head_ca_file: Option<PathBuf>,
    /// Seconds between two times that it is told.
    pub head_every_s: NonZeroU32,
    /// Days that entries are kept; for ever, if left out.
    pub days: Option<NonZeroU32>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            head_file: None,
            head_url: None,
            head_token_file: None,
            head_ca_file: None,
            head_every_s: NonZeroU32::MIN.saturating_add(59),
            days: None,
        }
    }
}

impl AuditConfig {
    /// Between two times that the head is told.
    #[must_use]
    pub fn head_every(&self) -> Duration {
        Duration::from_secs(self.head_every_s.get().into())
    }

    /// The same with the files where the configuration means them.
    pub(super) fn at(&self, at: impl Fn(&Path) -> PathBuf) -> Self {
        let at = |file: &Option<PathBuf>| file.as_deref().map(&at);
        Self {
            head_file: at(&self.head_file),
            head_token_file: at(&self.head_token_file),
            head_ca_file: at(&self.head_ca_file),
            ..self.clone()
        }
    }
}

/// Where heads are posted to: `https`, or `http` to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadUrl {
    server: NodeUrl,
    /// With the query, if there is one.
    path: Uri,
}

impl HeadUrl {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &NodeUrl {
        &self.server
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &Uri {
        &self.path
    }
}

/// A text that is no address to post heads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeadUrl {
    /// It has another form.
    #[error("the url that heads are posted to is https:// with a host, perhaps a port, and a path")]
    Form,
    /// It holds a secret, which does not belong into a configuration.
    #[error("the url holds no user and password: name a file with a token in head_token_file")]
    Credential,
    /// Whoever is on the way could change what is posted.
    #[error("heads are posted by https; by http to this machine alone")]
    Plain,
}

impl FromStr for HeadUrl {
    type Err = InvalidHeadUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use InvalidHeadUrl::{Credential, Form, Plain};
        if text.contains('#') {
            return Err(Form);
        }
        let parts = text.parse::<Uri>().map_err(|_| Form)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(Form);
        };
        if authority.as_str().contains('@') {
            return Err(Credential);
        }
        let server = format!("{scheme}://{authority}");
        let server: NodeUrl = server.parse().map_err(|_| Form)?;
        if !server.is_https() && !is_loopback_host(server.host()) {
            return Err(Plain);
        }
        let path = parts.path_and_query.map_or_else(Uri::default, Uri::from);
        Ok(Self { server, path })
    }
}

impl fmt::Display for HeadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.path)
    }
}

impl<'de> Deserialize<'de> for HeadUrl {
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
pub(super) fn check(
    config: &Loaded<GatewayConfig>,
    audit: &AuditConfig,
) -> Result<(), ConfigError> {
    let is_https = audit.head_url.as_ref().map(|url| url.server().is_https());
    if audit.head_token_file.is_some() && is_https.is_none() {
        let message = "the token is for a head_url, and there is none";
        return Err(config.invalid("store.audit.head_token_file", message));
    }
    if audit.head_ca_file.is_some() && is_https != Some(true) {
        let message = "roots are for a head_url by https";
        return Err(config.invalid("store.audit.head_ca_file", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_posted_by_https_or_to_this_machine() {
        use InvalidHeadUrl::{Credential, Form, Plain};
        let cases = [
            ("https://keep.example", Ok("https://keep.example/")),
            (
                "https://keep.example:8443/heads?of=a",
                Ok("https://keep.example:8443/heads?of=a"),
            ),
            ("http://127.0.0.1:9/h", Ok("http://127.0.0.1:9/h")),
            ("http://localhost/h", Ok("http://localhost/h")),
            ("http://[::1]:9/h", Ok("http://[::1]:9/h")),
            ("http://keep.example/h", Err(Plain)),
            ("http://127.0.0.1.example/h", Err(Plain)),
            ("https://user:pass@keep.example/h", Err(Credential)),
            ("https://keep.example/h#a", Err(Form)),
            ("ftp://keep.example/h", Err(Form)),
            ("/heads", Err(Form)),
            ("", Err(Form)),
        ];
        for (text, expected) in cases {
            let url = text.parse::<HeadUrl>().map(|url| url.to_string());
            assert_eq!(url, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn what_is_for_a_url_wants_one() {
        let load = |keys: &str| {
            let text = format!("policy = \"p\"\nnode = []\n[store]\n[store.audit]\n{keys}");
            let path = Path::new("gateway.toml");
            let config: Loaded<GatewayConfig> =
                super::super::super::parse(path, &text, std::iter::empty()).unwrap();
            super::super::check(&config).map_err(|error| error.to_string())
        };
        let url = |url: &str, rest: &str| format!("head_url = \"{url}\"\n{rest}");
        let (token, ca) = ("head_token_file = \"t\"\n", "head_ca_file = \"c\"\n");
        let cases = [
            (token.to_owned(), Some("store.audit.head_token_file")),
            (ca.to_owned(), Some("store.audit.head_ca_file")),
            (
                url("http://127.0.0.1:1/", ca),
                Some("store.audit.head_ca_file"),
            ),
            (url("http://127.0.0.1:1/", token), None),
            (
                url("https://keep.example/", &format!("{ca}{token}days = 1\n")),
                None,
            ),
        ];
        for (keys, expected) in cases {
            let error = load(&keys).err();
            let fits = match (&error, expected) {
                (None, None) => true,
                (Some(error), Some(key)) => error.contains(key),
                _ => false,
            };
            assert!(fits, "{keys}: {error:?}");
        }
    }
}
