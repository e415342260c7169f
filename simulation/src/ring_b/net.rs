//! The simulated network: who is reached by whom, how fast, and what is lost on the way.
//!
//! Two things travel on it. Calls between control nodes are single messages ([`wire`](super::wire)):
//! they overtake each other, are lost, held until a link is mended, and repeated. Sessions of agents are
//! streams ([`stream`](super::stream)): in order and whole until they break. Every decision is drawn from
//! one stream of dice.

use super::{book::Book, lines::Listening};
use crate::dice::Dice;
use consensus::{PeerService, RaftLedger};
use model::NodeId;
use node::LocalPort;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use storage::disk::simulated::SimulatedDisk;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// One in so many promises about entries is held against the disk; every vote is.
const PROMISES: u64 = 20;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A control node.
    Node(NodeId),
    /// An edge host.
    Edge(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "n{id}"),
            Self::Edge(number) => write!(f, "e{number}"),
        }
    }
}

/// A control node that answers.
#[derive(Clone)]
pub(super) struct Door {
    /// Which life of the node it is.
    pub(super) life: u64,
    pub(super) peers: PeerService,
    pub(super) port: LocalPort,
    pub(super) ledger: RaftLedger,
    pub(super) disk: SimulatedDisk,
    /// On the byte wire: its two ports.
    pub(super) listening: Option<Listening>,
}

/// How messages fare, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Odds {
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// Messages that take long.
    pub(super) late: u64,
}

struct Inner {
    dice: Dice,
    odds: Odds,
    cut: BTreeSet<(Place, Place)>,
    /// Extra time on a link, in ms.
    slow: BTreeMap<(Place, Place), u64>,
    doors: BTreeMap<NodeId, Door>,
    lives: BTreeMap<Place, u64>,
    connections: BTreeMap<u64, ((Place, Place), CancellationToken)>,
    next_connection: u64,
    /// Answers that promise something, for the choice of those that are checked.
    promises: u64,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub(super) struct Net {
    inner: Arc<Mutex<Inner>>,
    /// Moves when a link is mended.
    mended: watch::Sender<u64>,
    pub(super) book: Book,
}

/// How a message travels.
pub(super) enum Travel {
    /// It arrives after so long.
    Arrives(Duration),
    /// It does not.
    Lost,
}

impl Net {
    pub(super) fn new(seed: u64, book: Book) -> Self {
        let inner = Inner {
            dice: Dice::new(seed ^ 0x6e65_7477),
            odds: Odds::default(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            doors: BTreeMap::new(),
            lives: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            promises: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), mended: watch::Sender::new(0), book }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_odds(&self, odds: Odds) {
        self.inner().odds = odds;
    }

    /// Nothing gets from one place to the other; what is sent is held or lost.
    pub(super) fn cut(&self, from: Place, to: Place) {
        self.inner().cut.insert((from, to));
    }

    pub(super) fn slow(&self, from: Place, to: Place, ms: u64) {
        self.inner().slow.insert((from, to), ms);
    }

    /// All links in and out of a place, or of all places, are as they should be.
    pub(super) fn mend(&self, of: Option<Place>) {
        let mut inner = self.inner();
        let touches = |(from, to): &(Place, Place)| of.is_none_or(|it| *from == it || *to == it);
        inner.cut.retain(|link| !touches(link));
        inner.slow.retain(|link, _| !touches(link));
        drop(inner);
        self.mended.send_modify(|count| *count += 1);
    }

    pub(super) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.inner().cut.contains(&(from, to))
    }

    /// Waits until something gets from one place to the other.
    pub(super) async fn until_mended(&self, from: Place, to: Place) {
        let mut mended = self.mended.subscribe();
        while self.is_cut(from, to) {
            if mended.changed().await.is_err() {
                return;
            }
        }
    }

    /// A node begins to answer.
    pub(super) fn open(&self, id: NodeId, door: Door) {
        self.inner().doors.insert(id, door);
    }

    /// Whoever was at this place is there no more: nothing of it gets out, nothing gets in, and its
    /// connections break. Answers the number of the next life.
    pub(super) fn fence(&self, place: Place) -> u64 {
        let mut inner = self.inner();
        if let Place::Node(id) = place {
            inner.doors.remove(&id);
        }
        let life = inner.lives.entry(place).or_default();
        *life += 1;
        let life = *life;
        drop(inner);
        self.reset(|(from, to)| *from == place || *to == place);
        life
    }

    /// Whether this is the life that a place has now.
    pub(super) fn lives(&self, place: Place, life: u64) -> bool {
        self.inner().lives.get(&place).copied().unwrap_or_default() == life
    }

    pub(super) fn door(&self, id: NodeId) -> Option<Door> {
        self.inner().doors.get(&id).cloned()
    }

    /// The nodes that answer, with their ledgers.
    pub(super) fn ledgers(&self) -> Vec<(NodeId, RaftLedger)> {
        self.inner().doors.iter().map(|(id, door)| (*id, door.ledger.clone())).collect()
    }

    /// Draws how a message fares on a link that is whole.
    pub(super) fn travel(&self, from: Place, to: Place) -> Travel {
        let mut inner = self.inner();
        let odds = inner.odds;
        if inner.dice.permille(odds.lost) {
            return Travel::Lost;
        }
        Travel::Arrives(inner.pause(from, to))
    }

    /// Draws how long something takes that is not lost.
    pub(super) fn pause(&self, from: Place, to: Place) -> Duration {
        self.inner().pause(from, to)
    }

    pub(super) fn is_repeated(&self) -> bool {
        let mut inner = self.inner();
        let odds = inner.odds;
        inner.dice.permille(odds.repeated)
    }

    /// Whether the next promise is held against the disk: one in so many is.
    pub(super) fn is_checked(&self) -> bool {
        let mut inner = self.inner();
        inner.promises += 1;
        inner.promises.is_multiple_of(PROMISES)
    }

    pub(super) fn permille(&self, chance: u64) -> bool {
        self.inner().dice.permille(chance)
    }

    /// A connection between two places: cancelled when it breaks.
    pub(super) fn connect(&self, from: Place, to: Place) -> CancellationToken {
        let mut inner = self.inner();
        let number = inner.next_connection;
        inner.next_connection += 1;
        inner.connections.retain(|_, (_, broken)| !broken.is_cancelled());
        let broken = CancellationToken::new();
        inner.connections.insert(number, ((from, to), broken.clone()));
        broken
    }

    /// Breaks connections.
    pub(super) fn reset(&self, which: impl Fn(&(Place, Place)) -> bool) {
        let mut inner = self.inner();
        let mut broken = Vec::new();
        inner.connections.retain(|_, (link, token)| {
            let breaks = which(link);
            if breaks {
                broken.push(token.clone());
            }
            !breaks
        });
        drop(inner);
        broken.into_iter().for_each(|token| token.cancel());
    }

    /// A one-way trip of something that cannot be lost without somebody noticing. False if the link
    /// stayed cut for `patience`.
    pub(super) async fn trip(&self, (from, to): (Place, Place), patience: Duration) -> bool {
        sleep(self.pause(from, to)).await;
        if !self.is_cut(from, to) {
            return true;
        }
        tokio::time::timeout(patience, self.until_mended(from, to)).await.is_ok()
    }
}

impl Inner {
    fn pause(&mut self, from: Place, to: Place) -> Duration {
        let extra = self.slow.get(&(from, to)).copied().unwrap_or_default();
        let odds = self.odds;
        let late = if self.dice.permille(odds.late) { self.dice.range(5, 60) } else { 0 };
        let usual = self.dice.range(150, 1_500);
        Duration::from_micros(usual) + Duration::from_millis(extra + late)
    }
}
