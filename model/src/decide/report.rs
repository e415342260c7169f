//! `ReportJobs`: what a host says of its copies, accepted only under the assignment in force.

use super::{Decided, Decision, check};
use crate::{
    Current, Event, JobError, Name, Phase, Placement, Rejection, Removal, Reply, Report,
    ReportNumber, limits::TEXT_MAX_BYTES, rejection::Code,
};

/// Longest reason of an error, in bytes.
const REASON_MAX_BYTES: usize = 32;

impl Decision<'_> {
    pub(super) fn report_jobs(
        &mut self,
        tenant: &Name,
        host: &Name,
        first: ReportNumber,
        items: &[Report],
    ) -> Decided {
        self.need_trusted_host(tenant, host)?;
        let newest = self.state.host(tenant, host).map_or(0, |row| row.contact.session());
        if u64::from(first.session) > newest {
            return Err(Code::ReportInvalid
                .reject("the report is of a session that has not begun")
                .at("first.session")
                .with("newest", newest));
        }
        let number = |position: u32| {
            let item = first.item.saturating_add(position);
            ReportNumber { item, ..first }
        };
        let numbered = (0..).map(number).zip(items);
        let answers = numbered.map(|(number, item)| self.report_job((tenant, host), number, item));
        Ok(Reply::Items(answers.collect()))
    }

    fn report_job(
        &mut self,
        (tenant, host): (&Name, &Name),
        number: ReportNumber,
        item: &Report,
    ) -> Result<(), Rejection> {
        let Report { key, assignment, .. } = item;
        if key.tenant != *tenant {
            return Err(Code::ReportInvalid.reject("the job is not of this tenant").at("key"));
        }
        let job = self.state.jobs.get(key);
        let mut placements = job.into_iter().flat_map(|job| &job.placements);
        let in_force = |it: &&Placement| it.assignment == *assignment && it.host == *host;
        let Some(placement) = placements.find(in_force) else {
            return Err(Code::StaleReport
                .reject(format!("assignment {assignment} of job {key} is not in force"))
                .at("assignment"));
        };
        let before = placement.current.as_ref();
        if item.order > placement.scheduled.revision {
            return Err(Code::ReportInvalid
                .reject("the report answers an order that was not given")
                .at("order")
                .with("newest", placement.scheduled.revision));
        }
        if before.is_some_and(|before| (item.order, number) < (before.order, before.number)) {
            return Err(Code::StaleReport
                .reject(format!("a newer report of job {key} is known"))
                .at("order"));
        }
        let current = self.current(before, number, item)?;
        let gone = item.phase == Phase::Stopped
            && !placement.scheduled.active
            && item.order == placement.scheduled.revision;
        if before != Some(&current) {
            let (key, assignment) = (key.clone(), *assignment);
            self.emit(Event::JobReported { key, assignment, current: Box::new(current) });
        }
        if gone {
            let (key, assignment) = (key.clone(), *assignment);
            self.emit(Event::PlacementRemoved { key, assignment, why: Removal::Stopped });
            self.remove_if_empty(&item.key);
        }
        Ok(())
    }

    /// What is known of a copy after a report. Time and settling go on while phase, spec and number
    /// of starts stay.
    fn current(
        &self,
        before: Option<&Current>,
        number: ReportNumber,
        item: &Report,
    ) -> Result<Current, Rejection> {
        let error = item.error.as_ref().map(error).transpose()?.map(Box::new);
        let goes_on = before.filter(|before| {
            before.phase == item.phase
                && before.spec_revision == item.spec_revision
                && before.restarts == item.restarts
        });
        Ok(Current {
            phase: item.phase,
            spec_revision: item.spec_revision,
            image: item.image,
            order: item.order,
            number,
            since: goes_on.map_or(self.context.time, |before| before.since),
            restarts: item.restarts,
            settled: goes_on.is_some_and(|before| before.settled),
            data_left_behind: item.data_left_behind,
            error,
        })
    }
}

fn error(error: &JobError) -> Result<JobError, Rejection> {
    let reason = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    let length = error.reason.len();
    if length == 0 || length > REASON_MAX_BYTES || !error.reason.bytes().all(reason) {
        return Err(Code::ReportInvalid
            .reject("the reason of an error is one word of A-Z, 0-9 and '_'")
            .at("error.reason"));
    }
    Ok(JobError { text: check::cut(&error.text, TEXT_MAX_BYTES).into(), ..error.clone() })
}
