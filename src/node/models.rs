//! Which engine serves which model.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use futures_util::future::{join, join_all};

use super::engine::{Engine, EngineError};
use crate::{attester::statement::NameRoom, config::node::is_model_name};

/// The engines and what they serve, as far as it is known.
#[derive(Debug)]
pub(super) struct Models {
    engines: Vec<Arc<Engine>>,
    /// What each engine last said, in the order of the engines.
    said: Mutex<Vec<Option<Vec<String>>>>,
    served: RwLock<Arc<Served>>,
}

#[derive(Debug, Default)]
struct Served {
    /// In the order of the statement.
    names: Vec<String>,
    engine_of: HashMap<String, usize>,
}

impl Models {
    pub(super) fn new(engines: Vec<Arc<Engine>>) -> Self {
        let said: Vec<_> = engines
            .iter()
            .map(|engine| engine.configured_models.clone())
            .collect();
        let served = RwLock::new(Arc::new(Served::of(&said)));
        Self {
            engines,
            said: Mutex::new(said),
            served,
        }
    }

    /// Asks every engine for what the configuration does not say of it. An engine that does not
    /// answer keeps what it said before. Says whether all models are known.
    pub(super) async fn refresh(&self) -> bool {
        let answers = join_all(self.engines.iter().map(|engine| async {
            let models = async {
                match &engine.configured_models {
                    Some(_) => None,
                    None => Some(engine.list_models().await),
                }
            };
            join(models, engine.learn()).await.0
        }))
        .await;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for ((known, answer), engine) in said.iter_mut().zip(answers).zip(&self.engines) {
            match answer {
                Some(Ok(models)) => *known = Some(models),
                Some(Err(error)) => {
                    engine.counts.failed(error.class());
                    note(error, known.is_some());
                }
                None => {}
            }
        }
        let served = Arc::new(Served::of(&said));
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
        said.iter().all(Option::is_some)
    }

    /// Whether every engine's models are known.
    pub(super) fn all_known(&self) -> bool {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .all(Option::is_some)
    }

    /// The names for the statement.
    pub(super) fn names(&self) -> Vec<String> {
        self.served().names.clone()
    }

    /// Whether some engine's models are known.
    pub(super) fn any(&self) -> bool {
        !self.served().names.is_empty()
    }

    /// The engine that serves `model`.
    pub(super) fn engine_of(&self, model: &str) -> Option<Arc<Engine>> {
        let index = self.served().engine_of.get(model).copied()?;
        self.engines.get(index).map(Arc::clone)
    }

    /// Every engine, in the order of the configuration.
    pub(super) fn engines(&self) -> &[Arc<Engine>] {
        &self.engines
    }

    fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn note(error: EngineError, known_before: bool) {
    if known_before {
        tracing::debug!(%error, "an engine did not list its models; the last list stays");
    } else {
        tracing::info!(%error, "an engine has not listed its models yet");
    }
}

impl Served {
    fn of(said: &[Option<Vec<String>>]) -> Self {
        let mut served = Self::default();
        let mut room = NameRoom::default();
        let all = said
            .iter()
            .enumerate()
            .flat_map(|(engine, models)| models.iter().flatten().map(move |model| (engine, model)));
        for (engine, model) in all {
            if !is_model_name(model) || served.engine_of.contains_key(model) {
                continue;
            }
            if !room.take(model) {
                tracing::warn!("the engines serve more models than a statement can carry");
                break;
            }
            served.names.push(model.clone());
            served.engine_of.insert(model.clone(), engine);
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::MAX_MODELS;

    fn models(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_first_engine_that_serves_a_model_gets_it() {
        let served = Served::of(&[models(&["a", "b"]), None, models(&["b", "c", "not one"])]);
        assert_eq!(served.names, ["a", "b", "c"]);
        assert_eq!(served.engine_of["b"], 0);
        assert_eq!(served.engine_of["c"], 2);
    }

    #[test]
    fn what_a_statement_cannot_carry_is_left_out() {
        let many: Vec<String> = (0..300).map(|n| format!("model-{n}")).collect();
        assert_eq!(Served::of(&[Some(many)]).names.len(), MAX_MODELS);
        let long: Vec<String> = (0..250).map(|n| format!("{n:0>256}")).collect();
        assert_eq!(Served::of(&[Some(long)]).names.len(), 48 * 1024 / 259);
    }
}
