//! Logs: to stderr, for people or for machines.
//!
//! What is logged follows `MUSTER_LOG`, in the syntax of `tracing`: `info`, `warn,consensus=debug`.
//! Lines are coloured on a terminal only.

use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Environment variable that says what is logged.
pub const LOG_VARIABLE: &str = "MUSTER_LOG";
/// What is logged when it says nothing. Raft has news and warnings at each turn of each election and
/// for each message to a node that is down, dozens a second; what matters of it `consensus` says once.
const FILTER_DEFAULT: &str = "info,openraft=error";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Why logs cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter has another syntax.
    #[error("could not understand {LOG_VARIABLE}: {0}")]
    Filter(String),
    /// The process logs already.
    #[error("could not start logs, the process has some already")]
    Started,
}

/// Starts logs for the whole process, once. `filter` is the value of [`LOG_VARIABLE`], if it is set.
///
/// # Errors
/// See [`TelemetryError`].
pub fn start_logs(format: LogFormat, filter: Option<&str>) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter.unwrap_or(FILTER_DEFAULT))
        .map_err(|bad| TelemetryError::Filter(bad.to_string()))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // On a terminal NO_COLOR still counts.
    let logs = if io::stderr().is_terminal() { logs } else { logs.with_ansi(false) };
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| TelemetryError::Started)
}
