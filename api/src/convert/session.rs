//! What agents and control nodes tell each other in a session: orders, reports and their answers.

use super::{
    field::{self, Read, Within},
    job::{
        error_from_proto, error_to_proto, key_from_proto, key_to_proto, phase_from_proto,
        phase_to_proto, scheduled_from_proto, scheduled_to_proto,
    },
    rejection,
};
use crate::v1;
use model::{Assignment, JobKey, Order, Rejection, Report, Revision, Uid};

/// Reports in one message, at most.
pub const REPORTS_MAX: usize = 4_096;

/// The message of an order.
pub fn order_to_proto(order: &Order) -> v1::Order {
    v1::Order {
        key: Some(key_to_proto(&order.key)),
        assignment: order.assignment.0,
        scheduled: Some(scheduled_to_proto(&order.scheduled)),
        data_elsewhere: order.data_elsewhere,
        deployment_uid: order.deployment.as_ref().map(Uid::to_string).unwrap_or_default(),
    }
}

/// The order of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn order_from_proto(order: v1::Order) -> Read<Order> {
    let uid = Some(&order.deployment_uid).filter(|text| !text.is_empty());
    Ok(Order {
        deployment: uid.map(|text| field::uid("deployment_uid", text)).transpose()?,
        key: key_from_proto("key", order.key)?,
        assignment: Assignment(order.assignment),
        scheduled: scheduled_from_proto(order.scheduled)?,
        data_elsewhere: order.data_elsewhere,
    })
}

/// The message that an order no longer stands.
pub fn removed_to_proto(key: &JobKey, assignment: Assignment) -> v1::OrderRemoved {
    v1::OrderRemoved { key: Some(key_to_proto(key)), assignment: assignment.0 }
}

/// Which order no longer stands.
///
/// # Errors
/// `FIELD` when the key is missing or malformed.
pub fn removed_from_proto(removed: v1::OrderRemoved) -> Read<(JobKey, Assignment)> {
    Ok((key_from_proto("key", removed.key)?, Assignment(removed.assignment)))
}

/// The message of a report.
pub fn report_to_proto(report: &Report) -> v1::Report {
    v1::Report {
        key: Some(key_to_proto(&report.key)),
        assignment: report.assignment.0,
        order: report.order.0,
        phase: phase_to_proto(report.phase).into(),
        spec_revision: report.spec_revision.0,
        image: report.image.to_string(),
        restarts: report.restarts,
        data_left_behind: report.data_left_behind,
        error: report.error.as_ref().map(error_to_proto),
    }
}

/// The report of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn report_from_proto(report: v1::Report) -> Read<Report> {
    Ok(Report {
        key: key_from_proto("key", report.key)?,
        assignment: Assignment(report.assignment),
        order: Revision(report.order),
        phase: phase_from_proto(report.phase)?,
        spec_revision: Revision(report.spec_revision),
        image: field::digest("image", &report.image)?,
        restarts: report.restarts,
        data_left_behind: report.data_left_behind,
        error: report.error.map(error_from_proto),
    })
}

/// All reports of a message, in order.
///
/// # Errors
/// `FIELD` at the first malformed item, or when there are more than [`REPORTS_MAX`].
pub fn reports_from_proto(reports: v1::Reports) -> Read<Vec<Report>> {
    if reports.items.len() > REPORTS_MAX {
        return Err(crate::reason::bad_field(
            "items",
            format!("a message holds at most {REPORTS_MAX} reports"),
            "send them in several messages",
        ));
    }
    let read = |(at, report)| report_from_proto(report).within(format_args!("items[{at}]"));
    reports.items.into_iter().enumerate().map(read).collect()
}

/// The answer to the reports of `sequence`, item by item.
pub fn taken_to_proto(sequence: u64, results: &[Result<(), Rejection>]) -> v1::ReportsTaken {
    let result = |result: &Result<(), Rejection>| v1::ReportResult {
        rejection: result.as_ref().err().map(rejection::to_proto),
    };
    v1::ReportsTaken { sequence, results: results.iter().map(result).collect() }
}

/// What came of each report.
///
/// # Errors
/// `FIELD` at the first malformed item.
pub fn taken_from_proto(taken: v1::ReportsTaken) -> Read<Vec<Result<(), Rejection>>> {
    let read = |(at, result): (usize, v1::ReportResult)| match result.rejection {
        None => Ok(Ok(())),
        Some(found) => {
            rejection::from_proto(found).within(format_args!("results[{at}].rejection")).map(Err)
        }
    };
    taken.results.into_iter().enumerate().map(read).collect()
}
