//! Jobs, their keys and placements, to and from the wire.

use super::{
    field::{self, Read, Within},
    host::{driver_from_proto, driver_to_proto, resources_from_proto, resources_to_proto},
    package::{env_from_proto, env_to_proto, policy_from_proto, policy_to_proto},
};
use crate::{reason::bad_field, resource, v1};
use model::{
    Assignment, Current, Job, JobError, JobKey, Key, Name, Phase, Placement, ReportNumber,
    Revision, Scheduled, Slot, Trouble, Workload,
};
use std::sync::Arc;

/// The message of a job.
pub fn to_proto(key: &JobKey, job: &Job) -> v1::Job {
    v1::Job {
        resource: resource::format(&Key::Job(key.clone())).unwrap_or_default(),
        key: Some(key_to_proto(key)),
        uid: job.uid.to_string(),
        revision: job.revision.0,
        created_at: Some(field::time(job.created_at)),
        active: job.active,
        workload: Some(workload_to_proto(&job.workload)),
        placements: job.placements.iter().map(|it| placement_to_proto(key, it)).collect(),
        trouble: job.trouble.as_deref().map(|trouble| v1::Trouble {
            reason: trouble.reason.clone(),
            text: trouble.text.clone(),
            since: Some(field::time(trouble.since)),
            attempt: trouble.attempt,
            next_retry_at: trouble.next_retry_at.map(field::time),
        }),
        due_at: job.due_at.map(field::time),
        progress_since: Some(field::time(job.progress_since)),
        data_on: job.data_on.as_ref().map(Name::to_string),
    }
}

/// The key and job of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_proto(job: v1::Job) -> Read<(JobKey, Job)> {
    let key = key_from_proto("key", job.key)?;
    if resource::parse("resource", &job.resource)? != Key::Job(key.clone()) {
        return Err(bad_field("key", "key is not the one that resource says", "make them agree"));
    }
    let placements = job.placements.into_iter().enumerate().map(|(at, placement)| {
        placement_from_proto(placement).within(format_args!("placements[{at}]"))
    });
    let job = Job {
        uid: field::uid("uid", &job.uid)?,
        revision: Revision(job.revision),
        created_at: field::read_time("created_at", job.created_at)?,
        active: job.active,
        workload: workload_from_proto(job.workload)?,
        placements: placements.collect::<Read<_>>()?,
        trouble: job.trouble.map(|found| trouble(found).within("trouble")).transpose()?,
        due_at: field::read_optional_time("due_at", job.due_at)?,
        progress_since: field::read_time("progress_since", job.progress_since)?,
        data_on: field::optional_name("data_on", job.data_on.as_deref())?,
    };
    Ok((key, job))
}

/// The message of a job's key.
pub fn key_to_proto(key: &JobKey) -> v1::JobKey {
    v1::JobKey {
        tenant: key.tenant.to_string(),
        deployment: key.deployment.to_string(),
        cluster: key.cluster.to_string(),
        application: key.application.to_string(),
        slot: Some(match &key.slot {
            Slot::Partition(number) => v1::job_key::Slot::Partition(*number),
            Slot::Host(host) => v1::job_key::Slot::Host(host.to_string()),
            Slot::Run(number) => v1::job_key::Slot::Run(*number),
        }),
    }
}

/// The job's key in `field` of a message.
///
/// # Errors
/// `FIELD` when it is missing or malformed.
pub fn key_from_proto(field: &str, key: Option<v1::JobKey>) -> Read<JobKey> {
    let key = field::required(field, key)?;
    read_key(key).within(field)
}

fn read_key(key: v1::JobKey) -> Read<JobKey> {
    Ok(JobKey {
        tenant: field::name("tenant", &key.tenant)?,
        deployment: field::name("deployment", &key.deployment)?,
        cluster: field::name("cluster", &key.cluster)?,
        application: field::name("application", &key.application)?,
        slot: match field::required("slot", key.slot)? {
            v1::job_key::Slot::Partition(number) => Slot::Partition(number),
            v1::job_key::Slot::Host(host) => Slot::Host(field::name("host", &host)?),
            v1::job_key::Slot::Run(number) => Slot::Run(number),
        },
    })
}

/// The message of what is to run.
pub fn workload_to_proto(workload: &Workload) -> v1::Workload {
    v1::Workload {
        spec_revision: workload.spec_revision.0,
        version: workload.version.clone(),
        driver: driver_to_proto(workload.driver).into(),
        num_partitions: workload.num_partitions,
        image: workload.image.to_string(),
        limits: Some(resources_to_proto(workload.limits)),
        on_disconnect: policy_to_proto(workload.on_disconnect).into(),
        stop_grace_ms: workload.stop_grace_ms,
        env: env_to_proto(&workload.env),
        zones: workload.zones.iter().map(Name::to_string).collect(),
    }
}

/// What is to run, from a field `workload`.
///
/// # Errors
/// `FIELD` when it is missing or malformed.
pub fn workload_from_proto(workload: Option<v1::Workload>) -> Read<Arc<Workload>> {
    let workload = field::required("workload", workload)?;
    read_workload(workload).within("workload").map(Arc::new)
}

fn read_workload(workload: v1::Workload) -> Read<Workload> {
    Ok(Workload {
        spec_revision: Revision(workload.spec_revision),
        version: field::version("version", workload.version)?,
        driver: driver_from_proto("driver", workload.driver)?,
        num_partitions: workload.num_partitions,
        image: field::digest("image", &workload.image)?,
        limits: resources_from_proto("limits", workload.limits)?,
        on_disconnect: policy_from_proto("on_disconnect", workload.on_disconnect)?,
        stop_grace_ms: workload.stop_grace_ms,
        env: env_from_proto(workload.env)?,
        zones: field::names("zones", &workload.zones)?,
    })
}

fn placement_to_proto(key: &JobKey, placement: &Placement) -> v1::Placement {
    v1::Placement {
        assignment: placement.assignment.0,
        host: placement.host.to_string(),
        scheduled: Some(scheduled_to_proto(&placement.scheduled)),
        current: placement.current.as_ref().map(|current| current_to_proto(key, current)),
    }
}

fn placement_from_proto(placement: v1::Placement) -> Read<Placement> {
    Ok(Placement {
        assignment: Assignment(placement.assignment),
        host: field::name("host", &placement.host)?,
        scheduled: scheduled_from_proto(placement.scheduled)?,
        current: placement
            .current
            .map(|current| current_from_proto(current).within("current"))
            .transpose()?,
    })
}

pub(crate) fn scheduled_to_proto(scheduled: &Scheduled) -> v1::Scheduled {
    v1::Scheduled {
        active: scheduled.active,
        workload: Some(workload_to_proto(&scheduled.workload)),
        revision: scheduled.revision.0,
    }
}

pub(crate) fn scheduled_from_proto(scheduled: Option<v1::Scheduled>) -> Read<Scheduled> {
    let scheduled = field::required("scheduled", scheduled)?;
    Ok(Scheduled {
        active: scheduled.active,
        workload: workload_from_proto(scheduled.workload).within("scheduled")?,
        revision: Revision(scheduled.revision),
    })
}

fn current_to_proto(key: &JobKey, current: &Current) -> v1::Current {
    v1::Current {
        phase: phase_to_proto(current.phase).into(),
        spec_revision: current.spec_revision.0,
        image: current.image.to_string(),
        order: current.order.0,
        number: Some(v1::ReportNumber {
            session: current.number.session,
            item: current.number.item,
        }),
        since: Some(field::time(current.since)),
        restarts: current.restarts,
        settled: current.settled,
        data_left_behind: current.data_left_behind,
        error: current.error.as_deref().map(error_to_proto),
        next_retry_at: model::retry::next_retry_at(key, current).map(field::time),
    }
}

fn current_from_proto(current: v1::Current) -> Read<Current> {
    Ok(Current {
        phase: phase_from_proto(current.phase)?,
        spec_revision: Revision(current.spec_revision),
        image: field::digest("image", &current.image)?,
        order: Revision(current.order),
        number: current.number.map_or_else(ReportNumber::default, |number| ReportNumber {
            session: number.session,
            item: number.item,
        }),
        since: field::read_time("since", current.since)?,
        restarts: current.restarts,
        settled: current.settled,
        data_left_behind: current.data_left_behind,
        error: current.error.map(|error| Box::new(error_from_proto(error))),
    })
}

pub(crate) fn error_to_proto(error: &JobError) -> v1::JobError {
    v1::JobError {
        reason: error.reason.clone(),
        text: error.text.clone(),
        retryable: error.retryable,
        attempt: error.attempt,
    }
}

pub(crate) fn error_from_proto(error: v1::JobError) -> JobError {
    JobError {
        reason: error.reason,
        text: error.text,
        retryable: error.retryable,
        attempt: error.attempt,
    }
}

fn trouble(trouble: v1::Trouble) -> Read<Box<Trouble>> {
    Ok(Box::new(Trouble {
        reason: trouble.reason,
        text: trouble.text,
        since: field::read_time("since", trouble.since)?,
        attempt: trouble.attempt,
        next_retry_at: field::read_optional_time("next_retry_at", trouble.next_retry_at)?,
    }))
}

pub(crate) fn phase_to_proto(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Accepted => v1::Phase::Accepted,
        Phase::Downloading => v1::Phase::Downloading,
        Phase::Starting => v1::Phase::Starting,
        Phase::Running => v1::Phase::Running,
        Phase::Stopping => v1::Phase::Stopping,
        Phase::Stopped => v1::Phase::Stopped,
        Phase::Failing => v1::Phase::Failing,
        Phase::Failed => v1::Phase::Failed,
    }
}

pub(crate) fn phase_from_proto(phase: i32) -> Read<Phase> {
    match v1::Phase::try_from(phase) {
        Ok(v1::Phase::Accepted) => Ok(Phase::Accepted),
        Ok(v1::Phase::Downloading) => Ok(Phase::Downloading),
        Ok(v1::Phase::Starting) => Ok(Phase::Starting),
        Ok(v1::Phase::Running) => Ok(Phase::Running),
        Ok(v1::Phase::Stopping) => Ok(Phase::Stopping),
        Ok(v1::Phase::Stopped) => Ok(Phase::Stopped),
        Ok(v1::Phase::Failing) => Ok(Phase::Failing),
        Ok(v1::Phase::Failed) => Ok(Phase::Failed),
        Ok(v1::Phase::Unspecified) | Err(_) => {
            field::unknown_word("phase", "the phases of a job, such as RUNNING")
        }
    }
}
