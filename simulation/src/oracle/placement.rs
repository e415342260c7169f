//! No placement breaks a hard constraint at the revision that makes it; judged here without the
//! function that judges it there.

use super::Found;
use model::{Contact, Event, HostState, JobKey, Name, OnDisconnect, State};

/// Every job that got a host may have it.
pub(super) fn suits(state: &State, events: &[Event]) -> Found {
    for event in events {
        if let Event::JobAssigned { key, host } = event {
            one(state, key, host).map_err(|why| format!("{key} was given {host}: {why}"))?;
        }
    }
    Ok(())
}

fn one(state: &State, key: &JobKey, host: &Name) -> Found {
    let (Some(job), Some(row)) = (state.jobs.get(key), state.host(&key.tenant, host)) else {
        return Err("one of them is not there".to_owned());
    };
    let workload = &job.workload;
    let member = state
        .cluster(&key.tenant, &key.cluster)
        .is_some_and(|cluster| cluster.spec.members.contains(host));
    let zone = row.zone.as_ref().is_some_and(|zone| workload.zones.contains(zone));
    let rules = [
        (member, "it is not in the cluster"),
        (matches!(row.contact, Contact::Connected { .. }), "it is out of contact"),
        (!row.cordoned, "it is cordoned"),
        (row.meta.deletion.is_none(), "it is being deleted"),
        (row.state != HostState::Untrusted, "it is not trusted"),
        (row.drivers.contains(&workload.driver), "it lacks the driver"),
        (workload.zones.is_empty() || zone, "it is in another zone"),
        (workload.on_disconnect != OnDisconnect::Stop || row.fenced, "it cannot contain it"),
        (job.active, "the job is not to run"),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, why)) => Err(why.to_owned()),
        None => Ok(()),
    }
}
