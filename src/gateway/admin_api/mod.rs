//! What an administrator asks of a gateway on its admin listener: keys, usage and the audit log.
//!
//! The listener lets nobody in here without the admin token, and bounds what is sent. What is changed is
//! in force at this gateway when the answer goes out; other gateways of the store follow within seconds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode, header::ALLOW, request::Parts};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use self::{problem::Problem, query::Parameters};
use super::{book::Book, routes::percent_decoded};
use crate::{
    admin::{Answer, of_type},
    clock::Clock,
    store::Store,
};

mod audit;
mod document;
mod keys;
mod problem;
mod query;
mod usage;

/// How long an answer may take, but for a walk through the whole audit log.
const TIMEOUT: Duration = Duration::from_secs(20);
const WALK_TIMEOUT: Duration = Duration::from_secs(600);

/// Answers administrators.
#[derive(Debug)]
pub(super) struct AdminApi {
    stored: Option<Stored>,
    clock: Clock,
    /// One walk at a time through the audit log.
    walk: tokio::sync::Mutex<()>,
    /// One report at a time, so that connections to the database are left for what it is of.
    reports: Semaphore,
}

/// Where there is a store.
#[derive(Debug)]
struct Stored {
    store: Store,
    /// Where the keys are there, too.
    book: Option<Arc<Book>>,
}

/// Everything that can be asked; a key's name as it is meant.
#[derive(Debug, PartialEq, Eq)]
enum Path {
    Document,
    Keys,
    Key(String),
    Rotate(String),
    Usage,
    Audit,
    Verify,
}

impl Path {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/openapi.json" => Self::Document,
            "/admin/keys" => Self::Keys,
            "/admin/usage" => Self::Usage,
            "/admin/audit" => Self::Audit,
            "/admin/audit/verify" => Self::Verify,
            _ => {
                let rest = path.strip_prefix("/admin/keys/")?;
                match rest.split_once('/') {
                    None => Self::Key(percent_decoded(rest)?),
                    Some((name, "rotate")) => Self::Rotate(percent_decoded(name)?),
                    Some(_) => return None,
                }
            }
        })
    }

    const fn methods(&self) -> &'static str {
        match self {
            Self::Document | Self::Usage | Self::Audit | Self::Verify => "GET, HEAD",
            Self::Keys => "GET, HEAD, POST",
            Self::Key(_) => "DELETE",
            Self::Rotate(_) => "POST",
        }
    }
}

impl AdminApi {
    /// Over a store, if there is one, with the book of its keys, if it has them.
    pub(super) fn new(stored: Option<(Store, Option<Arc<Book>>)>, clock: Clock) -> Self {
        Self {
            stored: stored.map(|(store, book)| Stored { store, book }),
            clock,
            walk: tokio::sync::Mutex::default(),
            reports: Semaphore::new(1),
        }
    }

    /// Admits a report, for as long as what is given is held.
    ///
    /// # Errors
    /// [`Problem::Reporting`].
    fn report(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.reports.try_acquire().map_err(|_| Problem::Reporting)
    }

    pub(super) async fn answer(&self, parts: &Parts, body: &Bytes) -> Answer {
        let Some(path) = Path::of(parts.uri.path()) else {
            return Problem::NoPath.into_answer();
        };
        let method = match &parts.method {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let is_taken = path.methods().split(", ").any(|it| it == method.as_str());
        if !is_taken {
            let mut answer = Problem::Method(path.methods()).into_answer();
            let allow = http::HeaderValue::from_static(path.methods());
            answer.headers_mut().insert(ALLOW, allow);
            return answer;
        }
        let within = match path {
            Path::Verify => WALK_TIMEOUT,
            _ => TIMEOUT,
        };
        let query = parts.uri.query().unwrap_or_default();
        let answering = timeout(within, self.answer_at(path, method, query, body));
        let answered = answering.await.unwrap_or(Err(Problem::Slow));
        answered.unwrap_or_else(Problem::into_answer)
    }

    async fn answer_at(
        &self,
        path: Path,
        method: &Method,
        query: &str,
        body: &Bytes,
    ) -> Result<Answer, Problem> {
        if path == Path::Document {
            Parameters::none(query)?;
            return Ok(of_type("application/json", document::TEXT));
        }
        let stored = self.stored.as_ref().ok_or(Problem::NoStore)?;
        match path {
            Path::Document => Err(Problem::NoPath),
            Path::Keys if method == Method::POST => self.create(stored, query, body).await,
            Path::Keys => self.list(stored, query).await,
            Path::Key(name) => self.revoke(stored, &name, query).await,
            Path::Rotate(name) => self.rotate(stored, &name, (query, body)).await,
            Path::Usage => self.usage(stored, query).await,
            Path::Audit => self.audit(stored, query).await,
            Path::Verify => self.verify(stored, query).await,
        }
    }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    let mut answer = of_type("application/json", value.to_string());
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names() {
        let name = |name: &str| name.to_owned();
        let cases = [
            ("/admin/keys", Some(Path::Keys)),
            ("/admin/keys/a", Some(Path::Key(name("a")))),
            ("/admin/keys/a%2Fb", Some(Path::Key(name("a/b")))),
            ("/admin/keys/a/rotate", Some(Path::Rotate(name("a")))),
            ("/admin/keys/a%2Frotate", Some(Path::Key(name("a/rotate")))),
            ("/admin/audit/verify", Some(Path::Verify)),
            ("/openapi.json", Some(Path::Document)),
            ("/admin/keys/a/b", None),
            ("/admin/keys/%zz", None),
            ("/admin/", None),
            ("/admin/usage/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Path::of(path), expected, "{path}");
        }
    }

    #[test]
    fn the_document_is_one_and_has_every_path() {
        let document: Value = serde_json::from_str(document::TEXT).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for (path, methods) in paths {
            let at = Path::of(&path.replace("{name}", "n")).unwrap();
            let told = methods.as_object().unwrap().keys();
            let mut told: Vec<_> = told.map(|it| it.to_uppercase()).collect();
            told.retain(|it| it != "PARAMETERS");
            told.sort();
            let mut taken: Vec<_> = at.methods().split(", ").collect();
            taken.retain(|it| *it != "HEAD");
            taken.sort_unstable();
            assert_eq!(told, taken, "{path}");
        }
        assert_eq!(paths.len(), 7);
    }
}
