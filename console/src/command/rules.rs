//! `muster cluster raise-rules`: what the control nodes decide by, one level up.

use crate::{client::request_id, command::Session, failure::Failure};
use api::v1;

/// Which level.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  muster cluster raise-rules\n  \
    muster cluster raise-rules --to 2 --dry-run\n\n\
    The leader does it by itself once every control node knows the level, unless the nodes run with \
    raft.raise_rules=false.\nThe level never falls again: older releases of muster cannot be started \
    any more.")]
pub struct Arguments {
    /// The level; the newest that every control node knows if not given
    #[arg(long, value_name = "LEVEL", default_value_t = 0, hide_default_value = true)]
    to: u32,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let request = v1::RaiseRulesRequest {
        level: arguments.to,
        validate_only: arguments.dry_run,
        request_id: request_id()?,
    };
    let call = session.client.change(|channel| {
        let request = request.clone();
        async move {
            v1::control_plane_client::ControlPlaneClient::new(channel).raise_rules(request).await
        }
    });
    let outcome = call.await?;
    if session.printer.is_structured() {
        return session.printer.document(&session.client.json(&outcome)?);
    }
    session.printer.text(match (outcome.changed, arguments.dry_run) {
        (true, false) => "the rules level is raised\n",
        (true, true) => "the rules level would be raised\n",
        (false, _) => "unchanged: the newest level that every control node knows is in force\n",
    })
}
