//! Golden scripts and properties of `agent::memory` and `agent::reconcile`.
//!
//! A script in `reconcile/` is a story of one host; `UPDATE_GOLDENFILES=1` rewrites what it prints.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    reason = "a test binary has no API"
)]

mod fake;
mod on_disk;
mod properties;

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use agent::guard::state::ExitReason;
use agent::memory::{Orders, Record};
use agent::reconcile::{Lease, Stage, Step};
use fake::{FakeHost, Told, Trouble, key, order};
use goldenscript::{Command, Context, Runner};
use model::{Digest, JobKey, OnDisconnect, Order, Report, Revision, Uid};

#[test]
fn every_story_of_a_host_goes_as_written() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/reconcile");
    let mut names: Vec<_> =
        std::fs::read_dir(&scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 10, "only {} scripts in {}", names.len(), scripts.display());
    for script in names {
        goldenscript::run(&mut Story::new(), &script).unwrap();
    }
}

struct Story {
    host: FakeHost,
    orders: Vec<Order>,
}

impl Story {
    fn new() -> Self {
        Self { host: FakeHost::new(), orders: Vec::new() }
    }
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut out = String::new();
        match command.name.as_str() {
            // order PARTITION assignment=N revision=N spec=N image=N [policy=stop|replace]
            // [active=false] [elsewhere=true] [deployment=N]: what control tells from the next `hear` on.
            "order" => {
                let told = told(&mut args)?;
                self.orders.retain(|order| order.key != key(told.partition));
                self.orders.push(order(told));
            }
            // drop PARTITION: control has no order for it from the next `hear` on.
            "drop" => {
                let partition = args.next_pos().ok_or("no partition")?.parse()?;
                self.orders.retain(|order| order.key != key(partition));
            }
            // hear REVISION: the full set of orders arrives.
            "hear" => {
                let revision = Revision(args.next_pos().ok_or("no revision")?.parse()?);
                let orders = self.orders.clone();
                let set = Orders { revision, full: true, orders, gone: Vec::new() };
                for refused in self.host.hear(&set) {
                    writeln!(out, "refused: {refused}")?;
                }
            }
            // round: plan once and begin the steps.
            "round" => out = self.describe_round()?,
            // finish [fetch|start|lease|withdrawn] [permanent]: the steps begun are over, or failed there.
            "finish" => {
                let stage = match args.next_pos() {
                    Some("fetch") => Some(Stage::Fetch),
                    Some("start") => Some(Stage::Start),
                    Some("lease") => Some(Stage::Lease),
                    Some("withdrawn") => Some(Stage::Withdrawn),
                    _ => None,
                };
                let permanent = args.next_pos() == Some("permanent");
                self.host.finish(stage.map(|stage| Trouble { stage, permanent }));
            }
            // run: rounds and finished steps until nothing is left to do.
            "run" => {
                for _ in 0..20 {
                    let round = self.describe_round()?;
                    if round.is_empty() {
                        break;
                    }
                    out.push_str(&round);
                    self.host.finish(None);
                }
            }
            // exit PARTITION crashed|oom|guard_lost|completed|lease_expired
            "exit" => {
                let partition = args.next_pos().ok_or("no partition")?.parse()?;
                let reason = exit_reason(args.next_pos().ok_or("no reason")?)?;
                self.host.end(&key(partition), reason);
            }
            // lease MS: renewed until so much later.
            "lease" => {
                let ms: u64 = args.next_pos().ok_or("no time")?.parse()?;
                self.host.lease = Lease::Alive { until_boot_ms: self.host.now_boot_ms + ms };
            }
            "tick" => self.host.tick(args.next_pos().ok_or("no time")?.parse()?),
            "disconnect" => self.host.heard = false,
            "restart" => self.host.restart(),
            "reboot" => self.host.reboot(),
            // lose-memory: the agent's disk was lost.
            "lose-memory" => {
                self.host.log.clear();
                self.host.restart();
            }
            // show: what the drivers say.
            "show" => out = self.describe_found()?,
            other => return Err(format!("no command {other}").into()),
        }
        args.reject_next()?;
        Ok(out)
    }
}

impl Story {
    fn describe_found(&self) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        for (key, found) in &self.host.found {
            let (phase, assignment) = (found.phase, found.assignment);
            let spec = found.spec_revision;
            writeln!(out, "{}: {phase:?} assignment={assignment} spec={spec}", key.slot)?;
        }
        writeln!(out, "{} starts so far", self.host.starts)?;
        Ok(out)
    }

    fn describe_round(&mut self) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        let round = self.host.round();
        for record in &round.records {
            writeln!(out, "{}", describe_record(record))?;
        }
        for step in &round.steps {
            writeln!(out, "-> {}", describe_step(step))?;
        }
        if let Some(at) = round.wake_at_boot_ms {
            // A hash spreads retries: scripts show whole seconds.
            let wait = at.saturating_sub(self.host.now_boot_ms);
            if !round.is_empty() {
                writeln!(out, "wakes in {} s", (wait + 500) / 1_000)?;
            }
        }
        Ok(out)
    }
}

fn describe_record(record: &Record) -> String {
    match record {
        Record::Launched { key, assignment, workload, data_left_behind } => {
            let (spec, image) = (workload.spec_revision, image(&workload.image));
            let left = if *data_left_behind { " without its data" } else { "" };
            format!(
                "note: {} launched assignment={assignment} spec={spec} image={image}{left}",
                key.slot
            )
        }
        Record::Ended { key } => format!("note: {} ended", key.slot),
        Record::Tried { key, effort } => {
            let fell_back = if effort.fell_back { ", fell back" } else { "" };
            format!("note: {} failed attempt {}{fell_back}", key.slot, effort.attempt)
        }
        Record::Ran { key } => format!("note: {} is trusted", key.slot),
        Record::Forgiven { key } => format!("note: {} is forgiven", key.slot),
        Record::Forgotten { key } => format!("note: {} forgotten", key.slot),
        Record::Reported { report } => describe_report(report),
        other => format!("note: {other:?}"),
    }
}

fn describe_report(report: &Report) -> String {
    let Report { assignment, order, phase, spec_revision, restarts, .. } = report;
    let mut text = format!(
        "report: {} {} assignment={assignment} order={order} spec={spec_revision} image={}",
        report.key.slot,
        phase.as_str(),
        image(&report.image)
    );
    if *restarts > 0 {
        text.push_str(&format!(" restarts={restarts}"));
    }
    if report.data_left_behind {
        text.push_str(" data_left_behind");
    }
    if let Some(error) = &report.error {
        let again = if error.retryable { "retried" } else { "final" };
        let words: Vec<&str> = error.text.split("; next attempt in").collect();
        text.push_str(&format!(
            " error={} ({again}, attempt {}): {}",
            error.reason, error.attempt, words[0]
        ));
    }
    text
}

fn describe_step(step: &Step) -> String {
    let slot = |key: &JobKey| key.slot.to_string();
    match step {
        Step::FetchImage { key, image: digest } => {
            format!("fetch {} for {}", image(digest), slot(key))
        }
        Step::Start { key, assignment, workload, deployment } => format!(
            "start {} assignment={assignment} spec={}{}",
            slot(key),
            workload.spec_revision,
            data_of(*deployment)
        ),
        Step::Replace { key, grace_ms, assignment, workload, deployment } => format!(
            "replace {} grace={grace_ms} assignment={assignment} spec={}{}",
            slot(key),
            workload.spec_revision,
            data_of(*deployment)
        ),
        Step::Stop { key, grace_ms } => format!("stop {} grace={grace_ms}", slot(key)),
        Step::Kill { key } => format!("kill {}", slot(key)),
        Step::Forget { key } => format!("forget {}", slot(key)),
    }
}

fn data_of(deployment: Option<Uid>) -> String {
    deployment.map(|uid| format!(" with data of {uid}")).unwrap_or_default()
}

fn image(digest: &Digest) -> u8 {
    digest.0[0]
}

/// The arguments of `order`.
fn told(args: &mut goldenscript::ArgumentConsumer<'_>) -> Result<Told, Box<dyn Error>> {
    let mut number = |name: &str| -> Result<u64, Box<dyn Error>> {
        Ok(args.take_key(name).ok_or(format!("{name} is missing"))?.parse()?)
    };
    let (assignment, revision) = (number("assignment")?, number("revision")?);
    let (spec, image) = (number("spec")?, number("image")?);
    let policy = match args.take_key("policy") {
        Some("stop") => OnDisconnect::Stop,
        Some("replace") => OnDisconnect::Replace,
        _ => OnDisconnect::KeepRunning,
    };
    let active = args.take_key("active") != Some("false");
    let elsewhere = args.take_key("elsewhere") == Some("true");
    let deployment = args.take_key("deployment").map(str::parse).transpose()?;
    let partition = args.next_pos().ok_or("no partition")?.parse()?;
    let image = u8::try_from(image)?;
    Ok(Told { partition, assignment, revision, spec, image, policy, active, elsewhere, deployment })
}

fn exit_reason(word: &str) -> Result<ExitReason, Box<dyn Error>> {
    Ok(match word {
        "crashed" => ExitReason::Crashed,
        "oom" => ExitReason::Oom,
        "guard_lost" => ExitReason::GuardLost,
        "completed" => ExitReason::Completed,
        other => return Err(format!("no exit {other}").into()),
    })
}
