//! One run: a fleet, its callers, and what must be so when all is over.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use attestation::{Padding, software_root::SoftwareRoot};
use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    caller::{Outcome, Wanted},
    engine::{self, Engine, Mishaps, Worked},
    network::{Faults, Network},
};
use crate::{
    clock::Clock,
    config,
    gateway::tests::simulated as gateway,
    node::{SOFTWARE_MEASUREMENT, tests::simulated as node},
};

/// After so long nobody holds anything any more: longer than the longest wait in the roles.
const AT_REST_WITHIN: Duration = Duration::from_secs(2000);

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) callers: usize,
    /// When the last caller comes.
    pub(super) within: Duration,
    pub(super) to_nodes: Faults,
    pub(super) to_engines: Faults,
    pub(super) mishaps: Mishaps,
    /// Nodes that end, and come back with other keys.
    pub(super) restarts: usize,
    /// The least part of all requests, over all seeds, that must get their answers: a gateway that
    /// refuses everything would lie to nobody.
    pub(super) least_complete: (usize, usize),
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) all: usize,
    pub(super) complete: usize,
    pub(super) left: usize,
    /// Requests that went to nodes.
    pub(super) tries: usize,
    /// How long it took, in the time of the run.
    pub(super) seconds: usize,
}

/// Runs a plan, and holds it to what must always be so.
pub(super) fn simulate(seed: u64, plan: &Plan) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let network = Network::begin(seed);
    let ended = runtime.block_on(Run::begin(seed, plan, network));
    Network::end();
    ended
}

struct Run<'a> {
    plan: &'a Plan,
    rng: StdRng,
    network: Network,
    clock: Clock,
    worked: Worked,
    members: Vec<Member>,
    /// Every node that there was.
    gauges: Arc<Mutex<Vec<node::Gauges>>>,
}

/// One node with its engine.
struct Member {
    address: SocketAddr,
    config: String,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Run<'_> {
    async fn begin(seed: u64, plan: &Plan, network: Network) -> Ended {
        let mut run = Run {
            plan,
            rng: StdRng::seed_from_u64(seed ^ 0x5ea1_6a7e),
            network,
            clock: Clock::tokio(),
            worked: Worked::default(),
            members: Vec::new(),
            gauges: Arc::default(),
        };
        for number in 0..plan.nodes {
            run.add_member(number).await;
        }
        run.through().await
    }

    async fn add_member(&mut self, number: usize) {
        let engine = Engine::new(self.rng.random(), self.plan.mishaps, &self.worked);
        let (engine, _) = engine::start(&self.network, engine);
        self.network.set_faults(engine, self.plan.to_engines);
        let address = SocketAddr::from(([10, 0, 0, 1 + number as u8], 8090));
        let config = format!(
            "node_id = \"node-{number}\"\nlisten = \"{address}\"\n\
             evidence = {{ source = \"software-root\", dir = \"{}\" }}\n\
             [[engine]]\nurl = \"http://{engine}\"\nmodels = [\"m\"]\nmax_in_flight = 8\n",
            folder().display()
        );
        let (shutdown, served) = self.start_node(&config).await;
        self.members.push(Member {
            address,
            config,
            shutdown,
            served,
        });
    }

    async fn start_node(&self, text: &str) -> (CancellationToken, JoinHandle<()>) {
        let config = config::parse(Path::new("node.toml"), text, std::iter::empty()).unwrap();
        let (node, gauges) = node::bind(config, self.clock).await;
        self.gauges.lock().unwrap().push(gauges);
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(node.serve(shutdown.clone()));
        (shutdown, served)
    }

    async fn through(mut self) -> Ended {
        let nodes = self.members.iter();
        let nodes = nodes.map(|member| format!("[[node]]\nurl = \"http://{}\"\n", member.address));
        // Paced ones take many times the steps.
        let padding = match self.rng.random_range(0..10) {
            0 => Padding::Paced,
            1..5 => Padding::Off,
            _ => Padding::Bucket,
        };
        let text = format!(
            "listen = \"127.0.0.1:8080\"\npadding = \"{padding}\"\nauth = \"open\"\npolicy = \"policy.toml\"\n\
             reload_s = 100000\n{}",
            nodes.collect::<String>()
        );
        let path = folder().join("gateway.toml");
        let config = config::parse(&path, &text, std::iter::empty()).unwrap();
        let (gateway, held) = gateway::bind(config, self.clock).await;
        let address = gateway.address();
        let shutdown = CancellationToken::new();
        let first = gateway.first_verified();
        let serving = tokio::spawn(gateway.serve(shutdown.clone()));
        assert!(first.await.is_some());
        for member in &self.members {
            self.network.set_faults(member.address, self.plan.to_nodes);
        }
        let started = Instant::now();
        let wanted: Vec<_> = (0..self.plan.callers)
            .map(|number| Wanted::draw(&mut self.rng, number, self.plan.within))
            .collect();
        let (network, worked) = (self.network.clone(), self.worked.clone());
        let asking = wanted
            .iter()
            .map(|wanted| wanted.ask(&network, address, &worked));
        let asking = join_all(asking);
        let mut members = std::mem::take(&mut self.members);
        let restarting = self.restart(&mut members);
        let (outcomes, ()) = tokio::join!(asking, restarting);
        let seconds = started.elapsed().as_secs() as usize;
        self.at_rest(&held).await;
        for (wanted, outcome) in wanted.iter().zip(&outcomes) {
            let times = self.worked.on(&wanted.prompt);
            assert!(times <= 1, "{wanted:?} was worked on {times} times");
            let is_refusal = matches!(
                outcome,
                Outcome::Error {
                    not_executed: true,
                    ..
                }
            );
            assert!(
                !is_refusal || times == 0,
                "{wanted:?}: worked on after it was refused"
            );
            let is_complete = *outcome == Outcome::Complete;
            assert!(!is_complete || times == 1, "{wanted:?}: {times} times");
        }
        shutdown.cancel();
        serving.await.unwrap();
        for member in members {
            member.shutdown.cancel();
            member.served.await.unwrap();
        }
        let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|it| is(it)).count();
        Ended {
            all: outcomes.len(),
            complete: count(|it| *it == Outcome::Complete),
            left: count(|it| *it == Outcome::Left),
            tries: held.tries(),
            seconds,
        }
    }

    /// Ends nodes, at once or in order, and lets others with new keys take their places.
    async fn restart(&mut self, members: &mut [Member]) {
        for _ in 0..self.plan.restarts {
            let pause = self.plan.within / self.plan.restarts as u32;
            sleep(pause.mul_f64(self.rng.random_range(0.0..=1.5))).await;
            let place = self.rng.random_range(0..members.len());
            let member = &mut members[place];
            if self.rng.random_bool(0.5) {
                self.network.take_down(member.address);
                sleep(Duration::from_millis(self.rng.random_range(0..5000))).await;
            }
            member.shutdown.cancel();
            (member.shutdown, member.served) = self.start_node(&member.config).await;
        }
    }

    /// Waits until nobody holds anything.
    async fn at_rest(&self, gateway: &gateway::Gauges) {
        let deadline = Instant::now() + AT_REST_WITHIN;
        loop {
            let nodes: Vec<_> = {
                let nodes = self.gauges.lock().unwrap();
                nodes.iter().flat_map(node::Gauges::held).collect()
            };
            let held: Vec<_> = gateway.held().into_iter().chain(nodes).collect();
            if held.iter().all(|(_, count)| *count == 0) {
                return;
            }
            assert!(Instant::now() < deadline, "held for ever: {held:?}");
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A software root, and a policy that names it.
pub(super) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let name = format!("sealgate-simulation-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let root = SoftwareRoot::generate(Clock::system().now()).unwrap();
        let policy = format!(
            "version = 1\n[sev_snp]\namd_roots = false\nproducts = [\"genoa\"]\n\
             software_roots = [\"ark.pem\"]\nmeasurements = [\"{}\"]\n\
             [sev_snp.minimum_tcb.genoa]\nbootloader = 0\ntee = 0\nsnp = 0\nmicrocode = 0\n",
            hex::encode(SOFTWARE_MEASUREMENT)
        );
        let key = root.vcek_key_pem();
        let files: [(&str, &[u8]); 5] = [
            ("ark.pem", root.ark_pem().as_bytes()),
            ("ask.pem", root.ask_pem().as_bytes()),
            ("vcek.pem", root.vcek_pem().as_bytes()),
            ("vcek.key", key.as_bytes()),
            ("policy.toml", policy.as_bytes()),
        ];
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        folder
    })
}
