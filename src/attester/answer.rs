//! Evidence for an asker's nonce.

use std::{fmt, sync::Arc};

use attestation::{Answer, Nonce};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{evidence::Sources, problem::Outside, statement::StatementText};

/// Where it is asked for.
pub(crate) const ATTESTATION: &str = "/v1/attestation";
/// Most attestations at once (docs/wire.md, "What a node says of itself").
pub(crate) const MAX_ATTESTATIONS: usize = 4;

/// The sources of evidence, and places for those who ask.
pub(crate) struct Evidence {
    sources: Arc<Sources>,
    places: Arc<Semaphore>,
}

impl Evidence {
    /// Evidence by these sources.
    pub(crate) fn new(sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            places: Arc::new(Semaphore::new(MAX_ATTESTATIONS)),
        }
    }

    /// The sources, while nobody asks them.
    #[cfg(test)]
    pub(crate) fn sources_mut(&mut self) -> Option<&mut Sources> {
        Arc::get_mut(&mut self.sources)
    }

    /// A place for one who asks.
    ///
    /// # Errors
    /// [`Outside::TooMany`] if as many ask as may.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Outside> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| Outside::TooMany)
    }

    /// What answers `nonce` for the statement, as JSON.
    ///
    /// # Errors
    /// [`Outside::Internal`] if there is none.
    pub(crate) async fn answer(
        &self,
        place: OwnedSemaphorePermit,
        statement: Arc<StatementText>,
        nonce: Nonce,
    ) -> Result<Vec<u8>, Outside> {
        let sources = Arc::clone(&self.sources);
        let answered = spawn_blocking(move || {
            // The hardware works on whether the asker waits or not, and so long the place is taken.
            let _place = place;
            let evidence = sources.evidence(&statement.digest, &nonce);
            let evidence = evidence.map_err(|error| unanswered(&error))?;
            let answer = Answer {
                statement: statement.bytes.clone(),
                nonce,
                evidence,
            };
            let json = answer.to_json().map_err(|error| unanswered(&error))?;
            // What no verifier would read is not given out: too long, or one device twice.
            Answer::from_json(&json).map_err(|error| unanswered(&error))?;
            Ok(json)
        });
        answered
            .await
            .unwrap_or_else(|error| Err(unanswered(&error)))
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evidence(..)")
    }
}

/// The nonce of a query.
///
/// # Errors
/// [`Outside::Nonce`] unless it is there once, and nothing else.
pub(crate) fn nonce(query: Option<&str>) -> Result<Nonce, Outside> {
    query
        .and_then(|query| query.strip_prefix("nonce="))
        .and_then(|text| text.parse().ok())
        .ok_or(Outside::Nonce)
}

fn unanswered(error: &dyn fmt::Display) -> Outside {
    tracing::error!(%error, "no evidence");
    Outside::Internal
}
