//! Brings a database to the present version. Versions are only ever added.

use sqlx::{
    AssertSqlSafe, Connection as _, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{Database, Store, StoreError};

/// Tries to migrate a file that another process migrates at the same time: SQLite has no lock for that,
/// and the second one to come finds the work done.
const TRIES: usize = 5;

const VERSIONS: [(i64, &str, &str); 7] = [
    (
        1,
        "keys and usage",
        include_str!("migrations/0001_keys_and_usage.sql"),
    ),
    (
        2,
        "spend and shares",
        include_str!("migrations/0002_spend_and_shares.sql"),
    ),
    (3, "audit", include_str!("migrations/0003_audit.sql")),
    (4, "receipts", include_str!("migrations/0004_receipts.sql")),
    (
        5,
        "when a receipt's evidence was asked for",
        include_str!("migrations/0005_receipts_asked.sql"),
    ),
    (
        6,
        "audit anchor",
        include_str!("migrations/0006_audit_anchor.sql"),
    ),
    (
        7,
        "marks of changes",
        include_str!("migrations/0007_key_change.sql"),
    ),
];

/// What a version has besides, where SQLite and PostgreSQL have no text in common for it.
const BESIDES: [(i64, &str, &str); 2] = [
    (
        3,
        include_str!("migrations/0003_audit.sqlite.sql"),
        include_str!("migrations/0003_audit.postgres.sql"),
    ),
    (
        6,
        include_str!("migrations/0006_audit_anchor.sqlite.sql"),
        include_str!("migrations/0006_audit_anchor.postgres.sql"),
    ),
];

fn beside(version: i64, database: &Database) -> &'static str {
    let found = BESIDES.iter().find(|(of, ..)| *of == version);
    found.map_or("", |(_, sqlite, postgres)| match database {
        Database::Sqlite(_) => sqlite,
        Database::Postgres(_) => postgres,
    })
}

/// Applies what is missing, each version in a transaction of its own.
///
/// # Errors
/// [`StoreError::Schema`] if the database is not one of this program, or of a newer version,
/// [`StoreError::Migration`] for a version that it does not take.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let versions = VERSIONS.into_iter().map(|(version, name, sql)| {
        let sql = [sql, beside(version, &store.database)].concat();
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(versions.collect());
    match &store.database {
        Database::Sqlite(pool) => {
            let mut tries = 1;
            loop {
                match migrator.run(pool).await.map_err(StoreError::from) {
                    Err(StoreError::Migration { .. } | StoreError::Database(_))
                        if tries < TRIES =>
                    {
                        tries += 1;
                    }
                    done => return done,
                }
            }
        }
        // On a connection that ends with it: an error leaves the lock that is taken for all of it to the
        // connection, and whoever comes next would wait for that.
        Database::Postgres(pool) => {
            let mut connection = pool.acquire().await?.detach();
            // For the lock, too: another gateway may be at it.
            sqlx::query("SET statement_timeout = '10min'")
                .execute(&mut connection)
                .await?;
            let done = migrator.run(&mut connection).await;
            // Where it is gone already, so is the lock.
            let _ = connection.close().await;
            Ok(done?)
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => Self::Database(error),
            MigrateError::ExecuteMigration(source, version) => Self::Migration { version, source },
            // The others are all about which versions there are.
            error => Self::Schema(error),
        }
    }
}
