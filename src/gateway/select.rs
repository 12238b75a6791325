//! Which node takes a request: of two that are drawn, the one that it costs less.
//!
//! What is looked at for a request does not grow with the number of nodes: two are drawn, and where
//! neither may be asked, a few that stand one after another. What a request wants of its node
//! narrows the list first, which is made once for each wish and list of nodes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    health::Standing,
    labels::Wish,
    node::{Chosen, Node},
};
use crate::chance;

/// Most nodes that are looked at for one request.
const MAX_PROBES: usize = 64;
/// Most wishes whose lists are kept; they are made again when there are more.
const MAX_WISHES: usize = 256;

/// The nodes that serve a model.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    all: Arc<[Arc<Node>]>,
    of_wish: Mutex<HashMap<Wish, Arc<[Arc<Node>]>>>,
}

impl Candidates {
    pub(super) fn new(all: Vec<Arc<Node>>) -> Self {
        Self {
            all: all.into(),
            of_wish: Mutex::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn all(&self) -> &[Arc<Node>] {
        &self.all
    }

    /// Those that a request with this wish may go to.
    pub(super) fn within(&self, wish: Wish) -> Arc<[Arc<Node>]> {
        if wish == Wish::ANY {
            return Arc::clone(&self.all);
        }
        let mut of_wish = self.of_wish.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_wish.get(&wish) {
            return Arc::clone(known);
        }
        let has_key = |node: &Node| !wish.requires_pq() || node.offers_pq();
        let takes = |node: &&Arc<Node>| {
            wish.takes(node.labels) && has_key(node) && node.is_on(wish.hardware())
        };
        let list: Arc<[_]> = self.all.iter().filter(takes).cloned().collect();
        if of_wish.len() >= MAX_WISHES {
            of_wish.clear();
        }
        of_wish.insert(wish, Arc::clone(&list));
        list
    }
}

/// A place with one of `nodes`, which serve `model`, that is not in `tried`.
pub(super) fn choose(nodes: &[Arc<Node>], tried: &[Arc<Node>], model: &str) -> Option<Chosen> {
    let may = |node: &Arc<Node>| !tried.iter().any(|it| Arc::ptr_eq(it, node));
    let drawn = draw(nodes.len()).map(|place| nodes.get(place?).filter(|node| may(node)));
    let standing = drawn.map(|node| Some((node?, node?.health.standing_for(model))));
    let better = match standing {
        // It is to be tried by somebody.
        [Some((one, Standing::OnTrial)), _] | [_, Some((one, Standing::OnTrial))] => Some(one),
        [Some((one, Standing::Good)), Some((two, Standing::Good))] => {
            let is_second = two.load.cost().is_below(one.load.cost());
            Some(if is_second { two } else { one })
        }
        [Some((only, Standing::Good)), _] | [_, Some((only, Standing::Good))] => Some(only),
        _ => None,
    };
    better
        .and_then(Chosen::in_turn)
        .or_else(|| first_of_many(nodes, model, may))
}

/// Two different places, if there are two.
fn draw(count: usize) -> [Option<usize>; 2] {
    match count {
        0 => [None, None],
        1 => [Some(0), None],
        many => {
            let one = chance::draw(0..many);
            let on = chance::draw(1..many);
            [Some(one), Some((one + on) % many)]
        }
    }
}

/// The first that may be asked from some place on; one that is better left alone only where there is
/// no other.
fn first_of_many(
    nodes: &[Arc<Node>],
    model: &str,
    may: impl Fn(&Arc<Node>) -> bool,
) -> Option<Chosen> {
    let start = draw(nodes.len()).first().copied().flatten()?;
    let from_there = nodes.iter().cycle().skip(start).take(nodes.len());
    let (mut avoided, mut out) = (None, None);
    for node in from_there.take(MAX_PROBES).filter(|node| may(node)) {
        match node.health.standing_for(model) {
            Standing::Good | Standing::OnTrial => {
                if let Some(chosen) = Chosen::in_turn(node) {
                    return Some(chosen);
                }
            }
            // Held meanwhile, so that it is not full when it comes to it.
            Standing::Avoided => avoided = avoided.or_else(|| Chosen::new(node)),
            Standing::Out => out = out.or_else(|| Chosen::new(node)),
            Standing::Barred => {}
        }
    }
    avoided.or(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The model that is asked for.
    const M: &str = "m";
    use crate::{
        config::gateway::HealthConfig,
        gateway::{health::Shown, load::Share, node::Terms},
        sealer::Roots,
    };

    pub(in crate::gateway) fn nodes(count: usize, terms: Terms) -> Vec<Arc<Node>> {
        let url = |i| format!("http://127.0.0.1:{}", i + 1).parse().unwrap();
        (0..count)
            .map(|i| Arc::new(Node::new(url(i), None, Roots::Public, terms)))
            .collect()
    }

    fn place(nodes: &[Arc<Node>], chosen: Option<Chosen>) -> Option<usize> {
        let chosen = chosen?;
        nodes.iter().position(|it| Arc::ptr_eq(it, &chosen.node))
    }

    #[tokio::test]
    async fn the_less_busy_of_two_is_asked_and_none_twice() {
        let nodes = nodes(2, Terms::default());
        let busy = Chosen::new(&nodes[0]);
        for _ in 0..64 {
            assert_eq!(place(&nodes, choose(&nodes, &[], M)), Some(1));
        }
        assert_eq!(place(&nodes, choose(&nodes, &nodes[1..], M)), Some(0));
        assert!(choose(&nodes, &nodes, M).is_none());
        drop(busy);
        assert_eq!(nodes.iter().map(|node| node.in_flight()).sum::<u32>(), 0);
    }

    #[tokio::test]
    async fn nodes_share_by_what_they_hold() {
        let nodes = nodes(8, Terms::default());
        let held: Vec<_> = (0..800).map(|_| choose(&nodes, &[], M).unwrap()).collect();
        let (least, most) = (
            nodes.iter().map(|node| node.in_flight()).min().unwrap(),
            nodes.iter().map(|node| node.in_flight()).max().unwrap(),
        );
        assert!(most - least <= 16, "{least} to {most}");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn one_to_leave_alone_comes_last_and_a_barred_one_never() {
        let nodes = nodes(4, Terms::default());
        let chosen = |tried: &[Arc<Node>]| place(&nodes, choose(&nodes, tried, M));
        nodes[0].health.avoid(Duration::from_secs(1));
        nodes[1].health.bar(Duration::from_secs(2));
        nodes[3].health.put_out();
        for _ in 0..32 {
            assert_eq!(chosen(&[]), Some(2));
        }
        assert_eq!(
            chosen(&nodes[2..3]),
            Some(0),
            "the others had to be left alone"
        );
        let both = [Arc::clone(&nodes[0]), Arc::clone(&nodes[2])];
        assert_eq!(chosen(&both), Some(3), "all that is left");
        let all = [&both[..], &nodes[3..]].concat();
        assert_eq!(chosen(&all), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(chosen(&all), Some(1));
    }

    #[tokio::test]
    async fn a_full_node_gets_nothing_and_a_cheap_one_more() {
        let dear = Terms {
            share: Share {
                bias: 4.0,
                max_in_flight: 3,
                ..Share::default()
            },
            ..Terms::default()
        };
        let nodes = [nodes(1, Terms::default()), nodes(1, dear)].concat();
        let held: Vec<_> = (0..10).map(|_| choose(&nodes, &[], M).unwrap()).collect();
        let counts = [nodes[0].in_flight(), nodes[1].in_flight()];
        assert!(counts == [8, 2] || counts == [7, 3], "{counts:?}");
        let more: Vec<_> = (0..100).map(|_| choose(&nodes, &[], M).unwrap()).collect();
        assert_eq!(nodes[1].in_flight(), 3);
        assert!(choose(&nodes[1..], &[], M).is_none(), "it is full");
        drop((held, more));
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_a_node_that_was_out() {
        let nodes = nodes(2, Terms::default());
        let out = nodes[0].health.put_out();
        tokio::time::advance(out).await;
        assert!(!nodes[0].health.probed(true));
        let mut trial = choose(&nodes, &[], M).unwrap();
        assert!(Arc::ptr_eq(&trial.node, &nodes[0]), "at once");
        for _ in 0..16 {
            assert_eq!(place(&nodes, choose(&nodes, &[], M)), Some(1));
        }
        trial.began();
        assert_eq!(nodes[0].standing(), Standing::Good);
        drop(trial);

        let out = nodes[0].health.put_out();
        tokio::time::advance(out).await;
        nodes[0].health.probed(true);
        drop(choose(&nodes, &[], M));
        assert_eq!(nodes[0].standing(), Standing::OnTrial, "it showed nothing");
        let trial = choose(&nodes, &[], M);
        nodes[0].note(Shown::Failure);
        drop(trial);
        assert_eq!(nodes[0].standing(), Standing::Out);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_engine_keeps_its_own_model_away_alone() {
        let nodes = nodes(2, Terms::default());
        let chosen = |model: &str| place(&nodes, choose(&nodes, &[], model));
        nodes[0]
            .health
            .avoid_for(&"m".into(), Duration::from_secs(2));
        nodes[0]
            .health
            .avoid_for(&"m".into(), Duration::from_secs(1));
        let busy: Vec<_> = (0..8).map(|_| Chosen::new(&nodes[1])).collect();
        for _ in 0..32 {
            assert_eq!((chosen("m"), chosen("other")), (Some(1), Some(0)));
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(chosen("m"), Some(0), "it may have room again");
        drop(busy);
        for model in 0..100 {
            let model = format!("m{model}").into();
            nodes[0].health.avoid_for(&model, Duration::from_secs(1));
        }
        assert_eq!(nodes[0].standing(), Standing::Avoided, "so many are all");
        nodes[0].health.begin_anew();
        assert_eq!(nodes[0].health.standing_for("m0"), Standing::Good);
    }

    #[tokio::test]
    async fn a_wish_narrows_the_list() {
        let with = |labels| {
            let terms = Terms {
                labels,
                health: HealthConfig::default(),
                ..Terms::default()
            };
            nodes(2, terms)
        };
        let all = [with(1), with(2), with(3)].concat();
        let candidates = Candidates::new(all.clone());
        assert_eq!(candidates.within(Wish::ANY).len(), 6);
        let labels = crate::gateway::labels::tests::two_tags();
        let both = candidates.within(labels);
        assert_eq!(both.len(), 2);
        assert!(Arc::ptr_eq(&both, &candidates.within(labels)), "made once");
    }
}
