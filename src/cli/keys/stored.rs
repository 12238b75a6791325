//! Keys in the store.

use std::time::Duration;

use attestation::time::to_rfc3339;

use super::{KeysError, Made, Shown};
use crate::{
    cli::{store::with_store, terminal},
    clock::Clock,
    config::{
        Loaded,
        gateway::GatewayConfig,
        terms::{KeyTerms, Tee, Tees},
    },
    store::{
        Key, KeyError, KeySecret, NewKey,
        report::{self, ACTIVE, state},
    },
};

pub(super) fn create(
    config: &Loaded<GatewayConfig>,
    made: Made,
    shown: &Shown,
) -> Result<(), KeysError> {
    let key = NewKey {
        name: made.name,
        owner: made.owner,
        terms: made.terms,
        expires_at: made.expires_at,
    };
    key.check()?;
    with_store(config, async |store| {
        // Before it is shown: what is shown is to be stored.
        let keys = store.keys().await?;
        if keys
            .iter()
            .any(|known| known.name == key.name && known.revoked_at.is_none())
        {
            return Err(KeyError::Taken(key.name).into());
        }
        let secret = KeySecret::generate();
        // Nobody can use a key that was stored and never seen.
        shown.show(&secret)?;
        store
            .create_key(&key, &secret, Clock::system().now())
            .await?;
        Ok(())
    })
}

pub(super) fn rotate(
    config: &Loaded<GatewayConfig>,
    name: &str,
    overlap: Duration,
    shown: &Shown,
) -> Result<(), KeysError> {
    with_store(config, async |store| {
        // Before another one is shown: what is shown is to open something.
        let keys = store.keys().await?;
        let key = keys
            .iter()
            .find(|known| known.name == name && known.revoked_at.is_none());
        let key = key.ok_or_else(|| KeyError::Unknown(name.to_owned()))?;
        if state(key, Clock::system().now()) != ACTIVE {
            return Err(KeyError::Expired(name.to_owned()).into());
        }
        let secret = KeySecret::generate();
        shown.show(&secret)?;
        store
            .rotate_key(name, &secret, overlap, Clock::system().now())
            .await?;
        Ok(())
    })
}

pub(super) fn revoke(config: &Loaded<GatewayConfig>, name: &str) -> Result<(), KeysError> {
    with_store(config, async |store| {
        store.revoke_key(name, Clock::system().now()).await?;
        Ok(())
    })
}

pub(super) fn list(config: &Loaded<GatewayConfig>, all: bool, json: bool) -> Result<(), KeysError> {
    with_store(config, async |store| {
        let now = Clock::system().now();
        let mut keys = store.keys().await?;
        keys.retain(|key| all || state(key, now) == ACTIVE);
        if json {
            terminal::say(report::keys(&keys, now));
        } else {
            let rows = keys.iter().map(|key| in_words(key, now)).collect();
            terminal::table(
                &[
                    "NAME", "STATE", "OWNER", "MODELS", "HARDWARE", "CREATED", "EXPIRES",
                ],
                rows,
            );
        }
        Ok(())
    })
}

fn in_words(key: &Key, now: std::time::SystemTime) -> Vec<String> {
    let models = key.terms.as_ref().map(|terms| match &terms.models {
        Some(models) => models.iter().cloned().collect::<Vec<_>>().join(","),
        None => "all".to_owned(),
    });
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        key.name.clone(),
        state(key, now).to_owned(),
        or_none(key.owner.clone()),
        models.unwrap_or_else(|| "of a newer version".to_owned()),
        or_none(key.terms.as_ref().and_then(hardware)),
        to_rfc3339(key.created_at),
        or_none(key.expires_at.map(to_rfc3339)),
    ]
}

/// What a key demands of nodes' hardware, if anything.
fn hardware(terms: &KeyTerms) -> Option<String> {
    let tees = terms.tees.iter().flat_map(Tees::iter).map(Tee::as_str);
    let gpu = terms.require_gpu.then_some("+gpu");
    let text = format!(
        "{}{}",
        tees.collect::<Vec<_>>().join(","),
        gpu.unwrap_or_default()
    );
    (!text.is_empty()).then_some(text)
}
