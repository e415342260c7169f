//! (12) One reconcile of a thing at a time: a node has one plan of a resource in the air, an agent one
//! step of a job (fetching an image aside).

use super::Found;
use crate::{edge::Agent, ledger::Node, planning::Resource};
use agent::reconcile::{Busy, Step};

/// How long an unanswered plan counts, in ms.
const ANSWER_MS: u64 = 4_000;

/// No plan of the resource is in the air.
pub(super) fn plan_alone(node: &Node, resource: &Resource, now: u64) -> Found {
    match node.plans.get(resource) {
        Some(flight) if now < flight.since + ANSWER_MS => {
            Err(format!("{resource:?} is planned again while a plan is under way"))
        }
        _ => Ok(()),
    }
}

/// No step of the job is under way that this one would cross.
pub(super) fn step_alone(agent: &Agent, step: &Step) -> Found {
    let moving = |busy: &Busy| matches!(busy, Busy::Starting | Busy::Stopping);
    let crossed = agent.busy.get(step.key()).filter(|busy| moving(busy));
    match crossed.filter(|_| moving(&step.busy())) {
        Some(busy) => Err(format!("{step:?} begins while the job is {busy:?}")),
        None => Ok(()),
    }
}
