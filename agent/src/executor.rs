//! Carries out the steps of a round through the driver, each in a task of its own.
//!
//! The steps of a job come one after the other, because a round never begins one while another is under
//! way; those of different jobs run side by side, bounded in lanes: a stop may wait for all of its
//! grace, and must not keep starts and kills waiting with it. A start that had to wait asks again
//! whether it still stands. A step that was carried out says what the driver knows of the job
//! afterwards, so that the next round does not act on what was true before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Assignment, Digest, JobKey, Name, OnDisconnect, Revision, Value, Workload};
use storage::Disk;
use tokio::sync::Semaphore;

use crate::config::WorkConfig;
use crate::driver::{Cause, Driver, DriverError, JobId, JobSpec, JobState};
use crate::guard::spec::{self, Limits, LogLimits, ModuleSpec};
use crate::images::stored::with_sources;
use crate::images::{ImageError, Images, driver_of};
use crate::naming::{self, Folder};
use crate::reconcile::{Busy, Failure, Found, Stage, Step};
use crate::standing::{Stale, Standing};

#[cfg(test)]
mod tests;

/// Largest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What the driver knows of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// This.
    Known(Box<JobState>),
    /// Nothing.
    Gone,
    /// It did not answer: what was known before still stands.
    Unclear,
}

/// A step that is over.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) key: JobKey,
    /// What the job was busy with.
    pub(crate) busy: Busy,
    pub(crate) result: Result<(), Failure>,
    /// What is in place now, if the step put something there.
    pub(crate) placed: Option<(Assignment, Revision)>,
    /// What the driver says after the step; `Unclear` for a fetch.
    pub(crate) look: Look,
}

/// Carries out steps.
pub(crate) struct Executor<D: Disk> {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: Arc<dyn Images>,
    disk: D,
    data: PathBuf,
    tenant: Name,
    config: WorkConfig,
    /// Whether starts decided earlier still stand.
    pub(crate) standing: Standing,
    starts: Semaphore,
    stops: Semaphore,
    kills: Semaphore,
    fetches: Semaphore,
    probes: Semaphore,
}

/// Why a job could not be started.
enum StartError {
    Image(ImageError),
    Driver(DriverError),
    Stale(Stale),
}

impl From<Stale> for StartError {
    fn from(stale: Stale) -> Self {
        Self::Stale(stale)
    }
}

impl From<ImageError> for StartError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<DriverError> for StartError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl<D: Disk> Executor<D> {
    pub(crate) fn new(
        (driver, images): (Arc<dyn Driver>, Arc<dyn Images>),
        disk: D,
        data: PathBuf,
        tenant: Name,
        config: WorkConfig,
    ) -> Self {
        let permits = |max: usize| Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            driver,
            images,
            disk,
            data,
            tenant,
            standing: Standing::default(),
            starts: permits(config.steps_max),
            stops: permits(config.stops_max),
            kills: permits(config.kills_max),
            fetches: permits(config.fetches_max),
            probes: permits(config.probes_max),
            config,
        }
    }

    /// Carries a step out, to its end or failure.
    pub(crate) async fn carry_out(self: Arc<Self>, step: Step) -> Done {
        let (key, busy) = (step.key().clone(), step.busy());
        let mut placed = None;
        let result = match &step {
            Step::FetchImage { image, .. } => self.fetch(*image).await,
            Step::Start { assignment, workload, deployment, .. } => {
                let folder = Folder { key: key.clone(), deployment: *deployment };
                self.start(&folder, (*assignment, workload), &mut placed).await
            }
            Step::Replace { grace_ms, assignment, workload, deployment, .. } => {
                let folder = Folder { key: key.clone(), deployment: *deployment };
                let stopped = match self.stands(&key, workload) {
                    Ok(()) => self.stop(&key, *grace_ms).await,
                    Err(stale) => Err(of_stale(&key, stale)),
                };
                match stopped {
                    Ok(()) => self.start(&folder, (*assignment, workload), &mut placed).await,
                    Err(failure) => Err(failure),
                }
            }
            Step::Stop { grace_ms, .. } => self.stop(&key, *grace_ms).await,
            Step::Kill { .. } => self.stop(&key, 0).await,
            Step::Forget { .. } => self.forget(&key).await,
        };
        if let Err(failure) = &result {
            tracing::warn!(job = %key, ?busy, error = failure.text, "could not carry out a step");
            if busy == Busy::Stopping {
                // The next round tries again: not at once.
                tokio::time::sleep(Duration::from_millis(self.config.retry_ms)).await;
            }
        }
        let look = match busy {
            Busy::Fetching(_) => Look::Unclear,
            Busy::Starting | Busy::Stopping => self.look(&key).await,
        };
        Done { key, busy, result, placed, look }
    }

    /// Asks the driver how a job is.
    pub(crate) async fn look(&self, key: &JobKey) -> Look {
        let Some(id) = naming::job_id(key) else { return Look::Gone };
        let _turn = self.probes.acquire().await;
        match self.driver.probe(&id).await {
            Ok(state) => Look::Known(Box::new(state)),
            Err(error) if error.cause() == Cause::Unknown => Look::Gone,
            Err(error) => {
                tracing::debug!(job = %key, %error, "a job does not say how it is");
                Look::Unclear
            }
        }
    }

    async fn fetch(&self, image: Digest) -> Result<(), Failure> {
        // No lane is ever closed.
        let _turn = self.fetches.acquire().await;
        let fetched = self.images.fetch(&self.tenant, image).await;
        fetched.map_err(|error| of_image(Stage::Fetch, error))
    }

    /// Whether a start that was decided earlier may go on.
    fn stands(&self, key: &JobKey, workload: &Workload) -> Result<(), Stale> {
        self.standing.check(key, workload.on_disconnect, self.driver.boottime_ms())
    }

    async fn start(
        &self,
        folder: &Folder,
        (assignment, workload): (Assignment, &Workload),
        placed: &mut Option<(Assignment, Revision)>,
    ) -> Result<(), Failure> {
        let key = &folder.key;
        let id = id_of(key)?;
        let _turn = self.starts.acquire().await;
        let started = async {
            self.stands(key, workload)?;
            let spec = self.spec(folder, assignment, workload).await?;
            self.driver.prepare(&id, spec).await?;
            *placed = Some((assignment, workload.spec_revision));
            // Preparing takes as long as compiling does.
            self.stands(key, workload)?;
            Ok::<_, StartError>(self.driver.start(&id).await?)
        };
        match started.await {
            Ok(_state) => Ok(()),
            Err(StartError::Stale(stale)) => Err(of_stale(key, stale)),
            Err(StartError::Image(error)) => Err(of_image(Stage::Start, error)),
            Err(StartError::Driver(error)) => {
                let lease = error.cause() == Cause::Lease;
                Err(of_driver(if lease { Stage::Lease } else { Stage::Start }, &error))
            }
        }
    }

    async fn stop(&self, key: &JobKey, grace_ms: u64) -> Result<(), Failure> {
        let lane = if grace_ms == 0 { &self.kills } else { &self.stops };
        let _turn = lane.acquire().await;
        match self.driver.stop(&id_of(key)?, grace_ms).await {
            Ok(_state) => Ok(()),
            Err(error) if error.cause() == Cause::Unknown => Ok(()),
            Err(error) => Err(of_driver(Stage::Start, &error)),
        }
    }

    async fn forget(&self, key: &JobKey) -> Result<(), Failure> {
        let _turn = self.kills.acquire().await;
        let removed = self.driver.remove(&id_of(key)?).await;
        removed.map_err(|error| of_driver(Stage::Start, &error))
    }

    /// The specification of a job for its guard.
    async fn spec(
        &self,
        folder: &Folder,
        assignment: Assignment,
        workload: &Workload,
    ) -> Result<JobSpec, StartError> {
        let key = &folder.key;
        let mut modules = self.images.modules(workload.image).await?;
        let mut env = Vec::new();
        // Names with this beginning are muster's own: what they say is read back by the next agent.
        for (name, value) in workload.env.iter().filter(|(name, _)| !name.starts_with("MUSTER_")) {
            env.push((name.clone(), self.value(value).await?));
        }
        env.extend(naming::environment(key, workload.spec_revision));
        for module in &mut modules {
            module.env.retain(|(name, _)| !name.starts_with("MUSTER_"));
            extend(module, &env);
        }
        let partition = match key.slot {
            model::Slot::Partition(number) => Some(number),
            model::Slot::Host(_) | model::Slot::Run(_) => None,
        };
        Ok(JobSpec {
            tenant: key.tenant.to_string(),
            deployment: key.deployment.to_string(),
            app: key.application.to_string(),
            slot: key.slot.to_string(),
            partition,
            num_partitions: workload.num_partitions,
            assignment: assignment.0,
            driver: driver_of(workload.driver),
            modules,
            data_dir: folder.path(&self.data),
            limits: limits_of(workload),
            on_disconnect: match workload.on_disconnect {
                OnDisconnect::KeepRunning => spec::OnDisconnect::KeepRunning,
                OnDisconnect::Stop => spec::OnDisconnect::Stop,
                OnDisconnect::Replace => spec::OnDisconnect::Replace,
            },
            stop_grace_ms: workload.stop_grace_ms,
            kill_margin_ms: self.config.kill_margin_ms,
            logs: LogLimits {
                file_bytes_max: self.config.log_file_bytes_max,
                files_max: self.config.log_files_max,
            },
            lease: PathBuf::new(),
            cgroup: String::new(),
        })
    }

    /// The text of a value; a secret is the file `secrets/<name>/<key>` of the data folder.
    async fn value(&self, value: &Value) -> Result<String, StartError> {
        let (name, key) = match value {
            Value::Literal(text) => return Ok(text.clone()),
            Value::SecretRef { name, key } => (name, key),
        };
        let missing = || {
            let message = format!("this host has no secret {name} with a key {key}");
            StartError::Driver(DriverError::transient(Cause::Spec, message))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || key.starts_with('.') || !key.chars().all(plain) {
            return Err(missing());
        }
        let path = self.data.join("secrets").join(name.as_str()).join(key);
        let bytes = self.disk.read_file(&path, SECRET_BYTES_MAX).await.map_err(|_| missing())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| missing())
    }

    /// Deletes the data of a job that is gone.
    pub(crate) async fn forget_data(self: Arc<Self>, folder: Folder) -> Done {
        self.remove_data(&folder).await;
        let key = folder.key;
        Done { key, busy: Busy::Stopping, result: Ok(()), placed: None, look: Look::Gone }
    }

    /// Deletes data that no job uses. A look later tries again if that failed.
    pub(crate) async fn remove_data(&self, folder: &Folder) {
        let _turn = self.kills.acquire().await;
        tracing::info!(%folder, "delete the data of a job that is gone");
        if let Err(error) = self.driver.remove_data(&folder.path(&self.data)).await {
            tracing::warn!(%folder, %error, "could not delete the data of a job that is gone");
        }
    }

    /// Whether a job's data folder holds something.
    pub(crate) async fn has_data(&self, folder: &Folder) -> bool {
        let unowned = Folder { deployment: None, ..folder.clone() };
        for folder in [folder, &unowned] {
            // One that is not there or cannot be read holds nothing that the job could use.
            if let Ok(names) = self.disk.list(&folder.path(&self.data)).await {
                return !names.is_empty();
            }
        }
        false
    }
}

fn extend(module: &mut ModuleSpec, env: &[(String, String)]) {
    module.env.retain(|(name, _)| !env.iter().any(|(other, _)| other == name));
    module.env.extend(env.iter().cloned());
}

/// Limits; 0 is none.
fn limits_of(workload: &Workload) -> Limits {
    let set = |value: u64| (value > 0).then_some(value);
    Limits {
        memory_bytes: set(workload.limits.memory_bytes),
        cpu_millis: set(workload.limits.cpu_millis)
            .map(|millis| u32::try_from(millis).unwrap_or(u32::MAX)),
        pids_max: None,
    }
}

fn id_of(key: &JobKey) -> Result<JobId, Failure> {
    naming::job_id(key).ok_or_else(|| Failure {
        stage: Stage::Start,
        reason: Cause::Spec.code().to_owned(),
        text: format!("{key} has no name that fits a folder"),
        permanent: true,
    })
}

fn of_stale(key: &JobKey, stale: Stale) -> Failure {
    let (stage, text) = match stale {
        Stale::Order => (Stage::Withdrawn, "the order changed before it was carried out"),
        Stale::Lease => (Stage::Lease, "the lease ended before it was carried out"),
    };
    let (reason, text) = (Cause::Lease.code().to_owned(), format!("{key} was not started: {text}"));
    Failure { stage, reason, text, permanent: false }
}

fn of_image(stage: Stage, error: ImageError) -> Failure {
    let ImageError { permanent, message } = error;
    Failure { stage, reason: "IMAGE".to_owned(), text: message, permanent }
}

fn of_driver(stage: Stage, error: &DriverError) -> Failure {
    Failure {
        stage,
        reason: error.cause().code().to_owned(),
        text: with_sources(error),
        permanent: !error.is_transient(),
    }
}

/// What a round is told of a job.
pub(crate) fn found(placed: (Assignment, Revision), state: &JobState) -> Found {
    Found {
        assignment: placed.0,
        spec_revision: placed.1,
        phase: state.phase,
        started_at_boot_ms: state.started_at_boot_ms,
        exit: state.exit.clone(),
    }
}
