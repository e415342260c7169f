//! `muster inspect`, `muster cluster status`: what a control node says of itself and of the others.

use crate::{command::Session, failure::Failure, render::number};
use api::v1;

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  muster inspect\n  muster inspect actors\n  \
    muster inspect actors/tenants/acme --server 127.0.0.1:7400")]
pub struct Arguments {
    /// Path in the node, such as actors; all of it if not given
    #[arg(default_value = "")]
    path: String,
    /// Levels below the path; 0 for all
    #[arg(long, default_value_t = 0)]
    depth: u32,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let request = v1::InspectRequest { path: arguments.path.clone(), depth: arguments.depth };
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
    let mut text = String::new();
    write_tree(&tree, 0, &mut text);
    session.printer.text(&text)
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

pub(super) async fn control_plane(session: &Session) -> Result<(), Failure> {
    let status = session
        .client
        .call(|channel| async move {
            v1::control_plane_client::ControlPlaneClient::new(channel)
                .get_status(v1::GetControlPlaneStatusRequest {})
                .await
        })
        .await?;
    let document = session.client.json(&status)?;
    if session.printer.is_structured() {
        return session.printer.document(&document);
    }
    let mut text = format!(
        "cluster {}, term {}, revision {}, rules {}, as node {} sees it\n",
        status.cluster_id, status.term, status.revision, status.rules, status.answered_by
    );
    text.push_str(&format!(
        "{:<5}{:<10}{:<7}{:<23}{:<23}HOLDS INDEX\n",
        "ID", "ROLE", "ALIVE", "CLIENT ADDRESS", "PEER ADDRESS"
    ));
    for member in document["members"].as_array().into_iter().flatten() {
        let word = |name: &str| member[name].as_str().unwrap_or("-").to_owned();
        let alive = if member["alive"].as_bool().unwrap_or(false) { "yes" } else { "no" };
        let index = &member["matched_index"];
        let index = if index.is_null() { "-".to_owned() } else { number(index).to_string() };
        text.push_str(&format!(
            "{:<5}{:<10}{alive:<7}{:<23}{:<23}{index}\n",
            number(&member["id"]),
            word("role"),
            word("client_addr"),
            word("peer_addr"),
        ));
    }
    session.printer.text(&text)
}
