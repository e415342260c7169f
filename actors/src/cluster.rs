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
use std::{collections::BTreeSet, marker::PhantomData, time::Duration};
use tokio::task::JoinHandle;

pub(crate) struct Cluster<L>(pub(crate) PhantomData<L>);

#[derive(Debug)]
pub(crate) enum ClusterMessage {
    /// Something was touched: look soon.
    Wake,
    /// Look now.
    Run,
    /// A crashed partition actor has waited long enough.
    Restart(JobKey),
    /// Crash, or pass it on to the actor of a job, to see the tree recover.
    #[cfg(test)]
    Panic(Option<JobKey>),
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
            ClusterMessage::Restart(key) => state.restart(&myself, key).await?,
            #[cfg(test)]
            ClusterMessage::Panic(None) => panic!("asked to"),
            #[cfg(test)]
            ClusterMessage::Panic(Some(key)) => {
                if let Some(actor) = state.partitions.get(&key) {
                    actor.cast(PartitionMessage::Panic)?;
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
                if let Some((key, delay)) = state.partitions.crashed(&cell, &state.shared.config) {
                    state.crashed(&myself, key, delay, &error.to_string());
                }
            }
            SupervisionEvent::ActorTerminated(cell, ..) => state.partitions.ended(&cell),
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
            } else if !self.partitions.waits(&key)
                && self.partitions.len() < self.shared.config.partitions_max
            {
                self.start(myself, key).await?;
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

    async fn start(
        &mut self,
        myself: &ActorRef<ClusterMessage>,
        key: JobKey,
    ) -> Result<(), ActorProcessingErr> {
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
            Actor::spawn_linked(None, Partition(PhantomData), arguments, myself.get_cell()).await?;
        self.partitions.put(key, actor);
        Ok(())
    }

    /// Starts a partition actor again, if its job still needs one.
    async fn restart(
        &mut self,
        myself: &ActorRef<ClusterMessage>,
        key: JobKey,
    ) -> Result<(), ActorProcessingErr> {
        if !self.partitions.waits(&key) {
            return Ok(());
        }
        let busy = |state: &State| state.jobs.get(&key).is_some_and(|job| !is_quiet(job));
        if self.shared.ledger.read(busy) {
            return self.start(myself, key).await;
        }
        self.partitions.stop(&key);
        self.shared.board.remove(&Subject::Partition(key));
        Ok(())
    }

    fn crashed(
        &self,
        myself: &ActorRef<ClusterMessage>,
        key: JobKey,
        delay: Duration,
        error: &str,
    ) {
        let subject = Subject::Partition(key.clone());
        tracing::error!(actor = %subject, error, delay_ms = delay.as_millis(), "actor crashed, it starts again");
        self.shared.board.crashed(&subject, error);
        myself.send_after(delay, move || ClusterMessage::Restart(key));
    }

    fn run_after(&mut self, myself: &ActorRef<ClusterMessage>, wait: Duration) {
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
