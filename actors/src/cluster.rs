//! The actor of one cluster: actualizes, evicts, places and settles, and keeps the partition actors.

use crate::{
    board::Subject,
    mailbox::{Mailbox, Touched},
    partition::{Partition, PartitionArguments, PartitionMessage, is_quiet},
    reconcile::Shared,
    supervise::Children,
};
use consensus::Ledger;
use model::{JobKey, Name, State};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::{collections::BTreeSet, marker::PhantomData};
use tokio::task::JoinHandle;

pub(crate) struct Cluster<L>(pub(crate) PhantomData<L>);

#[derive(Debug)]
pub(crate) enum ClusterMessage {
    /// Something was touched: look soon.
    Wake,
    /// Look now.
    Run,
    /// Crash, to see the tree recover.
    #[cfg(test)]
    Panic,
}

pub(crate) struct ClusterArguments<L> {
    pub(crate) shared: Shared<L>,
    pub(crate) tenant: Name,
    pub(crate) cluster: Name,
    pub(crate) mailbox: Mailbox<JobKey>,
}

pub(crate) struct ClusterState<L> {
    shared: Shared<L>,
    tenant: Name,
    cluster: Name,
    subject: Subject,
    mailbox: Mailbox<JobKey>,
    partitions: Children<JobKey, PartitionMessage>,
    timer: Option<JoinHandle<()>>,
}

impl<L: Ledger> Actor for Cluster<L> {
    type Msg = ClusterMessage;
    type State = ClusterState<L>;
    type Arguments = ClusterArguments<L>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let ClusterArguments { shared, tenant, cluster, mailbox } = arguments;
        let subject = Subject::Cluster(tenant.clone(), cluster.clone());
        shared.board.update(&subject, |status| status.up = true);
        mailbox.take();
        mailbox.add(Touched::everything());
        myself.cast(ClusterMessage::Run)?;
        let partitions = Children::new();
        Ok(ClusterState { shared, tenant, cluster, subject, mailbox, partitions, timer: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ClusterMessage::Wake => {
                let wait = state.shared.debounce();
                state.run_after(&myself, wait);
            }
            ClusterMessage::Run => state.run(&myself).await?,
            #[cfg(test)]
            ClusterMessage::Panic => panic!("asked to"),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some(key) = state.partitions.ended(&cell) {
                    // Not started again here: the next run starts what is still needed.
                    let subject = Subject::Partition(key);
                    tracing::error!(actor = %subject, %error, "actor crashed");
                    state.shared.board.remove(&subject);
                }
            }
            SupervisionEvent::ActorTerminated(cell, ..) => {
                state.partitions.ended(&cell);
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.partitions.stop_all();
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        state.shared.board.remove(&state.subject);
        Ok(())
    }
}

impl<L: Ledger> ClusterState<L> {
    /// Plans, proposes, tends the partition actors, and sets the next look.
    async fn run(&mut self, myself: &ActorRef<ClusterMessage>) -> Result<(), ActorProcessingErr> {
        self.mailbox.take();
        let now = self.shared.clock.now();
        // A fork costs a few pointers; planning on it keeps nobody from applying.
        let fork = self.shared.ledger.read(State::clone);
        let revision = fork.globals.revision;
        let plan = planner::plan_cluster(&fork, &self.tenant, &self.cluster, now);
        drop(fork);
        let report = plan.report.to_string();
        let run = self.shared.propose(&self.subject, plan.commands).await;
        let failed = run.error.is_some();
        self.shared.board.update(&self.subject, |status| {
            status.runs += 1;
            status.proposed += run.proposed;
            status.revision = revision.0;
            status.last_run = report;
            status.last_error = run.error.or(status.last_error.take());
        });
        self.tend(myself).await?;
        let sweep = self.shared.sweep(&self.subject);
        let again = if failed { self.shared.debounce() * 20 } else { sweep };
        self.run_after(myself, again);
        Ok(())
    }

    /// Starts and wakes a partition actor for every job that is not quiet; they stop by themselves.
    async fn tend(&mut self, myself: &ActorRef<ClusterMessage>) -> Result<(), ActorProcessingErr> {
        let busy = self.shared.ledger.read(|state| {
            busy_jobs(state, &self.tenant, &self.cluster, self.shared.config.partitions_max)
        });
        for key in busy {
            if let Some(actor) = self.partitions.get(&key) {
                actor.cast(PartitionMessage::Wake)?;
            } else if self.partitions.len() < self.shared.config.partitions_max {
                let (mailbox, cluster) = (self.mailbox.clone(), myself.clone());
                let arguments = PartitionArguments {
                    shared: self.shared.clone(),
                    key: key.clone(),
                    wake_cluster: Box::new(move || {
                        let own = Touched { own: true, all: false, children: BTreeSet::new() };
                        if mailbox.add(own) {
                            // A cluster actor that has gone needs no wake.
                            let _ = cluster.cast(ClusterMessage::Wake);
                        }
                    }),
                };
                let (actor, _) =
                    Actor::spawn_linked(None, Partition(PhantomData), arguments, myself.get_cell())
                        .await?;
                self.partitions.put(key, actor);
            }
        }
        for key in self.partitions.names() {
            if let Some(actor) = self.partitions.get(&key) {
                // One that is about to stop does not need it.
                let _ = actor.cast(PartitionMessage::Wake);
            }
        }
        Ok(())
    }

    fn run_after(&mut self, myself: &ActorRef<ClusterMessage>, wait: std::time::Duration) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let myself = myself.clone();
        self.timer = Some(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // The actor may have stopped in between: then nobody waits for this.
            let _ = myself.cast(ClusterMessage::Run);
        }));
    }
}

/// Jobs of the cluster that are not quiet, at most `most`.
fn busy_jobs(state: &State, tenant: &Name, cluster: &Name, most: usize) -> Vec<JobKey> {
    state
        .jobs_in(tenant, cluster)
        .filter(|(_, job)| !is_quiet(job))
        .map(|(key, _)| key.clone())
        .take(most)
        .collect()
}
