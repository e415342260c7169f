//! The whole house: control machines, edge machines, users and the network between them; and the loop
//! that lets time pass, ends and begins lives, and looks at what must hold at any moment.

use super::{
    book::Book,
    control::{Common, Control},
    edge::Edge,
    faults::Due,
    net::{Net, Odds, Place},
    observe::Observers,
    settings::{self, Plant, Settings},
    stream::client_addr,
    users::{Users, host_name, peer_addr},
};
use crate::{dice::Dice, names::name};
use agent::{driver::JobId, guard::spec::OnDisconnect};
use consensus::{Peer, StartError};
use identity::{Authority, SystemEntropy};
use model::NodeId;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use storage::disk::simulated::Loss;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a life may take to begin, and a node to be taken in.
const BEGIN: Duration = Duration::from_secs(20);

/// Everything there is.
pub(super) struct House {
    pub(super) settings: Settings,
    pub(super) common: Common,
    pub(super) dice: Dice,
    pub(super) controls: Vec<Control>,
    pub(super) edges: Vec<Edge>,
    pub(super) users: Users,
    asking: Vec<JoinHandle<()>>,
    /// What will happen, by when and in which order it was decided.
    pub(super) due: BTreeMap<(Instant, u64), Due>,
    pub(super) decided: u64,
}

/// Why there is no world.
fn broken(what: &str, error: impl std::fmt::Display) -> String {
    format!("{what}: {error}")
}

impl House {
    /// Founds the cluster and starts everything. No faults yet.
    pub(super) async fn found(settings: &Settings, book: Book) -> Result<Self, String> {
        let mut dice = Dice::new(settings.seed);
        let entropy = Arc::new(SystemEntropy::new());
        let config = Arc::new(settings::node());
        let cluster = identity::Name::new("ring-b").map_err(|it| broken("cluster", it))?;
        let (now_ms, life) = (super::clock::EPOCH_MS, config.certificates.clone());
        let authority = Authority::generate(cluster, now_ms, &*entropy, life);
        let authority = Arc::new(authority.map_err(|it| broken("authority", it))?);
        let net = Net::new(settings.seed, book.clone());
        let observers = Observers::new(book.clone());
        let users = Users::new(settings, net.clone(), book.clone());
        let wire = settings.wire;
        let common = Common { net, book, observers, authority, entropy, config, wire };
        let mut controls = Vec::new();
        for id in (1..=settings.nodes as u64).map(NodeId) {
            let ahead_ms = if settings.faults.clocks { dice.range(0, 4_000) } else { 2_000 };
            let made = Control::new(id, settings, &common, ahead_ms as i64 - 2_000).await;
            controls.push(made.map_err(|it| broken("log", it))?);
        }
        let edges = (0..settings.hosts)
            .map(|number| Edge::new(number, (name("acme"), host_name(number)), settings, &common))
            .collect();
        let mut house = Self {
            settings: settings.clone(),
            common,
            dice,
            controls,
            edges,
            users,
            asking: Vec::new(),
            due: BTreeMap::new(),
            decided: 0,
        };
        house.assemble().await.map_err(|it| broken("cluster", it))?;
        house.users.found(settings.seed).await;
        for edge in &mut house.edges {
            edge.start(&house.common).await;
        }
        house.asking =
            if settings.faults.users { house.users.begin(settings.seed) } else { Vec::new() };
        Ok(house)
    }

    /// Starts the nodes and makes one cluster of them.
    async fn assemble(&mut self) -> Result<(), StartError> {
        let peer = |id| Peer { peer_addr: peer_addr(id), client_addr: client_addr(id) };
        let failed = |error: consensus::Error| StartError::Raft(error.to_string());
        for number in 0..self.controls.len() {
            self.controls[number].start(&self.common).await?;
            let id = self.controls[number].id;
            let Some(first) = self.controls[0].ledger() else { continue };
            if number == 0 {
                first.bootstrap(peer(id)).await.map_err(failed)?;
            } else {
                let deadline = Instant::now() + BEGIN;
                first.add_node(id, peer(id), deadline).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    pub(super) fn book(&self) -> &Book {
        &self.common.book
    }

    /// Faults for as long as the settings say, or until a rule is broken.
    pub(super) async fn suffer(&mut self) {
        let until = Instant::now() + Duration::from_secs(self.settings.seconds);
        if self.settings.faults.messages {
            self.common.net.set_odds(Odds { lost: 10, repeated: 10, late: 30 });
        }
        self.decide_later(Duration::from_millis(500), Due::Fault);
        if self.settings.plant == Some(Plant::OldDisks) {
            self.decide_later(Duration::from_millis(100), Due::Remember);
        }
        while Instant::now() < until && !self.book().is_broken() {
            self.pass().await;
        }
    }

    /// A moment passes: what is due happens, lives that ended are noticed, and rules are looked at.
    pub(super) async fn pass(&mut self) {
        let next = self.due.first_key_value().map(|((at, _), _)| *at);
        let look = Instant::now() + LOOK;
        tokio::time::sleep_until(next.map_or(look, |at| at.min(look))).await;
        while let Some(((at, number), due)) = self.due.pop_first() {
            if at > Instant::now() {
                self.due.insert((at, number), due);
                break;
            }
            self.happen(due).await;
        }
        self.notice_ends().await;
        self.look();
    }

    /// Something is to happen later.
    pub(super) fn decide_later(&mut self, after: Duration, due: Due) {
        self.decided += 1;
        self.due.insert((Instant::now() + after, self.decided), due);
    }

    /// Nodes and agents that ended by themselves are started again a little later, as whoever runs them
    /// would.
    async fn notice_ends(&mut self) {
        for number in 0..self.controls.len() {
            if self.controls[number].has_ended().await {
                let id = self.controls[number].id;
                self.book().line(format_args!("n{id} ended by itself"));
                let off = self.controls[number].disk().is_off();
                let loss = if off { Loss::Torn } else { self.some_loss() };
                self.controls[number].crash(&self.common, loss);
                self.decide_later(Duration::from_millis(300), Due::NodeBack(number));
            }
        }
    }

    /// What must hold at any moment.
    fn look(&mut self) {
        let mut copies: BTreeMap<JobId, usize> = BTreeMap::new();
        for edge in &self.edges {
            for (job, spec) in edge.running() {
                if spec.on_disconnect != OnDisconnect::Stop {
                    continue;
                }
                if let Some(other) = copies.insert(job.clone(), edge.number) {
                    let detail = format!("{job} runs on e{other} and e{}", edge.number);
                    self.common.book.fail("exclusive", detail);
                }
            }
        }
        if let Some(panic) = super::run::panicked() {
            self.book().fail("panic", panic);
        }
    }

    /// Begins the life of a node that has none; again later if that fails.
    pub(super) async fn start_node(&mut self, number: usize) {
        if self.controls[number].is_up() {
            return;
        }
        let started = tokio::time::timeout(BEGIN, self.controls[number].start(&self.common)).await;
        let id = self.controls[number].id;
        let error = match started {
            Ok(Ok(())) => return,
            Ok(Err(error @ StartError::LogLost { .. })) => {
                self.book().fail("log", format!("node {id} does not start: {error}"));
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        self.book().line(format_args!("n{id} does not start: {error}"));
        let loss = Loss::Unsynced;
        self.controls[number].crash(&self.common, loss);
        self.decide_later(Duration::from_millis(500), Due::NodeBack(number));
    }

    /// Users go home.
    pub(super) async fn end_users(&mut self) {
        self.users.end();
        for asking in self.asking.drain(..) {
            // They give up by themselves within their tries; then it does not matter.
            drop(tokio::time::timeout(Duration::from_secs(60), asking).await);
        }
    }

    /// A place at random: a node, or an edge host.
    pub(super) fn some_place(&mut self) -> Place {
        if self.edges.is_empty() || self.dice.permille(500) {
            let number = self.dice.index(self.controls.len());
            return Place::Node(self.controls[number].id);
        }
        Place::Edge(self.dice.index(self.edges.len()))
    }

    /// Waits in the world's time.
    pub(super) async fn wait(&self, ms: u64) {
        sleep(Duration::from_millis(ms)).await;
    }
}
