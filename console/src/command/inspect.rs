//! `muster inspect`: what a control node says of itself.

use crate::{
    command::Session,
    failure::Failure,
    render::{Column, word},
};
use api::v1;
use serde_json::{Value, json};

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  muster inspect\n  muster inspect actors\n  \
    muster inspect actors/tenants/acme\n  muster inspect ledger --all-nodes")]
pub struct Arguments {
    /// Path in the node, such as actors; all of it if not given. Actors are those of all nodes
    #[arg(default_value = "")]
    path: String,
    /// In every control node, not only in the one that answers
    #[arg(long)]
    all_nodes: bool,
    /// Levels below the path; 0 for all
    #[arg(long, default_value_t = 0)]
    depth: u32,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let path = arguments.path.trim_matches('/').to_owned();
    // Work is spread over the nodes: the actors of one are half the truth.
    let actors = path == "actors" || path.starts_with("actors/");
    let all_nodes = arguments.all_nodes || actors;
    let request = v1::InspectRequest { path: path.clone(), depth: arguments.depth, all_nodes };
    let tree = session
        .client
        .call(|channel| {
            let request = request.clone();
            async move {
                v1::inspect_client::InspectClient::new(channel)
                    .max_decoding_message_size(api::limits::RESPONSE_BYTES_MAX)
                    .inspect(request)
                    .await
            }
        })
        .await?;
    if session.printer.is_structured() {
        return session.printer.document(&session.client.json(&tree)?);
    }
    if actors {
        return session.printer.table(ACTOR, &rows(&tree, &path));
    }
    let mut text = String::new();
    write_tree(&tree, 0, &mut text);
    session.printer.text(&text)
}

const ACTOR: &[Column] = &[
    Column { header: "NODE", cell: |it| word(&it["node"]) },
    Column { header: "ACTOR", cell: |it| word(&it["actor"]) },
    Column { header: "UP", cell: |it| word(&it["up"]) },
    Column { header: "RUNS", cell: |it| word(&it["runs"]) },
    Column { header: "PROPOSED", cell: |it| word(&it["proposed"]) },
    Column { header: "CRASHES", cell: |it| word(&it["crashes"]) },
    Column { header: "REVISION", cell: |it| word(&it["revision"]) },
    Column { header: "LAST RUN", cell: |it| word(&it["last_run"]) },
    Column { header: "LAST ERROR", cell: |it| word(&it["last_error"]) },
];

/// One row per actor, and one for each node that cannot be asked.
fn rows(tree: &v1::InspectTree, path: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    for node in &tree.children {
        if let Some(why) = node.values.get("unreachable") {
            rows.push(json!({"node": node.name, "actor": "-", "last_error": format!("unreachable: {why}")}));
        }
        for part in &node.children {
            add_actors(part, &node.name, path, &mut rows);
        }
    }
    rows
}

fn add_actors(part: &v1::InspectTree, node: &str, path: &str, rows: &mut Vec<Value>) {
    if part.values.contains_key("runs") {
        let mut row = json!(part.values);
        row["node"] = node.into();
        row["actor"] = path.strip_prefix("actors/").unwrap_or(path).into();
        rows.push(row);
    }
    for child in &part.children {
        add_actors(child, node, &format!("{path}/{}", child.name), rows);
    }
}

fn write_tree(tree: &v1::InspectTree, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    if !tree.name.is_empty() {
        text.push_str(&format!("{indent}{}\n", tree.name));
    }
    for (name, value) in &tree.values {
        text.push_str(&format!("{indent}  {name}: {value}\n"));
    }
    for child in &tree.children {
        write_tree(child, depth + 1, text);
    }
}
