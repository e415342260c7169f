//! The sessions of agents that this node holds.
//!
//! [`Sessions`] knows them by host; each runs as a task of its own (`session`). `watchman` tells sessions
//! what in the state concerns them, and ends contacts that nobody holds any more. Leases live in memory
//! only, by the rules of `model::LeaseTimes`: the log hears of a host when it connects and when it is lost.
//! `logs` carries job output from a session to whoever asked.

mod logs;
mod session;
#[cfg(test)]
mod tests;
mod watchman;

use crate::{
    Shared,
    config::SessionsConfig,
    refusal,
    service::inspect::{Branch, Part},
};
use api::v1;
use consensus::Ledger;
use model::{Digest, LeaseTimes, Name, Standing};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tonic::{Status, Streaming};

use logs::LogAsk;
pub(crate) use logs::LogStream;

/// A host: tenant and name.
pub(crate) type HostKey = (Name, Name);

/// Messages to an agent.
type Out = mpsc::Sender<Result<v1::ControlMessage, Status>>;

/// Why a session is to end, said by whoever saw it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A newer session of the host is in force.
    Superseded,
    /// The state holds the host for lost: its agent has to connect again.
    Lost,
    /// The host is not trusted any more: it is told to stop everything, and lost when its lease is over.
    Distrusted,
}

impl End {
    /// What the state says of a session, if that ends it.
    fn of(standing: Standing) -> Option<Self> {
        match standing {
            Standing::Superseded => Some(Self::Superseded),
            Standing::Lost => Some(Self::Lost),
            Standing::Distrusted => Some(Self::Distrusted),
            Standing::InForce | Standing::Unknown => None,
        }
    }
}

/// A session, or the contact that is left of it until its lease is over.
struct Entry {
    /// Number of the session.
    session: u64,
    /// Something in the state that concerns the host may have changed.
    wake: Arc<Notify>,
    end: watch::Sender<Option<End>>,
    /// The way in; `None` once the agent is not at the other end any more.
    asks: Option<mpsc::Sender<LogAsk>>,
}

struct Inner<L: Ledger> {
    shared: Shared<L>,
    entries: Mutex<BTreeMap<HostKey, Entry>>,
    slots: Arc<Semaphore>,
    log_slots: Arc<Semaphore>,
    log_ids: AtomicU64,
}

/// The sessions of this node. Clones share them.
#[derive(Clone)]
pub(crate) struct Sessions<L: Ledger> {
    inner: Arc<Inner<L>>,
}

impl<L: Ledger> Sessions<L> {
    /// No session yet; starts the tasks that serve them all, which end with the node.
    pub(crate) fn start(shared: Shared<L>) -> Self {
        shared.ledger.leases().set_ttl(Duration::from_millis(shared.config.lease.ttl_ms));
        let config = &shared.config.sessions;
        let permits = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        let inner = Inner {
            entries: Mutex::default(),
            slots: permits(config.sessions_max),
            log_slots: permits(config.logs_max),
            log_ids: AtomicU64::new(1),
            shared,
        };
        let sessions = Self { inner: Arc::new(inner) };
        tokio::spawn(watchman::tell(sessions.clone()));
        tokio::spawn(watchman::guard(sessions.clone()));
        sessions
    }

    /// Number of agents that are at the other end now.
    pub(crate) fn count(&self) -> u32 {
        let live = self.entries().values().filter(|entry| entry.asks.is_some()).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    /// What a look inside the node shows of them.
    pub(crate) fn parts(&self) -> BTreeMap<String, Part> {
        let sessions = self.clone();
        let part = move || {
            let mut all = Branch::default().with("live", sessions.count());
            for ((tenant, host), entry) in sessions.entries().iter() {
                let shown = all.at(&format!("{tenant}/{host}"));
                let facts = [
                    ("session", entry.session.to_string()),
                    ("live", entry.asks.is_some().to_string()),
                ];
                shown.values.extend(facts.map(|(name, value)| (name.to_owned(), value)));
            }
            all
        };
        let part: Part = Arc::new(part);
        BTreeMap::from([("sessions".to_owned(), part)])
    }

    pub(crate) fn shared(&self) -> &Shared<L> {
        &self.inner.shared
    }

    fn config(&self) -> &SessionsConfig {
        &self.inner.shared.config.sessions
    }

    /// How long leases of this node hold.
    fn times(&self) -> LeaseTimes {
        let config = &self.inner.shared.config.lease;
        let (ttl, grace) = (config.ttl_ms, config.grace_ms());
        LeaseTimes { ttl: Duration::from_millis(ttl), grace: Duration::from_millis(grace) }
    }

    /// How long after its last renewal a host is held for lost.
    fn lost_after(&self) -> Duration {
        self.times().ttl + self.times().grace
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<HostKey, Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the session of a host; what the agent is told comes out of the receiver.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when this node has as many sessions as it takes.
    pub(crate) fn open(
        &self,
        host: HostKey,
        agent_key: Digest,
        inbound: Streaming<v1::AgentMessage>,
    ) -> Result<mpsc::Receiver<Result<v1::ControlMessage, Status>>, Status> {
        let slot = self.inner.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_full| refusal::of_ledger(&consensus::Error::Overloaded))?;
        let (out, receiver) = mpsc::channel(self.config().queue_messages_max.max(2));
        let session = session::Session::new(self.clone(), (host, agent_key), inbound, out);
        tokio::spawn(async move {
            session.run().await;
            drop(slot);
        });
        Ok(receiver)
    }

    /// Makes a session the one in force of its host, unless a newer one is.
    fn enter(&self, host: &HostKey, entry: Entry) -> bool {
        let mut entries = self.entries();
        if let Some(before) = entries.get(host) {
            if before.session >= entry.session {
                return false;
            }
            before.end.send_replace(Some(End::Superseded));
        }
        entries.insert(host.clone(), entry);
        true
    }

    /// The agent of a session is gone; its contact is not yet.
    fn hang_up(&self, host: &HostKey, session: u64) {
        if let Some(entry) = self.entries().get_mut(host)
            && entry.session == session
        {
            entry.asks = None;
        }
    }

    /// Nothing is left of a session.
    fn leave(&self, host: &HostKey, session: u64) {
        let mut entries = self.entries();
        if entries.get(host).is_some_and(|entry| entry.session == session) {
            entries.remove(host);
        }
    }

    /// Job output from a host whose session this node holds.
    ///
    /// # Errors
    /// UNAVAILABLE `HOST_NOT_CONNECTED`; RESOURCE_EXHAUSTED when too much is being read.
    pub(crate) async fn read_logs(
        &self,
        host: &HostKey,
        asked: &v1::ReadLogsRequest,
    ) -> Result<LogStream, Status> {
        let asks = self.entries().get(host).and_then(|entry| entry.asks.clone());
        let asks = asks.ok_or_else(api::status::host_not_connected)?;
        let slot = self.inner.log_slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_full| refusal::of_ledger(&consensus::Error::Overloaded))?;
        let id = self.inner.log_ids.fetch_add(1, Ordering::Relaxed);
        LogStream::begin(id, asked, asks, (slot, self.config().log_parts_max)).await
    }
}
