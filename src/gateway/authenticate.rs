//! Who asks: an API key's digest, looked up in one step whatever the number of keys, in a file's or in
//! the `book` of the store's.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use attestation::Padding;
use http::{HeaderMap, header::AUTHORIZATION};
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use super::{
    admit::Room,
    book::Book,
    error::Error,
    hardware::Hardware,
    labels::{Labels, UnknownLabel, Wish},
    limits::Metered,
};
use crate::config::{
    gateway::{KeyConfig, KeysFile, ReceiptMode},
    terms::KeyTerms,
};

/// Longest API key that is looked at, in bytes.
const MAX_KEY: usize = 512;

/// One who may ask.
#[derive(Debug)]
pub(super) struct Caller {
    /// What usage is counted by.
    pub(super) id: Arc<str>,
    /// What the logs call it.
    pub(super) name: Arc<str>,
    /// What nodes know it by, where no key says it.
    pseudonym: Option<String>,
    /// The models it may ask; `None` for all.
    models: Option<BTreeSet<String>>,
    /// Which nodes its requests may go to.
    pub(super) wish: Wish,
    /// How its requests are padded, unless they say so themselves.
    pub(super) padding: Option<Padding>,
    /// Whether receipts are asked for, where that is said of it.
    pub(super) receipts: Option<ReceiptMode>,
    /// A place for each request it may have in flight.
    pub(super) places: Room,
    /// What else its requests are held to, if they are.
    pub(super) metered: Option<Metered>,
}

/// What one's name was when nobody had one.
const OPEN: &str = "open";

impl Caller {
    /// The one of whom nothing is known.
    fn anybody(pseudonym: Option<String>, places: Room) -> Arc<Self> {
        let terms = (KeyTerms::default(), Wish::ANY);
        Self::new((OPEN, OPEN), pseudonym, terms, (places, None))
    }

    /// One of this id and name.
    pub(super) fn new(
        (id, name): (&str, &str),
        pseudonym: Option<String>,
        (terms, wish): (KeyTerms, Wish),
        (places, metered): (Room, Option<Metered>),
    ) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            name: name.into(),
            pseudonym,
            models: terms.models,
            wish: wish
                .with_pq(terms.require_pq)
                .on(Hardware::of(terms.tees.as_ref(), terms.require_gpu)),
            padding: terms.padding,
            receipts: terms.receipts,
            places,
            metered,
        })
    }

    pub(super) fn may_use(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.contains(model))
    }
}

/// Everybody who may ask.
#[derive(Debug)]
pub(super) enum Callers {
    /// Whoever can connect.
    Anybody(Arc<Caller>),
    /// Whoever has a key, by its SHA-256. A digest tells nothing of the key, so looking it up needs
    /// no constant time.
    Keys(HashMap<[u8; 32], Arc<Caller>>),
    /// Whoever has a key of the store.
    Stored(Arc<Book>),
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("the key {0} is there twice")]
    Duplicate(String),
    #[error("the key {0}: {1}")]
    Label(String, UnknownLabel),
}

impl Callers {
    pub(super) fn anybody(places: usize) -> Self {
        // Of this gateway alone: who may use another is somebody else.
        let pseudonym = pseudonym(&rand::rng().random::<[u8; 32]>());
        Self::Anybody(Caller::anybody(Some(pseudonym), Room::new(places)))
    }

    /// The places of who has the key of this digest: what its requests hold counts on.
    fn places_of(&self, digest: &[u8; 32]) -> Option<&Room> {
        match self {
            Self::Anybody(_) | Self::Stored(_) => None,
            Self::Keys(keys) => keys.get(digest).map(|caller| &caller.places),
        }
    }

    /// The same where who may ask is in no file and one's bound is another.
    pub(super) fn bounded(&self, places: usize) -> Option<Self> {
        match self {
            Self::Anybody(caller) => {
                let places = caller.places.bounded(places);
                let caller = Caller::anybody(caller.pseudonym.clone(), places);
                Some(Self::Anybody(caller))
            }
            Self::Keys(_) => None,
            // Its bounds are set once the configuration is in force.
            Self::Stored(book) => Some(Self::Stored(Arc::clone(book))),
        }
    }

    /// # Errors
    /// [`KeysError`] if two keys have one name or one digest, or one is for nodes that nobody is.
    pub(super) fn with_keys(
        file: KeysFile,
        labels: &Labels,
        places: usize,
        before: Option<&Self>,
    ) -> Result<Self, KeysError> {
        let mut names = HashSet::new();
        let mut keys = HashMap::new();
        for key in file.keys {
            let terms = KeyTerms::from(&key);
            let KeyConfig { name, sha256, .. } = key;
            let wish = labels.wish(terms.regions.as_deref(), &terms.tags);
            let wish = wish.map_err(|unknown| KeysError::Label(name.clone(), unknown))?;
            let known = before.and_then(|before| before.places_of(&sha256));
            let places = known.map_or_else(|| Room::new(places), |known| known.bounded(places));
            // A name can be another key's later.
            let id = format!("file_{}", hex::encode(sha256.get(..8).unwrap_or_default()));
            let caller = Caller::new((&id, &name), None, (terms, wish), (places, None));
            if keys.insert(sha256, caller).is_some() || !names.insert(name.clone()) {
                return Err(KeysError::Duplicate(name));
            }
        }
        Ok(Self::Keys(keys))
    }

    /// What nodes know the sender of `headers` by, 32 hex digits: they keep callers' prefix caches
    /// apart. The same at every gateway that takes the key, and made of the key itself or of the store's
    /// secret, so that who knows the key's digest alone cannot use it.
    pub(super) fn pseudonym(&self, caller: &Caller, headers: &HeaderMap) -> String {
        let of_key = || pseudonym(bearer(headers).unwrap_or_default());
        caller.pseudonym.clone().unwrap_or_else(of_key)
    }

    /// Who sent `headers`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or [`Error::StoreUnavailable`] where nobody knows.
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Error> {
        match self {
            Self::Anybody(caller) => Ok(Arc::clone(caller)),
            Self::Keys(keys) => bearer(headers)
                .and_then(|key| keys.get(&<[u8; 32]>::from(Sha256::digest(key))))
                .cloned()
                .ok_or(Error::Unauthenticated),
            Self::Stored(book) => {
                let key = bearer(headers).ok_or(Error::Unauthenticated)?;
                book.find(key).await
            }
        }
    }
}

fn pseudonym(secret: &[u8]) -> String {
    let hash = Sha256::new_with_prefix(b"sealgate caller").chain_update(secret);
    hex::encode(hash.finalize().get(..16).unwrap_or_default())
}

/// The token of the one `Authorization: Bearer` field; the scheme in any case (RFC 9110 section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(b"bearer ".len())?;
    let token = rest.trim_ascii();
    let legal = !token.is_empty() && token.len() <= MAX_KEY;
    (legal && scheme.eq_ignore_ascii_case(b"bearer ")).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values
            .iter()
            .map(|v| (AUTHORIZATION, HeaderValue::from_str(v).unwrap()));
        values.collect()
    }

    fn key(name: &str, key: &str) -> KeyConfig {
        KeyConfig {
            name: name.to_owned(),
            sha256: Sha256::digest(key).into(),
            models: Some(HashSet::from(["a".to_owned()])),
            regions: None,
            tags: Vec::new(),
            require_pq: false,
            tees: None,
            require_gpu: false,
            padding: None,
        }
    }

    #[tokio::test]
    async fn only_a_known_key_gets_in() {
        let file = KeysFile {
            keys: vec![key("one", "sk-1"), key("two", "sk-2")],
        };
        let callers = Callers::with_keys(file, &Labels::default(), 1, None).unwrap();
        let cases: [(&[&str], Option<&str>); 10] = [
            (&["Bearer sk-1"], Some("one")),
            (&["bearer sk-2"], Some("two")),
            (&["BEARER   sk-2 "], Some("two")),
            (&[], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Basic sk-1"], None),
            (&["Bearer sk-3"], None),
            (&["sk-1"], None),
            (&["Bearer sk-1", "Bearer sk-1"], None),
        ];
        for (values, expected) in cases {
            let headers = headers(values);
            let caller = callers.authenticate(&headers).await.ok();
            let name = caller.as_ref().map(|caller| &*caller.name);
            assert_eq!(name, expected, "{values:?}");
        }
    }

    #[tokio::test]
    async fn a_key_may_be_held_to_some_models() {
        let callers = Callers::with_keys(
            KeysFile {
                keys: vec![key("one", "sk-1")],
            },
            &Labels::default(),
            1,
            None,
        )
        .unwrap();
        let headers = headers(&["Bearer sk-1"]);
        let caller = callers.authenticate(&headers).await.unwrap();
        assert!(caller.may_use("a"));
        assert!(!caller.may_use("b"));
        assert!(
            Callers::anybody(1)
                .authenticate(&HeaderMap::new())
                .await
                .unwrap()
                .may_use("b")
        );
    }

    #[test]
    fn a_key_is_there_once() {
        for (name, key_text) in [("one", "sk-2"), ("two", "sk-1")] {
            let keys = vec![key("one", "sk-1"), key(name, key_text)];
            assert!(
                Callers::with_keys(KeysFile { keys }, &Labels::default(), 1, None).is_err(),
                "{name} {key_text}"
            );
        }
    }
}
