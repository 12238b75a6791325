//! Keys: listed, made, rotated, revoked.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    AdminApi, Stored, json as answer,
    problem::Problem,
    query::{Parameters, time},
};
use crate::{
    admin::Answer,
    config::terms::KeyTerms,
    gateway::book::Book,
    store::{
        KeyError, KeySecret, NewKey,
        report::{self, ACTIVE, state},
    },
};

/// How long the secret of before goes on after a rotation, unless it is said, and at most: a day, and a
/// hundred years.
const OVERLAP_S: u64 = 86_400;
const MAX_OVERLAP_S: u64 = 100 * 366 * 86_400;

/// A key that is to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    terms: KeyTerms,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rotate {
    overlap_s: u64,
}

impl Default for Rotate {
    fn default() -> Self {
        Self {
            overlap_s: OVERLAP_S,
        }
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(Problem::Body)
}

impl Stored {
    fn book(&self) -> Result<&Book, Problem> {
        self.book.as_deref().ok_or(Problem::NoKeys)
    }
}

impl AdminApi {
    pub(super) async fn list(&self, stored: &Stored, query: &str) -> Result<Answer, Problem> {
        let parameters = Parameters::read(query, &["all"])?;
        let all = match parameters.get("all") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Problem::Value("all is true or false")),
        };
        stored.book()?;
        let _alone = self.report()?;
        let now = self.clock.now();
        let mut keys = stored.store.keys().await?;
        keys.retain(|key| all || state(key, now) == ACTIVE);
        Ok(answer(StatusCode::OK, &report::keys(&keys, now)))
    }

    /// Makes a key. Its answer is the only one that shows it.
    pub(super) async fn create(
        &self,
        stored: &Stored,
        query: &str,
        body: &Bytes,
    ) -> Result<Answer, Problem> {
        Parameters::none(query)?;
        let wanted: Create = read(body)?;
        let book = stored.book()?;
        let now = self.clock.now();
        let expires_at = wanted.expires_at.as_deref().map(time).transpose()?;
        if expires_at.is_some_and(|at| at <= now) {
            let message = "expires_at is in the past: the key would open nothing";
            return Err(Problem::Value(message));
        }
        let key = NewKey {
            name: wanted.name,
            owner: wanted.owner,
            terms: wanted.terms,
            expires_at,
        };
        let secret = KeySecret::generate();
        let id = stored.store.create_key(&key, &secret, now).await?;
        book.refresh().await;
        let made = json!({ "id": id, "name": key.name, "key": secret.as_str() });
        Ok(answer(StatusCode::CREATED, &made))
    }

    pub(super) async fn rotate(
        &self,
        stored: &Stored,
        name: &str,
        (query, body): (&str, &Bytes),
    ) -> Result<Answer, Problem> {
        Parameters::none(query)?;
        let Rotate { overlap_s } = read(body)?;
        if overlap_s > MAX_OVERLAP_S {
            return Err(Problem::Value("overlap_s is at most a hundred years"));
        }
        let book = stored.book()?;
        let (secret, overlap) = (KeySecret::generate(), Duration::from_secs(overlap_s));
        let now = self.clock.now();
        let rotated = stored.store.rotate_key(name, &secret, overlap, now).await;
        let id = known(book, rotated).await?;
        // Whatever becomes of the question: those of before end then here, too.
        if let Some(at) = now.checked_add(overlap) {
            book.end_others(&id, &secret, at);
        }
        book.refresh().await;
        let made = json!({ "name": name, "key": secret.as_str() });
        Ok(answer(StatusCode::OK, &made))
    }

    pub(super) async fn revoke(
        &self,
        stored: &Stored,
        name: &str,
        query: &str,
    ) -> Result<Answer, Problem> {
        Parameters::none(query)?;
        let book = stored.book()?;
        let revoked = stored.store.revoke_key(name, self.clock.now()).await;
        let id = known(book, revoked).await?;
        // Whatever becomes of the question: it opens nothing here any more.
        book.forget(&id);
        book.refresh().await;
        let done = json!({ "name": name, "state": "revoked" });
        Ok(answer(StatusCode::OK, &done))
    }
}

/// What a change came to. One that failed may be done all the same, with its answer lost, now or the time before: so what the
/// store has is asked for first.
async fn known<T>(book: &Book, changed: Result<T, KeyError>) -> Result<T, Problem> {
    if changed.is_err() {
        book.refresh().await;
    }
    Ok(changed?)
}
