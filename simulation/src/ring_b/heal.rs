//! Faults off: one leader, all nodes equal, all hosts in contact, every job as asked or with a reason;
//! within a bound. Then nothing may be missing that anybody was told of.

use super::{control::Control, faults::Due, house::House, net::Odds};
use crate::{names::name, oracle::one_job};
use agent::naming::job_id;
use consensus::{JournalRow, Ledger as _, RaftLedger};
use model::{Clock as _, Contact, NodeId, Outcome, RequestId, Revision, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use storage::disk::simulated::{Injection, Loss};
use tokio::time::Instant;

/// How long it may take, in the world's time: slow retries come every ten minutes and as much as a tenth
/// later.
const BOUND: Duration = Duration::from_secs(720);
/// Looks at moments between two looks at everything.
const MOMENTS: u32 = 5;
/// Journal rows read at once.
const PAGE: usize = 500;

impl House {
    /// Everything has to come right.
    pub(super) async fn heal(&mut self) {
        self.book().line(format_args!("faults are over"));
        self.due.clear();
        self.common.net.set_odds(Odds::default());
        self.common.net.mend(None);
        for control in &self.controls {
            control.calm();
            control.clock.set(0);
            control.disk().inject(Injection::PowerOffAfter(u64::MAX));
        }
        for number in 0..self.controls.len() {
            self.start_node(number).await;
        }
        for edge in &mut self.edges {
            edge.start(&self.common).await;
        }
        self.end_users().await;
        let began = Instant::now();
        let mut why = String::new();
        while !self.book().is_broken() && began.elapsed() < BOUND {
            for _ in 0..MOMENTS {
                self.pass().await;
            }
            self.start_agents().await;
            match self.is_as_asked().await {
                Ok(running) => {
                    let healed_ms = began.elapsed().as_millis() as u64;
                    self.book().line(format_args!("all is as asked after {healed_ms} ms"));
                    self.book().count(|figures| {
                        figures.healed_ms = healed_ms;
                        figures.running = running;
                    });
                    return;
                }
                Err(reason) => why = reason,
            }
        }
        if !self.book().is_broken() {
            self.book().fail("convergence", format!("after {BOUND:?} without faults: {why}"));
        }
    }

    async fn start_agents(&mut self) {
        for edge in &mut self.edges {
            edge.start(&self.common).await;
        }
    }

    /// Whether nothing is left to do; the number of jobs that run.
    async fn is_as_asked(&self) -> Result<u64, String> {
        let (leader, revision) = self.one_leader().await?;
        let state = leader.read(State::clone);
        for control in &self.controls {
            let id = control.id;
            let Some(ledger) = control.ledger() else { return Err(format!("n{id} is down")) };
            let (at, hash) = ledger.read(|state| (state.globals.revision, state.hash()));
            if at != revision {
                return Err(format!("n{id} is at revision {at}, the leader at {revision}"));
            }
            if hash != state.hash() {
                return Err(format!("n{id} has another state"));
            }
            if !state.nodes.get(&id).is_some_and(|row| row.alive) {
                return Err(format!("n{id} is held for lost"));
            }
        }
        for (key, job) in state.jobs.iter() {
            one_job(&state, key, job).map_err(|why| format!("job {key}: {why}"))?;
        }
        let now = self.controls.first().map(|control| control.clock.now()).unwrap_or_default();
        let tenant = name("acme");
        let mut plans = vec![planner::plan_tenant(&state, &tenant, now)];
        for ((_, cluster), _) in state.clusters.iter() {
            plans.push(planner::plan_cluster(&state, &tenant, cluster, now));
        }
        if let Some(command) = plans.iter().flat_map(|plan| &plan.commands).next() {
            return Err(format!("there is still {command:?} to do"));
        }
        self.hosts_agree(&state)
    }

    async fn one_leader(&self) -> Result<(RaftLedger, Revision), String> {
        let mut named: BTreeSet<Option<NodeId>> = BTreeSet::new();
        let mut leader = None;
        for control in &self.controls {
            let Some(ledger) = control.ledger() else { continue };
            let leadership = *ledger.leadership().borrow();
            named.insert(leadership.leader);
            if leadership.is_leader {
                leader = Some(ledger.clone());
            }
        }
        let (Some(leader), 1) = (leader, named.len()) else {
            return Err(format!("leaders are {named:?}"));
        };
        let deadline = Instant::now() + Duration::from_secs(2);
        match leader.linearize(deadline).await {
            Ok(revision) => Ok((leader, revision)),
            Err(error) => Err(format!("the leader cannot be read: {error}")),
        }
    }

    /// Hosts are in contact, and run what they are asked and nothing else.
    fn hosts_agree(&self, state: &State) -> Result<u64, String> {
        let mut running = 0;
        for edge in &self.edges {
            let (tenant, host) = &edge.at;
            let row = state.host(tenant, host);
            if !row.is_some_and(|row| matches!(row.contact, Contact::Connected { .. })) {
                return Err(format!("{host} is out of contact"));
            }
            let asked: BTreeMap<_, _> = state
                .orders(tenant, host)
                .into_iter()
                .filter_map(|order| Some((job_id(&order.key)?, order)))
                .collect();
            for (job, spec) in edge.running() {
                let order = asked.get(&job).filter(|order| order.scheduled.active);
                if order.is_none_or(|order| order.assignment.0 != spec.assignment) {
                    return Err(format!("{host} runs {job}, which nobody asks for"));
                }
                running += 1;
            }
        }
        Ok(running)
    }

    /// What can be said only at the end.
    pub(super) async fn audit(&mut self) {
        let mut rows = BTreeMap::new();
        for control in &self.controls {
            let Some(ledger) = control.ledger() else { continue };
            let found = journal(ledger, &mut rows);
            self.book().judge("journal", found.map_err(|it| format!("n{}: {it}", control.id)));
        }
        self.book().judge("acknowledged", self.all_kept(&rows));
        if self.book().is_broken() {
            return;
        }
        self.rebuild().await;
    }

    /// Whatever a user was told is in the journal, at that revision and with that answer.
    fn all_kept(&self, rows: &BTreeMap<Revision, JournalRow>) -> Result<(), String> {
        let mut done: BTreeMap<&RequestId, Revision> = BTreeMap::new();
        for row in rows.values() {
            let Some(id) = &row.request_id else { continue };
            let first = row.outcome.revision == row.revision && row.outcome.result.is_ok();
            if first && let Some(before) = done.insert(id, row.revision) {
                return Err(format!("{id:?} was done at {before} and at {}", row.revision));
            }
        }
        let oldest = rows.keys().next().copied().unwrap_or(Revision(0));
        for told in self.users.answered() {
            let Outcome { revision, .. } = told.outcome;
            if revision < oldest {
                continue;
            }
            let Some(row) = rows.get(&revision) else {
                return Err(format!("a user was told of revision {revision}, which is gone"));
            };
            if row.request_id.as_ref() != Some(&told.id) || row.outcome != told.outcome {
                return Err(format!(
                    "a user was told {:?}, the journal has {:?}",
                    told.outcome, row.outcome
                ));
            }
        }
        Ok(())
    }

    /// One node loses its store: what snapshot and log make of it is what it was.
    async fn rebuild(&mut self) {
        let number = self.dice.index(self.controls.len());
        let newest = self.common.observers.newest();
        self.controls[number].crash(&self.common, Loss::Nothing);
        self.controls[number].wreck();
        let back = Due::NodeBack(number);
        self.decide_later(Duration::from_millis(1), back);
        let until = Instant::now() + Duration::from_secs(30);
        let caught_up = |control: &Control| {
            let at = control.ledger().map(|it| it.read(|state| state.globals.revision));
            at.is_some_and(|at| at >= newest)
        };
        // Its states are compared as they come.
        while !caught_up(&self.controls[number]) && !self.book().is_broken() {
            if Instant::now() >= until {
                let id = self.controls[number].id;
                self.book().fail("rebuild", format!("n{id} does not come back to {newest}"));
            }
            self.pass().await;
        }
        self.wait(200).await;
    }
}

/// Adds a node's journal to what others had; where both have a revision they have the same.
fn journal(ledger: &RaftLedger, rows: &mut BTreeMap<Revision, JournalRow>) -> Result<(), String> {
    let mut after = Revision(0);
    loop {
        let page = ledger.journal(after, PAGE).map_err(|fault| fault.to_string())?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.revision;
        for row in page {
            let other = rows.entry(row.revision).or_insert_with(|| row.clone());
            if *other != row {
                return Err(format!("revision {} has two rows", row.revision));
            }
        }
    }
}
