//! What `muster dev` says: progress, the live table, what to try next, and the result of a check.

use super::{
    Times,
    cluster::{Cluster, NAME, TENANT},
    console::Console,
    examples,
    processes::resident_bytes,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Write},
    path::Path,
    time::Duration,
};

/// One line of talk, on standard error.
pub(crate) fn say(line: &str) {
    // Nobody may be listening; that is no reason to stop a cluster.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What the console says of the examples.
#[derive(Debug)]
pub(crate) struct View {
    rows: Vec<[String; 5]>,
    /// Partitions whose newest report is RUNNING.
    pub(crate) running: usize,
    /// Whether the state of every example is RUNNING.
    pub(crate) settled: bool,
}

impl View {
    pub(crate) async fn read(console: &Console) -> Result<Self> {
        let jobs = console.json(&["-t", TENANT, "get", "jobs"]).await?;
        let deployments = console.json(&["-t", TENANT, "get", "deployments"]).await?;
        // A cluster that is started again may hold deployments of its user's, too.
        let own = |name: &Value| examples::ALL.iter().any(|it| *name == it.name);
        let jobs = items(&jobs).iter().filter(|job| own(&job["key"]["deployment"]));
        let rows: Vec<_> = jobs.map(row).collect();
        let running = rows.iter().filter(|row| row[3] == "RUNNING").count();
        let settled = examples::ALL.iter().all(|example| {
            let mut found = items(&deployments).iter();
            found.any(|it| it["meta"]["name"] == example.name && it["state"] == "RUNNING")
        });
        Ok(Self { rows, running, settled })
    }
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// Deployment, partition, host, phase, trouble.
fn row(job: &Value) -> [String; 5] {
    let placement = job["placements"].as_array().and_then(|all| all.last());
    let placement = placement.unwrap_or(&Value::Null);
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let key = &job["key"];
    let slot = match &key["slot"] {
        Value::String(slot) => slot.clone(),
        Value::Object(slot) => slot.values().next().map(Value::to_string).unwrap_or_default(),
        other => other.to_string(),
    };
    let trouble = match &job["trouble"]["text"] {
        Value::String(text) => text.clone(),
        _ => placement["current"]["error"]["text"].as_str().unwrap_or_default().to_owned(),
    };
    let phase = placement["current"]["phase"].as_str().unwrap_or("SCHEDULED").to_owned();
    [word(&key["deployment"]), slot, word(&placement["host"]), phase, trouble]
}

/// The live table: drawn over itself on a terminal, a line per change elsewhere.
pub(crate) struct Table {
    lines: usize,
    last: String,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { lines: 0, last: String::new() }
    }

    pub(crate) fn draw(&mut self, view: &View, elapsed: Duration) {
        let head = format!("{}/{} partitions run", view.running, examples::PARTITIONS);
        let mut err = std::io::stderr().lock();
        if !err.is_terminal() {
            if head != self.last {
                let _ = writeln!(err, "{:>5.1} s  {head}", elapsed.as_secs_f64());
                self.last = head;
            }
            return;
        }
        let mut text = String::new();
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", self.lines));
        }
        text.push_str(&format!(
            "{:<14}{:<11}{:<9}{:<12}\n",
            "DEPLOYMENT", "PARTITION", "HOST", "PHASE"
        ));
        for [deployment, slot, host, phase, trouble] in &view.rows {
            text.push_str(&format!(
                "{deployment:<14}{slot:<11}{host:<9}{phase:<12}{trouble:.60}\n"
            ));
        }
        text.push_str(&format!("{:>5.1} s  {head}\n", elapsed.as_secs_f64()));
        self.lines = view.rows.len() + 2;
        let _ = err.write_all(text.as_bytes());
    }
}

/// What a person can do with a running cluster.
pub(crate) fn say_what_next(folder: &Path) {
    say(&format!(
        "\nAll {} partitions run on three hosts. Data and logs: {}\nIn another terminal:\n  \
         muster get hosts                                  who is there\n  \
         muster status                                     how the deployments are\n  \
         muster logs ticker-wasm/{NAME}/ticker-wasm/0 -f   what a partition says\n  \
         muster describe deployment ticker-wasm            all about one\n  \
         muster watch jobs                                 what changes, as it changes\n  \
         muster inspect                                    what the control node is doing\n\
         Kill any process you like: `muster cluster members`, `muster get jobs -w`.\n\
         Ctrl-C stops everything.",
        examples::PARTITIONS,
        folder.display(),
    ));
}

/// The result of a check.
pub(crate) fn measure(cluster: &Cluster, times: &Times) -> Value {
    let resident = |members: &[super::processes::Member]| -> Value {
        let rows = members.iter().map(|it| (it.name.clone(), json!(resident_bytes(it.pid()))));
        Value::Object(rows.collect())
    };
    let mut guards = serde_json::Map::new();
    for member in &cluster.agents {
        for (job, pid) in agent::local::guard_pids(&member.folder).unwrap_or_default() {
            guards.insert(format!("{}/{job}", member.name), json!(resident_bytes(pid)));
        }
    }
    json!({
        "running": format!("{}/{}", examples::PARTITIONS, examples::PARTITIONS),
        "seconds_to_running": seconds(times.running),
        "seconds_to_status_running": seconds(times.settled),
        "resident_bytes": {
            "nodes": resident(&cluster.nodes),
            "agents": resident(&cluster.agents),
            "guards": guards,
        },
    })
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// Prints the result of a check on standard output.
pub(crate) fn print_check(measured: &Value, global: &::console::Global) -> Result<()> {
    if global.output().is_structured() {
        return Ok(::console::print(measured, global)?);
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "partitions running          {}",
        measured["running"].as_str().unwrap_or_default()
    )?;
    writeln!(out, "time to all running         {} s", measured["seconds_to_running"])?;
    writeln!(out, "time to status RUNNING      {} s", measured["seconds_to_status_running"])?;
    for kind in ["nodes", "agents", "guards"] {
        let rows = measured["resident_bytes"][kind].as_object().context("resident memory")?;
        for (name, bytes) in rows {
            let mib = bytes.as_f64().unwrap_or_default() / 1_048_576.0;
            writeln!(out, "memory of {kind:<7} {name:<40} {mib:.1} MiB")?;
        }
    }
    Ok(())
}
