//! Keeps a listener's TLS as its files are.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{sync::watch, task::spawn_blocking};

use super::{Source, Tls, TlsError};
use crate::{
    clock::Clock,
    config::tls::TlsFiles,
    reload::{self, Asked, Keep, Seen},
};

/// Serves what the files hold, and takes what they hold later.
#[derive(Debug)]
pub(crate) struct Keeper {
    files: TlsFiles,
    source: Source,
    clock: Clock,
    in_force: watch::Sender<Arc<ServerConfig>>,
    /// The digest of the key that connections end at, which evidence can vouch for.
    spki_sha256: [u8; 32],
    /// What has to be said of the first certificate.
    warning: Option<&'static str>,
    seen: Seen,
}

impl Keeper {
    /// Reads the first configuration; where files name no certificate, one is made for `name`.
    ///
    /// # Errors
    /// [`TlsError`] names what cannot be used.
    pub(crate) fn start(files: TlsFiles, name: &str, clock: Clock) -> Result<Self, TlsError> {
        let seen = Seen::now(&paths(&files));
        let source = Source::new(files.pair.as_ref(), name)?;
        let first = source.serve(files.clients.as_ref())?;
        Ok(Self {
            warning: first.warning(clock.now()),
            in_force: watch::Sender::new(first.config),
            spki_sha256: first.spki_sha256,
            files,
            source,
            clock,
            seen,
        })
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls(self.in_force.subscribe())
    }

    /// The digest of the first key that connections end at.
    pub(crate) fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }

    /// Looks at the files every so often, and when told to; never ends. `vouch` is told of a key
    /// before a connection ends at it.
    pub(crate) async fn run(
        self,
        asked: Asked,
        every: Duration,
        vouch: impl Fn([u8; 32]) + Send + 'static,
    ) {
        say(self.files.table, self.warning);
        let seen = self.seen.clone();
        let keeping = Keeping {
            keeper: self,
            vouch,
        };
        reload::run(keeping, seen, asked, every).await;
    }
}

struct Keeping<V> {
    keeper: Keeper,
    vouch: V,
}

impl<V: Fn([u8; 32]) + Send + 'static> Keep for Keeping<V> {
    fn kind(&self) -> &'static str {
        self.keeper.files.table
    }

    fn files(&self) -> Vec<PathBuf> {
        paths(&self.keeper.files)
    }

    async fn take(&mut self) -> Result<(), String> {
        let keeper = &mut self.keeper;
        let table = keeper.files.table;
        let (source, clients) = (keeper.source.clone(), keeper.files.clients.clone());
        let ready = spawn_blocking(move || source.serve(clients.as_ref())).await;
        let ready = ready.map_err(|_| PANICKED.to_owned())?;
        let ready = ready.map_err(|error| error.to_string())?;
        say(table, ready.warning(keeper.clock.now()));
        let spki_sha256 = hex::encode(ready.spki_sha256);
        tracing::info!(table, spki_sha256, "tls in force: new connections get it");
        (self.vouch)(ready.spki_sha256);
        keeper.in_force.send_replace(ready.config);
        Ok(())
    }

    fn refused(&mut self, error: &str) {
        let table = self.keeper.files.table;
        tracing::error!(
            table,
            error,
            "tls not taken: the certificate before stays in force"
        );
    }
}

const PANICKED: &str = "reading panicked";

fn say(table: &str, warning: Option<&str>) {
    if let Some(warning) = warning {
        tracing::warn!("{table}.certificate_file: {warning}");
    }
}

fn paths(files: &TlsFiles) -> Vec<PathBuf> {
    let pair = files.pair.iter().flat_map(|it| [&it.certificate, &it.key]);
    let clients = files.clients.iter().map(|it| &it.ca);
    pair.chain(clients).cloned().collect()
}
