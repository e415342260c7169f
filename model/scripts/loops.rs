//! Verbs that stand for planners and agents.

use crate::{
    World, control,
    parse::{self, Parsed, Words},
};
use model::{
    Assign, Assignment, Caller, Command, JobError, JobKey, Name, Phase, Report, ReportNumber,
    Revision,
};

/// What planners propose, one job at a time; `sync acme shop` names all jobs that are not in line.
pub(crate) fn planner(world: &World, words: &mut Words) -> Parsed<Command> {
    let tenant = words.name()?;
    let text = words.next()?;
    if words.verb() == "sync" && !text.contains('/') {
        let mut keys = model::expected_jobs(&world.state, &tenant, &parse::name(&text)?);
        keys.retain(|key| !model::is_in_line(&world.state, key));
        return Ok(Command::SyncJobs { keys });
    }
    let key = parse::job(&tenant, &text)?;
    let job = world.state.jobs.get(&key);
    let seen = job.map_or(Revision(0), |job| job.revision);
    Ok(match words.verb() {
        "sync" => Command::SyncJobs { keys: vec![key] },
        "assign" => {
            let host = words.name()?;
            let seen = words.number("seen")?.map_or(seen, Revision);
            Command::AssignJobs { items: vec![Assign { key, host, seen }] }
        }
        "explain" => {
            let seen = words.number("seen")?.map_or(seen, Revision);
            Command::ExplainJobs { items: vec![(key, seen, words.rest().join(" "))] }
        }
        _ => {
            let first = job.and_then(|job| job.placements.first()).map(|it| it.assignment);
            let given = words.number("assignment")?.map(Assignment);
            let assignment = given.or(first).unwrap_or_default();
            Command::EvictJobs { items: vec![(key, assignment)] }
        }
    })
}

/// `place acme`: each job that may have a host gets the first that can take it, fewest jobs first.
pub(crate) fn place(world: &mut World, words: &mut Words) -> Parsed<String> {
    let tenant = words.name()?;
    let mut out = String::new();
    let keys: Vec<JobKey> = world.state.jobs.iter().map(|(key, _)| key.clone()).collect();
    for key in keys.into_iter().filter(|key| key.tenant == tenant) {
        if !model::is_placeable(&world.state, &key) {
            continue;
        }
        let state = &world.state;
        let job = state.jobs.get(&key).unwrap();
        let mut hosts: Vec<(usize, Name)> = state
            .hosts
            .iter()
            .filter(|((of, _), _)| *of == tenant)
            .map(|((_, host), _)| (state.jobs_on(&tenant, host).count(), host.clone()))
            .collect();
        hosts.sort();
        let fits = |host: &Name| {
            let usage = state.usage(&tenant, host);
            model::feasible(state, &key, &job.workload, host, usage).is_ok()
                && !job.placements.iter().any(|placement| placement.host == *host)
        };
        let Some((_, host)) = hosts.into_iter().find(|(_, host)| fits(host)) else { continue };
        let items = vec![Assign { key, host, seen: job.revision }];
        out += &world.apply(control(), None, Command::AssignJobs { items });
    }
    Ok(out)
}

/// `report acme/h1 shop/north/web/0 running error=OOM restarts=1 ..`: about the copy on that host.
pub(crate) fn report(world: &World, words: &mut Words) -> Parsed<(Caller, Command)> {
    let (tenant, host) = words.pair()?;
    let key = parse::job(&tenant, &words.next()?)?;
    let phase = phase(&words.next()?)?;
    let job = world.state.jobs.get(&key);
    let placement = job.and_then(|job| job.placements.iter().find(|it| it.host == host));
    let attempt = u32::try_from(words.number("attempt")?.unwrap_or(1))?;
    let error = words.take("error").map(|reason| JobError {
        reason,
        text: "exit status 1".into(),
        retryable: phase == Phase::Failing,
        attempt,
    });
    let scheduled = placement.map(|it| &it.scheduled);
    let order = scheduled.map_or(Revision(0), |it| it.revision);
    let spec = scheduled.map_or(Revision(0), |it| it.workload.spec_revision);
    let item = Report {
        key,
        assignment: match words.number("assignment")? {
            Some(assignment) => Assignment(assignment),
            None => placement.map_or(Assignment(0), |it| it.assignment),
        },
        order: words.number("order")?.map_or(order, Revision),
        phase,
        spec_revision: words.number("spec")?.map_or(spec, Revision),
        image: scheduled.map_or(parse::digest("x"), |it| it.workload.image),
        restarts: u32::try_from(words.number("restarts")?.unwrap_or(0))?,
        data_left_behind: words.flag("data-left"),
        error,
    };
    let next = world.state.next_report(&tenant, &host);
    let first = ReportNumber {
        session: words.number("session")?.map_or(Ok(next.session), u32::try_from)?,
        item: words.number("number")?.map_or(Ok(next.item), u32::try_from)?,
    };
    let caller = Caller::Agent { tenant: tenant.clone(), host: host.clone() };
    Ok((caller, Command::ReportJobs { tenant, host, first, items: vec![item] }))
}

fn phase(text: &str) -> Parsed<Phase> {
    let all = [
        Phase::Accepted,
        Phase::Downloading,
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Stopped,
        Phase::Failing,
        Phase::Failed,
    ];
    let found = all.into_iter().find(|it| it.as_str() == text.to_uppercase());
    found.ok_or_else(|| format!("phase {text}").into())
}

/// `run acme/h1`: the agent carries out all its orders at once and reports.
pub(crate) fn agent(world: &mut World, words: &mut Words) -> Parsed<String> {
    let (tenant, host) = words.pair()?;
    let items: Vec<Report> = world
        .state
        .orders(&tenant, &host)
        .into_iter()
        .map(|order| Report {
            key: order.key,
            assignment: order.assignment,
            order: order.scheduled.revision,
            phase: if order.scheduled.active { Phase::Running } else { Phase::Stopped },
            spec_revision: order.scheduled.workload.spec_revision,
            image: order.scheduled.workload.image,
            restarts: 0,
            data_left_behind: order.data_elsewhere,
            error: None,
        })
        .collect();
    let caller = Caller::Agent { tenant: tenant.clone(), host: host.clone() };
    let first = world.state.next_report(&tenant, &host);
    Ok(world.apply(caller, None, Command::ReportJobs { tenant, host, first, items }))
}
