//! `muster inspect`: what a control node says of itself.

use crate::{command::Session, failure::Failure};
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
