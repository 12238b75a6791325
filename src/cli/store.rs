//! The store, for commands that work on it beside the gateways.

use std::fs;

use crate::{
    config::{ConfigError, Loaded, gateway::GatewayConfig, store::resolved},
    store::{Store, StoreError},
};

/// Opens a configuration's store, does `work` with it, and closes it.
///
/// # Errors
/// Those of the work, or that there is no store.
pub(super) fn with_store<T, E: From<StoreError> + From<ConfigError>>(
    config: &Loaded<GatewayConfig>,
    work: impl AsyncFnOnce(&Store) -> Result<T, E>,
) -> Result<T, E> {
    let Some(store) = config.value.store() else {
        let message = "this gateway has no store: add the table [store]";
        return Err(config.invalid("store", message).into());
    };
    let store = resolved(config, &store);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StoreError::Runtime)?;
    runtime.block_on(async {
        let store = Store::open(&store).await?.acting(&actor());
        let done = work(&store).await;
        store.close().await;
        done
    })
}

/// Who runs this command, for the audit log: the system's number, and its name for it.
fn actor() -> String {
    let uid = rustix::process::getuid().as_raw();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    match name {
        Some(name) => format!("cli {name} ({uid})"),
        None => format!("cli ({uid})"),
    }
}
