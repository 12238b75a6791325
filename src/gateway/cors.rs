//! Callers in browsers: which page may ask, and read the answer (Fetch standard, "CORS protocol").
//!
//! A browser asks before it sends what a page could not send without a script, as JSON or an API key
//! are, and keeps from a page what does not name it. Nothing here decides who is answered: keys do.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
    request::Parts,
};

use crate::config::cors::Origin;

/// What a page may read beside what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, retry-after, x-should-retry, x-ratelimit-limit-requests, \
     x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
     x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, sealgate-node, sealgate-attestation, \
     sealgate-receipt",
);
/// How long a browser may remember what it asked, in seconds: browsers have shorter limits.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// The fields that the answer to an asking browser depends on.
const ASKED: HeaderValue = HeaderValue::from_static("access-control-request-headers");
const ORIGIN_NAME: HeaderValue = HeaderValue::from_static("origin");
/// Longest list of fields that is allowed, in bytes; SDKs send a dozen of their own.
const MAX_FIELDS: usize = 4096;

/// The pages that may ask.
#[derive(Clone, Debug)]
pub(super) struct Cors {
    origins: Vec<Origin>,
}

impl Cors {
    pub(super) fn new(origins: Vec<Origin>) -> Self {
        Self { origins }
    }

    /// What the answer to this request says to the browser that it came from.
    pub(super) fn answer(&self, parts: &Parts) -> HeaderMap {
        let mut said = HeaderMap::new();
        if self.origins.is_empty() {
            return said;
        }
        // Said to nobody as well: what is stored for one page must not be given to another.
        said.append(VARY, ORIGIN_NAME);
        let Some(origin) = self.allowed(&parts.headers) else {
            return said;
        };
        said.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if parts.method == Method::OPTIONS
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            said.append(VARY, ASKED);
            said.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            // Whatever it is called: a field that means nothing here does no harm.
            let fields = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(fields) = fields.filter(|fields| is_list_of_names(fields)) {
                said.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
            }
        } else {
            said.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        said
    }

    /// The one origin of a request, if it may ask.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else {
            return None;
        };
        let allows = |allowed: &Origin| match allowed {
            Origin::Any => true,
            Origin::Named(named) => named == origin,
        };
        self.origins.iter().any(allows).then(|| origin.clone())
    }
}

/// Puts what [`Cors::answer`] said into the answer; where methods are allowed, for pages too.
pub(super) fn say(said: HeaderMap, answer: &mut HeaderMap) {
    if said.contains_key(ACCESS_CONTROL_MAX_AGE)
        && let Some(methods) = answer.get(http::header::ALLOW).cloned()
    {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    answer.extend(said);
}

fn is_list_of_names(fields: &HeaderValue) -> bool {
    let is_name = |name: &[u8]| HeaderName::from_bytes(name.trim_ascii()).is_ok();
    let fields = fields.as_bytes();
    fields.len() <= MAX_FIELDS && fields.split(|byte| *byte == b',').all(is_name)
}
