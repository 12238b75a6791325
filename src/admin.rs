//! The admin listener of a role: `/metrics`, `/health` and `/readyz`, at an address of its own.
//!
//! It is for whoever operates the role, and outlives the role's own listener, so that a drain can be
//! watched to its end. What it holds is bounded by small constants. With a token every path wants
//! it; without one, only a request that names this machine is answered, since a page in a browser
//! can point a name of its own at a loopback address.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt, io,
    net::{self, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
    request::Parts,
};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{
        ConfigError, Loaded,
        admin::{AdminConfig, TokenDigest},
        gateway::is_loopback_host,
        tls::of_admin,
    },
    listener::{Limits, Listener, serve_connections},
    net::Acceptor,
    openai::{Code, ErrorObject},
    reload::{Asked, Reload},
    telemetry::metrics::{Accepts, Exposition},
    tls::{self, Keeper},
};

/// A few scrapers and a person; what is slow or idle goes soon.
const LIMITS: Limits = Limits {
    connections: 16,
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(120),
    write_timeout: Duration::from_secs(10),
    shutdown_timeout: Duration::from_secs(1),
};

/// An admin listener that does not answer yet.
#[must_use]
#[derive(Debug)]
pub(crate) struct Admin {
    listener: Acceptor,
    address: SocketAddr,
    token: Option<TokenDigest>,
    tls: Option<Keeper>,
    /// What has to be said of where it listens.
    warning: Option<&'static str>,
}

/// What it shows of its role.
pub(crate) struct Pages {
    pub(crate) metrics: Exposition,
    /// Why the role is not ready, if it is not.
    pub(crate) unready: Box<dyn Fn() -> Option<&'static str> + Send + Sync>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
}

impl Admin {
    /// Listens, if a role's configuration has the table for it; on `socket`, if there is one, in place
    /// of the address there.
    ///
    /// # Errors
    /// [`AdminError`] if a file cannot be used, the address cannot be listened on or is open to
    /// everybody, or there is a socket and no table.
    pub(crate) async fn open<T, const PORT: u16>(
        socket: Option<net::TcpListener>,
        config: &Loaded<T>,
        table: Option<&AdminConfig<PORT>>,
        clock: Clock,
    ) -> Result<Option<Self>, AdminError> {
        let Some(table) = table else {
            return match socket {
                Some(_) => Err(config.invalid("admin", NO_TABLE).into()),
                None => Ok(None),
            };
        };
        let token = table.token(config)?;
        let tls = read_tls(config, table, clock)?;
        let asked = table.listen;
        let listen = |source| AdminError::Listen {
            address: asked,
            source,
        };
        let listener = Acceptor::bind(socket, asked).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        table.check_address(config, address)?;
        Ok(Some(Self {
            warning: table.warning(address),
            listener,
            address,
            token,
            tls,
        }))
    }

    /// Whether it is asked by TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    async fn serve(self, pages: Pages, reloading: Option<Reloading>, stop: CancellationToken) {
        if let Some(warning) = self.warning {
            tracing::warn!("{warning}");
        }
        let listener = Listener::on(self.listener, self.tls.as_ref().map(Keeper::tls));
        let keeping = async {
            match (self.tls, reloading) {
                (Some(keeper), Some((asked, every))) => keeper.run(asked, every, |_| {}).await,
                _ => std::future::pending().await,
            }
        };
        let asked = Arc::new((pages, self.token));
        let service = service_fn(move |request: Request<Incoming>| {
            let asked = Arc::clone(&asked);
            async move {
                let (parts, _) = request.into_parts();
                let answering = spawn_blocking(move || answer(&asked.0, asked.1.as_ref(), &parts));
                let answered = answering.await;
                Ok::<_, Infallible>(answered.unwrap_or_else(|_| refusal(Code::Internal)))
            }
        });
        tokio::select! {
            () = serve_connections(listener, service, LIMITS, stop) => {}
            () = keeping => {}
        }
    }
}

const NO_TABLE: &str = "the service manager passes a socket for it: add the table, or take \
                        FileDescriptorName=admin out of the socket's unit";

/// Who says when to look at files again, and how often that is done otherwise.
type Reloading = (Asked, Duration);

fn read_tls<T, const PORT: u16>(
    config: &Loaded<T>,
    table: &AdminConfig<PORT>,
    clock: Clock,
) -> Result<Option<Keeper>, ConfigError> {
    let Some(tls) = &table.tls else {
        return Ok(None);
    };
    let files = of_admin(config, tls)?;
    let keeper = Keeper::start(files.clone(), "localhost", clock);
    keeper
        .map(Some)
        .map_err(|error| tls::named(config, &files, &error))
}

/// Reads every file that the table names, as a start does, and opens no port.
///
/// # Errors
/// [`ConfigError`] names what cannot be used.
pub(crate) fn check_files<T, const PORT: u16>(
    config: &Loaded<T>,
    table: Option<&AdminConfig<PORT>>,
) -> Result<(), ConfigError> {
    if let Some(table) = table {
        table.token(config)?;
        read_tls(config, table, Clock::system())?;
    }
    Ok(())
}

/// What has to be known of a table and its files that [`check_files`] found nothing wrong with.
pub(crate) fn warnings<T, const PORT: u16>(
    config: &Loaded<T>,
    table: Option<&AdminConfig<PORT>>,
) -> Vec<String> {
    let Some(table) = table else {
        return Vec::new();
    };
    let files = table.tls.as_ref().map(|tls| of_admin(config, tls));
    let now = Clock::system().now();
    let of_files = files.and_then(|files| tls::warning(&files.ok()?, now));
    let of_address = table.warning(table.listen).map(str::to_owned);
    of_files.into_iter().chain(of_address).collect()
}

/// Has the listener answer from now on, if there is one, and look at the files of its TLS `every` so
/// often. To wait for what is returned, or to drop it, ends that.
pub(crate) fn serve_beside(
    admin: Option<(Admin, Pages)>,
    reload: &Reload,
    every: Duration,
) -> impl Future<Output = ()> + use<> {
    let stop = CancellationToken::new();
    let serving = admin.map(|(admin, pages)| {
        // Whoever is asked must answer: who has no files is not.
        let reloading = admin.is_https().then(|| (reload.asked(), every));
        tokio::spawn(admin.serve(pages, reloading, stop.clone()))
    });
    let stopping = stop.drop_guard();
    async move {
        drop(stopping);
        if let Some(serving) = serving {
            // It has nothing to lose, whatever became of it.
            let _ = serving.await;
        }
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(pages: &Pages, token: Option<&TokenDigest>, parts: &Parts) -> Answer {
    let may_ask = match token {
        Some(token) => bearer(parts).is_some_and(|given| token.is_of(given)),
        None => names_this_machine(parts),
    };
    if !may_ask {
        return match token {
            Some(_) => refusal(Code::InvalidApiKey),
            None => refusal(Code::NotFound),
        };
    }
    let path = parts.uri.path();
    if !matches!(path, "/metrics" | "/health" | "/readyz") {
        return refusal(Code::NotFound);
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return refusal(Code::MethodNotAllowed);
    }
    match path {
        "/metrics" => metrics(pages, parts),
        "/readyz" => match (pages.unready)() {
            Some(why) => unready(why),
            None => json(br#"{"message":"ok"}"#),
        },
        _ => json(br#"{"message":"ok"}"#),
    }
}

fn metrics(pages: &Pages, parts: &Parts) -> Answer {
    let accept = parts.headers.get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let format = Accepts(accept.unwrap_or_default()).format();
    match pages.metrics.render(format) {
        Ok(page) => of_type(format.media_type(), page),
        Err(_) => refusal(Code::Internal),
    }
}

fn unready(why: &'static str) -> Answer {
    let message = serde_json::json!({ "message": why }).to_string();
    let mut response = of_type("application/json", message);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn json(body: &'static [u8]) -> Answer {
    of_type("application/json", body)
}

fn of_type(media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refusal(code: Code) -> Answer {
    let message = match code {
        Code::InvalidApiKey => "The admin token is missing or wrong. Send it as a bearer token.",
        Code::NotFound => "Here are /metrics, /health and /readyz.",
        Code::MethodNotAllowed => "This path takes GET and HEAD.",
        _ => "The page cannot be made.",
    };
    let object = ErrorObject {
        message: Cow::Borrowed(message),
        kind: code.kind(),
        param: None,
        code: Some(code.code()),
    };
    let mut response = of_type("application/json", object.to_json());
    *response.status_mut() = code.status();
    let headers = response.headers_mut();
    match code {
        Code::InvalidApiKey => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        _ => {}
    }
    response
}

/// The token of the one `Authorization: Bearer` field.
fn bearer(parts: &Parts) -> Option<&[u8]> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    let is_only = values.next().is_none();
    (is_only && scheme.eq_ignore_ascii_case(b"bearer ")).then(|| token.trim_ascii())
}

fn names_this_machine(parts: &Parts) -> bool {
    let authority = match (parts.uri.authority(), parts.headers.get(HOST)) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => host.as_bytes().try_into().ok(),
        (None, None) => return true,
    };
    authority.is_some_and(|authority| is_loopback_host(authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Page, Source};

    struct Nothing;

    impl Source for Nothing {
        fn collect(&self, _: &mut Page<'_>) -> fmt::Result {
            Ok(())
        }
    }

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn status(token: Option<&TokenDigest>, method: &str, path: &str, fields: Fields<'_>) -> u16 {
        let pages = Pages {
            metrics: Exposition::new("test", Nothing),
            unready: Box::new(|| Some("draining")),
        };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let response = answer(&pages, token, &parts);
        response.status().as_u16()
    }

    #[test]
    fn paths_methods_and_hosts() {
        let cases: [(&str, &str, Fields<'_>, u16); 9] = [
            ("GET", "/metrics", &[], 200),
            ("HEAD", "/metrics", &[("host", "127.0.0.1:8081")], 200),
            ("GET", "/metrics?x=1", &[("host", "localhost")], 200),
            ("GET", "/health", &[], 200),
            ("GET", "/readyz", &[], 503),
            ("POST", "/metrics", &[], 405),
            ("GET", "/", &[], 404),
            ("GET", "/metrics/", &[], 404),
            ("GET", "/metrics", &[("host", "rebound.example:8081")], 404),
        ];
        for (method, path, fields, expected) in cases {
            assert_eq!(
                status(None, method, path, fields),
                expected,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn with_a_token_every_path_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "0123456789abcdef").unwrap();
        let value: AdminConfig<1> = toml::from_str("token_file = \"token\"").unwrap();
        let path = dir.path().join("x.toml");
        let config = Loaded { value, path };
        let token = config.value.token(&config).unwrap().unwrap();
        let right = ("authorization", "Bearer 0123456789abcdef");
        let cases: [(&str, Fields<'_>, u16); 8] = [
            ("/metrics", &[right], 200),
            ("/metrics", &[right, ("host", "gateway.example")], 200),
            ("/health", &[], 401),
            ("/metrics", &[], 401),
            ("/nothing", &[], 401),
            (
                "/metrics",
                &[("authorization", "Bearer 0123456789abcdeg")],
                401,
            ),
            (
                "/metrics",
                &[("authorization", "Basic 0123456789abcdef")],
                401,
            ),
            ("/metrics", &[right, right], 401),
        ];
        for (path, fields, expected) in cases {
            assert_eq!(
                status(Some(&token), "GET", path, fields),
                expected,
                "{path} {fields:?}"
            );
        }
    }
}
