//! A host without processes: carries out the steps of a round the way drivers would.
//!
//! It keeps the log of records as its disk, so that a restart of the agent replays them, and counts
//! what runs, so that two copies of one job at once are seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent::guard::state::{ExitReason, JobExit, Phase as GuardPhase};
use agent::memory::{Bounds, Memory, Orders, Record};
use agent::reconcile::{
    Busy, Failure, Found, Lease, Round, Stage, Step, Tuning, World, failed, reconcile,
};
use model::{
    Assignment, Digest, DriverKind, JobKey, Name, OnDisconnect, Order, Resources, Revision,
    Scheduled, Slot, Uid, Workload,
};

/// How the next step of a kind goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub stage: Stage,
    pub permanent: bool,
}

pub struct FakeHost {
    pub log: Vec<Record>,
    pub memory: Memory,
    pub heard: bool,
    pub found: BTreeMap<JobKey, Found>,
    pub busy: BTreeMap<JobKey, Busy>,
    pub begun: Vec<Step>,
    pub images: BTreeSet<Digest>,
    pub data: BTreeSet<JobKey>,
    pub lease: Lease,
    pub now_boot_ms: u64,
    pub tuning: Tuning,
    /// Every start ever, for those who count.
    pub starts: u64,
}

impl FakeHost {
    pub fn new() -> Self {
        Self {
            log: Vec::new(),
            memory: Memory::new(Bounds::default()),
            heard: false,
            found: BTreeMap::new(),
            busy: BTreeMap::new(),
            begun: Vec::new(),
            images: BTreeSet::new(),
            data: BTreeSet::new(),
            lease: Lease::Never,
            now_boot_ms: 1_000,
            tuning: Tuning::default(),
            starts: 0,
        }
    }

    pub fn remember(&mut self, records: &[Record]) {
        for record in records {
            self.memory.apply(record);
            self.log.push(record.clone());
        }
    }

    /// Orders arrive in the session in force. Answers what was refused.
    pub fn hear(&mut self, orders: &Orders) -> Vec<String> {
        let admission = self.memory.admit(orders);
        self.remember(&admission.records);
        let set_refused = admission
            .refused
            .iter()
            .any(|refused| matches!(refused, agent::memory::Refused::Set { .. }));
        if orders.full && !set_refused {
            self.heard = true;
        }
        admission.refused.iter().map(ToString::to_string).collect()
    }

    pub fn plan(&self) -> Round {
        reconcile(&World {
            memory: &self.memory,
            heard: self.heard,
            found: &self.found,
            busy: &self.busy,
            images: &self.images,
            data: &self.data,
            lease: self.lease,
            now_boot_ms: self.now_boot_ms,
            tuning: &self.tuning,
        })
    }

    /// Plans, remembers and begins.
    pub fn round(&mut self) -> Round {
        let round = self.plan();
        self.remember(&round.records);
        for step in &round.steps {
            self.busy.insert(step.key().clone(), step.busy());
            self.begun.push(step.clone());
        }
        round
    }

    /// Completes the oldest step that was begun.
    pub fn finish_one(&mut self, trouble: Option<Trouble>) {
        if self.begun.is_empty() {
            return;
        }
        let step = self.begun.remove(0);
        let key = step.key().clone();
        if self.busy.get(&key) == Some(&step.busy()) {
            self.busy.remove(&key);
        }
        match step {
            Step::FetchImage { image, .. } => match trouble_at(trouble, Stage::Fetch) {
                Some(trouble) => self.fail(&key, trouble),
                None => {
                    self.images.insert(image);
                }
            },
            Step::Start { assignment, workload, .. } => {
                self.start(&key, assignment, &workload, trouble);
            }
            Step::Replace { assignment, workload, .. } => {
                self.end(&key, ExitReason::Stopped);
                self.start(&key, assignment, &workload, trouble);
            }
            Step::Stop { .. } | Step::Kill { .. } => self.end(&key, ExitReason::Stopped),
            Step::Forget { .. } => {
                assert!(!self.found[&key].is_up(), "{key} is forgotten while it runs");
                self.found.remove(&key);
            }
        }
    }

    /// Completes all steps begun.
    pub fn finish(&mut self, trouble: Option<Trouble>) {
        while !self.begun.is_empty() {
            self.finish_one(trouble);
        }
    }

    /// Rounds until nothing is left to do. Panics when that never comes.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            if self.round().is_empty() && self.begun.is_empty() {
                return;
            }
            self.finish(None);
        }
        panic!("does not come to rest: {:?}", self.plan());
    }

    fn start(
        &mut self,
        key: &JobKey,
        assignment: Assignment,
        workload: &Arc<Workload>,
        trouble: Option<Trouble>,
    ) {
        assert!(
            !self.found.get(key).is_some_and(Found::is_up),
            "{key} is started while a copy of it runs"
        );
        if let Some(trouble) = trouble_at(trouble, Stage::Start) {
            return self.fail(key, trouble);
        }
        assert!(self.images.contains(&workload.image), "{key} starts without its image");
        self.starts += 1;
        self.data.insert(key.clone());
        self.found.insert(
            key.clone(),
            Found {
                assignment,
                spec_revision: workload.spec_revision,
                phase: GuardPhase::Running,
                started_at_boot_ms: self.now_boot_ms,
                exit: None,
            },
        );
    }

    fn fail(&mut self, key: &JobKey, trouble: Trouble) {
        let (reason, text) = match trouble.stage {
            Stage::Fetch => ("IMAGE", "cannot fetch the image"),
            Stage::Lease => ("NO_LEASE", "too little of the lease is left"),
            Stage::Withdrawn => ("NO_LEASE", "the order changed"),
            Stage::Start | Stage::Run => ("DRIVER", "cannot start the program"),
        };
        let failure = Failure {
            stage: trouble.stage,
            reason: reason.to_owned(),
            text: text.to_owned(),
            permanent: trouble.permanent,
        };
        let records = failed(&self.memory, key, &failure, self.now_boot_ms, &self.tuning);
        self.remember(&records);
    }

    /// A job that runs ends.
    pub fn end(&mut self, key: &JobKey, reason: ExitReason) {
        if let Some(found) = self.found.get_mut(key).filter(|found| found.is_up()) {
            found.phase = GuardPhase::Exited;
            found.exit = Some(JobExit::because(reason, format!("it ended: {reason:?}")));
        }
    }

    /// Time passes, and guards act on the end of the lease.
    pub fn tick(&mut self, ms: u64) {
        self.now_boot_ms += ms;
        if matches!(self.lease, Lease::Alive { until_boot_ms } if until_boot_ms <= self.now_boot_ms)
        {
            self.expire();
        }
    }

    /// The lease ends, and with it all `stop` jobs.
    pub fn expire(&mut self) {
        self.lease = Lease::Expired;
        self.end_fenced();
    }

    fn end_fenced(&mut self) {
        let fenced: Vec<JobKey> = self
            .memory
            .jobs()
            .filter(|(_, job)| {
                let launch = job.launch.as_ref();
                launch.is_some_and(|l| l.workload.on_disconnect == OnDisconnect::Stop)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in fenced {
            self.end(&key, ExitReason::LeaseExpired);
        }
    }

    /// The agent dies and starts again: what was begun and not finished never happened.
    pub fn restart(&mut self) {
        let mut memory = Memory::new(Bounds::default());
        for record in &self.log {
            memory.apply(record);
        }
        memory.wake();
        self.memory = memory;
        self.heard = false;
        self.busy.clear();
        self.begun.clear();
        // Guards keep to the lease file; the agent does not know it.
        if let Lease::Alive { .. } = self.lease {
            self.lease = Lease::Never;
        }
    }

    /// The host goes down and comes back.
    pub fn reboot(&mut self) {
        self.restart();
        self.lease = Lease::Never;
        self.now_boot_ms = 500;
        let keys: Vec<JobKey> = self.found.keys().cloned().collect();
        for key in keys {
            self.end(&key, ExitReason::GuardLost);
        }
    }
}

fn trouble_at(trouble: Option<Trouble>, stage: Stage) -> Option<Trouble> {
    trouble.filter(|trouble| {
        let not_tried = matches!(trouble.stage, Stage::Lease | Stage::Withdrawn);
        trouble.stage == stage || (stage == Stage::Start && not_tried)
    })
}

pub fn key(partition: u32) -> JobKey {
    let name = |text: &str| Name::new(text).unwrap();
    JobKey {
        tenant: name("acme"),
        deployment: name("shop"),
        cluster: name("north"),
        application: name("web"),
        slot: Slot::Partition(partition),
    }
}

/// What an order says, in the few numbers that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub partition: u32,
    pub assignment: u64,
    pub revision: u64,
    pub spec: u64,
    pub image: u8,
    pub policy: OnDisconnect,
    pub active: bool,
    pub elsewhere: bool,
    /// Revision of the deployment's uid.
    pub deployment: Option<u64>,
}

pub fn order(told: Told) -> Order {
    Order {
        key: key(told.partition),
        assignment: Assignment(told.assignment),
        scheduled: Scheduled {
            active: told.active,
            revision: Revision(told.revision),
            workload: Arc::new(Workload {
                spec_revision: Revision(told.spec),
                version: "1.0.0".to_owned(),
                driver: DriverKind::Exec,
                num_partitions: 4,
                image: Digest([told.image; 32]),
                limits: Resources { cpu_millis: 100, memory_bytes: 1 << 20 },
                on_disconnect: told.policy,
                stop_grace_ms: 3_000,
                env: BTreeMap::new(),
                zones: Vec::new(),
            }),
        },
        data_elsewhere: told.elsewhere,
        deployment: told.deployment.map(|it| Uid { revision: Revision(it), ordinal: 0 }),
    }
}
