//! Keys that come, change and go, with the database and without.

use std::time::SystemTime;

use super::*;
use crate::{
    config::{store::StoreUrl, terms::KeyTerms},
    store::{KeySecret, NewKey, tests::execute},
};

pub(super) struct Held {
    pub(super) store: Store,
    pub(super) book: Arc<Book>,
    pub(super) dir: tempfile::TempDir,
}

pub(super) async fn held(stale_s: u32) -> Held {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        url: StoreUrl::Sqlite(dir.path().join("db")),
        stale_s: stale_s.try_into().unwrap(),
        ..StoreConfig::default()
    };
    let store = Store::open(&config).await.unwrap();
    let book = Book::open(store.clone(), &config, Clock::system());
    let book = book.await.unwrap();
    book.arrange(&Arc::default(), 3);
    Held { store, book, dir }
}

impl Held {
    pub(super) async fn make(
        &self,
        name: &str,
        terms: KeyTerms,
        expires_at: Option<SystemTime>,
    ) -> KeySecret {
        let secret = KeySecret::generate();
        let key = NewKey {
            name: name.to_owned(),
            owner: None,
            terms,
            expires_at,
        };
        let now = Clock::system().now();
        self.store.create_key(&key, &secret, now).await.unwrap();
        secret
    }

    async fn find(&self, key: &KeySecret) -> Result<String, Error> {
        let caller = self.book.find(key.as_str().as_bytes()).await?;
        Ok(caller.name.to_string())
    }
}

#[tokio::test]
async fn a_new_key_is_known_at_once_and_a_revoked_one_after_the_next_look() {
    let held = held(60).await;
    let secret = held.make("a", KeyTerms::default(), None).await;
    assert_eq!(held.find(&secret).await.unwrap(), "a");
    held.store
        .revoke_key("a", Clock::system().now())
        .await
        .unwrap();
    assert_eq!(held.find(&secret).await.unwrap(), "a", "nobody has looked");
    held.book.ask().await.ok().unwrap();
    assert!(matches!(
        held.find(&secret).await,
        Err(Error::Unauthenticated)
    ));
    assert_eq!(held.book.len(), 0);
}

#[tokio::test]
async fn a_key_that_was_revoked_here_opens_nothing_though_the_store_is_gone() {
    let held = held(60).await;
    let (gone, stays) = (
        held.make("gone", KeyTerms::default(), None).await,
        held.make("stays", KeyTerms::default(), None).await,
    );
    held.find(&gone).await.unwrap();
    // What a question that was begun before is answered with.
    let before = held.store.changes(None).await.unwrap();
    let id = held.store.revoke_key("gone", Clock::system().now()).await;
    held.store.close().await;
    held.book.forget(&id.unwrap());
    assert!(held.find(&gone).await.is_err());
    assert_eq!(held.find(&stays).await.unwrap(), "stays");
    held.book.arrange(&Arc::default(), 3);
    assert!(held.find(&gone).await.is_err(), "after a reload");
    held.book.take(before, &[]);
    assert!(held.find(&gone).await.is_err(), "after an answer of before");
    assert_eq!(held.find(&stays).await.unwrap(), "stays");
}

#[tokio::test]
async fn a_secret_that_was_ended_here_opens_nothing_though_the_store_is_gone() {
    let held = held(60).await;
    let old = held.make("a", KeyTerms::default(), None).await;
    held.find(&old).await.unwrap();
    let before = held.store.changes(None).await.unwrap();
    let (new, now) = (KeySecret::generate(), Clock::system().now());
    let turned = held.store.rotate_key("a", &new, Duration::ZERO, now).await;
    let id = turned.unwrap();
    // A look in between knows the new one already: that one goes on.
    held.book.ask().await.ok().unwrap();
    held.book.take(before.clone(), &[]);
    assert_eq!(held.find(&old).await.unwrap(), "a", "as before");
    held.store.close().await;
    held.book.end_others(&id, &new, now);
    assert!(held.find(&old).await.is_err());
    held.book.arrange(&Arc::default(), 3);
    assert!(held.find(&old).await.is_err(), "after a reload");
    held.book.take(before, &[]);
    assert!(held.find(&old).await.is_err(), "after an answer of before");
}

#[tokio::test]
async fn a_secret_that_was_ended_here_leaves_those_that_come_after_it_alone() {
    let held = held(60).await;
    let old = held.make("a", KeyTerms::default(), None).await;
    held.find(&old).await.unwrap();
    let (new, now) = (KeySecret::generate(), Clock::system().now());
    let turned = held.store.rotate_key("a", &new, Duration::ZERO, now).await;
    let id = turned.unwrap();
    held.book.end_others(&id, &new, now);
    held.book.ask().await.ok().unwrap();
    held.book.end_others(&id, &new, now);
    assert_eq!(held.find(&new).await.unwrap(), "a");
    assert!(held.find(&old).await.is_err());
    // The database has it.
    held.book.ask().await.ok().unwrap();
    let (newest, hour) = (KeySecret::generate(), Duration::from_secs(3600));
    held.store
        .rotate_key("a", &newest, hour, now)
        .await
        .unwrap();
    held.book.ask().await.ok().unwrap();
    for secret in [&new, &newest] {
        assert_eq!(held.find(secret).await.unwrap(), "a");
    }
    assert!(held.find(&old).await.is_err());
    // A copy of the database of before the rotations takes its place.
    let mut keys = held.store.keys().await.unwrap();
    for key in &mut keys {
        key.secrets
            .iter_mut()
            .for_each(|(_, ends_at)| *ends_at = None);
    }
    {
        let mut pages = held.book.pages.write().unwrap();
        for key in keys {
            pages.put(&held.store, key);
        }
    }
    assert_eq!(held.find(&newest).await.unwrap(), "a");
    assert!(held.find(&old).await.is_err());
}

#[tokio::test]
async fn a_key_that_has_the_name_of_one_that_was_revoked_is_another() {
    let held = held(60).await;
    let old = held.make("a", KeyTerms::default(), None).await;
    held.find(&old).await.unwrap();
    let id = held.store.revoke_key("a", Clock::system().now()).await;
    let new = held.make("a", KeyTerms::default(), None).await;
    held.book.ask().await.ok().unwrap();
    held.book.forget(&id.unwrap());
    assert_eq!(held.find(&new).await.unwrap(), "a");
    assert!(held.find(&old).await.is_err());
}

#[tokio::test]
async fn an_older_copy_of_the_store_opens_only_what_is_in_it() {
    let held = held(60).await;
    let a = held.make("a", KeyTerms::default(), None).await;
    let b = held.make("b", KeyTerms::default(), None).await;
    for secret in [&a, &b] {
        held.find(secret).await.unwrap();
    }
    let of_b =
        "DELETE FROM api_key_secret WHERE key_id IN (SELECT id FROM api_key WHERE name = 'b')";
    for statement in [
        of_b,
        "DELETE FROM api_key WHERE name = 'b'",
        "UPDATE change_count SET n = n - 1",
    ] {
        execute(&held.store, statement).await;
    }
    held.book.ask().await.ok().unwrap();
    assert!(matches!(held.find(&b).await, Err(Error::Unauthenticated)));
    assert_eq!(held.find(&a).await.unwrap(), "a");
    assert_eq!(held.book.len(), 1);
    // And a change in it that has the number of one that was seen is a change.
    let c = held.make("c", KeyTerms::default(), None).await;
    held.find(&c).await.unwrap();
    execute(&held.store, "UPDATE change_count SET n = n - 1").await;
    let now = Clock::system().now();
    held.store.revoke_key("a", now).await.unwrap();
    held.book.ask().await.ok().unwrap();
    assert!(matches!(held.find(&a).await, Err(Error::Unauthenticated)));
}

#[tokio::test]
async fn a_key_that_has_expired_opens_nothing() {
    let held = held(60).await;
    let now = Clock::system().now();
    let over = held.make("over", KeyTerms::default(), Some(now)).await;
    let later = Some(now + Duration::from_secs(600));
    let counts = held.make("counts", KeyTerms::default(), later).await;
    assert!(matches!(
        held.find(&over).await,
        Err(Error::Unauthenticated)
    ));
    assert_eq!(held.find(&counts).await.unwrap(), "counts");
}

#[tokio::test]
async fn many_wrong_keys_are_few_questions() {
    let held = held(60).await;
    let (before, _) = held.book.questions();
    for n in 0..1_000 {
        let found = held.book.find(format!("wrong {n}").as_bytes()).await;
        assert!(matches!(found, Err(Error::Unauthenticated)), "{n}");
    }
    let (after, _) = held.book.questions();
    // Some more come with the time that it takes.
    assert!(after - before <= 100, "{}", after - before);
    // A key that is made now is known with the next look all the same.
    let secret = held.make("a", KeyTerms::default(), None).await;
    held.book.ask().await.ok().unwrap();
    assert_eq!(held.find(&secret).await.unwrap(), "a");
}

#[tokio::test]
async fn without_the_store_known_keys_go_on_for_their_time_and_nobody_else_is_called_wrong() {
    let held = held(60).await;
    let secret = held.make("a", KeyTerms::default(), None).await;
    held.find(&secret).await.unwrap();
    held.store.close().await;
    assert_eq!(held.find(&secret).await.unwrap(), "a");
    for n in 0..20 {
        let found = held.book.find(format!("wrong {n}").as_bytes()).await;
        assert!(matches!(found, Err(Error::StoreUnavailable)), "{n}");
    }
    assert!(!held.book.is_reached());
    held.book.state().answered -= Duration::from_secs(61);
    assert!(matches!(
        held.find(&secret).await,
        Err(Error::StoreUnavailable)
    ));
}

#[tokio::test]
async fn what_a_keys_requests_hold_counts_on_when_it_changes() {
    let held = held(60).await;
    let secret = held.make("a", KeyTerms::default(), None).await;
    let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
    let taken = caller.places.take(2).unwrap();
    let now = Clock::system().now();
    let other = KeySecret::generate();
    let overlap = Duration::from_secs(60);
    held.store
        .rotate_key("a", &other, overlap, now)
        .await
        .unwrap();
    held.book.ask().await.ok().unwrap();
    held.book.arrange(&Arc::default(), 2);
    for secret in [secret, other] {
        let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
        assert_eq!(caller.places.taken(), 2);
        assert!(caller.places.take(1).is_none());
    }
    drop(taken);
}

#[tokio::test]
async fn a_key_for_nodes_that_there_are_none_of_gets_none() {
    let held = held(60).await;
    let terms = KeyTerms {
        tags: vec![crate::config::gateway::Label::new("nowhere").unwrap()],
        ..KeyTerms::default()
    };
    let secret = held.make("a", terms, None).await;
    let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
    assert!(!caller.wish.takes(u64::MAX));
}
