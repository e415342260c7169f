//! The actor of one job whose scheduled and current halves differ: it watches the job settle.
//!
//! It plans nothing (placing is a matter of the whole cluster); it knows when time alone will change
//! its job, wakes the cluster actor then, and says in `muster inspect` what its job is waiting for.
//! When the halves are equal it stops: a million quiet jobs cost no actors.

use crate::{board::Subject, reconcile::Shared};
use consensus::Ledger;
use model::{Job, JobKey, Phase, Timestamp};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::marker::PhantomData;
use tokio::task::JoinHandle;

pub(crate) struct Partition<L>(pub(crate) PhantomData<L>);

#[derive(Debug)]
pub(crate) enum PartitionMessage {
    /// The job may have changed.
    Wake,
    /// The moment the job waits for has come.
    Due,
    /// Crash, to see the tree recover.
    #[cfg(test)]
    Panic,
}

/// Called when the job is due; wakes the cluster actor.
pub(crate) type WakeCluster = Box<dyn Fn() + Send + Sync>;

pub(crate) struct PartitionArguments<L> {
    pub(crate) shared: Shared<L>,
    pub(crate) key: JobKey,
    pub(crate) wake_cluster: WakeCluster,
}

pub(crate) struct PartitionState<L> {
    shared: Shared<L>,
    key: JobKey,
    subject: Subject,
    wake_cluster: WakeCluster,
    timer: Option<(Timestamp, JoinHandle<()>)>,
}

impl<L: Ledger> Actor for Partition<L> {
    type Msg = PartitionMessage;
    type State = PartitionState<L>;
    type Arguments = PartitionArguments<L>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let PartitionArguments { shared, key, wake_cluster } = arguments;
        let subject = Subject::Partition(key.clone());
        shared.board.update(&subject, |status| status.up = true);
        myself.cast(PartitionMessage::Wake)?;
        Ok(PartitionState { shared, key, subject, wake_cluster, timer: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PartitionMessage::Wake => {
                if !state.look(&myself) {
                    myself.stop(None);
                }
            }
            PartitionMessage::Due => {
                state.timer = None;
                (state.wake_cluster)();
            }
            #[cfg(test)]
            PartitionMessage::Panic => panic!("asked to"),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.disarm();
        state.shared.board.remove(&state.subject);
        Ok(())
    }
}

impl<L: Ledger> PartitionState<L> {
    /// Looks at the job; false when there is nothing left to watch.
    fn look(&mut self, myself: &ActorRef<PartitionMessage>) -> bool {
        let (revision, seen) = self.shared.ledger.read(|state| {
            let seen = state.jobs.get(&self.key).filter(|job| !is_quiet(job));
            (state.globals.revision, seen.map(|job| (waits_for(job), job.due_at)))
        });
        let Some((waits_for, due_at)) = seen else { return false };
        self.shared.board.update(&self.subject, |status| {
            status.runs += 1;
            status.revision = revision.0;
            status.last_run = waits_for;
        });
        self.arm(myself, due_at);
        true
    }

    fn arm(&mut self, myself: &ActorRef<PartitionMessage>, due_at: Option<Timestamp>) {
        if self.timer.as_ref().map(|(at, _)| *at) == due_at {
            return;
        }
        self.disarm();
        if let Some(at) = due_at {
            let myself = myself.clone();
            let wait = self.shared.until(at);
            let timer = tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                // The actor may have stopped in between: then nobody waits for this.
                let _ = myself.cast(PartitionMessage::Due);
            });
            self.timer = Some((at, timer));
        }
    }

    fn disarm(&mut self) {
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
    }
}

/// Whether scheduled and current are equal, and nothing is due by time.
pub(crate) fn is_quiet(job: &Job) -> bool {
    let settled = |placement: &model::Placement| {
        placement.current.as_ref().is_some_and(|current| {
            placement.scheduled.active
                && current.phase == Phase::Running
                && current.settled
                && current.order == placement.scheduled.revision
        })
    };
    job.active
        && job.due_at.is_none()
        && job.placements.len() == 1
        && job.placements.iter().all(settled)
}

/// What a job waits for, in one line.
fn waits_for(job: &Job) -> String {
    if let Some(trouble) = &job.trouble {
        return format!("{}: {}", trouble.reason, trouble.text);
    }
    let Some(placement) = job.placements.last() else {
        return if job.active { "waits for a host".into() } else { "waits to be removed".into() };
    };
    let phase =
        placement.current.as_ref().map_or("no report yet", |current| current.phase.as_str());
    let wanted = if placement.scheduled.active { "run" } else { "stop" };
    format!("host {} is to {wanted} it, says {phase}", placement.host)
}
