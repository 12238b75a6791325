//! Paths and methods.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HOST, RETRY_AFTER},
};
use hyper::body::Incoming;

use super::{
    Shared,
    body::{self, ReplyBody},
    cors, document,
    error::Error,
    fleet, metrics,
    receipts::RECEIPTS,
};
use crate::{
    attester::answer::ATTESTATION,
    config::gateway::is_loopback_host,
    ids::RequestId,
    openai::{
        Endpoint,
        models::{Model, ModelList},
    },
    seal::RESPONSE_MEDIA_TYPE,
    sealer::OHTTP,
};

/// Longest request target, in bytes.
const MAX_URI: usize = 8 * 1024;
/// Most bytes of header fields, names and values.
const MAX_FIELDS: usize = 32 * 1024;

const OWNER: &str = "sealgate";

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Infer(Endpoint),
    Models,
    Model(&'a str),
    /// What a node signed of a reply.
    Receipt(&'a str),
    Fleet(fleet::Route<'a>),
    /// The gateway's own evidence.
    Attestation,
    /// What is sealed to the gateway itself, and the keys for it.
    Ohttp,
    Health,
    Ready,
    Document,
    Page,
}

impl<'a> Route<'a> {
    /// The route of a path, slashes at its end aside.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if let Some(endpoint) = Endpoint::of(path) {
            return Some(Self::Infer(endpoint));
        }
        match path {
            "/v1/models" => Some(Self::Models),
            ATTESTATION => Some(Self::Attestation),
            OHTTP => Some(Self::Ohttp),
            "/health" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            "/openapi.json" => Some(Self::Document),
            "/docs" => Some(Self::Page),
            other => match other.strip_prefix("/v1/models/") {
                Some(model) => Some(Self::Model(model)),
                None => match other.strip_prefix("/v1/receipts/") {
                    Some(id) => Some(Self::Receipt(id)),
                    None => fleet::Route::of(other).map(Self::Fleet),
                },
            },
        }
    }

    /// The path as metrics have it, without names.
    fn path(&self) -> &'static str {
        match self {
            Self::Infer(endpoint) => endpoint.path(),
            Self::Fleet(route) => route.path(),
            Self::Attestation => ATTESTATION,
            Self::Ohttp => OHTTP,
            Self::Models => "/v1/models",
            Self::Model(_) => "/v1/models/{id}",
            Self::Receipt(_) => RECEIPTS,
            Self::Health => "/health",
            Self::Ready => "/readyz",
            Self::Document => "/openapi.json",
            Self::Page => "/docs",
        }
    }

    fn allow(&self) -> &'static str {
        match self {
            Self::Infer(_) => "POST, OPTIONS",
            Self::Attestation => "GET, OPTIONS",
            Self::Ohttp => "GET, POST, OPTIONS",
            Self::Fleet(route) => route.allow(),
            _ => "GET, HEAD, OPTIONS",
        }
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        match self {
            Self::Infer(_) => method == Method::POST,
            Self::Attestation => method == Method::GET,
            Self::Ohttp => method == Method::GET || method == Method::POST,
            Self::Fleet(route) => route.takes(method),
            _ => method == Method::GET || method == Method::HEAD,
        }
    }
}

impl Shared {
    /// Answers any request.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<ReplyBody> {
        let id = RequestId::generate();
        let (parts, body) = request.into_parts();
        let to_page = self.cors.answer(&parts);
        let path = joined(parts.uri.path());
        let mut response = match self.route(&parts, &path) {
            Ok(Route::Infer(endpoint)) if parts.method != Method::OPTIONS => {
                self.infer(id, endpoint, &parts, body).await
            }
            Ok(route @ (Route::Attestation | Route::Ohttp)) if parts.method != Method::OPTIONS => {
                self.of_own(&route, &parts, body).await
            }
            Ok(Route::Fleet(route)) if parts.method != Method::OPTIONS => {
                self.fleet(id, route, &parts, body).await
            }
            routed => {
                if let Ok(Route::Models | Route::Model(_)) = routed {
                    self.nodes.settled(self.timeouts.attest).await;
                }
                let endpoint = match &routed {
                    Err(_) => metrics::UNKNOWN,
                    Ok(_) if parts.method == Method::OPTIONS => metrics::PREFLIGHT,
                    Ok(route) => route.path(),
                };
                let answered = match routed {
                    Ok(Route::Receipt(id)) if parts.method != Method::OPTIONS => {
                        self.receipt(id, &parts).await
                    }
                    Ok(route) => self.answer(&route, &parts).await,
                    Err(error) => Err(error),
                };
                let error = answered.as_ref().err().map(Error::code);
                let response = answered.unwrap_or_else(|error| {
                    // Without the path: it is the caller's text.
                    let (status, code) = (error.code().status().as_u16(), error.code().code());
                    tracing::info!(request_id = %id, status, code, "request refused");
                    error.into_response()
                });
                self.metrics.answered(endpoint, response.status(), error);
                body::discard(&parts.headers, body).await;
                response
            }
        };
        cors::say(to_page, response.headers_mut());
        // What is sealed has an id of its own, under the seal.
        if is_encapsulated(&response) {
            return response;
        }
        if let Ok(value) = HeaderValue::try_from(id.to_string()) {
            response
                .headers_mut()
                .insert(HeaderName::from_static("x-request-id"), value);
        }
        response
    }

    fn route<'a>(&self, parts: &http::request::Parts, path: &'a str) -> Result<Route<'a>, Error> {
        if parts
            .uri
            .path_and_query()
            .map_or(0, |whole| whole.as_str().len())
            > MAX_URI
        {
            return Err(Error::UriTooLong);
        }
        let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        if parts.headers.iter().map(field).sum::<usize>() > MAX_FIELDS {
            return Err(Error::HeadersTooLarge);
        }
        if self.loopback_only && !names_this_machine(parts) {
            return Err(Error::ForeignHost);
        }
        let route = Route::of(path).ok_or(Error::NotFound)?;
        if parts.method != Method::OPTIONS && !route.takes(&parts.method) {
            return Err(Error::MethodNotAllowed {
                allow: route.allow(),
            });
        }
        // After the method, which is judged as the document has it.
        if matches!(route, Route::Attestation | Route::Ohttp) && self.own.is_none() {
            return Err(Error::NotFound);
        }
        Ok(route)
    }

    async fn answer(
        &self,
        route: &Route<'_>,
        parts: &http::request::Parts,
    ) -> Result<Response<ReplyBody>, Error> {
        if parts.method == Method::OPTIONS {
            let mut response = Response::new(ReplyBody::from(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            let allow = HeaderValue::from_static(route.allow());
            response.headers_mut().insert(ALLOW, allow);
            return Ok(response);
        }
        match route {
            Route::Infer(_)
            | Route::Fleet(_)
            | Route::Receipt(_)
            | Route::Attestation
            | Route::Ohttp => Err(Error::NotFound),
            Route::Health => Ok(json(Bytes::from_static(br#"{"message":"ok"}"#))),
            Route::Ready => Ok(self.ready()),
            Route::Document => Ok(document::json_reply()),
            Route::Page => Ok(document::page_reply()),
            Route::Models => self.models(parts).await,
            Route::Model(id) => self.model(id, parts).await,
        }
    }

    /// Why the gateway is not ready, if it is not.
    pub(super) fn unready(&self) -> Option<&'static str> {
        if self.phase.is_leaving() {
            Some("draining: the gateway is shutting down")
        } else if self.halted.is_cancelled() {
            Some("no_attested_node: the verifier failed its self-test; do not use it")
        } else if !self.nodes.snapshot().is_ready() {
            Some("no_attested_node: no node has evidence that the policy accepts")
        } else {
            None
        }
    }

    fn ready(&self) -> Response<ReplyBody> {
        let Some(why) = self.unready() else {
            return json(Bytes::from_static(br#"{"message":"ok"}"#));
        };
        let mut response = json(format!(r#"{{"message":"{why}"}}"#).into());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("5"));
        response
    }

    async fn models(&self, parts: &http::request::Parts) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        let snapshot = self.nodes.snapshot();
        let mut models: Vec<Model<'_>> = snapshot
            .models()
            .filter(|served| caller.may_use(&served.name))
            .map(|served| Model::new(&served.name, served.since, OWNER))
            .collect();
        models.sort_unstable_by_key(|model| model.id);
        Ok(json(ModelList::new(models).to_json()))
    }

    async fn model(
        &self,
        id: &str,
        parts: &http::request::Parts,
    ) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        let id = percent_decoded(id).ok_or(Error::ModelNotFound)?;
        if !caller.may_use(&id) {
            return Err(Error::ModelNotFound);
        }
        let snapshot = self.nodes.snapshot();
        let served = snapshot.model(&id)?;
        Ok(json(
            Model::new(&served.name, served.since, OWNER).to_json(),
        ))
    }
}

fn is_encapsulated(response: &Response<ReplyBody>) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE);
    media_type.is_some_and(|value| value == RESPONSE_MEDIA_TYPE)
        && !matches!(response.body(), ReplyBody::Relay(_))
}

/// A path with one slash where a base URL that ends in one was joined to what begins with one.
fn joined(path: &str) -> Cow<'_, str> {
    let below = path.trim_start_matches('/');
    match below.strip_prefix("v1//") {
        Some(rest) => format!("/v1/{}", rest.trim_start_matches('/')).into(),
        None if path.starts_with("//") => format!("/{below}").into(),
        None => path.into(),
    }
}

pub(super) fn json(body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Whether the caller meant this machine. A page in a browser can point a name of its own at a
/// loopback address and then ask as if it were local; it cannot choose the `Host` that is sent.
fn names_this_machine(parts: &http::request::Parts) -> bool {
    let authority = match (parts.uri.authority(), parts.headers.get(HOST)) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => host.as_bytes().try_into().ok(),
        (None, None) => return true,
    };
    authority.is_some_and(|authority| is_loopback_host(authority.host()))
}

/// `%2F` and the like decoded (RFC 3986 section 2.1); `None` for what is no UTF-8 afterwards.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let mut one = [0];
        hex::decode_to_slice(digits, &mut one).ok()?;
        decoded.extend(one);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_whatever_slashes_end_it() {
        let cases = [
            ("/v1/completions", Some(Route::Infer(Endpoint::Completions))),
            (
                "/v1/completions//",
                Some(Route::Infer(Endpoint::Completions)),
            ),
            ("/v1/models", Some(Route::Models)),
            ("/v1/models/", Some(Route::Models)),
            ("/v1/receipts/00", Some(Route::Receipt("00"))),
            ("/v1/receipts", None),
            ("/v1/models/a/b", Some(Route::Model("a/b"))),
            ("/health", Some(Route::Health)),
            ("/readyz", Some(Route::Ready)),
            ("/v1/completions/x", None),
            ("/completions", None),
            ("/", None),
            ("", None),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn slashes_that_joining_doubled_are_one() {
        let cases = [
            ("/v1/models", "/v1/models"),
            ("/v1//models", "/v1/models"),
            ("//v1///chat/completions", "/v1/chat/completions"),
            ("//health", "/health"),
            ("/v1/models/a//b", "/v1/models/a//b"),
            ("/", "/"),
            ("", ""),
        ];
        for (path, expected) in cases {
            assert_eq!(joined(path), expected, "{path}");
        }
    }

    #[test]
    fn a_models_name_is_decoded() {
        let cases = [
            ("a%2Fb", Some("a/b")),
            ("a/b", Some("a/b")),
            ("%e2%82%ac", Some("€")),
            ("%2", None),
            ("%zz", None),
            ("%ff", None),
        ];
        for (text, decoded) in cases {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_answered_when_anybody_may_ask() {
        let cases = [
            ("localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("rebound.example:8080", false),
            ("", false),
        ];
        for (host, expected) in cases {
            let (parts, ()) = Request::get("/health")
                .header(HOST, host)
                .body(())
                .unwrap()
                .into_parts();
            assert_eq!(names_this_machine(&parts), expected, "{host}");
        }
    }
}
