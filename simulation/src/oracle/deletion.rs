//! (11) Every deletion by force ends, with agents out of contact too.

use super::Found;
use crate::ledger::Node;
use model::Meta;

/// At the end nothing is left that was to go by force.
pub(super) fn ended(nodes: &[Node]) -> Found {
    let Some(state) = nodes.first().map(|node| &node.state) else { return Ok(()) };
    let stuck = |kind: &str, name: &str, meta: &Meta| match &meta.deletion {
        Some(deletion) if deletion.force => {
            Some(format!("{kind} {name} waits for {:?}", deletion.waiting_on))
        }
        _ => None,
    };
    let hosts = state.hosts.iter();
    let mut left = hosts.filter_map(|((_, name), row)| stuck("host", name.as_str(), &row.meta));
    let clusters = state.clusters.iter();
    let mut more =
        clusters.filter_map(|((_, name), row)| stuck("cluster", name.as_str(), &row.meta));
    let deployments = state.deployments.iter();
    let mut most =
        deployments.filter_map(|((_, name), row)| stuck("deployment", name.as_str(), &row.meta));
    match left.next().or_else(|| more.next()).or_else(|| most.next()) {
        Some(what) => Err(format!("{what} although it was deleted by force")),
        None => Ok(()),
    }
}
