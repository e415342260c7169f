//! The console as a user would run it: `muster dev` does nothing that its user could not type.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// Runs verbs of this binary against one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    /// Folder with the operator's certificate.
    pub(crate) identity: PathBuf,
    /// Client addresses of the control nodes.
    pub(crate) servers: Vec<String>,
}

/// How long one verb may take.
const VERB_TIMEOUT: Duration = Duration::from_secs(90);

impl Console {
    /// Standard output of a verb.
    ///
    /// # Errors
    /// When it fails: with what it said on standard error.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let program = std::env::current_exe().context("find this program")?;
        let output = Command::new(program)
            .args(arguments)
            .env("MUSTER_IDENTITY", &self.identity)
            .env("MUSTER_SERVER", self.servers.join(","))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let verb = || arguments.join(" ");
        let output = timeout(VERB_TIMEOUT, output)
            .await
            .with_context(|| format!("`muster {}` took too long", verb()))?
            .with_context(|| format!("run `muster {}`", verb()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`muster {}` failed: {}", verb(), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// JSON output of a verb.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.run(&all).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("read what `muster {}` printed", all.join(" ")))
    }
}
