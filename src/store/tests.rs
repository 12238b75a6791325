//! The store over SQLite, and over PostgreSQL where `SEALGATE_TEST_POSTGRES` has a URL of one
//! (`tests/store/run.sh`).

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    clock::Clock,
    config::terms::{KeyTerms, Period},
};

const POSTGRES: &str = "SEALGATE_TEST_POSTGRES";

/// A database of a test's own.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    config: StoreConfig,
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
async fn postgres() -> Option<Place> {
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

fn query(by: &[By]) -> Query {
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
        store
            .create_key(&new_key("a"), &secrets[0], at(100))
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
        let (mut since, mut seen) = (-1, BTreeSet::new());
        while seen.len() < 2 * EACH {
            let is_over = making.is_finished();
            let changes = follower.changes(since).await.unwrap();
            since = changes.n;
            seen.extend(changes.keys.into_iter().map(|key| key.name));
            assert!(
                !is_over || seen.len() == 2 * EACH,
                "{}: {seen:?}",
                place.name
            );
        }
        making.await.unwrap();
        assert!(follower.changes(since).await.unwrap().keys.is_empty());
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

#[tokio::test]
async fn usage_is_summed_by_what_is_asked_and_a_row_counts_once() {
    for place in places().await {
        let store = place.open().await;
        let secret = KeySecret::generate();
        let id = store
            .create_key(&new_key("k"), &secret, at(1))
            .await
            .unwrap();
        let day = 86_400_000;
        let mut rows: Vec<_> = (0..600).map(|n| row(&format!("{n:04}"))).collect();
        rows[1].key_id = id;
        rows[1].started_at = day * 3 + 1;
        rows[2].model = None;
        rows[2].tokens = None;
        rows[2].cost = None;
        store.add_usage(&rows, at(1)).await.unwrap();
        store.add_usage(&rows[..10], at(1)).await.unwrap();

        let all = store.usage(&query(&[])).await.unwrap();
        let [all] = all.as_slice() else {
            panic!("{}: {all:?}", place.name)
        };
        assert_eq!((all.requests, all.uncounted), (600, 1), "{}", place.name);
        assert_eq!(
            (all.tokens.prompt, all.tokens.completion),
            (599 * 3, 599 * 2)
        );
        assert_eq!(
            (all.cost, all.bytes_in, all.bytes_out),
            (Some(599 * 5), 6_000, 12_000)
        );

        let sums = store.usage(&query(&[By::Key, By::Day])).await.unwrap();
        let of: Vec<_> = sums
            .iter()
            .map(|sum| (sum.of.clone(), sum.requests))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            (vec![text("k"), text("1970-01-04")], 1),
            (vec![text("open"), text("1970-01-01")], 599),
        ];
        assert_eq!(of, expected, "{}", place.name);

        let models = store.usage(&query(&[By::Model])).await.unwrap();
        let unknown = models.iter().find(|sum| sum.of == [None]).unwrap();
        assert_eq!(
            (unknown.requests, unknown.uncounted, unknown.cost),
            (1, 1, None)
        );

        let of_key = Query {
            key: Some("k".to_owned()),
            since: Some(at(3 * 86_400)),
            ..query(&[])
        };
        assert_eq!(store.usage(&of_key).await.unwrap()[0].requests, 1);
        let later = Query {
            since: Some(at(4 * 86_400)),
            ..of_key
        };
        assert!(
            store.usage(&later).await.unwrap().is_empty(),
            "{}",
            place.name
        );

        assert_eq!(
            store.prune_usage(at(86_400)).await.unwrap(),
            599,
            "{}",
            place.name
        );
        assert_eq!(store.usage(&query(&[])).await.unwrap()[0].requests, 1);
    }
}

#[tokio::test]
async fn what_a_key_has_spent_grows_with_its_rows_and_each_counts_once() {
    for place in places().await {
        let store = place.open().await;
        let day = 86_400_000;
        let rows: Vec<_> = (0..300)
            .map(|n| {
                let mut row = row(&format!("{n:04}"));
                row.key_id = if n % 3 == 0 { "a" } else { "b" }.to_owned();
                // 1970-02-01, and from the 290th on 1970-02-02.
                row.started_at = day * if n < 290 { 31 } else { 32 } + 7;
                row
            })
            .collect();
        let now = at(32 * 86_400);
        store.add_usage(&rows[..200], now).await.unwrap();
        let spent = store.add_usage(&rows, now).await.unwrap();
        assert_eq!(spent.len(), 6, "{}: {spent:?}", place.name);
        let of = |key: &str, period: Period| {
            let mut found = spent
                .iter()
                .filter(|it| it.key_id == key && it.period == period);
            let one = found.next().map(|it| (it.starts_at, it.tokens, it.cost));
            assert!(found.next().is_none());
            one.unwrap()
        };
        // A row is 3 and 2 tokens, for 5.
        assert_eq!(of("a", Period::Ever), (0, 500, 500), "{}", place.name);
        assert_eq!(of("a", Period::Month), (31 * day, 500, 500));
        assert_eq!(of("a", Period::Day), (32 * day, 15, 15), "291, 294, 297");
        assert_eq!(of("b", Period::Ever), (0, 1_000, 1_000));

        let mut uncounted = row("uncounted");
        uncounted.key_id = "c".to_owned();
        (uncounted.tokens, uncounted.cost) = (None, None);
        (uncounted.charged_tokens, uncounted.charged_cost) = (Some(70), Some(9));
        let refused = UsageRow {
            request_id: "refused".to_owned(),
            charged_tokens: None,
            charged_cost: None,
            ..uncounted.clone()
        };
        let spent = store.add_usage(&[uncounted, refused], at(1)).await.unwrap();
        let told = spent.iter().map(|it| (it.tokens, it.cost));
        assert_eq!(told.collect::<Vec<_>>(), [(70, 9); 3], "{}", place.name);
        let sums = store.usage(&query(&[By::Key])).await.unwrap();
        let sum = sums.iter().find(|sum| sum.of == [Some("c".to_owned())]);
        assert_eq!(sum.unwrap().uncounted, 2, "an estimate is no count");

        // What is long over goes, and what is for ever stays.
        store.prune_spend(at(100 * 86_400)).await.unwrap();
        let keys = ["a", "b", "c"].map(str::to_owned).into();
        let spent = store.spent(&keys, now).await.unwrap();
        assert!(
            spent.len() == 3 && spent.iter().all(|it| it.period == Period::Ever),
            "{}: {spent:?}",
            place.name
        );
    }
}

#[tokio::test]
async fn gateways_that_write_at_the_same_time_add_up() {
    for place in places().await {
        let (a, b) = (place.open().await, place.open().await);
        let write = |store: Store, prefix: &'static str| async move {
            for n in 0..20 {
                let mut rows = [row(&format!("{prefix}{n}")), row(&format!("{prefix}{n}x"))];
                rows[1].key_id = "other".to_owned();
                store.add_usage(&rows, at(1)).await.unwrap();
            }
        };
        tokio::join!(write(a.clone(), "a"), write(b, "b"));
        let keys = ["open", "other"].map(str::to_owned).into();
        let spent = a.spent(&keys, at(1)).await.unwrap();
        assert_eq!(spent.len(), 6);
        assert!(
            spent.iter().all(|it| (it.tokens, it.cost) == (200, 200)),
            "{}: {spent:?}",
            place.name
        );
    }
}

#[tokio::test]
async fn a_gateway_s_share_is_what_it_wrote_last() {
    for place in places().await {
        let store = place.open().await;
        let share = |in_flight| Share {
            in_flight,
            minute: 29_000_000,
            requests: (3, 4),
            tokens: (u64::MAX, 6),
            held_tokens: 7,
            held_cost: 8,
        };
        let key = |n: u64| (format!("key_{n}"), share(n));
        let all: Vec<_> = (0..600).map(key).collect();
        store.put_shares("one", 1, &all).await.unwrap();
        store.put_shares("two", 9, &[key(5)]).await.unwrap();
        assert_eq!(store.other_shares("two").await.unwrap().len(), 600);
        for beat in [2, 2] {
            store.put_shares("one", beat, &[key(1)]).await.unwrap();
        }
        let mut told = store.other_shares("two").await.unwrap();
        let other = told.pop().unwrap();
        assert!(told.is_empty(), "{}", place.name);
        assert_eq!((other.gateway_id.as_str(), other.beat), ("one", 2));
        assert_eq!((other.key_id.as_str(), other.share.in_flight), ("key_1", 1));
        assert_eq!(other.share.requests, (3, 4));
        assert_eq!((other.share.held_tokens, other.share.held_cost), (7, 8));
        store.put_shares("one", 3, &[]).await.unwrap();
        assert!(store.other_shares("two").await.unwrap().is_empty());
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

async fn requests(store: &Store) -> u64 {
    let sums = store.usage(&query(&[])).await.unwrap();
    sums.first().map_or(0, |sum| sum.requests)
}

#[tokio::test]
async fn what_waits_while_the_database_is_away_is_there_once_it_is_back() {
    for place in places().await {
        let store = place.open().await;
        let path = place.dir.path().join("journal");
        let (journal, found) = Journal::open(&path, 8).unwrap();
        let (ledger, writer) = Ledger::new(store.clone(), Clock::system(), (journal, found));
        let watch = ledger.watch();
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));

        execute(&store, "ALTER TABLE usage_row RENAME TO elsewhere").await;
        ledger.begin(&row("a")).unwrap().end(row("a"), None);
        let open = ledger.begin(&row("b")).unwrap();
        while watch.failed() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((watch.taken(), watch.written()), (2, 0), "{}", place.name);
        execute(&store, "ALTER TABLE elsewhere RENAME TO usage_row").await;
        while watch.written() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(requests(&store).await, 1, "{}", place.name);

        // Stopped while it is away: what waits is found at the next start, and so is what never ended.
        execute(&store, "ALTER TABLE usage_row RENAME TO elsewhere").await;
        ledger.begin(&row("c")).unwrap().end(row("c"), None);
        drop(open);
        stop.cancel();
        writing.await.unwrap();
        drop((ledger, watch));
        execute(&store, "ALTER TABLE elsewhere RENAME TO usage_row").await;
        let (journal, found) = Journal::open(&path, 8).unwrap();
        assert_eq!(
            (found.rows.len(), found.unfinished),
            (2, 1),
            "{}",
            place.name
        );
        let (ledger, writer) = Ledger::new(store.clone(), Clock::system(), (journal, found));
        let watch = ledger.watch();
        drop(ledger);
        writer.run(CancellationToken::new()).await;
        assert_eq!(
            (watch.taken(), requests(&store).await),
            (0, 3),
            "{}",
            place.name
        );
    }
}

#[tokio::test]
async fn a_row_that_the_database_refuses_holds_up_no_other() {
    // SQLite refuses no text.
    let Some(place) = postgres().await else {
        return;
    };
    let store = place.open().await;
    let path = place.dir.path().join("journal");
    let (journal, found) = Journal::open(&path, 8).unwrap();
    let (ledger, writer) = Ledger::new(store.clone(), Clock::system(), (journal, found));
    let watch = ledger.watch();
    for id in ["a", "bad\0", "c"] {
        ledger.begin(&row(id)).unwrap().end(row(id), None);
    }
    drop(ledger);
    writer.run(CancellationToken::new()).await;
    assert_eq!(
        (watch.written(), watch.set_aside(), watch.taken()),
        (2, 1, 1)
    );
    assert_eq!(requests(&store).await, 2);
}
