//! The command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::externalip::Size;

/// Drives a manager against a control plane of its own and prints what it costs.
///
/// Nothing fails because a figure is bad. Machines differ and are shared: compare ratios within one run, and runs on
/// one quiet machine, never absolute figures of two machines.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// What is measured instead of the runs about claims
    #[command(subcommand)]
    pub topic: Option<Topic>,
    /// Command line of the manager, separated by spaces [default: `manager run` beside this program]
    #[arg(long, global = true)]
    manager: Option<String>,
    /// How many claims are bound at once, one round of runs for each
    #[arg(long, value_delimiter = ',', default_value = "250,1000", value_parser = at_least_one)]
    pub sizes: Vec<usize>,
    /// Over how many pools they are spread, one round of runs for each
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = at_least_one)]
    pub pools: Vec<usize>,
    /// What is measured [default: all but loaded]
    #[arg(long, value_delimiter = ',', value_enum, hide_default_value = true,
        default_values_t = Run::value_variants().iter().copied().filter(|run| *run != Run::Loaded))]
    pub runs: Vec<Run>,
    /// Requests of the load generator that are under way at once, each on a connection of its own
    #[arg(long, global = true, default_value = "32", value_parser = at_least_one)]
    pub connections: usize,
    /// How often `steady` makes and deletes a claim
    #[arg(long, default_value = "200", value_parser = at_least_one)]
    pub rounds: usize,
    /// How many claims wait in `waiters`
    #[arg(long, default_value = "1000", value_parser = at_least_one)]
    pub waiters: usize,
    /// Create claims that carry the finalizer already, as Cluster API's users with our claim webhook do
    #[arg(long)]
    pub with_finalizer: bool,
    /// Put Cluster API's real webhooks before claims and addresses, with a core manager that may read so many claims a second:
    /// 20 is the default of its releases up to 1.12, 100 that of later ones
    #[arg(long, value_name = "none|NUMBER", default_value = "none")]
    pub capi_limit: CapiLimit,
    /// How the figures are printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub out: Out,
    /// Folder for the curves, drawn as SVG
    #[arg(long, default_value = "out/bench")]
    pub curves: PathBuf,
}

/// How many requests a second Cluster API's core manager may send for each kind, if it is there at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapiLimit(pub Option<u32>);

impl FromStr for CapiLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "none" => Ok(Self(None)),
            Ok(0) | Err(_) => Err("must be none, or a number above 0".to_owned()),
            Ok(number) => Ok(Self(Some(number))),
        }
    }
}

/// What else is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Topic {
    /// Many Services that get the addresses of many DNS names, and Services on a web service that does not work
    Externalip(Size),
}

/// One kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Run {
    /// Create claims as fast as the server takes them; beside it the server's raw ceiling
    Fill,
    /// Create claims, then start a manager beside them
    Backlog,
    /// Resident memory and requests while nothing happens
    Memory,
    /// Make and delete one claim after the other
    Steady,
    /// Create claims in even steps, at 0.8 of what the server can take
    Paced,
    /// Kill the manager and start it again
    Restart,
    /// Delete all claims
    Drain,
    /// Put bound claims and their addresses into the store, start a manager beside them, use it
    Loaded,
    /// Free addresses of a full pool that others wait for
    Waiters,
    /// Fill with two active managers
    Two,
    /// The ledger alone, in this process
    Ledger,
}

/// How the figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Out {
    /// Tables for people
    Table,
    /// One JSON object
    Json,
}

impl Args {
    /// Whether any of `runs` was asked for.
    pub fn any(&self, runs: &[Run]) -> bool {
        self.runs.iter().any(|run| runs.contains(run))
    }

    /// The manager's command line.
    pub fn manager(&self) -> Result<String> {
        if let Some(line) = &self.manager {
            return Ok(line.clone());
        }
        let program = std::env::current_exe()?.parent().map(|folder| folder.join("manager")).filter(|path| path.exists());
        let program = program.context("there is no manager beside this program: build it, or name one with --manager")?;
        Ok(format!("{} run", shown(&program)))
    }
}

/// Relative to the working folder where that is shorter.
fn shown(path: &Path) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&folder).unwrap_or(path).display().to_string()
}

/// A number above 0.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_choice_everything_is_measured_on_a_server_that_made_it() {
        let args = Args::parse_from(["bench"]);
        let missing: Vec<_> = Run::value_variants().iter().filter(|run| !args.runs.contains(run)).collect();
        assert_eq!(missing, [&Run::Loaded]);
        assert!(!Args::parse_from(["bench", "--runs", "ledger"]).any(&[Run::Fill, Run::Drain]));
    }

    #[test]
    fn external_ips_are_a_topic_of_their_own() {
        let args = Args::parse_from(["bench", "externalip", "--services", "7", "--connections", "3"]);
        let Some(Topic::Externalip(size)) = args.topic else { panic!("{args:?}") };
        assert_eq!((size.sources, size.services, size.hosts, size.ttl, args.connections), (1000, 7, 1000, 30, 3));
        assert!(Args::try_parse_from(["bench", "externalip", "--ttl", "4"]).is_err());
    }

    #[test]
    fn sizes_are_a_list_without_zero() {
        assert_eq!(Args::parse_from(["bench", "--sizes", "1000,10000"]).sizes, [1000, 10000]);
        assert!(Args::try_parse_from(["bench", "--sizes", "0"]).is_err());
    }

    #[test]
    fn cluster_api_has_a_rate_or_is_not_there() {
        let limit = |args: &[&str]| Args::try_parse_from(args).map(|args| args.capi_limit.0).ok();
        assert_eq!(limit(&["bench"]), Some(None));
        assert_eq!(limit(&["bench", "--capi-limit", "none"]), Some(None));
        assert_eq!(limit(&["bench", "--capi-limit", "100"]), Some(Some(100)));
        assert_eq!(limit(&["bench", "--capi-limit", "0"]), None);
    }

    #[test]
    fn a_given_manager_is_taken_as_it_stands() {
        let args = Args::parse_from(["bench", "--manager", "other/manager --leader-elect=false"]);
        assert_eq!(args.manager().unwrap(), "other/manager --leader-elect=false");
    }
}
