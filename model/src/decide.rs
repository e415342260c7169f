//! `decide`: refuses a command or says what will happen. One match, one line per variant; the bodies
//! are in `decide/<noun>.rs`.
//!
//! A decision is made on a fork of the state: each event takes effect there at once, so what follows
//! in the same command sees it, and a refusal just drops the fork. What follows from the events
//! (derived parts, deletions that are done, states summed up) is said before the decision ends.

mod access;
mod check;
mod cluster;
mod conclude;
mod deletion;
mod deployment;
mod host;
mod job;
mod node;
mod owner;
mod package;
mod report;
mod retry;
mod settle;
mod sync;
mod targets;
mod tenant;

use crate::{
    Command, Context, Event, Rejection, Reply, State, Uid, evolve,
    limits::{BATCH_MAX, ITEMS_MAX},
    rejection::Code,
    rules::RULES_RETRY,
};

pub(crate) use deletion::waiting_on;
pub use job::{is_evictable, is_placeable};
pub use sync::rollout_room;

/// An answer, or a refusal.
type Decided = Result<Reply, Rejection>;

/// Refuses `command` or says what will happen. Pure.
///
/// # Errors
/// The first reason to refuse.
pub fn decide(
    state: &State,
    context: &Context,
    command: &Command,
) -> Result<Vec<Event>, Rejection> {
    Decision::new(state.clone(), context).run(command).map(|(_, events, _)| events)
}

/// A decision under way.
pub(crate) struct Decision<'a> {
    /// The fork, with all events so far.
    state: State,
    context: &'a Context,
    events: Vec<Event>,
    ordinal: u32,
}

impl<'a> Decision<'a> {
    /// A decision about a command at `context`, on a fork it may change.
    pub(crate) fn new(state: State, context: &'a Context) -> Self {
        Self { state, context, events: Vec::new(), ordinal: 0 }
    }

    /// Decides, and gives the fork with what happened and the answer.
    pub(crate) fn run(
        mut self,
        command: &Command,
    ) -> Result<(State, Vec<Event>, Reply), Rejection> {
        let reply = match command {
            Command::Batch(commands) => self.batch(commands)?,
            single => self.single(single)?,
        };
        Ok((self.state, self.events, reply))
    }

    /// Says that something happened.
    fn emit(&mut self, event: Event) {
        evolve(&mut self.state, self.context, &event);
        self.events.push(event);
    }

    /// The uid of the next resource this command creates.
    fn next_uid(&mut self) -> Uid {
        let uid = Uid { revision: self.context.revision, ordinal: self.ordinal };
        self.ordinal += 1;
        uid
    }

    /// All or nothing: the first refusal, with the position of what it refuses, is that of the batch.
    fn batch(&mut self, commands: &[Command]) -> Decided {
        if commands.len() > BATCH_MAX {
            return Err(too_many("documents", commands.len(), BATCH_MAX));
        }
        let mut replies = Vec::with_capacity(commands.len());
        for (position, command) in commands.iter().enumerate() {
            let reply = self.single(command);
            replies.push(reply.map_err(|it| it.within(&format!("documents[{position}]")))?);
        }
        Ok(Reply::Batch(replies))
    }

    fn single(&mut self, command: &Command) -> Decided {
        owner::check(&self.context.caller, command)?;
        let items = items_of(command);
        if items > ITEMS_MAX {
            return Err(too_many("items", items, ITEMS_MAX));
        }
        let reply = self.command(command)?;
        self.conclude();
        Ok(reply)
    }

    #[rustfmt::skip]
    fn command(&mut self, command: &Command) -> Decided {
        match command {
            Command::Batch(_) => Err(Code::NestedBatch.reject("a batch holds no batches")),
            Command::ApplyTenant { draft, display_name } => self.apply_tenant(draft, display_name),
            Command::DeleteTenant { tenant } => self.delete_tenant(tenant),
            Command::ApplyHost { tenant, draft, site, zone } => self.apply_host(tenant, draft, site.as_ref(), zone.as_ref()),
            Command::CordonHost { tenant, host, cordoned } => self.cordon_host(tenant, host, *cordoned),
            Command::DeclareHostLost { tenant, host, lost } => self.declare_host_lost(tenant, host, *lost),
            Command::DeleteHost { tenant, host, force } => self.delete_host(tenant, host, *force),
            Command::ConnectHost { tenant, host, node, agent_key, profile } => self.connect_host((tenant, host), *node, *agent_key, profile),
            Command::LoseHost { tenant, host, session } => self.need_word_of_holder((tenant, host), *session).and_then(|()| self.lose_host(tenant, host, *session)),
            Command::ReportHost { tenant, host, profile } => self.report_host(tenant, host, profile),
            Command::ApplyCluster { tenant, draft, spec } => self.apply_cluster(tenant, draft, spec),
            Command::DeleteCluster { tenant, cluster, force } => self.delete_cluster(tenant, cluster, *force),
            Command::RegisterImage { tenant, digest, size_bytes, application } => self.register_image(tenant, *digest, *size_bytes, application),
            Command::DeleteImage { tenant, digest } => self.delete_image(tenant, *digest),
            Command::ApplyPackage { tenant, draft, version, applications } => self.apply_package(tenant, draft, version, applications),
            Command::DeletePackage { tenant, package, version } => self.delete_package(tenant, package, version),
            Command::ApplyDeployment { tenant, draft, spec } => self.apply_deployment(tenant, draft, spec),
            Command::DeleteDeployment { tenant, deployment, force } => self.delete_deployment(tenant, deployment, *force),
            Command::SyncJobs { keys } => self.sync_jobs(keys),
            Command::AssignJobs { items } => self.assign_jobs(items),
            Command::ExplainJobs { items } => self.explain_jobs(items),
            Command::EvictJobs { items } => self.evict_jobs(items),
            Command::ReportJobs { tenant, host, first, items } => {
                self.report_jobs(tenant, host, *first, items)
            },
            Command::Settle { tenant } => self.settle(tenant),
            Command::BindRole { operator, scope, role } => self.bind_role(operator, scope, *role),
            Command::UnbindRole { operator, scope } => self.unbind_role(operator, scope),
            Command::CreateToken { id, kind, secret_hash, expires_at, uses } => self.create_token(id, kind, secret_hash, (*expires_at, *uses)),
            Command::UseToken { id, secret_hash, host, key } => self.use_token(id, secret_hash, host.as_ref(), *key),
            Command::RevokeToken { id } => self.revoke_token(id),
            Command::ApplyNode { id, peer_addr, client_addr, rules_max } => self.apply_node(*id, peer_addr, client_addr, *rules_max),
            Command::MarkNode { id, alive } => self.mark_node(*id, *alive),
            Command::RemoveNode { id } => self.remove_node(*id),
            Command::RaiseRules { level } => self.raise_rules(*level),
            Command::DistrustHost { tenant, host, reason } => self.distrust_host(tenant, host, reason),
            Command::RetryDeployment { tenant, deployment, cluster } => self.retry_deployment(tenant, deployment, cluster.as_ref()),
            Command::RetryJob { key } => self.retry_job(key),
        }
    }
}

/// The answer to a command that made `resource` so, or found it so.
fn done(resource: impl Into<String>, changed: bool) -> Decided {
    Ok(Reply::Done { resource: resource.into(), changed })
}

fn too_many(field: &str, number: usize, max: usize) -> Rejection {
    Code::TooMany
        .reject(format!("a command has at most {max} {field}, not {number}"))
        .at(field)
        .with("max", max)
}

/// Number of items a command answers one by one.
pub(crate) fn items_of(command: &Command) -> usize {
    match command {
        Command::Batch(commands) => commands.iter().map(items_of).sum(),
        Command::SyncJobs { keys } => keys.len(),
        Command::AssignJobs { items } => items.len(),
        Command::ExplainJobs { items } => items.len(),
        Command::EvictJobs { items } => items.len(),
        Command::ReportJobs { items, .. } => items.len(),
        Command::ApplyTenant { .. }
        | Command::DeleteTenant { .. }
        | Command::ApplyHost { .. }
        | Command::CordonHost { .. }
        | Command::DeclareHostLost { .. }
        | Command::DeleteHost { .. }
        | Command::ConnectHost { .. }
        | Command::LoseHost { .. }
        | Command::ReportHost { .. }
        | Command::ApplyCluster { .. }
        | Command::DeleteCluster { .. }
        | Command::RegisterImage { .. }
        | Command::DeleteImage { .. }
        | Command::ApplyPackage { .. }
        | Command::DeletePackage { .. }
        | Command::ApplyDeployment { .. }
        | Command::DeleteDeployment { .. }
        | Command::Settle { .. }
        | Command::BindRole { .. }
        | Command::UnbindRole { .. }
        | Command::CreateToken { .. }
        | Command::UseToken { .. }
        | Command::RevokeToken { .. }
        | Command::ApplyNode { .. }
        | Command::MarkNode { .. }
        | Command::RemoveNode { .. }
        | Command::RaiseRules { .. }
        | Command::DistrustHost { .. }
        | Command::RetryDeployment { .. }
        | Command::RetryJob { .. } => 0,
    }
}

impl Command {
    /// The rules level from which it may be proposed. Control nodes that know less cannot read it in the
    /// log, so whoever proposes for others asks before.
    pub fn rules_min(&self) -> u32 {
        match self {
            Self::RetryDeployment { .. } | Self::RetryJob { .. } => RULES_RETRY,
            Self::Batch(commands) => commands.iter().map(Self::rules_min).max().unwrap_or(1),
            _ => 1,
        }
    }
}
