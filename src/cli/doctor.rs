//! `sealgate doctor`: what this machine can attest, what is missing, what to do.
//!
//! It looks, asks each source once, and changes nothing. Its exit code says whether a node could
//! attest here.

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use self::survey::{Finding, Machine, Status};
use super::terminal;
use crate::{
    clock::Clock,
    config::{
        self, Loaded,
        node::{self as node_config, EvidenceConfig, NodeConfig},
    },
    node::probe,
};

mod survey;
#[cfg(test)]
mod tests;

/// Version of the JSON that `--json` writes.
const JSON_VERSION: u32 = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A node's configuration: its source of evidence and its engines are asked too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write one JSON object in place of lines.
    #[arg(long)]
    json: bool,
    /// Where /dev, /proc, /run and /sys are looked for.
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
    /// NVIDIA's management library.
    #[arg(long, hide = true, default_value = probe::NVML_LIBRARY)]
    library: PathBuf,
}

/// What was found, and what follows from it.
#[derive(Debug, Serialize)]
struct Examination {
    version: u32,
    can_attest: bool,
    /// The sources that would give evidence here, as `evidence.source` names them.
    sources: Vec<&'static str>,
    findings: Vec<Finding>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let machine = Machine {
        root: &args.root,
        tsm: &|root| probe::tsm_provider(root).map_err(|error| error.to_string()),
        gpus: &|| probe::gpus(&args.library).map_err(|error| error.to_string()),
        now: Clock::system().now(),
    };
    let mut findings = machine.examine();
    let sources: Vec<_> = findings.iter().filter_map(|it| it.source).collect();
    let can_attest = match &args.config {
        None => !sources.is_empty(),
        Some(path) => match configured(path, &mut findings) {
            Ok(can_attest) => can_attest,
            Err(error) => return terminal::fail(error),
        },
    };
    let examination = Examination {
        version: JSON_VERSION,
        can_attest,
        sources,
        findings,
    };
    if args.json {
        match serde_json::to_string_pretty(&examination) {
            Ok(json) => terminal::say(json),
            Err(error) => return terminal::fail(error),
        }
    } else {
        terminal::say(examination.as_text(args.config.is_some()));
    }
    if can_attest {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Adds what a node of the configuration at `path` would meet, and says whether it could attest.
fn configured(
    path: &std::path::Path,
    findings: &mut Vec<Finding>,
) -> Result<bool, Box<dyn std::error::Error>> {
    let config: Loaded<NodeConfig> = config::load(path)?;
    node_config::check(&config)?;
    let shown = path.display().to_string();
    let evidence = match probe::evidence(&config) {
        Ok(kinds) => {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
            let kinds = kinds.join(", ");
            let found = match config.value.evidence {
                EvidenceConfig::SoftwareRoot { .. } => {
                    format!("{kinds} under a software root: no hardware stands behind it")
                }
                _ => kinds,
            };
            Finding::new("evidence", Status::Ok, &shown, found)
        }
        Err(error) => Finding::new("evidence", Status::Problem, &shown, error.to_string())
            .todo("mend what is named; a node of this configuration does not start"),
    };
    let gives_evidence = evidence.status == Status::Ok;
    findings.push(evidence);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut serves = false;
    for (url, said) in runtime.block_on(probe::engines(&config)) {
        findings.push(match said {
            Ok(models) => {
                serves = true;
                let found = match &models[..] {
                    [] => "answers".to_owned(),
                    models => format!("answers, models: {}", models.join(", ")),
                };
                Finding::new("engine", Status::Ok, &url, found)
            }
            Err(error) => Finding::new("engine", Status::Problem, &url, error)
                .todo("start it; a node without an engine gives no evidence"),
        });
    }
    Ok(gives_evidence && serves)
}

impl Examination {
    /// Lines for a person: what was looked at, what was found, and below it what to do.
    fn as_text(&self, is_configured: bool) -> String {
        let width = self.findings.iter().map(|it| it.id.len()).max();
        let width = width.unwrap_or_default();
        let mut text = String::new();
        for finding in &self.findings {
            let Finding {
                id,
                status,
                looked_at,
                found,
                todo,
                ..
            } = finding;
            let status = status.as_str();
            text += &format!("{status:7}  {id:width$}  {looked_at}: {found}\n");
            if let Some(todo) = todo {
                text += &format!("{:7}  {:width$}  -> {todo}\n", "", "");
            }
        }
        text += "\n";
        text += &match (self.can_attest, is_configured) {
            (true, true) => "A node of this configuration can attest here.".to_owned(),
            (false, true) => "A node of this configuration cannot attest here.".to_owned(),
            (true, false) => {
                let sources = self.sources.join("\" or \"");
                format!("A node can attest here, with evidence.source = \"{sources}\".")
            }
            (false, false) => "No node can attest here: no CPU's report is to be had. A software \
                               root (`sealgate demo --dir`) is for trying things out."
                .to_owned(),
        };
        text
    }
}
