//! `muster storage`: what is in the data folder of a control node that does not run.

use crate::failed::failed;
use anyhow::{Context, Result};
use console::{Failure, exit};
use node::FolderReport;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What to do with a folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Shows what is in a stopped node's data folder; changes nothing in it
    #[command(after_help = "Examples:\n  muster storage inspect /var/lib/muster\n  \
        muster storage inspect /var/lib/muster -o json\n\n\
        The node must not run. Exit codes: 0 shown, 1 cannot be read, 4 something is damaged.")]
    Inspect(Place),
    /// Checks that a stopped node's data folder is whole; changes nothing in it
    #[command(after_help = "Examples:\n  muster storage verify /var/lib/muster && echo whole\n\n\
        Reads every record of log and snapshots, the whole store (from a temporary copy) and every \
        image, and compares the stored state with the one that snapshot and log lead to.\n\
        The node must not run. Exit codes: 0 whole, or what is missing is rebuilt at the next start; \
        1 cannot be read, 4 something is damaged.")]
    Verify(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The node's data folder: the `--data` of `muster serve`
    #[arg(value_name = "DIR")]
    data: PathBuf,
}

/// Something is damaged.
const DAMAGED: u8 = 4;

/// Carries it out.
pub(crate) fn run(arguments: &Arguments, global: &console::Global) -> ExitCode {
    let (place, deep) = match &arguments.verb {
        Verb::Inspect(place) => (place, false),
        Verb::Verify(place) => (place, true),
    };
    match look(&place.data, deep, global) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DAMAGED),
        Err(error) => failed(&error, global),
    }
}

fn look(data: &Path, deep: bool, global: &console::Global) -> Result<bool> {
    if !data.is_dir() {
        let message = format!("{} is not a folder", data.display());
        let remedy = "name the folder that `muster serve --data` was given";
        return Err(Failure::of(exit::ERROR, "DATA_FOLDER", message, remedy).at("data").into());
    }
    let scratch = tempfile::TempDir::with_prefix("muster-storage-")
        .context("make a folder for the copy of the store")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(node::inspect(data, scratch.path(), deep))?;
    let document = document(&report);
    let text = match global.output() {
        console::Output::Json => serde_json::to_string_pretty(&document)?,
        console::Output::Yaml => serde_saphyr::to_string(&document)?,
        console::Output::Table | console::Output::Wide | console::Output::Name => {
            tables(&document, deep)
        }
    };
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())
        .context("write to standard output")?;
    Ok(report.findings.is_empty())
}

/// The report as a document; tables are drawn from it.
fn document(report: &FolderReport) -> Value {
    let ledger = &report.ledger;
    let log = ledger.log.as_ref().map(|log| {
        let files: Vec<_> = log
            .files
            .iter()
            .map(|file| {
                json!({
                    "file": file.file, "bytes": file.bytes, "generation": file.generation,
                    "use": format!("{:?}", file.used).to_uppercase(),
                    "entries": file.entries, "end": file.end,
                })
            })
            .collect();
        json!({
            "format": log.format, "first_index": log.first,
            "last_index": log.next.checked_sub(1).filter(|last| *last >= log.first),
            "vote": log.vote, "purged_index": log.purged, "committed_index": log.committed,
            "unacknowledged_records": log.unacknowledged, "segments": files,
        })
    });
    let snapshots: Vec<_> = ledger
        .snapshots
        .iter()
        .map(|it| {
            json!({
                "file": it.file, "format": it.format, "bytes": it.bytes, "index": it.index, "revision": it.revision,
                "hash": format!("{:032x}", it.hash),
            })
        })
        .collect();
    let store = ledger.store.as_ref().map(|it| {
        json!({
            "format": it.format, "journal_bytes": it.journal_bytes, "applied_index": it.applied, "revision": it.revision,
            "hash": format!("{:032x}", it.hash), "rows": it.rows,
            "journal": it.journal.map(|(oldest, newest)| json!({"oldest": oldest, "newest": newest})),
            "agrees_with_log": it.replayed.then(|| {
                !report.findings.iter().any(|it| it.detail.contains("snapshot and log lead to"))
            }),
            "files": report.store_files.0, "bytes": report.store_files.1,
        })
    });
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|it| {
            json!({
                "file": it.path, "offset": it.offset, "problem": it.detail,
                "remedy": it.remedy.text(),
            })
        })
        .collect();
    json!({
        "folder_format": report.node.as_ref().map(|node| node.format),
        "node_id": report.node.as_ref().map(|node| node.node_id.0),
        "cluster_id": report.node.as_ref().map(|node| node.cluster_id.clone()),
        "log": log, "snapshots": snapshots, "store": store,
        "blobs": {"count": report.blobs.0, "bytes": report.blobs.1},
        "whole": report.findings.is_empty(), "findings": findings,
    })
}

fn tables(document: &Value, deep: bool) -> String {
    let mut text = String::new();
    if !deep {
        let facts = [
            ("node", "/node_id"),
            ("cluster", "/cluster_id"),
            ("folder format", "/folder_format"),
            ("log format", "/log/format"),
            ("snapshot format", "/snapshots/0/format"),
            ("store format", "/store/format"),
            ("log first index", "/log/first_index"),
            ("log last index", "/log/last_index"),
            ("log committed index", "/log/committed_index"),
            ("log purged index", "/log/purged_index"),
            ("vote", "/log/vote"),
            ("unacknowledged records", "/log/unacknowledged_records"),
            ("store applied index", "/store/applied_index"),
            ("store revision", "/store/revision"),
            ("store hash", "/store/hash"),
            ("store agrees with log", "/store/agrees_with_log"),
            ("journal oldest", "/store/journal/oldest"),
            ("journal newest", "/store/journal/newest"),
            ("journal bytes", "/store/journal_bytes"),
            ("images", "/blobs/count"),
            ("image bytes", "/blobs/bytes"),
        ];
        for (name, pointer) in facts {
            text.push_str(&format!("{name:<25} {}\n", cell(document.pointer(pointer))));
        }
        let rows = document["store"]["rows"].as_object();
        for (table, count) in rows.into_iter().flatten() {
            text.push_str(&format!("{:<25} {count}\n", format!("rows of {table}")));
        }
        text.push_str(&format!(
            "\n{:<24} {:<8} {:>12} {:>8}\n",
            "SEGMENT", "USE", "BYTES", "ENTRIES"
        ));
        for it in document["log"]["segments"].as_array().into_iter().flatten() {
            let [file, used] = ["file", "use"].map(|key| cell(it.get(key)));
            let [bytes, entries] = ["bytes", "entries"].map(|key| cell(it.get(key)));
            text.push_str(&format!("{file:<24} {used:<8} {bytes:>12} {entries:>8}\n"));
        }
        text.push_str(&format!(
            "\n{:<44} {:>10} {:>10} {:>12}\n",
            "SNAPSHOT", "INDEX", "REVISION", "BYTES"
        ));
        for it in document["snapshots"].as_array().into_iter().flatten() {
            let [file, index] = ["file", "index"].map(|key| cell(it.get(key)));
            let [revision, bytes] = ["revision", "bytes"].map(|key| cell(it.get(key)));
            text.push_str(&format!("{file:<44} {index:>10} {revision:>10} {bytes:>12}\n"));
        }
        text.push('\n');
    }
    let findings = document["findings"].as_array().map_or(&[][..], Vec::as_slice);
    if findings.is_empty() {
        text.push_str(match document["store"].is_null() {
            false => "whole: every record, snapshot and stored row is as it was written\n",
            // sled takes what it cannot read for nothing at all.
            true => {
                "log and snapshots are whole; the store is missing, empty or cannot be read: the node \
                 rebuilds it from them when it starts\n"
            }
        });
    }
    for it in findings {
        let [file, offset] = ["file", "offset"].map(|key| cell(it.get(key)));
        let [problem, remedy] = ["problem", "remedy"].map(|key| cell(it.get(key)));
        text.push_str(&format!("DAMAGED {file} at {offset}: {problem}\n  remedy: {remedy}\n"));
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
