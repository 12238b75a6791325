//! What is done for the store beside the requests: keys followed, limits shared with other gateways, what is
//! kept no longer removed, and usage, receipts and the audit log written.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    StartError,
    audit::{self, Audit, Heads, Post},
    authenticate::Callers,
    beside::until,
    book::{Book, fleet::Teller},
    files::archive_dir,
    receipts,
    shared::Shared,
};
use crate::{
    clock::Clock,
    config::{
        ConfigError, Loaded,
        gateway::GatewayConfig,
        store::{StoreConfig, resolved},
    },
    store::{
        Journal, Ledger, Pruned, RECEIPT_PLACES, ReceiptWriter, Store, Writer, journal_beside,
    },
};

/// Between two looks for usage that is kept no longer.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// What is to be done for the store.
#[derive(Debug)]
pub(super) struct Keeping {
    config: StoreConfig,
    pub(super) store: Store,
    writer: Writer,
    receipts: ReceiptWriter,
    auditor: audit::Writer,
    heads: Arc<Mutex<Heads>>,
    /// Where limits are shared with other gateways.
    teller: Option<Teller>,
}

/// Opens the store, if there is one, with the journal beside it.
///
/// # Errors
/// [`StartError`] names what cannot be used.
pub(super) async fn open(
    config: &Loaded<GatewayConfig>,
    mut shared: Shared,
) -> Result<(Shared, Option<Box<Keeping>>), StartError> {
    let Some(store_config) = config.value.store() else {
        return Ok((shared, None));
    };
    let store_config = resolved(config, &store_config);
    let post = Post::read(config, &store_config.audit)?;
    let store = Store::open(&store_config).await?;
    let gateway = audit::actor(config.value.listen);
    let store = store.acting(&gateway);
    let (audit, auditor) = Audit::new(store.clone(), shared.clock);
    let heads = Heads::new(
        (store.clone(), &gateway),
        (&store_config.audit, post),
        (shared.clock, audit.heads().unwrap_or_default()),
    );
    shared.audit = audit;
    let in_flight = config.value.limits.in_flight.get();
    let places = in_flight.saturating_add(store_config.waiting.get());
    let (journal, found) = Journal::open(&store_config.journal, places)?;
    found.say("usage");
    let (ledger, mut writer) = Ledger::new(store.clone(), shared.clock, (journal, found));
    // Before it is asked what keys have spent.
    writer.write_found().await;
    let mut teller = None;
    if config.value.keys_in_store() {
        if store_config.sync().is_some() {
            // After what was found is written: what a process that was killed held is in what was spent.
            teller = Some(Teller::begin(&store, &store_config.journal).await);
        }
        let book = Book::open(store.for_looks(), &store_config, shared.clock).await?;
        book.arrange(&shared.labels, config.value.limits.in_flight_per_key.get());
        shared.callers = Arc::new(Callers::Stored(book));
    }
    shared.ledger = Some(Arc::new(ledger));
    let beside = journal_beside(&store_config.journal);
    let (journal, found) = Journal::open(&beside, RECEIPT_PLACES)?;
    found.say("receipts");
    let (mut receipts, queue) = ReceiptWriter::new(store.clone(), (journal, found));
    receipts.write_found().await;
    let sink = receipts::Stored::new(store.clone(), queue);
    shared.receipts = Arc::new(receipts::Desk::keeping(archive_dir(config), sink));
    let keeping = Keeping {
        config: store_config,
        store,
        writer,
        receipts,
        auditor,
        heads: Arc::new(Mutex::new(heads)),
        teller,
    };
    Ok((shared, Some(Box::new(keeping))))
}

/// Whether what may be in flight has places in the journal, whose length is that of the start.
///
/// # Errors
/// [`ConfigError`]: else requests would be refused by a journal that is full long before the limit.
pub(super) fn has_places(
    config: &Loaded<GatewayConfig>,
    before: &Shared,
) -> Result<(), ConfigError> {
    let Some(ledger) = &before.ledger else {
        return Ok(());
    };
    let (more, store) = (config.value.limits.in_flight.get(), config.value.store());
    let waiting = store.map_or(0, |store| store.waiting.get());
    let places = ledger.watch().places();
    if more <= before.admission.places() || more.saturating_add(waiting) <= places {
        return Ok(());
    }
    let message = format!(
        "the journal has {places} places, made at the start for requests in flight and {waiting} that wait for the \
         store (store.waiting): more than {} in flight take a restart",
        places.saturating_sub(waiting)
    );
    Err(config.invalid("limits.in_flight", message))
}

impl Keeping {
    /// Follows the keys, and lets old usage go.
    pub(super) fn follow(
        &self,
        shared: &Shared,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (store, clock) = (self.store.clone(), shared.clock);
        let days = |days: u32| Duration::from_secs(u64::from(days).saturating_mul(86_400));
        let usage_days = days(self.config.usage_days.get());
        let receipt_days = days(self.config.receipt_days.get());
        let audit_days = self.config.audit.days.map(|kept| days(kept.get()));
        let (poll, sync) = (self.config.poll(), self.config.sync());
        let (book, teller) = (shared.book(), self.teller.clone());
        let following = async move {
            match book {
                Some(book) => {
                    let sharing = async {
                        match sync.zip(teller) {
                            Some((every, teller)) => book.share(every, &teller).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::join!(book.follow(poll), sharing);
                }
                None => std::future::pending().await,
            }
        };
        let pruning = async move {
            let mut ticks = interval(PRUNE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let before = |kept| {
                    clock
                        .now()
                        .checked_sub(kept)
                        .unwrap_or(SystemTime::UNIX_EPOCH)
                };
                while let Ok(1..) = store.prune_usage(before(usage_days)).await {}
                while let Ok(1..) = store.prune_receipts(before(receipt_days)).await {}
                // Tried again in an hour.
                let _ = store.prune_spend(clock.now()).await;
                if let Some(kept) = audit_days {
                    prune_audit(&store, before(kept), clock).await;
                }
            }
        };
        let heads = Arc::clone(&self.heads);
        let heads = async move { heads.lock().await.keep().await };
        until(stop, async move {
            tokio::join!(following, pruning, heads);
        })
    }

    /// Writes until `stop`, and a last time then.
    pub(super) fn write(self, stop: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move {
            let receipts = self.receipts.run(stop.clone());
            let auditing = self.auditor.run(stop.clone());
            tokio::join!(self.writer.run(stop), receipts, auditing);
            if let Some(teller) = &self.teller {
                teller.leave(&self.store).await;
            }
            self.heads.lock().await.tell().await;
            self.store.close().await;
        })
    }
}

/// Removes what of the audit log is kept no longer; what fails is tried again with the next look.
async fn prune_audit(store: &Store, before: SystemTime, clock: Clock) {
    loop {
        match store.prune_audit(before, clock.now()).await {
            Ok(Pruned::Removed(entries)) => tracing::info!(entries, "audit log: kept no longer"),
            Ok(Pruned::Nothing) | Err(_) => return,
            Ok(Pruned::NotWhole(entry, wrong)) => {
                tracing::error!(
                    entry,
                    %wrong,
                    "the audit log is not whole: nothing is removed from it"
                );
                return;
            }
        }
    }
}
