//! Asks vendors' services for collateral: over a proxy and under a CA of the operator's, if given.
//!
//! Nothing that comes back is believed here: `bundle create` looks at it. Neither role uses this
//! module; a machine that serves requests never asks a vendor for anything.

use std::{fmt, net::IpAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, InvalidHeaderValue, RETRY_AFTER, USER_AGENT,
    },
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

pub mod amd;
pub mod intel;
pub mod nvidia;
#[cfg(test)]
mod tests;

/// Longest answer, in bytes; the longest piece of collateral has under 100,000.
const MAX_ANSWER: usize = 1024 * 1024;
/// Time for one try, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries for one file.
const TRIES: u32 = 4;
/// Rest before the second try, doubled for each further one. AMD gives one certificate in about 10 s
/// to an address.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Longest rest that a service can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// A file that a service gave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// What to call it.
    pub name: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// The address that it came from.
    pub source: String,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No `http` or `https` address.
    #[error("{0}: not an address such as https://host/path")]
    Address(String),
    /// The CA's file holds none.
    #[error("{path}: no PEM certificates: {reason}")]
    Ca {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// No TLS at all.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No connection.
    #[error("{address}: connect: {reason}")]
    Connect {
        /// The service.
        address: String,
        /// Why.
        reason: String,
    },
    /// No connection to the proxy.
    #[error("the proxy {proxy}: connect: {reason}")]
    ProxyConnect {
        /// The proxy.
        proxy: String,
        /// Why.
        reason: String,
    },
    /// A key would travel in the clear.
    #[error(
        "{address}: a key for a service is not sent over plain http, but to this machine: give an \
         https address"
    )]
    PlainKey {
        /// The service.
        address: String,
    },
    /// The proxy lets nothing through.
    #[error("{address}: the proxy answered {status}")]
    Proxy {
        /// The service.
        address: String,
        /// The proxy's status.
        status: StatusCode,
    },
    /// No answer in time.
    #[error("{address}: no answer in {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The service.
        address: String,
    },
    /// The connection broke.
    #[error("{address}: {source}")]
    Broken {
        /// The service.
        address: String,
        /// How.
        source: hyper::Error,
    },
    /// An answer longer than any piece of collateral.
    #[error("{address}: an answer of more than {MAX_ANSWER} bytes")]
    TooLong {
        /// The service.
        address: String,
    },
    /// Another status than 200.
    #[error("{address}: answered {status}{}", tried(*tries))]
    Status {
        /// The service.
        address: String,
        /// The status.
        status: StatusCode,
        /// How often it was asked.
        tries: u32,
    },
    /// An answer in another form than the service's.
    #[error("{address}: {what}")]
    Answer {
        /// The service.
        address: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

fn tried(tries: u32) -> String {
    match tries {
        0 | 1 => String::new(),
        more => format!(" ({more} times)"),
    }
}

/// A key for a service, sent as a bearer token (RFC 6750 section 2.1), over TLS or to this machine.
pub struct Bearer(Zeroizing<String>);

impl Bearer {
    /// The key, without the blanks around it; `None` if a header field cannot carry it.
    pub fn try_new(key: &str) -> Option<Self> {
        let bearer = Self(Zeroizing::new(format!("Bearer {}", key.trim())));
        bearer.value().is_ok().then_some(bearer)
    }

    fn value(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(&self.0)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// What is asked of a service.
struct Ask<'a> {
    method: Method,
    address: &'a str,
    /// Content and its type.
    content: Option<(Bytes, &'static str)>,
    bearer: Option<&'a Bearer>,
}

/// An answer of status 200.
struct Answer {
    headers: HeaderMap,
    content: Bytes,
}

/// The way to the services.
#[derive(Clone, Debug)]
pub struct Client {
    tls: Arc<ClientConfig>,
    proxy: Option<Authority>,
    first_pause: Duration,
}

impl Client {
    /// The way through `proxy`, an `http` address, if there is one; `https` ends at whoever the
    /// public roots vouch for, or those of the PEM file `ca` instead.
    ///
    /// # Errors
    /// [`FetchError`] names the argument that is wrong.
    pub fn try_new(proxy: Option<&str>, ca: Option<&Path>) -> Result<Self, FetchError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match ca {
            Some(ca) => builder.with_root_certificates(roots(ca)?),
            None => builder.with_webpki_roots(),
        };
        let proxy = proxy.map(|address| {
            let parsed = parse(address)?;
            if parsed.https {
                return Err(FetchError::Address(address.to_owned()));
            }
            Ok(parsed.authority)
        });
        Ok(Self {
            tls: Arc::new(builder.with_no_client_auth()),
            proxy: proxy.transpose()?,
            first_pause: FIRST_PAUSE,
        })
    }

    async fn get(&self, address: &str) -> Result<Answer, FetchError> {
        self.ask(&Ask {
            method: Method::GET,
            address,
            content: None,
            bearer: None,
        })
        .await
    }

    /// Asks until there is an answer, as long as another try can help.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, FetchError> {
        if ask.bearer.is_some() && !self.hides(&parse(ask.address)?) {
            return Err(FetchError::PlainKey {
                address: ask.address.to_owned(),
            });
        }
        let mut pause = self.first_pause;
        let mut tries = 1;
        loop {
            let once = timeout(TIMEOUT, self.ask_once(ask));
            let (status, headers, content) = once.await.unwrap_or_else(|_| Err(ask.timed_out()))?;
            if status == StatusCode::OK {
                return Ok(Answer { headers, content });
            }
            let passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if !passing || tries >= TRIES {
                return Err(FetchError::Status {
                    address: ask.address.to_owned(),
                    status,
                    tries,
                });
            }
            let asked_for = headers.get(RETRY_AFTER).and_then(seconds);
            // Not all of a fleet at once.
            let spread = pause.mul_f64(rand::random::<f64>() / 4.0);
            let rest = asked_for.unwrap_or(pause).saturating_add(spread);
            sleep(rest.min(MAX_PAUSE)).await;
            pause = pause.saturating_mul(2);
            tries += 1;
        }
    }

    /// Whether nobody on the way reads what is sent.
    fn hides(&self, target: &Target) -> bool {
        let hops = self.proxy.iter().chain([&target.authority]);
        target.https || hops.into_iter().all(is_loopback)
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<(StatusCode, HeaderMap, Bytes), FetchError> {
        let target = parse(ask.address)?;
        let broken = |source| FetchError::Broken {
            address: ask.address.to_owned(),
            source,
        };
        let io = self.connect(&target, ask).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(self.request(&target, ask)?).await;
        let response = response.map_err(broken)?;
        let answer = read(response, ask.address).await;
        driver.abort();
        answer
    }

    /// A connection to the service itself, or, without TLS, to the proxy that passes the request on.
    async fn connect(&self, target: &Target, ask: &Ask<'_>) -> Result<Box<dyn Io>, FetchError> {
        let failed = |error: std::io::Error| FetchError::Connect {
            address: ask.address.to_owned(),
            reason: error.to_string(),
        };
        let hop = self.proxy.as_ref().unwrap_or(&target.authority);
        let default = if self.proxy.is_none() && target.https {
            443
        } else {
            80
        };
        let port = hop.port_u16().unwrap_or(default);
        let tcp = TcpStream::connect((bare(hop.host()), port)).await;
        let tcp = tcp.map_err(|error| match &self.proxy {
            Some(proxy) => FetchError::ProxyConnect {
                proxy: proxy.to_string(),
                reason: error.to_string(),
            },
            None => failed(error),
        })?;
        if !target.https {
            return Ok(Box::new(tcp));
        }
        let io: Box<dyn Io> = match &self.proxy {
            Some(_) => self.tunnel(tcp, target, ask).await?,
            None => Box::new(tcp),
        };
        let name = ServerName::try_from(bare(target.authority.host()).to_owned());
        let name = name.map_err(|_| FetchError::Address(ask.address.to_owned()))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Ok(Box::new(tls.connect(name, io).await.map_err(failed)?))
    }

    /// Asks the proxy for a way through (RFC 9110 section 9.3.6).
    async fn tunnel(
        &self,
        tcp: TcpStream,
        target: &Target,
        ask: &Ask<'_>,
    ) -> Result<Box<dyn Io>, FetchError> {
        let broken = |source| FetchError::Broken {
            address: ask.address.to_owned(),
            source,
        };
        let port = target.authority.port_u16().unwrap_or(443);
        let authority = format!("{}:{port}", target.authority.host());
        let request = Request::connect(&authority)
            .header(HOST, &authority)
            .body(Full::<Bytes>::default());
        let request = request.map_err(|_| FetchError::Address(ask.address.to_owned()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(broken)?;
        if !response.status().is_success() {
            return Err(FetchError::Proxy {
                address: ask.address.to_owned(),
                status: response.status(),
            });
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    fn request(&self, target: &Target, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, FetchError> {
        // A proxy that passes a request on is given the whole address.
        let whole = self.proxy.is_some() && !target.https;
        let uri = if whole { ask.address } else { &target.path };
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(uri)
            .header(HOST, target.authority.as_str())
            .header(ACCEPT, "*/*")
            .header(USER_AGENT, concat!("sealgate/", env!("CARGO_PKG_VERSION")));
        if let Some(bearer) = ask.bearer {
            let value = bearer.value();
            let value = value.map_err(|_| FetchError::Address(ask.address.to_owned()))?;
            request = request.header(AUTHORIZATION, value);
        }
        let mut content = Bytes::new();
        if let Some((bytes, kind)) = &ask.content {
            request = request.header(CONTENT_TYPE, *kind);
            content = bytes.clone();
        }
        let request = request.body(Full::new(content));
        request.map_err(|_| FetchError::Address(ask.address.to_owned()))
    }
}

impl Ask<'_> {
    fn timed_out(&self) -> FetchError {
        FetchError::Timeout {
            address: self.address.to_owned(),
        }
    }
}

async fn read(
    response: Response<Incoming>,
    address: &str,
) -> Result<(StatusCode, HeaderMap, Bytes), FetchError> {
    let (head, body) = response.into_parts();
    let content = Limited::new(body, MAX_ANSWER).collect().await;
    let content = content.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(source) => FetchError::Broken {
            address: address.to_owned(),
            source: *source,
        },
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>(), "nothing else fails");
            FetchError::TooLong {
                address: address.to_owned(),
            }
        }
    })?;
    Ok((head.status, head.headers, content.to_bytes()))
}

/// What a connection runs over.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An address, taken apart.
struct Target {
    https: bool,
    authority: Authority,
    path: String,
}

fn parse(address: &str) -> Result<Target, FetchError> {
    let wrong = || FetchError::Address(address.to_owned());
    let parts = address.parse::<Uri>().map_err(|_| wrong())?.into_parts();
    let https = match parts.scheme {
        Some(scheme) if scheme == Scheme::HTTPS => true,
        Some(scheme) if scheme == Scheme::HTTP => false,
        _ => return Err(wrong()),
    };
    let authority = parts.authority.filter(|it| !it.as_str().contains('@'));
    let path = parts
        .path_and_query
        .map_or_else(|| "/".to_owned(), |it| it.to_string());
    Ok(Target {
        https,
        authority: authority.ok_or_else(wrong)?,
        path,
    })
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(authority: &Authority) -> bool {
    let host = bare(authority.host());
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback())
}

/// `Retry-After` in its form of seconds.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn roots(path: &Path) -> Result<RootCertStore, FetchError> {
    let wrong = |reason: String| FetchError::Ca {
        path: path.display().to_string(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    Ok(roots)
}

/// An address below `base`, which may end with a slash.
fn below(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/'))
}

fn named(name: String, content: impl Into<Vec<u8>>, source: String) -> File {
    File {
        name,
        content: content.into(),
        source,
    }
}
