//! Who may write which field (specification 6.5). Roles are checked before, where a request comes in;
//! this is the last line: an operator can never write what control or an agent owns.

use crate::{Caller, Command, Name, Rejection, rejection::Code};

/// Who owns what a command writes.
enum Owner<'a> {
    /// People: intents. Control may write them on their behalf.
    Operators,
    /// Control nodes and their actors.
    Control,
    /// The agent of this host, or the control node holding its session.
    Agent(&'a Name, &'a Name),
}

/// Refuses a caller that does not own what the command writes.
pub(super) fn check(caller: &Caller, command: &Command) -> Result<(), Rejection> {
    let (owner, field) = owner(command);
    let (allowed, owner) = match (owner, caller) {
        (_, Caller::System | Caller::Node(_)) => return Ok(()),
        (Owner::Operators, Caller::Operator(_)) => return Ok(()),
        (Owner::Agent(t, h), Caller::Agent { tenant, host }) => {
            (t == tenant && h == host, "the agent of the host")
        }
        (Owner::Agent(..), Caller::Operator(_)) => (false, "the agent of the host"),
        (Owner::Operators, Caller::Agent { .. }) => (false, "operators"),
        (Owner::Control, Caller::Operator(_) | Caller::Agent { .. }) => (false, "control nodes"),
    };
    if allowed {
        return Ok(());
    }
    Err(Code::FieldOwner
        .reject(format!("{field} is written by {owner} only"))
        .at(field)
        .with("field", field)
        .with("owner", owner))
}

fn owner(command: &Command) -> (Owner<'_>, &'static str) {
    match command {
        Command::SyncJobs { .. } => (Owner::Control, "job.active"),
        Command::AssignJobs { .. } | Command::EvictJobs { .. } => {
            (Owner::Control, "job.placements")
        }
        Command::ExplainJobs { .. } => (Owner::Control, "job.trouble"),
        Command::Settle { .. } => (Owner::Control, "status"),
        Command::ConnectHost { .. } | Command::LoseHost { .. } => (Owner::Control, "host.contact"),
        Command::RegisterImage { .. } => (Owner::Control, "image"),
        Command::UseToken { .. } => (Owner::Control, "token.uses_left"),
        Command::ApplyNode { .. } | Command::MarkNode { .. } => (Owner::Control, "node"),
        Command::ReportJobs { tenant, host, .. } => {
            (Owner::Agent(tenant, host), "job.placements.current")
        }
        Command::ReportHost { tenant, host, .. } => (Owner::Agent(tenant, host), "host.facts"),
        Command::Batch(_)
        | Command::ApplyTenant { .. }
        | Command::DeleteTenant { .. }
        | Command::ApplyHost { .. }
        | Command::CordonHost { .. }
        | Command::DeclareHostLost { .. }
        | Command::DeleteHost { .. }
        | Command::DistrustHost { .. }
        | Command::ApplyCluster { .. }
        | Command::DeleteCluster { .. }
        | Command::DeleteImage { .. }
        | Command::ApplyPackage { .. }
        | Command::DeletePackage { .. }
        | Command::ApplyDeployment { .. }
        | Command::DeleteDeployment { .. }
        | Command::BindRole { .. }
        | Command::UnbindRole { .. }
        | Command::CreateToken { .. }
        | Command::RevokeToken { .. }
        | Command::RetryDeployment { .. }
        | Command::RetryJob { .. }
        | Command::RemoveNode { .. }
        | Command::RaiseRules { .. } => (Owner::Operators, "spec"),
    }
}
