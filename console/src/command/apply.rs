//! `muster apply`: documents become one request, all or nothing.

use crate::{
    client::{Client, request_id},
    command::Session,
    document,
    failure::Failure,
};
use api::v1;
use std::path::PathBuf;

/// What to apply.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster apply -f shop.yaml\n  muster apply -f ./site --dry-run\n  \
    cat shop.yaml | muster apply -f -"
)]
pub struct Arguments {
    /// File, folder, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let sources = document::read(&arguments.file, async || session.client.tenant().await).await?;
    let documents = sources.iter().map(|source| source.document.clone()).collect();
    let response =
        send(&session.client, documents, arguments.dry_run).await.map_err(|mut failure| {
            // The API counts documents; people know files.
            if let Some(place) = place_of(&failure.field, &sources) {
                failure.metadata.insert("document".into(), place);
            }
            failure
        })?;
    let done = if arguments.dry_run { "would be configured" } else { "configured" };
    if session.printer.is_structured() {
        return session.printer.document(&session.client.json(&response)?);
    }
    for outcome in &response.outcomes {
        session.printer.outcome(&session.client.json(outcome)?, done)?;
    }
    Ok(())
}

fn place_of(field: &str, sources: &[document::Source]) -> Option<String> {
    let (index, _) = field.strip_prefix("documents[")?.split_once(']')?;
    Some(sources.get(index.parse::<usize>().ok()?)?.place.clone())
}

/// Applies documents: all or none.
pub(crate) async fn send(
    client: &Client,
    documents: Vec<v1::Document>,
    validate_only: bool,
) -> Result<v1::ApplyResponse, Failure> {
    let request = v1::ApplyRequest { documents, validate_only, request_id: request_id()? };
    client
        .change(|channel| {
            let request = request.clone();
            async move { v1::apply_client::ApplyClient::new(channel).apply(request).await }
        })
        .await
}

/// Applies one document and prints what came of it.
pub(crate) async fn one(
    session: &Session,
    draft: v1::document::Draft,
    done: &str,
) -> Result<(), Failure> {
    let response = send(&session.client, vec![v1::Document { draft: Some(draft) }], false).await?;
    for outcome in &response.outcomes {
        session.printer.outcome(&session.client.json(outcome)?, done)?;
    }
    Ok(())
}
