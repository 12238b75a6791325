//! Databases that are not brought to the present version.

use super::{super::*, execute, places, postgres};

const UNKNOWN: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                       VALUES (9999, 'of another', TRUE, 'a', 0)";

#[tokio::test]
async fn a_version_that_is_not_known_is_told_and_keeps_nobody_waiting() {
    for place in places().await {
        let store = place.open().await;
        execute(&store, UNKNOWN).await;
        for migrated in [
            schema::migrate(&store).await,
            Store::open(&place.config).await.map(drop),
        ] {
            let error = migrated.unwrap_err();
            assert!(
                matches!(
                    error,
                    StoreError::Schema(sqlx::migrate::MigrateError::VersionMissing(9999))
                ),
                "{}: {error}",
                place.name
            );
        }
        // The lock is of the whole server, and the store above has its connections still.
        if let Some(other) = postgres().await {
            other.open().await;
        }
        store.keys().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_database_does_not_take_is_not_called_a_version() {
    for place in places().await {
        let store = place.open().await;
        execute(&store, "DELETE FROM _sqlx_migrations WHERE version = 7").await;
        let error = schema::migrate(&store).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Migration { version: 7, .. }),
            "{}: {error}",
            place.name
        );
        let told = error.to_string();
        assert!(
            told.contains("version 7") && told.contains("key_change"),
            "{}: {told}",
            place.name
        );
        execute(&store, "DROP TABLE _sqlx_migrations").await;
        store.close().await;
        let error = schema::migrate(&store).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Database(_)),
            "{}: {error}",
            place.name
        );
    }
}
