//! A policy proposed from evidence that somebody trusts for other reasons.
//!
//! Each line is what the evidence shows, read and not verified: whoever takes it up has to confirm
//! it from a second source, and only the appraisal under the finished policy says whether the
//! evidence passes.

use crate::answer::{Answer, EvidenceItem, EvidenceKind};
use crate::statement::{EngineLocation, Statement};
use crate::{nitro, nvidia, sev_snp, tdx};

/// What stands before a line of a proposal until somebody confirms it.
pub const UNCONFIRMED: &str = "#? ";

/// The lines of a proposed policy, by table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Proposal {
    /// In the order in which they are written; a table is there once.
    pub tables: Vec<Table>,
}

/// One table of a policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its name, for instance `sev_snp.minimum_tcb.genoa`; empty for the top level.
    pub name: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One key of a policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// The key.
    pub key: &'static str,
    /// Its value, as TOML.
    pub value: String,
    /// What it means to accept it, and how it can be confirmed.
    pub confirm: &'static str,
}

impl Line {
    pub(crate) fn new(key: &'static str, value: impl Into<String>, confirm: &'static str) -> Self {
        Self {
            key,
            value: value.into(),
            confirm,
        }
    }

    /// A list with one text in it.
    pub(crate) fn one(key: &'static str, text: impl AsRef<str>, confirm: &'static str) -> Self {
        Self::new(key, format!("[\"{}\"]", escaped(text.as_ref())), confirm)
    }

    /// A list with one digest in it.
    pub(crate) fn hex(key: &'static str, bytes: &[u8], confirm: &'static str) -> Self {
        Self::one(key, hex::encode(bytes), confirm)
    }
}

/// A text as it stands in a basic string of TOML; control characters are shown as such.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

impl Table {
    pub(crate) fn new(name: impl Into<String>, lines: Vec<Line>) -> Self {
        Self {
            name: name.into(),
            lines,
        }
    }
}

/// Proposes what would accept a node's answer.
///
/// # Errors
/// What cannot be read, in words: its statement or one of its reports.
pub fn propose(answer: &Answer) -> Result<Proposal, String> {
    let statement = Statement::parse(&answer.statement).map_err(|error| error.to_string())?;
    let mut top = Vec::new();
    match statement.engine() {
        EngineLocation::Local => {}
        EngineLocation::Remote => top.push(Line::new(
            "allow_remote_engine",
            "true",
            "the engine is on another machine, where no evidence covers the prompts",
        )),
        EngineLocation::Attested => top.push(Line::new(
            "allow_attested_engine",
            "true",
            "a gateway, which hands prompts to nodes under its own policy: config_sha256 pins that",
        )),
    }
    top.push(Line::hex(
        "config_sha256",
        statement.config_sha256(),
        "the node's configuration: compare with a node that you set up yourself",
    ));
    let mut tables = vec![Table::new("", top)];
    let is_gpu = |item: &&EvidenceItem| item.kind == EvidenceKind::NvidiaGpu;
    let gpus = answer.evidence.iter().filter(is_gpu).count();
    for item in &answer.evidence {
        for table in of_item(item, gpus)? {
            if !tables.iter().any(|known| known.name == table.name) {
                tables.push(table);
            }
        }
    }
    Ok(Proposal { tables })
}

/// Proposes what would accept one piece of raw evidence.
///
/// # Errors
/// What cannot be read, in words.
pub fn propose_item(item: &EvidenceItem) -> Result<Proposal, String> {
    of_item(item, 1).map(|tables| Proposal { tables })
}

fn of_item(item: &EvidenceItem, gpus: usize) -> Result<Vec<Table>, String> {
    let (report, certificates) = (&item.report, &item.certificates);
    match item.kind {
        EvidenceKind::SevSnp => sev_snp::propose(report, certificates),
        EvidenceKind::Tdx => tdx::propose(report, &item.collateral),
        EvidenceKind::Nitro => nitro::propose(report),
        EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch => {
            nvidia::propose(item.kind, report, certificates, gpus)
        }
        EvidenceKind::AzureSnp => Err("no policy is proposed from azure-snp evidence".to_owned()),
    }
}

impl Proposal {
    /// The policy with every line in force, as if all had been confirmed.
    pub fn to_confirmed_toml(&self) -> String {
        self.to_toml("")
    }

    /// The policy as text in which each line waits behind [`UNCONFIRMED`] for its confirmation.
    pub fn to_unconfirmed_toml(&self) -> String {
        self.to_toml(UNCONFIRMED)
    }

    fn to_toml(&self, before: &str) -> String {
        let mut text = String::from("version = 1\n");
        for table in &self.tables {
            if !table.name.is_empty() {
                text.push_str(&format!("\n[{}]\n", table.name));
            }
            for Line {
                key,
                value,
                confirm,
            } in &table.lines
            {
                text.push_str(&format!("# {confirm}\n{before}{key} = {value}\n"));
            }
        }
        text
    }
}
