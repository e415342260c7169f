//! Clients that write and read registers while a test changes the cluster under them, and what came of
//! each call. Nothing is tried again, so that a call in doubt stays one.

use crate::{
    Change, Operator,
    history::{Anomaly, Call, Done, check},
    operator::request_id,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Registers.
const KEYS: u64 = 4;

/// A pause after a call that was not answered as it should be.
const PAUSE: Duration = Duration::from_millis(20);

/// What all clients share.
struct Shared {
    operator: Operator,
    /// Registers begin with it.
    name: String,
    /// Nodes to call, by index.
    nodes: Mutex<Vec<usize>>,
    began: Instant,
    over: AtomicBool,
    calls: Mutex<Vec<Call>>,
    /// Writes that were not done, or nobody knows: by which node, and what was said.
    refused: Mutex<Vec<(usize, String)>>,
    unknown: Mutex<Vec<(usize, String)>>,
    numbers: AtomicU64,
    written: AtomicU64,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What clients were told.
#[derive(Debug)]
pub struct Told {
    /// Calls that were answered, or may have been carried out.
    pub calls: Vec<Call>,
    /// Writes that were certainly not done, by the node that was asked.
    pub refused: Vec<(usize, String)>,
    /// Writes that may have been done, by the node that was asked.
    pub unknown: Vec<(usize, String)>,
    /// How many writes were acknowledged.
    pub written: u64,
}

impl Load {
    /// Lets `writers` write and `readers` read through `nodes`. Registers begin with `name`, which no
    /// other load of the cluster may have.
    pub fn start(
        runtime: &Runtime,
        (operator, name): (Operator, &str),
        nodes: &[usize],
        (writers, readers): (u64, u64),
    ) -> Self {
        let shared = Arc::new(Shared {
            operator,
            name: name.to_owned(),
            nodes: Mutex::new(nodes.to_vec()),
            began: Instant::now(),
            over: AtomicBool::new(false),
            calls: Mutex::default(),
            refused: Mutex::default(),
            unknown: Mutex::default(),
            numbers: AtomicU64::new(1),
            written: AtomicU64::new(0),
        });
        let clients = (0..writers)
            .map(|client| runtime.spawn(write(shared.clone(), client)))
            .chain((0..readers).map(|client| runtime.spawn(read(shared.clone(), client))))
            .collect();
        Self { shared, clients }
    }

    /// Calls these nodes from now on.
    ///
    /// # Panics
    /// When a client panicked.
    pub fn call(&self, nodes: &[usize]) {
        *self.shared.nodes.lock().unwrap() = nodes.to_vec();
    }

    /// How many writes were acknowledged so far.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Ends it, reads every register through each of `nodes`, and says what clients were told.
    ///
    /// # Panics
    /// When a client panicked, or a register cannot be read.
    pub fn end(self, runtime: &Runtime, nodes: &[usize]) -> Told {
        let Self { shared, clients } = self;
        shared.over.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for client in clients {
                client.await.unwrap();
            }
            for node in nodes {
                for key in (0..KEYS).map(|key| shared.key(key)) {
                    shared.read_at_last(*node, key).await;
                }
            }
        });
        let take = |list: &Mutex<Vec<_>>| std::mem::take(&mut *list.lock().unwrap());
        Told {
            calls: std::mem::take(&mut *shared.calls.lock().unwrap()),
            refused: take(&shared.refused),
            unknown: take(&shared.unknown),
            written: shared.written.load(Ordering::Relaxed),
        }
    }
}

impl Told {
    /// Checks that what was answered can have happened one after the other, and nothing was lost.
    ///
    /// # Errors
    /// The first thing that cannot have happened.
    pub fn check(&self) -> Result<(), Anomaly> {
        check(&self.calls)
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, key: String, began: u64, done: Done) {
        let call = Call { key, began, ended: self.now(), done };
        self.calls.lock().unwrap().push(call);
    }

    /// Reads through a node until it answers, for half a minute at most.
    async fn read_at_last(&self, node: usize, key: String) {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let began = self.now();
            match self.operator.read(node, &key).await {
                Ok(found) => return self.note(key, began, Done::Read(found)),
                Err(error) if Instant::now() > limit => panic!("{key}: {error:?}"),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The next call: its number, its register, and whom to ask.
    fn next(&self, client: u64) -> (u64, String, usize) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let nodes = self.nodes.lock().unwrap();
        let at = usize::try_from(client + number / 8).unwrap_or_default() % nodes.len();
        (number, self.key(number), nodes[at])
    }

    fn key(&self, number: u64) -> String {
        format!("{}-{}", self.name, number % KEYS)
    }
}

async fn write(shared: Arc<Shared>, client: u64) {
    while !shared.over.load(Ordering::Relaxed) {
        let (number, key, node) = shared.next(client);
        let value = format!("v{number}");
        let began = shared.now();
        match shared.operator.write(node, &key, &value, &request_id(u128::from(number))).await {
            Change::Done(revision) => {
                shared.written.fetch_add(1, Ordering::Relaxed);
                shared.note(key, began, Done::Wrote(value, revision));
            }
            Change::Unknown(said) => {
                shared.note(key, began, Done::Attempted(value));
                shared.unknown.lock().unwrap().push((node, said));
                sleep(PAUSE).await;
            }
            Change::Refused(said) => {
                shared.refused.lock().unwrap().push((node, said));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn read(shared: Arc<Shared>, client: u64) {
    while !shared.over.load(Ordering::Relaxed) {
        let (_, key, node) = shared.next(client);
        let began = shared.now();
        match shared.operator.read(node, &key).await {
            Ok(found) => shared.note(key, began, Done::Read(found)),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
