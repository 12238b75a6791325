//! Asks engines for their health and their load, each by itself and one question at a time.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use rand::RngExt as _;
use tokio::time::sleep;

use super::{
    engine::Engine,
    engine_metrics::{Load, MAX_PAGE},
    models::Models,
};

/// The longest rest after a question that was not answered well.
const RETRY: Duration = Duration::from_secs(1);
/// Most bytes of an answer of which the status counts alone.
const MAX_ANSWER: usize = 1024 * 1024;

/// Watches every engine that may be watched; never ends.
pub(super) async fn watch(models: &Models) {
    join_all(models.engines().iter().map(|engine| async {
        if let Some(rest) = engine.watch {
            watch_one(engine, rest).await;
        }
    }))
    .await;
    std::future::pending().await
}

async fn watch_one(engine: &Engine, rest: Duration) {
    loop {
        look(engine).await;
        let failing = engine.health.is_failing();
        let rest = if failing { rest.min(RETRY) } else { rest };
        // Not all nodes of one machine at once.
        let jitter = rand::rng().random_range(0.8..=1.2);
        sleep(rest.mul_f64(jitter)).await;
    }
}

async fn look(engine: &Engine) {
    if is_well(engine).await {
        if engine.health.answered() {
            tracing::info!(engine = engine.address(), "the engine answers");
            // It may be another than before.
            engine.learn().await;
        }
        engine.health.is_loaded(load(engine).await);
    } else {
        engine.counts.failed("health");
        if engine.health.failed() {
            tracing::warn!(engine = engine.address(), "the engine does not answer");
        }
    }
}

/// Whether it says so at `/health`, or where it has nothing there, answers at all.
async fn is_well(engine: &Engine) -> bool {
    let broken =
        |status: StatusCode| status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    match engine.get("/health", MAX_ANSWER).await {
        Ok((status, _)) if status.is_success() => true,
        Ok((status, _)) if broken(status) => false,
        Ok(_) => {
            let models = engine.get("/v1/models", MAX_ANSWER).await;
            models.is_ok_and(|(status, _)| !broken(status))
        }
        Err(_) => false,
    }
}

/// What it says of its load; nothing if it does not.
async fn load(engine: &Engine) -> Load {
    let Ok((StatusCode::OK, page)) = engine.get("/metrics", MAX_PAGE).await else {
        return Load::default();
    };
    Load::read(&page).unwrap_or_else(|error| {
        tracing::debug!(%error, engine = engine.address(), "the engine's metrics");
        Load::default()
    })
}
