//! `muster watch`: changes as they happen. It resumes by itself after a lost connection and when it was
//! cut, at any node, without gap and without repeating, from the last whole revision it printed; before
//! the first one from where the watch began, which the node says at once.

use crate::{
    command::Session,
    failure::Failure,
    noun::Noun,
    render::{self, say, short},
    retry::Verdict,
};
use api::{reason::LAGGED, v1};

/// What to watch.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster watch\n  muster watch deployments jobs\n  muster watch jobs --from 41\n  \
    muster watch --all-tenants -o json"
)]
pub struct Arguments {
    /// Kinds; all of the tenant's if none is given
    kinds: Vec<Noun>,
    /// Show what came after this revision, then go on
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// Every tenant, and what belongs to none
    #[arg(long)]
    all_tenants: bool,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let tenant =
        if arguments.all_tenants { String::new() } else { session.client.tenant().await? };
    stream(session, &tenant, &arguments.kinds, arguments.from).await
}

/// Follows kinds from now on.
pub(super) async fn follow(
    session: &Session,
    kinds: &[Noun],
    from: Option<u64>,
) -> Result<(), Failure> {
    let of_tenant = kinds.iter().any(|noun| noun.is_of_tenant());
    let tenant = if of_tenant { session.client.tenant().await? } else { String::new() };
    stream(session, &tenant, kinds, from).await
}

async fn stream(
    session: &Session,
    tenant: &str,
    kinds: &[Noun],
    from: Option<u64>,
) -> Result<(), Failure> {
    let mut position = Position { resume: from, printed: 0 };
    let mut backoff = session.client.backoff();
    loop {
        let request = v1::WatchRequest {
            tenant: tenant.to_owned(),
            kinds: kinds.iter().map(|noun| noun.kind().into()).collect(),
            from_revision: position.resume,
            bookmarks: true,
            ..v1::WatchRequest::default()
        };
        let (addr, channel) = session.client.server();
        let mut client = v1::watch_client::WatchClient::new(channel)
            .max_decoding_message_size(api::limits::RESPONSE_BYTES_MAX);
        let ended = match client.watch(request).await {
            Ok(response) => {
                let before = position.resume;
                let ended = follow_one(session, response.into_inner(), &mut position).await?;
                if position.resume != before {
                    backoff = session.client.backoff();
                }
                ended
            }
            Err(status) => status,
        };
        let failure = Failure::from_status(&ended);
        // A node that cut this end for its slowness is well: it is asked again.
        if failure.reason != LAGGED {
            if Verdict::of(&ended) == Verdict::Refused {
                return Err(failure);
            }
            session.client.next_server();
        }
        say(&format!("{addr}: {}; resuming", failure.message));
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Where a watch is.
struct Position {
    /// The last revision printed whole: the next watch begins after it.
    resume: Option<u64>,
    /// Events printed of the revision after that.
    printed: usize,
}

async fn follow_one(
    session: &Session,
    mut events: tonic::Streaming<v1::WatchEvent>,
    position: &mut Position,
) -> Result<tonic::Status, Failure> {
    // A revision cut in half is sent again as a whole: skip what was printed of it.
    let mut skip = std::mem::take(&mut position.printed);
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(tonic::Status::unavailable("the node ended the watch")),
            Err(status) => return Ok(status),
        };
        if event.r#type() != v1::WatchType::Bookmark {
            if skip > 0 {
                skip -= 1;
            } else {
                print(session, &event)?;
            }
            position.printed += 1;
        }
        if event.last || event.r#type() == v1::WatchType::Bookmark {
            position.resume = Some(event.revision);
            position.printed = 0;
        }
    }
}

fn print(session: &Session, event: &v1::WatchEvent) -> Result<(), Failure> {
    if session.printer.is_structured() {
        let document = session.client.json(event)?;
        // One event a line, so that a pipe can read them one by one.
        return session.printer.text(&format!("{document}\n"));
    }
    let what = match event.r#type() {
        v1::WatchType::Added => "added",
        v1::WatchType::Modified => "modified",
        v1::WatchType::Deleted => "deleted",
        v1::WatchType::Bookmark | v1::WatchType::Unspecified => "",
    };
    let detail = match &event.resource {
        Some(resource) => summary(&session.client.json(resource)?),
        None => String::new(),
    };
    let line = format!("{:>8}  {what:<9} {}  {detail}", event.revision, short(&event.name));
    session.printer.text(&format!("{}\n", line.trim_end()))
}

/// The one thing worth knowing about a resource in a line.
fn summary(resource: &serde_json::Value) -> String {
    let Some((kind, it)) = resource.as_object().and_then(|map| map.iter().next()) else {
        return String::new();
    };
    match kind.as_str() {
        "job" => {
            let host = render::placement(it)["host"].as_str().unwrap_or("-").to_owned();
            format!("{} on {host} {}", render::phase(it), render::detail(it))
        }
        "deployment" | "deployment_cluster" => {
            let counts = &it["counts"];
            let state = it["state"].as_str().unwrap_or("-");
            format!(
                "{state} {}/{}",
                render::number(&counts["running"]),
                render::number(&counts["total"])
            )
        }
        "host" => it["contact"]["state"].as_str().unwrap_or("-").to_owned(),
        _ => it["status"]["text"].as_str().unwrap_or_default().to_owned(),
    }
}
