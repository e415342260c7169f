//! The hosts of a cluster in the order in which they are taken.
//!
//! Hosts that are alike in all that `feasible` looks at apart from free room form a class: when one
//! of them is refused for another reason than room, all are. Within a class they stand by load, so
//! that the first that fits is the best without copies of the application; hosts with copies stand
//! apart, per application. This only says where to look first: whether a job fits is always asked
//! of `feasible`.
//!
//! Within one application's turn free room only shrinks and loads only grow. So a host found too
//! full, or passed over, is never looked at again in that turn: a cursor per class.

use std::collections::{BTreeMap, BTreeSet};

use model::{Contact, DriverKind, Host, HostState, JobKey, Name, Obstacle, Resources, State};

use crate::retry::stable_hash;

/// Place of a host in the order of its class: load, hash of its name, number.
type Rank = (u64, u64, usize);

/// What hosts of one class share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    zone: Option<Name>,
    drivers: BTreeSet<DriverKind>,
    fenced: bool,
    open: bool,
    /// Magnitudes of the capacity, so that small hosts do not stand before those with room.
    magnitude: (u32, u32),
}

impl Likeness {
    fn of(host: &Host) -> Self {
        let trusted = match host.state {
            HostState::Registered | HostState::Onboarded => true,
            HostState::Untrusted => false,
        };
        let connected = matches!(host.contact, Contact::Connected { .. });
        Self {
            zone: host.zone.clone(),
            drivers: host.drivers.clone(),
            fenced: host.fenced,
            open: trusted && connected && !host.cordoned && host.meta.deletion.is_none(),
            magnitude: (
                host.capacity.cpu_millis.checked_ilog2().map_or(0, |log| log + 1),
                host.capacity.memory_bytes.checked_ilog2().map_or(0, |log| log + 1),
            ),
        }
    }
}

/// One host.
#[derive(Clone, Debug)]
struct Spot<'a> {
    name: &'a Name,
    class: usize,
    capacity: Resources,
    usage: Resources,
    tie: u64,
}

impl Spot<'_> {
    /// The fuller of its two resources, in millionths.
    fn load(&self) -> u64 {
        let share = |used: u64, of: u64| match of {
            0 => u64::MAX,
            of => (u128::from(used) * 1_000_000 / u128::from(of)).min(u64::MAX.into()) as u64,
        };
        let cpu = share(self.usage.cpu_millis, self.capacity.cpu_millis);
        cpu.max(share(self.usage.memory_bytes, self.capacity.memory_bytes))
    }
}

/// The hosts of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    spots: Vec<Spot<'a>>,
    /// Zone and hosts of each class, by rank.
    classes: Vec<(Option<Name>, BTreeSet<Rank>)>,
    by_name: BTreeMap<&'a Name, usize>,
}

/// Where the copies of one application are, and what was learnt while placing more of them.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    copies: BTreeMap<usize, u32>,
    in_zone: BTreeMap<Option<Name>, u32>,
    /// Hosts with copies, by class: fewest copies first.
    crowded: Vec<BTreeSet<(u32, Rank)>>,
    /// Hosts with copies that were found not to fit.
    full: Vec<BTreeSet<(u32, Rank)>>,
    /// Per class: up to here no host without copies fits.
    cursor: Vec<Cursor>,
}

/// How far a class was searched for hosts without copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    /// Not yet asked.
    Fresh,
    /// From this rank on.
    From(Rank),
    /// No host of the class can take the job, room or not.
    Never,
}

impl Spread {
    /// A new workload may fit where the last did not.
    pub(super) fn forget_what_does_not_fit(&mut self) {
        self.cursor.fill(Cursor::Fresh);
        for (crowded, full) in self.crowded.iter_mut().zip(&mut self.full) {
            crowded.append(full);
        }
    }
}

impl<'a> Field<'a> {
    /// The hosts of a cluster as they stand.
    pub(super) fn of(state: &'a State, tenant: &Name, cluster: &Name) -> Self {
        let mut field = Self { spots: Vec::new(), classes: Vec::new(), by_name: BTreeMap::new() };
        let members = state.cluster(tenant, cluster).map(|row| &row.spec.members);
        let mut known: BTreeMap<Likeness, usize> = BTreeMap::new();
        for name in members.into_iter().flatten() {
            let Some(host) = state.host(tenant, name) else { continue };
            let class = *known.entry(Likeness::of(host)).or_insert_with(|| {
                field.classes.push((host.zone.clone(), BTreeSet::new()));
                field.classes.len() - 1
            });
            let (usage, capacity) = (state.usage(tenant, name), host.capacity);
            let tie = stable_hash([name.as_str()]);
            field.by_name.insert(name, field.spots.len());
            field.spots.push(Spot { name, class, capacity, usage, tie });
            let number = field.spots.len() - 1;
            let rank = field.rank(number);
            field.classes[class].1.insert(rank);
        }
        field
    }

    /// The hosts, by number, in order of names.
    pub(super) fn hosts(&self) -> std::ops::Range<usize> {
        0..self.spots.len()
    }

    /// A host's name.
    pub(super) fn name(&self, host: usize) -> &'a Name {
        self.spots[host].name
    }

    /// What is reserved on a host by placements and by this plan.
    pub(super) fn usage(&self, host: usize) -> Resources {
        self.spots[host].usage
    }

    /// The number of a host of the cluster.
    pub(super) fn find(&self, name: &Name) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    fn rank(&self, host: usize) -> Rank {
        let spot = &self.spots[host];
        (spot.load(), spot.tie, host)
    }

    /// Where the copies of a job's application are.
    pub(super) fn spread(&self, state: &State, key: &JobKey) -> Spread {
        let mut spread = Spread {
            copies: BTreeMap::new(),
            in_zone: BTreeMap::new(),
            crowded: vec![BTreeSet::new(); self.classes.len()],
            full: vec![BTreeSet::new(); self.classes.len()],
            cursor: vec![Cursor::Fresh; self.classes.len()],
        };
        let part = state.jobs_of_part(&key.tenant, &key.deployment, &key.cluster);
        let copies = part
            .filter(|(other, _)| other.application == key.application)
            .flat_map(|(_, job)| &job.placements)
            .filter(|placement| placement.scheduled.active)
            .filter_map(|placement| self.find(&placement.host));
        for host in copies {
            *spread.copies.entry(host).or_default() += 1;
            *spread.in_zone.entry(self.zone(host).clone()).or_default() += 1;
        }
        for (host, copies) in &spread.copies {
            spread.crowded[self.spots[*host].class].insert((*copies, self.rank(*host)));
        }
        spread
    }

    fn zone(&self, host: usize) -> &Option<Name> {
        &self.classes[self.spots[host].class].0
    }

    /// Reserves room for one more copy on a host.
    pub(super) fn take(&mut self, spread: &mut Spread, host: usize, limits: Resources) {
        let class = self.spots[host].class;
        let before = self.rank(host);
        let usage = &mut self.spots[host].usage;
        usage.cpu_millis = usage.cpu_millis.saturating_add(limits.cpu_millis);
        usage.memory_bytes = usage.memory_bytes.saturating_add(limits.memory_bytes);
        let after = self.rank(host);
        self.classes[class].1.remove(&before);
        self.classes[class].1.insert(after);
        *spread.in_zone.entry(self.zone(host).clone()).or_default() += 1;
        let copies = spread.copies.entry(host).or_default();
        let was_full = spread.full[class].remove(&(*copies, before));
        spread.crowded[class].remove(&(*copies, before));
        *copies += 1;
        let crowd = if was_full { &mut spread.full } else { &mut spread.crowded };
        crowd[class].insert((*copies, after));
    }

    /// The best host that `fits`: fewest copies, then fewest in its zone, least load, hash. `judge`
    /// says why a host is refused, to tell whether its whole class is.
    pub(super) fn best(
        &self,
        spread: &mut Spread,
        fits: impl Fn(usize) -> bool,
        judge: impl Fn(usize) -> Result<(), Obstacle>,
    ) -> Option<usize> {
        let mut best: Option<((u32, u32, Rank), usize)> = None;
        for class in 0..self.classes.len() {
            let found = self.without_copies(spread, class, &fits, &judge);
            let found = found.or_else(|| self.with_copies(spread, class, &fits));
            let Some(host) = found else { continue };
            let copies = spread.copies.get(&host).copied().unwrap_or(0);
            let in_zone = spread.in_zone.get(self.zone(host)).copied().unwrap_or(0);
            let score = (copies, in_zone, self.rank(host));
            if best.as_ref().is_none_or(|(least, _)| score < *least) {
                best = Some((score, host));
            }
        }
        best.map(|(_, host)| host)
    }

    /// The least loaded host of a class that fits and has no copy.
    fn without_copies(
        &self,
        spread: &mut Spread,
        class: usize,
        fits: impl Fn(usize) -> bool,
        judge: impl Fn(usize) -> Result<(), Obstacle>,
    ) -> Option<usize> {
        let hosts = &self.classes[class].1;
        let start = match spread.cursor[class] {
            Cursor::Never => return None,
            Cursor::From(rank) => rank,
            Cursor::Fresh => {
                let (_, _, one) = *hosts.first()?;
                if judge(one).is_err_and(|obstacle| !is_of_room(obstacle)) {
                    spread.cursor[class] = Cursor::Never;
                    return None;
                }
                (0, 0, 0)
            }
        };
        let mut passed = start;
        let mut found = None;
        for rank in hosts.range(start..) {
            passed = *rank;
            if !spread.copies.contains_key(&rank.2) && fits(rank.2) {
                found = Some(rank.2);
                break;
            }
        }
        spread.cursor[class] = Cursor::From(passed);
        found
    }

    /// The host of a class with the fewest copies that fits.
    fn with_copies(
        &self,
        spread: &mut Spread,
        class: usize,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if spread.cursor[class] == Cursor::Never {
            return None;
        }
        while let Some(first) = spread.crowded[class].first().copied() {
            let (_, (_, _, host)) = first;
            if fits(host) {
                return Some(host);
            }
            spread.crowded[class].remove(&first);
            spread.full[class].insert(first);
        }
        None
    }
}

/// Whether a host is refused only because others use it.
pub(super) fn is_of_room(obstacle: Obstacle) -> bool {
    match obstacle {
        Obstacle::CpuShort | Obstacle::MemoryShort => true,
        Obstacle::UnknownHost
        | Obstacle::NotMember
        | Obstacle::Deleting
        | Obstacle::Untrusted
        | Obstacle::Cordoned
        | Obstacle::NoDriver
        | Obstacle::NotFenced
        | Obstacle::WrongZone
        | Obstacle::NotConnected => false,
    }
}
