//! Properties of the agent's memory and of reconcile, over random lives of a host.

use agent::guard::state::ExitReason;
use agent::memory::{Bounds, Memory, Orders, Record};
use agent::reconcile::{Found, Lease, Stage};
use model::{Assignment, OnDisconnect, Revision};
use proptest::prelude::*;

use crate::fake::{FakeHost, Told, Trouble, key, order};

/// Something that happens to a host.
#[derive(Clone, Debug)]
pub enum Happening {
    /// Control changes its mind about a partition.
    Schedule {
        partition: u32,
        image: u8,
        active: bool,
        moved: bool,
    },
    /// Control takes the order away.
    Drop {
        partition: u32,
    },
    /// The orders arrive, or an old set of them does.
    Hear {
        stale: bool,
    },
    Round,
    Finish {
        trouble: Option<(u8, bool)>,
    },
    Exit {
        partition: u32,
        reason: u8,
    },
    Tick {
        ms: u64,
    },
    Lease {
        ms: u64,
    },
    Disconnect,
    Restart,
    Reboot,
}

pub fn happening() -> impl Strategy<Value = Happening> {
    let partition = 0..4_u32;
    prop_oneof![
        4 => (partition.clone(), 1..4_u8, any::<bool>(), any::<bool>()).prop_map(
            |(partition, image, active, moved)| {
                Happening::Schedule { partition, image, active: active || !moved, moved }
            }
        ),
        1 => partition.clone().prop_map(|partition| Happening::Drop { partition }),
        4 => prop::bool::weighted(0.2).prop_map(|stale| Happening::Hear { stale }),
        8 => Just(Happening::Round),
        6 => prop::option::weighted(0.2, (0..3_u8, any::<bool>()))
            .prop_map(|trouble| Happening::Finish { trouble }),
        2 => (partition, 0..4_u8)
            .prop_map(|(partition, reason)| Happening::Exit { partition, reason }),
        2 => (1..30_000_u64).prop_map(|ms| Happening::Tick { ms }),
        2 => (1..30_000_u64).prop_map(|ms| Happening::Lease { ms }),
        1 => Just(Happening::Disconnect),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Reboot),
    ]
}

/// A host with the control that talks to it.
pub struct Life {
    pub host: FakeHost,
    orders: Vec<model::Order>,
    before: Vec<model::Order>,
    revision: u64,
}

/// Partitions 0 and 1 keep running, 2 and 3 stop with their lease.
fn policy(partition: u32) -> OnDisconnect {
    if partition < 2 { OnDisconnect::KeepRunning } else { OnDisconnect::Stop }
}

impl Life {
    pub fn new() -> Self {
        Self { host: FakeHost::new(), orders: Vec::new(), before: Vec::new(), revision: 10 }
    }

    pub fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Schedule { partition, image, active, moved } => {
                self.schedule(partition, image, active, moved);
            }
            Happening::Drop { partition } => {
                self.change();
                self.orders.retain(|order| order.key != key(partition));
            }
            Happening::Hear { stale } => {
                let (orders, revision) = match stale {
                    true => (self.before.clone(), self.revision - 1),
                    false => (self.orders.clone(), self.revision),
                };
                let revision = Revision(revision);
                self.host.hear(&Orders { revision, full: true, orders, gone: Vec::new() });
            }
            Happening::Round => drop(self.host.round()),
            Happening::Finish { trouble } => {
                self.host.finish_one(trouble.map(|(stage, permanent)| {
                    let stage = [Stage::Fetch, Stage::Start, Stage::Lease, Stage::Withdrawn]
                        [usize::from(stage)];
                    Trouble { stage, permanent }
                }))
            }
            Happening::Exit { partition, reason } => {
                let reasons = [
                    ExitReason::Crashed,
                    ExitReason::Oom,
                    ExitReason::GuardLost,
                    ExitReason::Completed,
                ];
                self.host.end(&key(partition), reasons[usize::from(reason)]);
            }
            Happening::Tick { ms } => self.host.tick(ms),
            Happening::Lease { ms } => {
                self.host.lease = Lease::Alive { until_boot_ms: self.host.now_boot_ms + ms };
            }
            Happening::Disconnect => self.host.heard = false,
            Happening::Restart => self.host.restart(),
            Happening::Reboot => self.host.reboot(),
        }
    }

    fn change(&mut self) {
        self.before = self.orders.clone();
        self.revision += 10;
    }

    fn schedule(&mut self, partition: u32, image: u8, active: bool, moved: bool) {
        self.change();
        let key = key(partition);
        let before = self.orders.iter().find(|order| order.key == key);
        let kept = before.map(|order| order.assignment.0).filter(|_| !moved);
        let told = Told {
            partition,
            assignment: kept.unwrap_or(self.revision),
            revision: self.revision,
            spec: self.revision - 1,
            image,
            policy: policy(partition),
            active,
            elsewhere: moved,
            // Now and then a control node does not say.
            deployment: (image > 1).then_some(u64::from(image) + u64::from(moved)),
        };
        self.orders.retain(|order| order.key != key);
        self.orders.push(order(told));
    }

    /// Everything works from now on; orders arrive and the lease is renewed.
    fn heal(&mut self) {
        self.host.finish(None);
        for _ in 0..40 {
            self.host.lease = Lease::Alive { until_boot_ms: self.host.now_boot_ms + 20_000 };
            let revision = Revision(self.revision);
            let orders = self.orders.clone();
            self.host.hear(&Orders { revision, full: true, orders, gone: Vec::new() });
            self.host.settle();
            self.host.tick(19_000);
        }
        self.host.lease = Lease::Alive { until_boot_ms: self.host.now_boot_ms + 700_000 };
        self.host.tick(660_000);
        self.host.settle();
        // And once more, past the time in which what was started settles.
        self.host.lease = Lease::Alive { until_boot_ms: self.host.now_boot_ms + 70_000 };
        self.host.tick(61_000);
        self.host.settle();
    }
}

pub fn lives() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(happening(), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    /// The fake host panics at a start beside a running copy, at a start without its image and when
    /// a running copy is forgotten.
    #[test]
    fn a_job_is_never_started_twice_and_the_host_comes_to_rest_as_ordered(life in lives()) {
        let mut world = Life::new();
        for happening in &life {
            world.happen(happening);
        }
        world.heal();
        for order in &world.orders {
            let job = world.host.memory.job(&order.key).unwrap();
            let effort = job.effort.as_ref().filter(|e| e.order == order.scheduled.revision);
            let found = world.host.found.get(&order.key);
            let up = found.is_some_and(Found::is_up);
            let reported = job.reported.as_ref().unwrap();
            prop_assert_eq!(reported.assignment, order.assignment);
            prop_assert_eq!(reported.order, order.scheduled.revision);
            if !order.scheduled.active {
                prop_assert!(!up, "{} runs though it is to be stopped", order.key);
                prop_assert_eq!(reported.phase, model::Phase::Stopped);
            } else if effort.is_some_and(|e| e.permanent) {
                prop_assert_eq!(reported.phase, model::Phase::Failed);
            } else {
                prop_assert!(up, "{} does not run: {:?}", order.key, job);
                prop_assert_eq!(found.unwrap().assignment, order.assignment);
                let fell_back = effort.is_some_and(|e| e.fell_back);
                let phase = if fell_back { model::Phase::Failed } else { model::Phase::Running };
                prop_assert_eq!(reported.phase, phase);
                if !fell_back {
                    prop_assert_eq!(reported.spec_revision, order.scheduled.workload.spec_revision);
                    prop_assert_eq!(reported.image, order.scheduled.workload.image);
                }
            }
        }
        for key in world.host.found.keys() {
            prop_assert!(world.orders.iter().any(|order| order.key == *key), "{key} is left over");
        }
    }

    /// Only the newest assignment a host was ever told runs, and `stop` jobs only under a lease.
    #[test]
    fn orders_and_leases_fence_what_starts(life in lives()) {
        let mut world = Life::new();
        let mut newest = [Assignment(0); 4];
        for happening in &life {
            let started = world.host.starts;
            world.happen(happening);
            for (partition, newest) in (0..4).zip(&mut newest) {
                let order = world.host.memory.job(&key(partition)).and_then(|job| job.order.as_ref());
                if let Some(order) = order {
                    prop_assert!(order.assignment >= *newest, "went back to an older assignment");
                    *newest = order.assignment;
                }
            }
            if let Happening::Round = happening {
                for step in &world.host.begun {
                    let (key, assignment) = match step {
                        agent::reconcile::Step::Start { key, assignment, .. }
                        | agent::reconcile::Step::Replace { key, assignment, .. } => (key, assignment),
                        _ => continue,
                    };
                    let fence = world.host.memory.fence(key).unwrap();
                    prop_assert!(*assignment <= fence.assignment);
                }
                for step in world.host.plan().steps {
                    prop_assert!(!world.host.begun.contains(&step), "{step:?} is begun twice");
                }
            }
            prop_assert!(world.host.starts == started || !matches!(happening, Happening::Round));
            let planned = world.host.plan();
            for step in planned.steps {
                if let agent::reconcile::Step::Start { workload, .. }
                | agent::reconcile::Step::Replace { workload, .. } = step
                {
                    let may = world.host.heard && matches!(world.host.lease, Lease::Alive { .. });
                    prop_assert!(workload.on_disconnect != OnDisconnect::Stop || may);
                }
            }
        }
    }

    /// The memory is a fold: replaying the log, or what a rewritten log holds, gives the same.
    #[test]
    fn a_replayed_memory_is_the_same(life in lives()) {
        let mut world = Life::new();
        for happening in &life {
            world.happen(happening);
            // Delays are forgotten at a restart, so those of a restarted agent differ.
            if let Happening::Restart | Happening::Reboot = happening {
                world.host.log = world.host.memory.records();
            }
        }
        let mut replayed = Memory::new(Bounds::default());
        for record in &world.host.log {
            replayed.apply(record);
        }
        prop_assert_eq!(described(&replayed), described(&world.host.memory));
        let mut rewritten = Memory::new(Bounds::default());
        for record in world.host.memory.records() {
            rewritten.apply(&record);
        }
        prop_assert_eq!(described(&rewritten), described(&world.host.memory));
    }

    /// Planning changes nothing by itself, and the same world gives the same round.
    #[test]
    fn the_same_world_gives_the_same_round(life in lives()) {
        let mut world = Life::new();
        for happening in &life {
            world.happen(happening);
            prop_assert_eq!(world.host.plan(), world.host.plan());
        }
    }
}

/// What counts of a memory: the numbers of graves do not.
pub fn described(memory: &Memory) -> String {
    let fences: Vec<_> = (0..4).map(|partition| memory.fence(&key(partition))).collect();
    let jobs: Vec<_> = memory.jobs().collect();
    let unsent: Vec<_> = memory.unsent().collect();
    format!("{jobs:?} {fences:?} {unsent:?} {} {:?}", memory.newest_report(), memory.heard())
}

#[test]
fn a_memory_stays_within_its_bounds() {
    let mut memory = Memory::new(Bounds { tombstones_max: 2, unsent_max: 3 });
    for partition in 0..5 {
        let told = Told {
            partition,
            assignment: 1,
            revision: u64::from(partition) + 1,
            spec: 1,
            image: 1,
            policy: OnDisconnect::KeepRunning,
            active: true,
            elsewhere: false,
            deployment: Some(1),
        };
        let order = agent::memory::Accepted::from(&order(told));
        let key = key(partition);
        memory.apply(&Record::Accepted { key: key.clone(), order });
        memory.apply(&Record::Dropped { key: key.clone() });
        memory.apply(&Record::Forgotten { key });
    }
    let kept: Vec<u32> = (0..5).filter(|n| memory.fence(&key(*n)).is_some()).collect();
    assert_eq!(kept, [3, 4], "the newest fences stay");

    let report = |partition: u32, restarts: u32| model::Report {
        key: key(partition),
        assignment: Assignment(1),
        order: Revision(1),
        phase: model::Phase::Running,
        spec_revision: Revision(1),
        image: model::Digest([1; 32]),
        restarts,
        data_left_behind: false,
        error: None,
    };
    for (partition, restarts) in [(0, 0), (1, 0), (0, 1), (0, 2)] {
        memory.apply(&Record::Reported { report: report(partition, restarts) });
    }
    let kept: Vec<_> = memory.unsent().map(|(number, r)| (number, r.restarts)).collect();
    assert_eq!(kept, [(2, 0), (3, 1), (4, 2)], "a report that a later one replaces goes first");
    memory.apply(&Record::Sent { through: 3 });
    assert_eq!(memory.unsent().map(|(number, _)| number).collect::<Vec<_>>(), [4]);
}
