//! What goes wrong: now and then, something of the kinds that are switched on.

use super::{control::Control, house::House, net::Place, settings::Plant};
use agent::driver::JobId;
use consensus::Ledger as _;
use std::time::Duration;
use storage::disk::simulated::{Injection, Loss, SimulatedDiskConfig};

/// Something that was decided to happen.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// Something goes wrong, and something else will.
    Fault,
    /// A control node is started.
    NodeBack(usize),
    /// An agent is started.
    AgentBack(usize),
    /// Links of a place are whole again.
    Mend(Place),
    /// A disk works again.
    Calm(usize),
    /// The planted bug remembers disks.
    Remember,
}

impl House {
    pub(super) async fn happen(&mut self, due: Due) {
        match due {
            Due::Fault => self.fault().await,
            Due::NodeBack(number) => self.start_node(number).await,
            Due::AgentBack(number) => self.edges[number].start(&self.common).await,
            Due::Mend(place) => self.common.net.mend(Some(place)),
            Due::Calm(number) => self.controls[number].calm(),
            Due::Remember => self.controls.iter_mut().for_each(Control::remember_disk),
        }
    }

    async fn fault(&mut self) {
        let next = self.dice.range(50, 1_500);
        self.decide_later(Duration::from_millis(next), Due::Fault);
        self.common.book.count(|figures| figures.faults += 1);
        let faults = self.settings.faults;
        match self.dice.below(32) {
            0 | 1 if faults.nodes => {
                let number = self.dice.index(self.controls.len());
                self.crash_node(number);
            }
            2 | 3 if faults.nodes => {
                let leader = self.leader();
                self.crash_node(leader);
            }
            4 if faults.nodes => self.cut_power(),
            5 if faults.nodes => {
                let number = self.dice.index(self.controls.len());
                if self.controls[number].is_up() {
                    self.controls[number].stop(&self.common).await;
                    self.node_back(number);
                }
            }
            6 | 7 if faults.nodes => {
                let (number, writes) =
                    (self.dice.index(self.controls.len()), self.dice.range(1, 60));
                if self.controls[number].is_up() {
                    self.controls[number].disk().inject(Injection::PowerOffAfter(writes));
                }
            }
            8..=10 if faults.links => self.cut_node(),
            11 if faults.links => {
                let leader = self.leader();
                let place = Place::Node(self.controls[leader].id);
                self.isolate(place, 2_500);
            }
            12 | 13 if faults.links => {
                let (from, to) = (self.some_place(), self.some_place());
                let ms = self.dice.range(20, 400);
                self.common.book.line(format_args!("{from}>{to} is slow by {ms} ms"));
                self.common.net.slow(from, to, ms);
                self.mend_later(from, 8_000);
            }
            14..=16 if faults.links && !self.edges.is_empty() => {
                let place = Place::Edge(self.dice.index(self.edges.len()));
                let ms_max = if self.dice.permille(500) { 5_000 } else { 50_000 };
                self.isolate(place, ms_max);
            }
            17 if faults.links => {
                let place = self.some_place();
                self.common.book.line(format_args!("connections of {place} break"));
                self.common.net.reset(|(from, to)| *from == place || *to == place);
            }
            18..=21 if faults.hosts && !self.edges.is_empty() => self.end_agent(),
            22 | 23 if faults.jobs => self.kill_some_guard(),
            24 | 25 if faults.clocks => {
                let number = self.dice.index(self.controls.len());
                let ms = self.dice.range(0, 20_000) as i64 - 10_000;
                let id = self.controls[number].id;
                self.common.book.line(format_args!("the clock of n{id} is off by {ms} ms"));
                self.controls[number].clock.set(ms);
            }
            26..=29 if faults.disks => self.trouble_disk(),
            _ => {}
        }
    }

    /// The number of the node that leads, or of any.
    fn leader(&mut self) -> usize {
        let leads = |control: &Control| {
            control.ledger().is_some_and(|ledger| ledger.leadership().borrow().is_leader)
        };
        let any = self.dice.index(self.controls.len());
        self.controls.iter().position(leads).unwrap_or(any)
    }

    fn crash_node(&mut self, number: usize) {
        if !self.controls[number].is_up() {
            return;
        }
        let loss = self.some_loss();
        self.controls[number].crash(&self.common, loss);
        self.node_back(number);
    }

    fn node_back(&mut self, number: usize) {
        let away = if self.dice.permille(700) { 300 } else { 6_000 };
        let after = Duration::from_millis(self.dice.range(20, away));
        self.decide_later(after, Due::NodeBack(number));
    }

    pub(super) fn some_loss(&mut self) -> Loss {
        if !self.settings.faults.disks {
            return Loss::Nothing;
        }
        match self.dice.below(5) {
            0 => Loss::Nothing,
            1 => Loss::Unsynced,
            2 => Loss::Prefix,
            3 => Loss::Torn,
            _ => Loss::Subset,
        }
    }

    /// The power of all control nodes goes at once.
    fn cut_power(&mut self) {
        self.common.book.line(format_args!("the power is cut"));
        for number in 0..self.controls.len() {
            self.crash_node(number);
            if self.settings.plant == Some(Plant::OldDisks) {
                self.controls[number].take_old_disk();
            }
        }
        if self.settings.plant == Some(Plant::OldDisks) {
            self.decide_later(Duration::from_millis(4_000), Due::Remember);
        }
    }

    fn mend_later(&mut self, place: Place, ms_max: u64) {
        let after = Duration::from_millis(self.dice.range(50, ms_max));
        self.decide_later(after, Due::Mend(place));
    }

    /// One node does not reach another; the other way it may.
    fn cut_node(&mut self) {
        let count = self.controls.len();
        let (one, other) = (self.dice.index(count), self.dice.index(count));
        let (from, to) = (Place::Node(self.controls[one].id), Place::Node(self.controls[other].id));
        if one == other {
            return self.isolate(from, 6_000);
        }
        self.common.book.line(format_args!("{from}>{to} is cut"));
        self.common.net.cut(from, to);
        if self.dice.permille(500) {
            self.common.net.cut(to, from);
        }
        self.mend_later(from, 6_000);
    }

    /// A place reaches nobody, or nobody reaches it, or both.
    fn isolate(&mut self, place: Place, ms_max: u64) {
        let how = self.dice.below(4);
        self.common.book.line(format_args!("{place} is cut off, {how}"));
        let nodes: Vec<Place> = self.controls.iter().map(|it| Place::Node(it.id)).collect();
        let edges = self.edges.iter().map(|it| it.place());
        for other in nodes.into_iter().chain(edges).filter(|other| *other != place) {
            if how != 1 {
                self.common.net.cut(place, other);
            }
            if how != 0 {
                self.common.net.cut(other, place);
            }
        }
        self.mend_later(place, ms_max);
    }

    /// An agent's process or its whole machine goes down for a while.
    fn end_agent(&mut self) {
        let number = self.dice.index(self.edges.len());
        if self.dice.permille(400) {
            let loss = self.some_loss();
            self.edges[number].reboot(&self.common, loss);
        } else {
            self.edges[number].crash(&self.common);
        }
        // Some stay away until their lease is over and their jobs are somewhere else.
        let away = if self.dice.permille(700) { 5_000 } else { 60_000 };
        let after = Duration::from_millis(self.dice.range(50, away));
        self.decide_later(after, Due::AgentBack(number));
    }

    fn kill_some_guard(&mut self) {
        let running: Vec<(usize, JobId)> = self
            .edges
            .iter()
            .flat_map(|edge| edge.running().into_iter().map(|(job, _)| (edge.number, job)))
            .collect();
        if let Some((number, job)) = self.dice.pick(&running).cloned() {
            self.common.book.line(format_args!("the guard of {job} on e{number} is killed"));
            self.edges[number].kill_guard(&job);
        }
    }

    fn trouble_disk(&mut self) {
        let number = self.dice.index(self.controls.len());
        let usual = self.controls[number].disk_config();
        let kind = self.dice.below(5);
        let id = self.controls[number].id;
        self.common.book.line(format_args!("the disk of n{id} has trouble {kind}"));
        let config = match kind {
            0 => SimulatedDiskConfig { write_errors_per_million: 3_000, ..usual },
            1 => SimulatedDiskConfig { sync_errors_per_million: 3_000, ..usual },
            2 => SimulatedDiskConfig { capacity_bytes: Some(400 << 10), ..usual },
            3 => {
                let stall_ms = (50, 900);
                SimulatedDiskConfig { stalls_per_million: 100_000, stall_ms, ..usual }
            }
            _ => {
                if self.controls[number].is_up() {
                    self.crash_node(number);
                    self.controls[number].wreck();
                }
                usual
            }
        };
        self.controls[number].disk().configure(config);
        let after = Duration::from_millis(self.dice.range(100, 4_000));
        self.decide_later(after, Due::Calm(number));
    }
}
