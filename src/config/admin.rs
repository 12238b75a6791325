//! The admin listener of a role: metrics, health and readiness, for whoever operates it.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    ConfigError, Loaded, read_text,
    tls::{self, TlsConfig},
};

/// Shortest and longest token: one that can be guessed protects nothing.
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 512;

/// Where a role's admin listener is, by default at `PORT` on loopback.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig<const PORT: u16> {
    /// Address to listen on; port 0 lets the system choose.
    #[serde(default = "AdminConfig::<PORT>::default_listen")]
    pub listen: SocketAddr,
    /// File with the bearer token that every request must carry. Left out, everybody may ask who
    /// can connect, which must be on loopback.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// TLS there; left out, the token and what is told cross the network in clear.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// SHA-256 of an admin token.
#[derive(Clone, Debug)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Whether it is this token's, in a time that does not tell.
    #[must_use]
    pub fn is_of(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        digest.ct_eq(&self.0).into()
    }
}

impl<const PORT: u16> AdminConfig<PORT> {
    fn default_listen() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], PORT))
    }

    /// Checks what no single key can say; `main` is where the role itself listens.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key.
    pub(super) fn check<T>(&self, config: &Loaded<T>, main: SocketAddr) -> Result<(), ConfigError> {
        self.check_address(config, self.listen)?;
        if let Some(tls) = &self.tls {
            tls::of_admin(config, tls)?;
        }
        if self.listen == main && main.port() != 0 {
            let message = "this is `listen`, where callers connect: choose another port";
            return Err(config.invalid("admin.listen", message));
        }
        Ok(())
    }

    /// Checks that whoever can connect to `address` may, or shows a token.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if everybody could.
    pub fn check_address<T>(
        &self,
        config: &Loaded<T>,
        address: SocketAddr,
    ) -> Result<(), ConfigError> {
        if self.token_file.is_none() && !address.ip().is_loopback() {
            let message = "an admin listener that is not on loopback needs a token: put one in a \
                           file and name it here";
            return Err(config.invalid("admin.token_file", message));
        }
        Ok(())
    }

    /// What has to be known of a listener at `address`.
    #[must_use]
    pub fn warning(&self, address: SocketAddr) -> Option<&'static str> {
        let is_open = self.tls.is_none() && !address.ip().is_loopback();
        is_open.then_some(
            "admin.tls: without it the token crosses the network in clear: give certificate_file \
             and key_file there, or listen on loopback",
        )
    }

    /// Reads the token, if there is one.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or holds no token.
    pub fn token<T>(&self, config: &Loaded<T>) -> Result<Option<TokenDigest>, ConfigError> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let text = Zeroizing::new(read_text(&config.resolve(file))?);
        let token = text.trim();
        let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) {
            let message = format!(
                "the file holds one line of {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters"
            );
            return Err(config.invalid("admin.token_file", message));
        }
        Ok(Some(TokenDigest(Sha256::digest(token).into())))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    type Admin = AdminConfig<8081>;

    fn loaded(text: &str, dir: &std::path::Path) -> Loaded<Admin> {
        let value = toml::from_str(text).unwrap();
        let path = dir.join("x.toml");
        Loaded {
            value,
            path,
            sha256: [0; 32],
        }
    }

    #[test]
    fn only_loopback_needs_no_token_and_no_port_is_taken_twice() {
        let main = SocketAddr::from(([127, 0, 0, 1], 8080));
        let cases = [
            ("", None),
            ("listen = \"[::1]:9\"", None),
            ("listen = \"0.0.0.0:9\"\ntoken_file = \"t\"", None),
            ("listen = \"127.0.0.1:0\"", None),
            ("listen = \"0.0.0.0:9\"", Some("admin.token_file")),
            (
                "[tls]\ncertificate_file = \"c\"\nkey_file = \"k\"\nclient_auth = \"optional\"",
                Some("admin.tls.client_ca_file"),
            ),
            ("listen = \"127.0.0.1:8080\"", Some("admin.listen")),
        ];
        for (text, key) in cases {
            let config = loaded(text, "/".as_ref());
            let checked = config.value.check(&config, main);
            match key {
                None => assert!(checked.is_ok(), "{text}"),
                Some(key) => assert!(checked.unwrap_err().to_string().contains(key), "{text}"),
            }
        }
        let tls = "[tls]\ncertificate_file = \"c\"\nkey_file = \"k\"";
        let beyond = SocketAddr::from(([192, 0, 2, 1], 9));
        for (text, address, warned) in [
            ("", main, false),
            ("", beyond, true),
            (tls, main, false),
            (tls, beyond, false),
        ] {
            let warning = loaded(text, "/".as_ref()).value.warning(address);
            assert_eq!(warning.is_some(), warned, "{text} {address}");
        }
        let default = loaded("", "/".as_ref()).value.listen;
        assert_eq!(default.to_string(), "127.0.0.1:8081");
        assert!(toml::from_str::<Admin>("port = 1").is_err());
    }

    #[test]
    fn a_token_is_one_line_that_cannot_be_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let config = loaded("token_file = \"token\"", dir.path());
        assert!(config.value.token(&config).is_err(), "no file");
        for (text, good) in [
            ("0123456789abcdef\n", true),
            ("0123456789abcde", false),
            ("0123456789 abcdef", false),
            ("", false),
        ] {
            fs::write(dir.path().join("token"), text).unwrap();
            let token = config.value.token(&config);
            assert_eq!(token.is_ok(), good, "{text:?}");
            if let Err(error) = token {
                assert!(!error.to_string().contains("0123"), "{error}");
            }
        }
        fs::write(dir.path().join("token"), "0123456789abcdef\n").unwrap();
        let token = config.value.token(&config).unwrap().unwrap();
        assert!(token.is_of(b"0123456789abcdef"));
        assert!(!token.is_of(b"0123456789abcdeg"));
        assert!(!token.is_of(b""));
    }
}
