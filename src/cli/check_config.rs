//! `sealgate check-config`: what is wrong with a file, which key, what to do.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use attestation::Policy;

use super::terminal;
use crate::config::{
    self, ConfigError, Loaded,
    gateway::{self, GatewayConfig, KeysFile},
    node::{self, NodeConfig},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A gateway's or node's configuration, a policy or a key file.
    file: PathBuf,
    /// Look at the file alone, not at the files that it names; a policy's roots are always read.
    #[arg(long)]
    syntax_only: bool,
}

/// What a file turned out to be, by the keys at its top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Node,
    Policy,
    Keys,
}

/// Keys that only one kind of file has, in the order in which they are looked for.
const SIGNS: [(&str, Kind); 11] = [
    ("node_id", Kind::Node),
    ("engine", Kind::Node),
    ("evidence", Kind::Node),
    ("sev_snp", Kind::Policy),
    ("tdx", Kind::Policy),
    ("nitro", Kind::Policy),
    ("nvidia", Kind::Policy),
    ("bundle_signers", Kind::Policy),
    ("policy", Kind::Gateway),
    ("node", Kind::Gateway),
    ("key", Kind::Keys),
];

pub(super) fn run(args: &Args) -> ExitCode {
    match check(&args.file, args.syntax_only) {
        Ok(what) => {
            terminal::say(format_args!(
                "{}: a {what}, nothing wrong",
                args.file.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => terminal::fail(error),
    }
}

fn check(path: &Path, syntax_only: bool) -> Result<&'static str, Box<dyn std::error::Error>> {
    let table: Loaded<toml::Table> =
        config::parse(path, &config::read_text(path)?, std::iter::empty())?;
    let kind = SIGNS.iter().find(|(key, _)| table.value.contains_key(*key));
    match kind.map(|(_, kind)| kind) {
        Some(Kind::Gateway) => {
            let config: Loaded<GatewayConfig> = config::load(path)?;
            gateway::check(&config)?;
            if !syntax_only {
                crate::gateway::check_files(&config)?;
            }
            Ok("gateway configuration")
        }
        Some(Kind::Node) => {
            let config: Loaded<NodeConfig> = config::load(path)?;
            node::check(&config)?;
            if !syntax_only {
                crate::node::check_files(&config)?;
            }
            Ok("node configuration")
        }
        Some(Kind::Policy) => {
            let text = config::read_text(path)?;
            let mut read = |name: &str| std::fs::read(table.resolve(Path::new(name)));
            Policy::from_toml(&text, &mut read)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            Ok("policy")
        }
        Some(Kind::Keys) => {
            // As the gateway reads it: variables of the environment are not for this file.
            let file: Loaded<KeysFile> =
                config::parse(path, &config::read_text(path)?, std::iter::empty())?;
            each_once(&file)?;
            Ok("key file")
        }
        None => Err(Box::new(unknown(&table))),
    }
}

/// Two keys of one name or one digest stop a gateway's start.
fn each_once(file: &Loaded<KeysFile>) -> Result<(), ConfigError> {
    let (mut names, mut digests) = (HashSet::new(), HashSet::new());
    for key in &file.value.keys {
        if !names.insert(&key.name) || !digests.insert(key.sha256) {
            return Err(file.invalid("key", format!("the key {} is there twice", key.name)));
        }
    }
    Ok(())
}

fn unknown(table: &Loaded<toml::Table>) -> ConfigError {
    let message = "no file of sealgate begins so: a gateway has `policy` and [[node]], a node \
                   has `node_id` and [[engine]], a policy has [sev_snp], [tdx] or [nitro], a key file \
                   has [[key]]";
    table.invalid("(top)", message)
}
