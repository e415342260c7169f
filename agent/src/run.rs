//! The agent: one task that owns the memory and decides, and the tasks around it.
//!
//! ```text
//! link      sessions with control: renewals, orders in, reports out        stream
//! steps     what a round begins, each a task                               executor
//! looks     guards asked how their jobs are
//! logs      logs that control asked for                                    logs
//! ```
//! Whatever happens, the same follows: what is new is remembered, synced, and then
//! [`reconcile`](crate::reconcile::reconcile) says what to begin. It needs no link: jobs that end are
//! started again from memory. When the agent ends, its jobs go on under their guards.

mod host;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, Digest, HostProfile, JobKey, Name, Revision};
use storage::{Disk, Fault};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::driver::{Driver, DriverError};
use crate::executor::{Done, Executor, Look, found};
use crate::images::{ImageError, Images};
use crate::lease::LeaseCount;
use crate::leftovers::Leftovers;
use crate::logs::Logs;
use crate::memory::log::MemoryLog;
use crate::naming::Folder;
use crate::reconcile::{Busy, Found, Lease, Round, World, failed, reconcile};
use crate::report::Reporter;
use crate::servers::Servers;
use crate::stream::{Event, Introduction, Link, Outbound};

/// Failed looks at all jobs after which those remembered are asked one by one.
const RECOVERIES_MAX: u32 = 3;
/// Rounds in a row before others get their turn.
const ROUNDS_MAX: u32 = 8;
/// The longest the agent sleeps, in ms.
const SLEEP_MS_MAX: u64 = 60_000;

/// Why an agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its memory or its folder fails: it must not act on orders it could forget.
    #[error("could not use the agent's folder")]
    Disk(#[from] Fault),
    /// Others may look into its folder, and it cannot keep them out.
    #[error("could not make {} private to its user (mode 0700)", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It has no identity.
    #[error(transparent)]
    Enrol(#[from] crate::enrol::EnrolError),
    /// Its certificate cannot be used.
    #[error("could not configure TLS")]
    Tls(#[from] identity::TlsError),
    /// The driver cannot be opened.
    #[error("could not open the driver")]
    Driver(#[from] DriverError),
    /// The images of this host cannot be listed.
    #[error("could not list the images of this host")]
    Images(#[from] ImageError),
}

/// What an agent stands on.
pub struct Parts<D: Disk> {
    /// Files of the memory; its folder exists.
    pub disk: D,
    /// What runs jobs.
    pub driver: Arc<dyn Driver>,
    /// Images on this host.
    pub images: Arc<dyn Images>,
    /// The control nodes known.
    pub servers: Arc<Servers>,
    /// What the machine is, looked at again now and then.
    pub profile: Arc<dyn Fn() -> HostProfile + Send + Sync>,
    /// Wall-clock time, for what people read.
    pub clock: Arc<dyn Clock>,
    /// Whose host this is.
    pub tenant: Name,
    /// This host.
    pub host: Name,
    /// Tells this life of the agent from others of the same host.
    pub life: u64,
}

/// Runs an agent until `until` resolves. Its jobs go on.
///
/// # Errors
/// See [`RunError`].
pub async fn run<D: Disk>(
    config: Config,
    parts: Parts<D>,
    until: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let log =
        MemoryLog::open(parts.disk.clone(), &config.memory_path(), config.memory.clone()).await?;
    let introduction = Introduction { profile: (parts.profile)(), newest: log.memory().heard() };
    let (introduce, introduction) = watch::channel(introduction);
    let (events, heard) = mpsc::channel(config.session.queue_messages_max.max(1));
    let text = format!("{}/{}", parts.tenant, parts.host);
    let link = Link {
        servers: parts.servers.clone(),
        driver: parts.driver.clone(),
        config: config.session,
        introduction,
        events,
        who: planner::retry::stable_hash([text.as_str()]),
        incarnation: format!("{:x}-{:x}", parts.driver.boottime_ms(), parts.life),
    };
    let leftovers = Leftovers::open(&parts.disk, config.leftovers_path(), config.leftovers).await;
    let mut core = Core::new(config, parts, (log, leftovers), introduce);
    tokio::pin!(until);
    tokio::select! {
        biased;
        () = &mut until => return Ok(()),
        recovered = core.recover() => recovered?,
    }
    // Aborted with the set when this function ends.
    let mut link_task = JoinSet::new();
    link_task.spawn(link.run());
    core.live(heard, until).await
}

/// The task that owns the memory.
struct Core<D: Disk> {
    config: Config,
    parts: Parts<D>,
    log: MemoryLog<D>,
    leftovers: Leftovers,
    executor: Arc<Executor<D>>,
    introduce: watch::Sender<Introduction>,
    out: Option<Outbound>,
    heard: bool,
    lease: LeaseCount,
    reporter: Reporter,
    logs: Logs,
    found: BTreeMap<JobKey, Found>,
    /// How often what is known of a job changed: a look that began before counts for nothing.
    turns: BTreeMap<JobKey, u64>,
    busy: BTreeMap<JobKey, Busy>,
    images: BTreeSet<Digest>,
    data: BTreeSet<JobKey>,
    steps: JoinSet<Done>,
    looks: JoinSet<Vec<(JobKey, u64, Look)>>,
    /// Walks through the data folders.
    walks: JoinSet<BTreeSet<Folder>>,
    /// Removals of data of jobs whose names others have.
    removals: JoinSet<()>,
}

impl<D: Disk> Core<D> {
    fn new(
        config: Config,
        parts: Parts<D>,
        (log, leftovers): (MemoryLog<D>, Leftovers),
        introduce: watch::Sender<Introduction>,
    ) -> Self {
        let work = (parts.driver.clone(), parts.images.clone());
        let executor = Executor::new(
            work,
            parts.disk.clone(),
            config.data.clone(),
            parts.tenant.clone(),
            config.work,
        );
        let logs = Logs::new(config.logs, parts.driver.clone(), parts.clock.clone());
        Self {
            executor: Arc::new(executor),
            log,
            leftovers,
            introduce,
            out: None,
            heard: false,
            lease: LeaseCount::new(),
            reporter: Reporter::new(config.session),
            logs,
            found: BTreeMap::new(),
            turns: BTreeMap::new(),
            busy: BTreeMap::new(),
            images: BTreeSet::new(),
            data: BTreeSet::new(),
            steps: JoinSet::new(),
            looks: JoinSet::new(),
            walks: JoinSet::new(),
            removals: JoinSet::new(),
            config,
            parts,
        }
    }

    /// Waits for something to happen, over and over, and does what follows from it.
    async fn live(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        mut until: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), RunError> {
        let probe_every = Duration::from_millis(self.config.work.probe_every_ms.max(1));
        let discover_every = Duration::from_millis(self.config.work.discover_every_ms.max(1));
        let mut probe_at = Instant::now() + probe_every;
        let mut discover_at = Instant::now() + discover_every;
        loop {
            let wake_at = self.rounds().await?;
            let report_at = self.send_reports();
            let next = wake_at.min(probe_at).min(discover_at).min(report_at);
            tokio::select! {
                biased;
                () = &mut until => return Ok(()),
                Some(event) = events.recv() => self.take(event).await?,
                Some(done) = self.steps.join_next() => {
                    if let Ok(done) = done {
                        self.over(done).await?;
                    }
                }
                Some(looks) = self.looks.join_next() => self.seen(looks.unwrap_or_default()),
                Some(walked) = self.walks.join_next() => {
                    self.clear_away(walked.unwrap_or_default()).await;
                }
                () = sleep_until(next) => {}
            }
            let now = Instant::now();
            if now >= probe_at {
                probe_at = now + probe_every;
                self.look_around();
            }
            if now >= discover_at {
                discover_at = now + discover_every;
                self.discover().await;
            }
        }
    }

    /// Reconciles until nothing is to be done now; when to do so again.
    async fn rounds(&mut self) -> Result<Instant, RunError> {
        let mut wake_at = None;
        for _ in 0..ROUNDS_MAX {
            let round = self.plan();
            wake_at = round.wake_at_boot_ms;
            if round.is_empty() {
                break;
            }
            self.log.remember(&round.records).await?;
            for step in round.steps {
                tracing::debug!(?step, "begin");
                self.busy.insert(step.key().clone(), step.busy());
                if step.busy() == Busy::Starting {
                    let order =
                        self.log.memory().job(step.key()).and_then(|job| job.order.as_ref());
                    let fence = order.map(crate::memory::Accepted::fence).unwrap_or_default();
                    self.executor.standing.begun(step.key(), fence);
                }
                self.turn(step.key());
                self.steps.spawn(self.executor.clone().carry_out(step));
            }
        }
        let now = self.parts.driver.boottime_ms();
        if let Lease::Alive { until_boot_ms } = self.lease.at(now) {
            wake_at = Some(wake_at.map_or(until_boot_ms, |at| at.min(until_boot_ms)));
        }
        let sleep_ms = wake_at.map_or(SLEEP_MS_MAX, |at| at.saturating_sub(now)).min(SLEEP_MS_MAX);
        Ok(Instant::now() + Duration::from_millis(sleep_ms.max(1)))
    }

    fn plan(&mut self) -> Round {
        let now_boot_ms = self.parts.driver.boottime_ms();
        reconcile(&World {
            memory: self.log.memory(),
            heard: self.heard,
            found: &self.found,
            busy: &self.busy,
            images: &self.images,
            data: &self.data,
            lease: self.lease.at(now_boot_ms),
            now_boot_ms,
            tuning: &self.config.tuning,
        })
    }

    /// Sends reports that are due; when to look again.
    fn send_reports(&mut self) -> Instant {
        let far = Instant::now() + Duration::from_millis(SLEEP_MS_MAX);
        let Some(out) = &self.out else { return far };
        self.reporter.send(self.log.memory(), out);
        self.reporter.due(self.log.memory()).unwrap_or(far)
    }

    /// A step is over.
    async fn over(&mut self, done: Done) -> Result<(), RunError> {
        let Done { key, busy, result, placed, look } = done;
        if self.busy.get(&key) == Some(&busy) {
            self.busy.remove(&key);
        }
        if busy == Busy::Starting {
            self.executor.standing.over(&key);
        }
        if let (Busy::Fetching(image), Ok(())) = (busy, &result) {
            self.images.insert(image);
        }
        self.turn(&key);
        self.note(&key, placed, look);
        if busy == Busy::Stopping {
            self.look_for_data(&key).await;
        }
        let Err(failure) = result else { return Ok(()) };
        if busy == Busy::Stopping {
            return Ok(());
        }
        let now = self.parts.driver.boottime_ms();
        let records = failed(self.log.memory(), &key, &failure, now, &self.config.tuning);
        Ok(self.log.remember(&records).await?)
    }

    /// Notes what the driver says of a job.
    fn note(&mut self, key: &JobKey, placed: Option<(model::Assignment, Revision)>, look: Look) {
        let known = self.found.get(key).map(|found| (found.assignment, found.spec_revision));
        match (look, placed.or(known)) {
            (Look::Known(state), Some(placed)) => {
                self.found.insert(key.clone(), found(placed, &state));
            }
            (Look::Gone, _) => {
                self.found.remove(key);
                if self.log.memory().job(key).is_none() {
                    self.turns.remove(key);
                }
            }
            (Look::Unclear, _) | (Look::Known(_), None) => {}
        }
    }

    fn turn(&mut self, key: &JobKey) {
        *self.turns.entry(key.clone()).or_default() += 1;
    }
}
