//! Flags that every verb takes, and where they come from when they are not given.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Above these flags in the help of a verb.
const HEADING: &str = "Options of every verb";

/// Flags of every verb; they may stand before or after it.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Tenant to work in; else the one of the identity, else the only one there is
    #[arg(short = 't', long, global = true, help_heading = HEADING, env = "MUSTER_TENANT", value_name = "TENANT")]
    pub tenant: Option<String>,
    /// How to print: table, wide, json, yaml or name
    #[arg(short, long, global = true, help_heading = HEADING, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
    /// Tables without the line of headings
    #[arg(long, global = true, help_heading = HEADING)]
    pub no_headers: bool,
    /// Control nodes to call, tried in order: host:port, separated by commas
    #[arg(long, global = true, help_heading = HEADING, env = "MUSTER_SERVER", value_name = "ADDR", value_delimiter = ',')]
    pub server: Vec<String>,
    /// Folder with the operator's certificate
    #[arg(long, global = true, help_heading = HEADING, env = "MUSTER_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// How long one call may take, in seconds
    #[arg(long, global = true, help_heading = HEADING, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub timeout: u64,
}

impl Global {
    /// How to print.
    pub fn output(&self) -> Output {
        self.output
    }
}

impl Output {
    /// Whether a program reads what is printed.
    pub fn is_structured(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// One JSON document; a list is an object with `items`.
    Json,
    /// The same as YAML.
    Yaml,
    /// Resource names only, one a line.
    Name,
}
