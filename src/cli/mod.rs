//! The commands: arguments become one role, its end an exit code.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::telemetry::{self, LogFormat};

mod audit;
mod bundle;
mod check_config;
mod demo;
mod doctor;
mod hardening;
mod keys;
mod policy;
mod receipt;
mod role;
mod service;
mod store;
mod terminal;
mod usage;
mod verify;

/// A private, OpenAI-compatible endpoint: prompts leave only sealed to keys of attested nodes.
#[derive(Debug, Parser)]
#[command(
    name = "sealgate",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    /// How much to log: off, error, warn, info, debug or trace. No level logs content.
    #[arg(
        long,
        global = true,
        env = "SEALGATE_LOG",
        default_value = "info",
        value_name = "LEVEL",
        help_heading = "Logging"
    )]
    log: LevelFilter,
    /// How to write log lines.
    #[arg(
        long,
        global = true,
        env = "SEALGATE_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Logging"
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try everything on this machine: a software root, a node and a gateway in one process.
    Demo(demo::Args),
    /// Serve the OpenAI-compatible contract and seal every request to an attested node.
    Gateway(RoleArgs),
    /// Open sealed requests inside the TEE, beside the engine.
    Node(RoleArgs),
    /// Appraise attestation evidence offline: every check, what it expects and what it sees.
    Verify(Box<verify::VerifyArgs>),
    /// Check, explain, compare and propose appraisal policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Make, list, rotate and revoke API keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Sum what keys used, by key, model, node or day.
    Usage(usage::Args),
    /// Verify what nodes sign of their replies, offline.
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// List and verify the audit log.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Say what this machine can attest, what is missing and what to do.
    Doctor(doctor::Args),
    /// Collateral and reference values from vendors: fetched, checked, signed into a bundle.
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Say what is wrong with a configuration, policy or key file, and what to do.
    CheckConfig(check_config::Args),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual: a page for the program and one for each command.
    Man,
}

#[derive(Debug, clap::Args)]
struct RoleArgs {
    /// The configuration; every key can be overridden by a SEALGATE_* variable.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if telemetry::init(cli.log, cli.log_format).is_err() {
        return terminal::fail("logging was started twice in this process");
    }
    terminal::ended(run(cli.command))
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Gateway(args) => role::gateway(&args.config),
        Command::Node(args) => role::node(&args.config),
        Command::Verify(args) => verify::run(&args),
        Command::Policy(command) => policy::run(command),
        Command::Keys(command) => keys::run(command),
        Command::Usage(args) => usage::run(&args),
        Command::Receipt(command) => receipt::run(&command),
        Command::Audit(command) => audit::run(command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bundle(command) => bundle::run(command),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "sealgate", &mut script);
            terminal::print_bytes(&script)
        }
        Command::Man => {
            let mut command =
                <Cli as clap::CommandFactory>::command().disable_help_subcommand(true);
            command.build();
            let mut pages = Vec::new();
            match manual(&command, &mut pages) {
                Ok(()) => terminal::print_bytes(&pages),
                Err(error) => terminal::fail(error),
            }
        }
    }
}

/// The page of `command` and, after it, those of the commands below it.
fn manual(command: &clap::Command, pages: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(pages)?;
    command
        .get_subcommands()
        .try_for_each(|below| manual(below, pages))
}
