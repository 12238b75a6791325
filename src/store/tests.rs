//! The store over SQLite, and over PostgreSQL where `SEALGATE_TEST_POSTGRES` has a URL of one
//! (`tests/store/run.sh`).

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

use super::*;
use crate::config::terms::KeyTerms;

mod keys;
mod ledger;
mod partition;
mod schema;
mod spending;

const POSTGRES: &str = "SEALGATE_TEST_POSTGRES";

/// A database of a test's own.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) config: StoreConfig,
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.config).await.unwrap()
    }
}

fn sqlite() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        url: StoreUrl::Sqlite(dir.path().join("sealgate.db")),
        ..StoreConfig::default()
    };
    Place {
        name: "SQLite",
        config,
        dir,
    }
}

/// A schema of its own in the PostgreSQL that the environment names.
pub(super) async fn postgres() -> Option<Place> {
    let base = std::env::var(POSTGRES).ok()?;
    let schema = format!("t_{}", hex::encode(rand::random::<[u8; 8]>()));
    let pool = PgPool::connect(&base).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, hex::encode(rand::random::<[u8; 32]>())).unwrap();
    let separator = if base.contains('?') { '&' } else { '?' };
    let url = format!("{base}{separator}options[search_path]={schema}");
    let config = StoreConfig {
        url: url.parse().unwrap(),
        secret_file: Some(secret),
        ..StoreConfig::default()
    };
    Some(Place {
        name: "PostgreSQL",
        config,
        dir,
    })
}

pub(crate) async fn places() -> Vec<Place> {
    [Some(sqlite()), postgres().await]
        .into_iter()
        .flatten()
        .collect()
}

/// A row of a request that ended well.
pub(crate) fn row(id: &str) -> UsageRow {
    UsageRow {
        request_id: id.to_owned(),
        key_id: "open".to_owned(),
        model: Some("tiny".to_owned()),
        node: Some("node".to_owned()),
        path: "/v1/completions".to_owned(),
        stream: false,
        outcome: "complete".to_owned(),
        status: Some(200),
        code: None,
        tokens: Some(Tokens {
            prompt: 3,
            cached: 1,
            completion: 2,
            reasoning: 0,
        }),
        cost: Some(5),
        charged_tokens: None,
        charged_cost: None,
        started_at: 1_000,
        first_byte_ms: Some(7),
        took_ms: Some(9),
        bytes_in: 10,
        bytes_out: 20,
    }
}

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn new_key(name: &str) -> NewKey {
    NewKey {
        name: name.to_owned(),
        owner: Some("someone".to_owned()),
        terms: KeyTerms {
            models: Some(BTreeSet::from(["tiny".to_owned()])),
            require_pq: true,
            ..KeyTerms::default()
        },
        expires_at: Some(at(500)),
    }
}

pub(super) fn query(by: &[By]) -> Query {
    Query {
        by: by.to_vec(),
        since: None,
        until: None,
        key: None,
    }
}

#[tokio::test]
async fn a_key_is_made_listed_and_revoked_and_its_name_is_free_again() {
    for place in places().await {
        let store = place.open().await;
        let secret = KeySecret::generate();
        let id = store
            .create_key(&new_key("a"), &secret, at(100))
            .await
            .unwrap();
        let taken = store
            .create_key(&new_key("a"), &KeySecret::generate(), at(101))
            .await;
        assert!(
            matches!(taken, Err(KeyError::Taken(name)) if name == "a"),
            "{}",
            place.name
        );
        let keys = store.keys().await.unwrap();
        let [key] = keys.as_slice() else {
            panic!("{}: {keys:?}", place.name)
        };
        assert_eq!((&key.id, key.name.as_str()), (&id, "a"));
        assert_eq!(key.owner.as_deref(), Some("someone"));
        assert_eq!(key.terms, Some(new_key("a").terms));
        assert_eq!(
            (key.created_at, key.expires_at, key.revoked_at),
            (at(100), Some(at(500)), None)
        );
        assert_eq!(
            key.secrets,
            [(store.hash(secret.as_str().as_bytes()), None)]
        );

        store.revoke_key("a", at(200)).await.unwrap();
        let again = store.revoke_key("a", at(201)).await;
        assert!(matches!(again, Err(KeyError::Unknown(_))), "{}", place.name);
        store
            .create_key(&new_key("a"), &KeySecret::generate(), at(300))
            .await
            .unwrap();
        let keys = store.keys().await.unwrap();
        let revoked: Vec<_> = keys.iter().map(|key| key.revoked_at).collect();
        assert_eq!(revoked, [Some(at(200)), None], "{}", place.name);
    }
}

#[tokio::test]
async fn bad_names_and_owners_are_refused() {
    let place = sqlite();
    let store = place.open().await;
    let long = "n".repeat(65);
    for name in ["", "two words", "tab\t", "é", long.as_str()] {
        let made = store
            .create_key(&new_key(name), &KeySecret::generate(), at(1))
            .await;
        assert!(matches!(made, Err(KeyError::BadName)), "{name:?}");
    }
    let mut key = new_key("a");
    key.owner = Some("line\nbreak".to_owned());
    let made = store.create_key(&key, &KeySecret::generate(), at(1)).await;
    assert!(matches!(made, Err(KeyError::BadOwner)));
    assert!(store.keys().await.unwrap().is_empty());
}

#[tokio::test]
async fn both_secrets_open_a_key_while_a_rotation_overlaps() {
    for place in places().await {
        let store = place.open().await;
        let secrets: Vec<_> = (0..3).map(|_| KeySecret::generate()).collect();
        let hash = |n: usize| store.hash(secrets[n].as_str().as_bytes());
        let for_ever = NewKey {
            expires_at: None,
            ..new_key("a")
        };
        store
            .create_key(&for_ever, &secrets[0], at(100))
            .await
            .unwrap();
        let hour = Duration::from_secs(3600);
        store
            .rotate_key("a", &secrets[1], hour, at(200))
            .await
            .unwrap();
        // The first one's end is not put off by another rotation.
        store
            .rotate_key("a", &secrets[2], hour * 2, at(300))
            .await
            .unwrap();
        let keys = store.keys().await.unwrap();
        let mut opens = keys[0].secrets.clone();
        opens.sort_by_key(|(_, ends_at)| *ends_at);
        let expected = [
            (hash(2), None),
            (hash(0), Some(at(3800))),
            (hash(1), Some(at(7500))),
        ];
        assert_eq!(opens, expected, "{}", place.name);
        // What has ended by the next one is gone.
        store
            .rotate_key("a", &KeySecret::generate(), hour, at(3801))
            .await
            .unwrap();
        let keys = store.keys().await.unwrap();
        assert!(
            keys[0].secrets.iter().all(|(it, _)| *it != hash(0)),
            "{}",
            place.name
        );
        let unknown = store.rotate_key("b", &secrets[0], hour, at(1)).await;
        assert!(
            matches!(unknown, Err(KeyError::Unknown(_))),
            "{}",
            place.name
        );
    }
}

#[tokio::test]
async fn who_follows_changes_misses_none_of_those_that_others_make_at_the_same_time() {
    const EACH: usize = 20;
    for place in places().await {
        let (follower, a, b) = (place.open().await, place.open().await, place.open().await);
        let make = |store: Store, prefix: &'static str| async move {
            for n in 0..EACH {
                let key = new_key(&format!("{prefix}{n}"));
                store
                    .create_key(&key, &KeySecret::generate(), at(1))
                    .await
                    .unwrap();
            }
        };
        let making = tokio::spawn(async move { tokio::join!(make(a, "a"), make(b, "b")) });
        let (mut since, mut seen) = (None, BTreeSet::new());
        while seen.len() < 2 * EACH {
            let is_over = making.is_finished();
            let changes = follower.changes(since.as_ref()).await.unwrap();
            assert_eq!(changes.is_all, since.is_none(), "{}", place.name);
            since = Some(changes.last);
            seen.extend(changes.keys.into_iter().map(|key| key.name));
            assert!(
                !is_over || seen.len() == 2 * EACH,
                "{}: {seen:?}",
                place.name
            );
        }
        making.await.unwrap();
        let changes = follower.changes(since.as_ref()).await.unwrap();
        assert!(changes.keys.is_empty() && !changes.is_all);
    }
}

#[tokio::test]
async fn the_secret_of_another_database_is_told() {
    for place in places().await {
        place.open().await;
        let other = place.dir.path().join("other");
        std::fs::write(&other, hex::encode([7; 32])).unwrap();
        let config = StoreConfig {
            secret_file: Some(other),
            ..place.config.clone()
        };
        let opened = Store::open(&config).await;
        assert!(
            matches!(opened, Err(StoreError::OtherSecret(_))),
            "{}",
            place.name
        );
        place.open().await;
    }
}

#[test]
fn only_another_machine_must_show_a_certificate() {
    let cases = [
        ("postgres://u@localhost/d", true),
        ("postgres://u@127.0.0.1:5432/d", true),
        ("postgres://u@[::1]:5432/d", true),
        ("postgres://u@%2Frun%2Fpg/d", true),
        ("postgres://u@localhost/d?host=/run", true),
        ("postgres://u@db.example/d", false),
        ("postgres://u@localhost.example:5432/d", false),
        ("postgres://u@localhost/d?host=db.example", false),
        ("postgres://u@localhost/d?hostaddr=10.0.0.5", false),
    ];
    for (url, is_local) in cases {
        let config = StoreConfig {
            url: url.parse().unwrap(),
            ..StoreConfig::default()
        };
        let mode = postgres_options(&config, url).unwrap().get_ssl_mode();
        assert_eq!(
            matches!(mode, PgSslMode::Prefer),
            is_local,
            "{url}: {mode:?}"
        );
    }
}

pub(crate) async fn execute(store: &Store, statement: &'static str) {
    on!(store, pool => { sqlx::query(statement).execute(pool).await.unwrap(); });
}

/// All connections that the store has, so that whoever asks it waits until they are dropped.
pub(crate) async fn hold_all(store: &Store) -> Box<dyn std::any::Any + Send> {
    on!(store, pool => {
        let mut held = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            held.push(pool.acquire().await.unwrap());
        }
        Box::new(held)
    })
}
