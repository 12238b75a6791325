//! The admin listener of a role: `/metrics`, `/health` and `/readyz`, at an address of its own; of a
//! gateway also what administrators ask and change, for whoever shows the token.
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
use futures_util::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST,
        RETRY_AFTER, WWW_AUTHENTICATE,
    },
    request::Parts,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use tokio::{task::spawn_blocking, time::timeout};
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

/// Longest body of what administrators ask.
const MAX_BODY: usize = 64 * 1024;
/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What is said where there is no token.
const NO_TOKEN: &str = "This wants an admin token, and the configuration names none: put one in a file, \
                        name it in admin.token_file, and restart.";

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
    /// What administrators ask, where a role has more for them.
    pub(crate) api: Option<Api>,
}

/// Answers an administrator who has shown the token; what he sent is bounded, and JSON if it is anything.
pub(crate) type Api = Box<dyn Fn(Parts, Bytes) -> BoxFuture<'static, Answer> + Send + Sync>;

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
                let (parts, body) = request.into_parts();
                if let (Some(api), true) = (&asked.0.api, is_of_api(&parts)) {
                    let answered = administer(api, asked.1.as_ref(), parts, body).await;
                    return Ok::<_, Infallible>(answered);
                }
                let answering = spawn_blocking(move || answer(&asked.0, asked.1.as_ref(), &parts));
                let answered = answering.await;
                Ok(answered.unwrap_or_else(|_| refusal(Code::Internal)))
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
    tls::read(config, files, "localhost", clock).map(Some)
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

pub(crate) type Answer = Response<Full<Bytes>>;

/// Why this request is not looked into, if it is not.
fn turned_away(token: Option<&TokenDigest>, parts: &Parts) -> Option<Answer> {
    match token {
        Some(token) => {
            let may_ask = bearer(parts).is_some_and(|given| token.is_of(given));
            (!may_ask).then(|| refusal(Code::InvalidApiKey))
        }
        None => (!names_this_machine(parts)).then(|| refusal(Code::NotFound)),
    }
}

fn is_of_api(parts: &Parts) -> bool {
    let path = parts.uri.path();
    path.starts_with("/admin/") || path == "/openapi.json"
}

/// Answers what only an administrator may ask, and nobody where no token says who that is.
async fn administer(
    api: &Api,
    token: Option<&TokenDigest>,
    parts: Parts,
    body: impl Body<Error: std::error::Error + Send + Sync + 'static>,
) -> Answer {
    if let Some(refused) = turned_away(token, &parts) {
        return refused;
    }
    if token.is_none() {
        let code = "admin_token_required";
        return told(StatusCode::FORBIDDEN, code, NO_TOKEN);
    }
    let reading = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    let body = match reading.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return refusal(Code::RequestTooLarge),
        Ok(Err(_)) => return refusal(Code::InvalidRequest),
        Err(_) => return refusal(Code::RequestTimeout),
    };
    if !body.is_empty() && !is_json(&parts) {
        return refusal(Code::UnsupportedMediaType);
    }
    api(parts, body).await
}

fn is_json(parts: &Parts) -> bool {
    let value = parts.headers.get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    let is_coded = parts.headers.contains_key(CONTENT_ENCODING);
    !is_coded && essence.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json"))
}

fn answer(pages: &Pages, token: Option<&TokenDigest>, parts: &Parts) -> Answer {
    if let Some(refused) = turned_away(token, parts) {
        return refused;
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

pub(crate) fn of_type(media_type: &'static str, body: impl Into<Bytes>) -> Answer {
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
        Code::RequestTooLarge => "The body is longer than 64 KiB.",
        Code::InvalidRequest | Code::RequestTimeout | Code::UnsupportedMediaType => code.message(),
        _ => "The page cannot be made.",
    };
    let mut response = error(code.status(), code.kind(), code.code(), message);
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

/// An answer that says what is wrong, by a code of the admin API's own.
pub(crate) fn told(status: StatusCode, code: &'static str, message: &str) -> Answer {
    let kind = match status {
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    error(status, kind, code, message)
}

fn error(status: StatusCode, kind: &'static str, code: &'static str, message: &str) -> Answer {
    let object = ErrorObject {
        message: Cow::Borrowed(message),
        kind,
        param: None,
        code: Some(code),
    };
    let mut response = of_type("application/json", object.to_json());
    *response.status_mut() = status;
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
            api: None,
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

    fn token() -> TokenDigest {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "0123456789abcdef").unwrap();
        let value: AdminConfig<1> = toml::from_str("token_file = \"token\"").unwrap();
        let path = dir.path().join("x.toml");
        let config = Loaded {
            value,
            path,
            sha256: [0; 32],
        };
        config.value.token(&config).unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_administrators_ask_wants_a_token_and_a_small_body_of_json() {
        let api: Api = Box::new(|_, body| Box::pin(async move { of_type("text/plain", body) }));
        let (token, right) = (token(), ("authorization", "Bearer 0123456789abcdef"));
        let typed = ("content-type", "application/json; charset=utf-8");
        let large = vec![b' '; MAX_BODY + 1];
        let cases: [(bool, Fields<'_>, &[u8], u16, &str); 8] = [
            (true, &[right], b"", 200, ""),
            (true, &[right, typed], b"{}", 200, ""),
            (true, &[right], b"{}", 415, "unsupported_media_type"),
            (
                true,
                &[right, typed, ("content-encoding", "gzip")],
                b"{}",
                415,
                "unsupported",
            ),
            (true, &[right, typed], &large, 413, "64 KiB"),
            (true, &[], b"", 401, "invalid_api_key"),
            (false, &[right], b"", 403, "admin.token_file"),
            (false, &[("host", "rebound.example")], b"", 404, "not_found"),
        ];
        for (has_token, fields, body, status, said) in cases {
            let mut request = Request::post("/admin/keys");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (parts, body) = request
                .body(Full::new(Bytes::copy_from_slice(body)))
                .unwrap()
                .into_parts();
            let token = has_token.then_some(&token);
            let answer = administer(&api, token, parts, body).await;
            assert_eq!(answer.status().as_u16(), status, "{fields:?}");
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn with_a_token_every_path_wants_it() {
        let token = token();
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
