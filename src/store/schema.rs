//! Brings a database to the present version. Versions are only ever added.

use sqlx::{
    AssertSqlSafe, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

use super::{Database, Store, StoreError, on};

/// Tries to migrate a file that another process migrates at the same time: SQLite has no lock for that,
/// and the second one to come finds the work done.
const TRIES: usize = 5;

const VERSIONS: [(i64, &str, &str); 6] = [
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
        7,
        "audit anchor",
        include_str!("migrations/0007_audit_anchor.sql"),
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
        7,
        include_str!("migrations/0007_audit_anchor.sqlite.sql"),
        include_str!("migrations/0007_audit_anchor.postgres.sql"),
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
/// [`StoreError::Schema`] if the database is not one of this program, or of a newer version.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let versions = VERSIONS.into_iter().map(|(version, name, sql)| {
        let sql = [sql, beside(version, &store.database)].concat();
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(versions.collect());
    let mut tries = 0;
    loop {
        let done = on!(store, pool => migrator.run(pool).await);
        tries += 1;
        match done {
            Ok(()) => return Ok(()),
            Err(_) if tries < TRIES => {}
            Err(error) => return Err(StoreError::Schema(error)),
        }
    }
}
