//! The actor of one tenant on one node: plans the tenant if this node owns it, and keeps an actor for
//! each of its clusters that this node owns.

use crate::{
    board::Subject,
    cluster::{Cluster, ClusterArguments, ClusterMessage},
    mailbox::{Mailbox, Touched},
    ownership::{cluster_owner, live_nodes, tenant_owner},
    reconcile::Shared,
    supervise::Children,
};
use consensus::Ledger;
use model::{JobKey, Name, State};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    time::Duration,
};
use tokio::task::JoinHandle;

pub(crate) struct Tenant<L>(pub(crate) PhantomData<L>);

#[derive(Debug)]
pub(crate) enum TenantMessage {
    /// Something was touched: look soon.
    Wake,
    /// Look now.
    Run,
    /// A crashed cluster actor has waited long enough.
    Restart(Name),
    /// Pass a crash on to a cluster actor, or to the actor of a job below it.
    #[cfg(test)]
    Panic(Name, Option<JobKey>),
}

pub(crate) struct TenantArguments<L> {
    pub(crate) shared: Shared<L>,
    pub(crate) tenant: Name,
    pub(crate) mailbox: Mailbox<Name>,
}

pub(crate) struct TenantState<L> {
    shared: Shared<L>,
    tenant: Name,
    subject: Subject,
    mailbox: Mailbox<Name>,
    clusters: Children<Name, ClusterMessage>,
    mailboxes: BTreeMap<Name, Mailbox<JobKey>>,
    timer: Option<JoinHandle<()>>,
}

impl<L: Ledger> Actor for Tenant<L> {
    type Msg = TenantMessage;
    type State = TenantState<L>;
    type Arguments = TenantArguments<L>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let TenantArguments { shared, tenant, mailbox } = arguments;
        let subject = Subject::Tenant(tenant.clone());
        shared.board.update(&subject, |status| status.up = true);
        mailbox.take();
        mailbox.add(Touched::everything());
        myself.cast(TenantMessage::Run)?;
        let (clusters, mailboxes) = (Children::new(), BTreeMap::new());
        Ok(TenantState { shared, tenant, subject, mailbox, clusters, mailboxes, timer: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TenantMessage::Wake => {
                let wait = state.shared.debounce();
                state.run_after(&myself, wait);
            }
            TenantMessage::Run => state.run(&myself).await?,
            TenantMessage::Restart(cluster) => {
                if state.clusters.waits(&cluster) {
                    state.start(&myself, cluster).await?;
                }
            }
            #[cfg(test)]
            TenantMessage::Panic(cluster, job) => {
                if let Some(actor) = state.clusters.get(&cluster) {
                    actor.cast(ClusterMessage::Panic(job))?;
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some((cluster, delay)) = state.clusters.crashed(&cell, &state.shared.config)
                {
                    state.crashed(&myself, cluster, delay, &error.to_string());
                }
            }
            SupervisionEvent::ActorTerminated(cell, ..) => state.clusters.ended(&cell),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.clusters.stop_all();
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        state.shared.board.remove(&state.subject);
        Ok(())
    }
}

impl<L: Ledger> TenantState<L> {
    async fn run(&mut self, myself: &ActorRef<TenantMessage>) -> Result<(), ActorProcessingErr> {
        let touched = self.mailbox.take();
        let fork = self.shared.ledger.read(State::clone);
        let live = live_nodes(&fork, self.shared.ledger.node_id());
        let me = Some(self.shared.ledger.node_id());
        let owned = owned_clusters(&fork, &live, me, &self.tenant);
        let mut again = self.shared.sweep(&self.subject);
        let mut report = "owned by another node".to_owned();
        let mut run = crate::reconcile::Run { proposed: 0, error: None };
        if tenant_owner(&live, &self.tenant) == me {
            let plan = planner::plan_tenant(&fork, &self.tenant, self.shared.clock.now());
            report = plan.report.to_string();
            run = self.shared.propose(&self.subject, plan.commands).await;
            if let Some(due) = fork.next_due(&self.tenant) {
                again = again.min(self.shared.until(due));
            }
        }
        if run.error.is_some() {
            again = self.shared.debounce() * 20;
        }
        self.shared.board.update(&self.subject, |status| {
            status.runs += 1;
            status.proposed += run.proposed;
            status.revision = fork.globals.revision.0;
            status.last_run = report;
            status.last_error = run.error.or(status.last_error.take());
        });
        self.tend(myself, owned, touched).await?;
        self.run_after(myself, again);
        Ok(())
    }

    /// Stops what is not owned any more, starts what is, wakes what was touched.
    async fn tend(
        &mut self,
        myself: &ActorRef<TenantMessage>,
        owned: BTreeSet<Name>,
        touched: Touched<Name>,
    ) -> Result<(), ActorProcessingErr> {
        for cluster in self.clusters.names() {
            if !owned.contains(&cluster) {
                self.clusters.stop(&cluster);
                self.mailboxes.remove(&cluster);
            }
        }
        for cluster in owned {
            if self.clusters.get(&cluster).is_none() {
                if !self.clusters.waits(&cluster) {
                    self.start(myself, cluster).await?;
                }
            } else if touched.all || touched.children.contains(&cluster) {
                self.wake(&cluster);
            }
        }
        Ok(())
    }

    fn wake(&self, cluster: &Name) {
        let own = Touched { own: true, all: false, children: BTreeSet::new() };
        if let (Some(actor), Some(mailbox)) =
            (self.clusters.get(cluster), self.mailboxes.get(cluster))
            && mailbox.add(own)
        {
            // One that has just crashed is started again and looks at everything.
            let _ = actor.cast(ClusterMessage::Wake);
        }
    }

    async fn start(
        &mut self,
        myself: &ActorRef<TenantMessage>,
        cluster: Name,
    ) -> Result<(), ActorProcessingErr> {
        let mailbox = self.mailboxes.entry(cluster.clone()).or_insert_with(Mailbox::new).clone();
        let arguments = ClusterArguments {
            shared: self.shared.clone(),
            tenant: self.tenant.clone(),
            cluster: cluster.clone(),
            mailbox,
        };
        let (actor, _) =
            Actor::spawn_linked(None, Cluster(PhantomData), arguments, myself.get_cell()).await?;
        self.clusters.put(cluster, actor);
        Ok(())
    }

    fn crashed(
        &self,
        myself: &ActorRef<TenantMessage>,
        cluster: Name,
        delay: Duration,
        error: &str,
    ) {
        let subject = Subject::Cluster(self.tenant.clone(), cluster.clone());
        tracing::error!(actor = %subject, error, delay_ms = delay.as_millis(), "actor crashed, it starts again");
        self.shared.board.crashed(&subject, error);
        myself.send_after(delay, move || TenantMessage::Restart(cluster));
    }

    fn run_after(&mut self, myself: &ActorRef<TenantMessage>, wait: Duration) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let myself = myself.clone();
        self.timer = Some(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // The actor may have stopped in between: then nobody waits for this.
            let _ = myself.cast(TenantMessage::Run);
        }));
    }
}

/// The clusters of a tenant that `me` owns. One that a deployment still has jobs in counts, even if
/// its own row is gone.
pub(crate) fn owned_clusters(
    state: &State,
    live: &[model::NodeId],
    me: Option<model::NodeId>,
    tenant: &Name,
) -> BTreeSet<Name> {
    // The smallest name there is: where a tenant's rows begin.
    let Ok(first) = Name::new("0") else { return BTreeSet::new() };
    let rows = state
        .clusters
        .range((tenant.clone(), first.clone())..)
        .take_while(|((owner, _), _)| owner == tenant)
        .map(|((_, cluster), _)| cluster.clone());
    let parts = state
        .deployment_clusters
        .range((tenant.clone(), first.clone(), first)..)
        .take_while(|((owner, ..), _)| owner == tenant)
        .map(|((_, _, cluster), _)| cluster.clone());
    rows.chain(parts).filter(|cluster| cluster_owner(live, tenant, cluster) == me).collect()
}
