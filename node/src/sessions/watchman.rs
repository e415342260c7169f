//! Two tasks beside all sessions: one tells them what changed, one ends contacts that nobody holds.
//!
//! A contact that names this node without a session here is left from an earlier life of the node: it gets
//! as long as a lease could last, counted from when it was first seen. One that names a node that is lost is
//! the leader's to end: it gets as long, counted from the leader's last exchange with that node. By then
//! everything that was granted is over (`model::LeaseTimes` has the reasons), and an agent that found
//! another node has a newer session.

use super::{End, HostKey, Sessions};
use consensus::{Ledger, WatchEvent};
use model::{Caller, Command, Contact, Host, Key, LeaseTimes, Row, State, standing};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// Wakes the sessions that a revision concerns, until the node stops.
pub(super) async fn tell<L: Ledger>(sessions: Sessions<L>) {
    let stop = sessions.shared().stop.clone();
    let ledger = sessions.shared().ledger.clone();
    let pause = Duration::from_millis(sessions.config().sweep_ms);
    loop {
        let after = ledger.read(|state| state.globals.revision);
        if let Ok(mut events) = ledger.watch(after) {
            // What happened before the watch began is seen by looking.
            sessions.wake_all();
            loop {
                let event = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    event = events.next() => event,
                };
                match event {
                    Some(Ok(event)) => sessions.hear(&event),
                    // Too slow, or the ledger stopped: look at everything and begin anew.
                    Some(Err(_)) | None => break,
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Ends contacts that nobody holds, until the node stops.
pub(super) async fn guard<L: Ledger>(sessions: Sessions<L>) {
    let stop = sessions.shared().stop.clone();
    let pause = Duration::from_millis(sessions.config().sweep_ms.max(1));
    let mut seen: BTreeMap<(HostKey, u64), Instant> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        sessions.confirm_quorum().await;
        let stray = sessions.stray();
        seen.retain(|contact, _| stray.contains_key(contact));
        let ttl = sessions.shared().ledger.leases().longest_ttl();
        let others = LeaseTimes { ttl, ..sessions.times() };
        for (contact, silence) in stray {
            let over = match silence {
                Some(silence) => others.is_over(silence),
                None => {
                    let since = seen.entry(contact.clone()).or_insert_with(Instant::now);
                    sessions.times().is_over(since.elapsed())
                }
            };
            if over {
                let ((tenant, host), session) = contact;
                tracing::info!(%tenant, %host, session, "nobody holds the session of a host");
                // What fails is tried again by the next look.
                drop(sessions.lose(&(tenant, host), session).await);
            }
        }
    }
}

impl<L: Ledger> Sessions<L> {
    fn wake_all(&self) {
        for entry in self.entries().values() {
            entry.wake.notify_one();
        }
    }

    fn hear(&self, event: &WatchEvent) {
        for change in event.changes.iter() {
            match &change.key {
                Key::Job(key) => {
                    for row in [&change.before, &change.after] {
                        let Some(Row::Job(job)) = row else { continue };
                        for placement in &job.placements {
                            self.wake(&(key.tenant.clone(), placement.host.clone()));
                        }
                    }
                }
                Key::Host(tenant, host) => {
                    let host = (tenant.clone(), host.clone());
                    self.look(&host);
                    self.wake(&host);
                }
                _ => {}
            }
        }
    }

    fn wake(&self, host: &HostKey) {
        if let Some(entry) = self.entries().get(host) {
            entry.wake.notify_one();
        }
    }

    /// Ends the session of a host if the state says so; its agent hears why.
    pub(super) fn look(&self, host: &HostKey) {
        let (tenant, name) = host;
        let shared = self.shared();
        let entries = self.entries();
        let Some(entry) = entries.get(host) else { return };
        let standing = shared
            .ledger
            .read(|state| standing(state.host(tenant, name), shared.node_id, entry.session));
        entry.end.send_if_modified(|said| {
            // A host that was distrusted is lost some time later.
            let said_last = said.is_some_and(|end| end != End::Distrusted);
            let end = End::of(standing).filter(|end| !said_last && *said != Some(*end));
            *said = end.or(*said);
            end.is_some()
        });
    }

    /// Asks for a confirmation by a majority where nothing else brings one in time.
    async fn confirm_quorum(&self) {
        let shared = self.shared();
        let old = Duration::from_millis(shared.config.lease.renew_every_ms() / 2);
        let support = shared.ledger.leases().support();
        if self.count() > 0 && support.is_none_or(|support| support.at.elapsed() > old) {
            let deadline = Instant::now() + Duration::from_millis(self.config().sweep_ms.max(1));
            let read = shared.ledger.linearize(deadline);
            // Without a majority no lease is granted; agents look for another node.
            drop(tokio::time::timeout_at(deadline, read).await);
        }
    }

    /// Contacts that no living node holds, as far as this node is to end them; those of a lost node each
    /// with how long the leader has not heard of it.
    fn stray(&self) -> BTreeMap<(HostKey, u64), Option<Duration>> {
        let shared = self.shared();
        let held: BTreeMap<HostKey, u64> =
            self.entries().iter().map(|(host, entry)| (host.clone(), entry.session)).collect();
        let is_stray = |state: &State, key: &HostKey, host: &Host| {
            let Contact::Connected { node, session, .. } = host.contact else { return None };
            let stray = || (key.clone(), session);
            if node == shared.node_id {
                let left = held.get(key).is_none_or(|held| *held < session);
                return left.then(|| (stray(), None));
            }
            // Only the leader can say how long a node is silent.
            let silence = shared.ledger.leases().silence(node)?;
            (!state.counts_on(node)).then(|| (stray(), Some(silence)))
        };
        shared.ledger.read(|state| {
            state.hosts.iter().filter_map(|(key, host)| is_stray(state, key, host)).collect()
        })
    }

    /// Says that a session is over, and gives up before a node could come back and be lost again.
    pub(super) async fn lose(
        &self,
        (tenant, host): &HostKey,
        session: u64,
    ) -> Result<(), tonic::Status> {
        let shared = self.shared();
        let command = Command::LoseHost { tenant: tenant.clone(), host: host.clone(), session };
        let time = self.config().propose_ms.min(shared.config.raft.node_lost_ms);
        let deadline = Instant::now() + Duration::from_millis(time);
        let caller = Caller::Node(shared.node_id);
        let outcome = shared.propose(caller, None, command, deadline).await?;
        if let Err(rejection) = outcome.result {
            // A newer session, or a host that is gone: as good.
            tracing::debug!(%tenant, %host, session, code = rejection.code, "not lost");
        }
        Ok(())
    }
}
