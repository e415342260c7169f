//! `show <what>`: parts of the state, in short.

use crate::{
    World,
    parse::{Parsed, Words},
};
use model::{Contact, Job, Key, Meta, Placement, Row};
use std::fmt::Write as _;

/// Answers `show ..`; `None` for other verbs.
pub(crate) fn show(world: &World, words: &mut Words) -> Parsed<Option<String>> {
    if words.verb() != "show" {
        return Ok(None);
    }
    let state = &world.state;
    let mut out = String::new();
    match words.next()?.as_str() {
        "orders" => {
            let (tenant, host) = words.pair()?;
            for order in state.orders(&tenant, &host) {
                let what = if order.scheduled.active { "run" } else { "stop" };
                let of = order.deployment.map(|uid| format!(" of {uid}")).unwrap_or_default();
                let data = if order.data_elsewhere { ", data elsewhere" } else { "" };
                writeln!(
                    out,
                    "{what} {}{of} under {} since {}{data}",
                    order.key, order.assignment, order.scheduled.revision
                )?;
            }
        }
        "outlook" => {
            let (tenant, deployment) = words.pair()?;
            let outlooks = state.outlooks(&tenant);
            let parts = state.parts_of(&tenant, &deployment).map(|((_, _, it), _)| Some(it));
            for cluster in std::iter::once(None).chain(parts) {
                let model::Outlook { next_retry_at, settling } = outlooks.of(&deployment, cluster);
                let place = cluster.map_or("all".to_owned(), ToString::to_string);
                // A hash spreads retries: whole seconds.
                let again = next_retry_at.map(|at| (at.since_ms(world.time) + 500) / 1_000);
                let again = again.map_or("never".to_owned(), |s| format!("in about {s} s"));
                let model::Settling { jobs, until } = settling;
                let until = until.since_ms(world.time);
                writeln!(out, "{place}: tried again {again}, {jobs} settle within {until} ms")?;
            }
        }
        "due" => {
            let tenant = words.name()?;
            match state.next_due(&tenant) {
                Some(at) => writeln!(out, "in {} ms", at.since_ms(world.time))?,
                None => writeln!(out, "nothing")?,
            }
        }
        "rows" => writeln!(out, "{} rows", state.rows().count())?,
        "requests" => writeln!(out, "{} answers", state.requests.len())?,
        "usage" => {
            let (tenant, host) = words.pair()?;
            let usage = state.usage(&tenant, &host);
            writeln!(out, "cpu {} memory {}M", usage.cpu_millis, usage.memory_bytes >> 20)?;
        }
        what => {
            for (key, row) in state.rows() {
                let line = line(&key, &row);
                if line.starts_with(what.trim_end_matches('s')) {
                    writeln!(out, "{line}")?;
                }
            }
        }
    }
    Ok(Some(out))
}

/// Attempts that failed, if any.
fn tried(status: &model::Status) -> String {
    match (status.attempt, status.retryable) {
        (0, _) => String::new(),
        (attempt, true) => format!(" (attempt {attempt}, tried again)"),
        (attempt, false) => format!(" (attempt {attempt}, final)"),
    }
}

fn line(key: &Key, row: &Row) -> String {
    match row {
        Row::Tenant(row) => format!("{key}: {}{}", row.status.text, meta(&row.meta)),
        Row::Host(row) => {
            let contact = match row.contact {
                Contact::Never => "never seen".into(),
                Contact::Connected { node, session, .. } => format!("node {node} #{session}"),
                Contact::Lost { session, .. } => format!("lost #{session}"),
            };
            format!("{key}: {:?}, {contact}, {}{}", row.state, row.status.text, meta(&row.meta))
        }
        Row::Cluster(row) => {
            let members: Vec<&str> = row.spec.members.iter().map(model::Name::as_str).collect();
            format!("{key}: [{}] {}{}", members.join(" "), row.status.text, meta(&row.meta))
        }
        Row::Deployment(row) => format!(
            "{key}: {} generation {}, {:?}: {}{}{}",
            row.state.as_str(),
            row.meta.generation,
            row.status.indicator,
            row.status.text,
            tried(&row.status),
            meta(&row.meta)
        ),
        Row::DeploymentCluster(row) => format!(
            "{key}: {} {}/{} pending {} unknown {} failed {}",
            row.state.as_str(),
            row.counts.running,
            row.counts.total,
            row.counts.pending,
            row.counts.unknown,
            row.counts.failed
        ),
        Row::Job(row) => format!("{key}: {}", job(row)),
        Row::Binding(row) => format!("{key}: {:?}", row.role),
        Row::Token(row) => format!("{key}: {} uses left", row.uses_left),
        Row::Node(row) => {
            let alive = if row.alive { "alive" } else { "lost" };
            format!("{key}: {alive} at {} knows {}", row.peer_addr, row.rules_max)
        }
        Row::Tombstone(row) => format!("{key}: up to {}", row.assignment),
        Row::Image(row) => format!("{key}: {} bytes", row.size_bytes),
        Row::Package(row) => format!("{key}: {} applications", row.applications.len()),
        Row::Request(row) => format!("{key}: {}", row.revision),
        Row::RemovedNode(row) => format!("{key}: at {}", row.at.0),
    }
}

fn meta(meta: &Meta) -> String {
    match &meta.deletion {
        Some(deletion) if deletion.waiting_on.is_empty() => ", deletion requested".into(),
        Some(deletion) => format!(", waits for {}", deletion.waiting_on.join(" ")),
        None => String::new(),
    }
}

fn job(row: &Job) -> String {
    let mut out = if row.active { "active".to_owned() } else { "inactive".into() };
    for placement in &row.placements {
        write!(out, "; {}", copy(placement)).unwrap();
    }
    if let Some(trouble) = &row.trouble {
        let attempt = trouble.attempt;
        write!(out, "; {} (attempt {attempt}): {}", trouble.reason, trouble.text).unwrap();
    }
    if let Some(host) = &row.data_on {
        write!(out, "; data on {host}").unwrap();
    }
    out
}

fn copy(placement: &Placement) -> String {
    let told = if placement.scheduled.active { "run" } else { "stop" };
    let says = match &placement.current {
        None => "says nothing".to_owned(),
        Some(current) => {
            let settled = if current.settled { " settled" } else { "" };
            let error = current.error.as_ref().map(|it| format!(" {}", it.reason));
            let behind = if placement.scheduled.revision == current.order { "" } else { " (old)" };
            format!("{}{settled}{}{behind}", current.phase.as_str(), error.unwrap_or_default())
        }
    };
    format!("{} on {}: {told}, {says}", placement.assignment, placement.host)
}
