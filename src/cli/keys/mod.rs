//! `sealgate keys`: API keys of a gateway, in its store, or as digests in the file that its config names.

use std::{
    collections::BTreeSet,
    io,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use attestation::{Padding, time::from_rfc3339};
use clap::Subcommand;

use super::terminal;
use crate::{
    clock::Clock,
    config::{
        self, ConfigError, Loaded,
        gateway::{self, Auth, GatewayConfig, Label, ReceiptMode},
        prices::Money,
        terms::{Budget, KeyLimits, KeyTerms, Most, Period, Tee, Tees},
    },
    store::{KeyError, KeySecret, StoreError, is_name},
};

pub(super) mod file;
mod stored;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key, show it once, store its hash.
    Create {
        #[command(flatten)]
        file: File,
        /// What logs and lists call it.
        #[arg(long)]
        name: String,
        /// Whose it is, in any words.
        #[arg(long)]
        owner: Option<String>,
        /// When it ends: a time (RFC 3339), or how long from now, as 90d, 12h or 30m.
        #[arg(long, value_name = "WHEN", value_parser = parse_when)]
        expires: Option<When>,
        /// A model that it may ask, and again for another; all without one.
        #[arg(long, value_name = "MODEL")]
        model: Vec<String>,
        /// A region that its requests may go to, and again for another; all without one.
        #[arg(long, value_name = "REGION", value_parser = label)]
        region: Vec<Label>,
        /// A tag that a node must have to get its requests, and again for another.
        #[arg(long, value_name = "TAG", value_parser = label)]
        tag: Vec<Label>,
        /// Seal its requests with X-Wing alone, so only to nodes that have a key for it.
        #[arg(long)]
        require_pq: bool,
        /// A kind of TEE that its requests may go to: sev-snp, tdx or nitro, and again for another; all
        /// without one.
        #[arg(long, value_name = "TEE")]
        tee: Vec<Tee>,
        /// Send its requests to nodes alone in whose evidence is an NVIDIA GPU.
        #[arg(long)]
        require_gpu: bool,
        /// How its requests and their replies are padded, unless a request says so itself: off, bucket
        /// or paced; as the gateway's without it.
        #[arg(long, value_name = "PADDING")]
        padding: Option<Padding>,
        /// Whether nodes sign receipts of its requests: off, on or required; as the gateway's without it.
        #[arg(long, value_name = "MODE")]
        receipts: Option<ReceiptMode>,
        #[command(flatten)]
        amounts: Amounts,
        /// Print `{"key": …}` instead of words.
        #[arg(long)]
        json: bool,
    },
    /// List the keys.
    List {
        #[command(flatten)]
        file: File,
        /// Also those that are revoked or have expired.
        #[arg(long)]
        all: bool,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Make another secret for a key, show it once; the one of before goes on for a while.
    Rotate {
        #[command(flatten)]
        file: File,
        /// The key's name.
        name: String,
        /// How long the secret of before goes on, as 7d, 12h or 30m; 0m ends it now.
        #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = parse_span)]
        overlap: Duration,
        /// Print `{"key": …}` instead of words.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; running gateways forget it within seconds.
    Revoke {
        #[command(flatten)]
        file: File,
        /// The key's name.
        name: String,
    },
}

/// How much a key's requests may be.
#[derive(Debug, clap::Args)]
pub(super) struct Amounts {
    /// Most requests in a minute.
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<NonZeroU32>,
    /// Most tokens in a minute, of prompts and completions.
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<NonZeroU64>,
    /// Most requests at once.
    #[arg(long, value_name = "N")]
    in_flight: Option<NonZeroU32>,
    /// Most tokens in a day, a month (in UTC) or ever, as day=1000000, and again for another period.
    #[arg(long, value_name = "PERIOD=N", value_parser = budget_of_tokens)]
    budget_tokens: Vec<Budget>,
    /// Most money in a day, a month or ever, as month=12.50; models need a price (`[prices]`) then.
    #[arg(long, value_name = "PERIOD=AMOUNT", value_parser = budget_of_money)]
    budget_money: Vec<Budget>,
}

impl Amounts {
    /// # Errors
    /// [`KeysError::BudgetTwice`].
    fn read(self) -> Result<(KeyLimits, Vec<Budget>), KeysError> {
        for budgets in [&self.budget_tokens, &self.budget_money] {
            let mut periods = BTreeSet::new();
            let twice = budgets.iter().find(|it| !periods.insert(it.period));
            if let Some(twice) = twice {
                return Err(KeysError::BudgetTwice(twice.period));
            }
        }
        let limits = KeyLimits {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            in_flight: self.in_flight,
        };
        let budgets = self.budget_tokens.into_iter().chain(self.budget_money);
        Ok((limits, budgets.collect()))
    }
}

fn budget_of_tokens(text: &str) -> Result<Budget, String> {
    budget(text, |most| {
        let tokens = most.parse().map_err(|_| "a number of tokens".to_owned());
        tokens.map(Most::Tokens)
    })
}

fn budget_of_money(text: &str) -> Result<Budget, String> {
    budget(text, |most| {
        let money: Result<Money, _> = most.parse();
        money.map(Most::Money).map_err(|error| error.to_string())
    })
}

fn budget(text: &str, most: impl FnOnce(&str) -> Result<Most, String>) -> Result<Budget, String> {
    let (period, rest) = text
        .split_once('=')
        .ok_or("a period, =, and how much, as day=1000")?;
    let period: Result<Period, _> = period.parse();
    Ok(Budget {
        period: period.map_err(|error| error.to_string())?,
        most: most(rest)?,
    })
}

#[derive(Debug, clap::Args)]
pub(super) struct File {
    /// The gateway's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl File {
    /// # Errors
    /// [`ConfigError`], also for what a gateway would not start with.
    pub(super) fn load(&self) -> Result<Loaded<GatewayConfig>, ConfigError> {
        let config = config::load(&self.config)?;
        gateway::check(&config)?;
        Ok(config)
    }

    /// The same, to change keys that a gateway goes by.
    ///
    /// # Errors
    /// [`KeysError::Open`] where it goes by none.
    fn of_keys(&self) -> Result<Loaded<GatewayConfig>, KeysError> {
        let config = self.load()?;
        match config.value.auth {
            Auth::Keys => Ok(config),
            Auth::Open => Err(KeysError::Open),
        }
    }
}

/// What can be wrong with the keys.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{}: {source}", path.display())]
    Edit {
        path: PathBuf,
        source: toml_edit::TomlError,
    },
    #[error(
        "{}: `key` is a list in one line: write each key as a [[key]] table, which can be edited",
        path.display()
    )]
    Form { path: PathBuf },
    #[error("{}: {}", path.display(), config::in_words(source))]
    Write { path: PathBuf, source: io::Error },
    #[error("the key could not be shown, so none is stored: {0}")]
    Unshown(io::Error),
    #[error("a key named {0:?} exists already: choose another name, or revoke it first")]
    Taken(String),
    #[error("no key is named {0:?}: see `sealgate keys list`")]
    Unknown(String),
    #[error("a name is 1 to 64 visible ASCII characters")]
    BadName,
    #[error(
        "keys in a file have a name and what they may ask: for owners, ends, rotation, receipts, limits and budgets take \
         `keys_file` out of the configuration, so that keys are in a [store]"
    )]
    OfStore,
    #[error("auth is open: no key is asked for; take `auth` out of the configuration first")]
    Open,
    #[error("a key has one budget of a kind for a period: {0} is there twice")]
    BudgetTwice(Period),
    #[error("that is in the past: the key would open nothing")]
    Past,
}

/// A key that is to be made.
struct Made {
    name: String,
    owner: Option<String>,
    expires_at: Option<SystemTime>,
    terms: KeyTerms,
}

/// How a key is shown.
struct Shown {
    json: bool,
}

impl Shown {
    /// Shows a key, the only time.
    ///
    /// # Errors
    /// [`KeysError::Unshown`].
    fn show(&self, key: &KeySecret) -> Result<(), KeysError> {
        let shown = if self.json {
            terminal::show(serde_json::json!({ "key": key.as_str() }))
        } else {
            terminal::show(key.as_str())
        };
        shown.map_err(KeysError::Unshown)
    }

    fn and_say(&self, what: &str) {
        if !self.json {
            terminal::note(what);
        }
    }
}

pub(super) fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Create {
            file,
            name,
            owner,
            expires,
            model,
            region,
            tag,
            require_pq,
            tee,
            require_gpu,
            padding,
            receipts,
            amounts,
            json,
        } => {
            let (limits, budgets) = match amounts.read() {
                Ok(read) => read,
                Err(error) => return terminal::fail(error),
            };
            let terms = KeyTerms {
                models: (!model.is_empty()).then(|| BTreeSet::from_iter(model)),
                regions: (!region.is_empty()).then_some(region),
                tags: tag,
                require_pq,
                tees: Tees::try_from(BTreeSet::from_iter(tee)).ok(),
                require_gpu,
                padding,
                receipts,
                limits,
                budgets,
            };
            create(&file, (name, owner, expires), terms, &Shown { json })
        }
        Command::List { file, all, json } => list(&file, all, json),
        Command::Rotate {
            file,
            name,
            overlap,
            json,
        } => rotate(&file, &name, overlap, &Shown { json }),
        Command::Revoke { file, name } => revoke(&file, &name),
    };
    done.map_or_else(terminal::fail, |()| ExitCode::SUCCESS)
}

fn create(
    file: &File,
    (name, owner, expires): (String, Option<String>, Option<When>),
    terms: KeyTerms,
    shown: &Shown,
) -> Result<(), KeysError> {
    if !is_name(&name) {
        return Err(KeysError::BadName);
    }
    let now = Clock::system().now();
    let expires_at = expires.map(|when| when.after(now));
    if expires_at.is_some_and(|at| at <= now) {
        return Err(KeysError::Past);
    }
    let made = Made {
        name,
        owner,
        expires_at,
        terms,
    };
    let config = file.of_keys()?;
    match config.value.keys_file {
        Some(_) => file::create(&config, &made, shown)?,
        None => stored::create(&config, made, shown)?,
    }
    shown.and_say(
        "this is the only time the key is shown; a running gateway takes it within seconds",
    );
    Ok(())
}

fn list(file: &File, all: bool, json: bool) -> Result<(), KeysError> {
    let config = file.load()?;
    match config.value.keys_file {
        Some(_) => file::list(&config, json),
        None => stored::list(&config, all, json),
    }
}

fn rotate(file: &File, name: &str, overlap: Duration, shown: &Shown) -> Result<(), KeysError> {
    let config = file.of_keys()?;
    if config.value.keys_file.is_some() {
        return Err(KeysError::OfStore);
    }
    stored::rotate(&config, name, overlap, shown)?;
    shown.and_say(
        "this is the only time the key is shown; the one of before ends after the overlap",
    );
    Ok(())
}

fn revoke(file: &File, name: &str) -> Result<(), KeysError> {
    let config = file.of_keys()?;
    match config.value.keys_file {
        Some(_) => file::revoke(&config, name)?,
        None => stored::revoke(&config, name)?,
    }
    terminal::note("revoked; a running gateway forgets it within seconds, or at once on SIGHUP");
    Ok(())
}

fn label(text: &str) -> Result<Label, &'static str> {
    Label::new(text).ok_or("1 to 64 of a-z, 0-9 and -")
}

/// A time, or how long from now, or ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(SystemTime),
    In(Duration),
}

impl When {
    pub(super) fn before(self, now: SystemTime) -> SystemTime {
        match self {
            Self::At(time) => time,
            Self::In(span) => now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    fn after(self, now: SystemTime) -> SystemTime {
        match self {
            Self::At(time) => time,
            Self::In(span) => now.checked_add(span).unwrap_or(now),
        }
    }
}

pub(super) fn parse_when(text: &str) -> Result<When, &'static str> {
    let time = from_rfc3339(text).map(When::At);
    time.map_or_else(|| parse_span(text).map(When::In), Ok)
}

/// A whole number of days, hours or minutes.
fn parse_span(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "a number with d, h or m behind it, as 90d, 12h or 30m";
    /// Longest span: a hundred years.
    const MOST: u64 = 100 * 366 * 86_400;
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or(WRONG)?;
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        _ => return Err(WRONG),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number
        .then(|| number.parse().ok())
        .flatten()
        .ok_or(WRONG)?;
    let span = number.checked_mul(seconds).filter(|span| *span <= MOST);
    span.map(Duration::from_secs)
        .ok_or("at most a hundred years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times() {
        let hours = |n: u64| Ok(When::In(Duration::from_secs(n * 3600)));
        let cases = [
            ("12h", hours(12)),
            ("2d", hours(48)),
            ("0m", hours(0)),
            ("60m", hours(1)),
            (
                "1970-01-01T00:00:01Z",
                Ok(When::At(SystemTime::UNIX_EPOCH + Duration::from_secs(1))),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_when(text), expected, "{text}");
        }
        for text in [
            "",
            "d",
            "12",
            "-1h",
            "+1h",
            "1.5h",
            "12 h",
            "1é",
            "99999999999999999999d",
            "40000d",
        ] {
            assert!(parse_when(text).is_err(), "{text}");
        }
    }
}
