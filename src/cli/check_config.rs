//! `sealgate check-config`: what is wrong with a file, which key, what to do.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use attestation::Policy;

use super::{policy::warnings::software_roots, terminal, verify::input};
use crate::{
    config::{
        self, ConfigError, Loaded,
        gateway::{self, GatewayConfig, KeysFile},
        node::{self, EvidenceConfig, NodeConfig},
    },
    gateway::StartError,
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
const SIGNS: [(&str, Kind); 12] = [
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
    // Only a policy has one; the least has nothing else.
    ("version", Kind::Policy),
];

pub(super) fn run(args: &Args) -> ExitCode {
    match check(&args.file, args.syntax_only) {
        Ok((what, notes)) => {
            terminal::say(format_args!(
                "{}: a {what}, nothing wrong",
                args.file.display()
            ));
            notes.iter().for_each(terminal::say);
            ExitCode::SUCCESS
        }
        Err(error) => terminal::fail(error),
    }
}

/// What a file is, and what is to be known of it.
type Checked = (&'static str, Vec<String>);

fn check(path: &Path, syntax_only: bool) -> Result<Checked, Box<dyn std::error::Error>> {
    let table: Loaded<toml::Table> =
        config::parse(path, &config::read_text(path)?, std::iter::empty())?;
    let kind = SIGNS.iter().find(|(key, _)| table.value.contains_key(*key));
    match kind.map(|(_, kind)| kind) {
        Some(Kind::Gateway) => {
            let config: Loaded<GatewayConfig> = config::load(path)?;
            gateway::check(&config)?;
            let mut notes = Vec::new();
            if !syntax_only {
                crate::gateway::check_files(&config).map_err(|error| named(&config, &error))?;
                notes.extend(crate::gateway::warnings(&config));
                notes.extend(of_policy(&input::policy(
                    &config.resolve(&config.value.policy),
                )?));
            }
            let attestation = config.value.attestation.as_ref();
            let is_software = attestation
                .is_some_and(|it| matches!(it.evidence, EvidenceConfig::SoftwareRoot { .. }));
            let note = format!("attestation.evidence.source: {SOFTWARE_ROOT}");
            notes.extend(is_software.then_some(note));
            Ok(("gateway configuration", notes))
        }
        Some(Kind::Node) => {
            let config: Loaded<NodeConfig> = config::load(path)?;
            node::check(&config)?;
            let mut notes = Vec::new();
            if !syntax_only {
                crate::node::check_files(&config)?;
                notes.extend(crate::node::warnings(&config));
            }
            let is_software = matches!(config.value.evidence, EvidenceConfig::SoftwareRoot { .. });
            let note = format!("evidence.source: {SOFTWARE_ROOT}");
            notes.extend(is_software.then_some(note));
            Ok(("node configuration", notes))
        }
        Some(Kind::Policy) => {
            let policy = input::policy(path)?;
            Ok(("policy", of_policy(&policy)))
        }
        Some(Kind::Keys) => {
            // As the gateway reads it: variables of the environment are not for this file.
            let file: Loaded<KeysFile> =
                config::parse(path, &config::read_text(path)?, std::iter::empty())?;
            each_once(&file)?;
            Ok(("key file", Vec::new()))
        }
        None => Err(unknown(&table).into()),
    }
}

/// What has to be said of whatever rests on one.
const SOFTWARE_ROOT: &str = "a software root: no hardware stands behind it";

fn of_policy(policy: &Policy) -> Vec<String> {
    let roots = software_roots(policy).into_iter();
    let mut notes: Vec<_> = roots
        .filter(|(_, trusts)| *trusts)
        .map(|(table, _)| format!("{table}.software_roots: {SOFTWARE_ROOT}"))
        .collect();
    if policy.review().accepts_no_node {
        notes.push("the policy accepts no node: `sealgate policy check` says why".to_owned());
    }
    notes
}

/// An error of a gateway's start, with the key of the configuration that names the file.
pub(super) fn named(config: &Loaded<GatewayConfig>, error: &StartError) -> String {
    let value = &config.value;
    let admin_token = value.admin.as_ref().and_then(|it| it.token_file.as_ref());
    let proxy = value.proxy.as_ref();
    let login = proxy.and_then(|it| it.credential_file.as_ref());
    let files = [
        ("admin.token_file", admin_token),
        ("proxy.credential_file", login),
        ("policy", Some(&value.policy)),
        ("keys_file", value.keys_file.as_ref()),
    ];
    let path = match error {
        StartError::Policy { path, .. } => Some(path),
        StartError::Config(
            ConfigError::Read { path, .. }
            | ConfigError::TooLong { path }
            | ConfigError::Parse { path, .. },
        ) => Some(path),
        _ => None,
    };
    let is_it = |file: &PathBuf| path == Some(&config.resolve(file));
    let mut keys = files.iter().filter(|(_, file)| file.is_some_and(is_it));
    match keys.next() {
        Some((key, _)) => format!("{}: {key}: {error}", config.path.display()),
        None if matches!(error, StartError::Bundle(_)) => {
            format!("{}: {error}", config.path.display())
        }
        None => error.to_string(),
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

fn unknown(table: &Loaded<toml::Table>) -> String {
    let path = table.path.display();
    let what = if table.value.is_empty() {
        "empty"
    } else {
        "no file of sealgate's"
    };
    format!(
        "{path}: {what}: a gateway has `policy` and [[node]], a node has `node_id` and [[engine]], a \
         policy has `version` and [sev_snp], [tdx], [nitro] or [nvidia], a key file has [[key]]"
    )
}
