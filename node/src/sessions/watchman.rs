//! Two tasks beside all sessions: one tells them what changed, one ends contacts that nobody holds.
//!
//! A contact that names this node without a session here is left from an earlier life of the node. One that
//! names a node that is lost is the leader's to end. Both get as long as a lease could last, counted from
//! when this node first saw them: by then everything that was granted is over, and an agent that found
//! another node has a newer session.

use super::{End, HostKey, Sessions};
use consensus::{Ledger, WatchEvent};
use model::{Caller, Change, Command, Contact, Host, Key, Row, State};
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
        let now = Instant::now();
        seen.retain(|contact, _| stray.contains(contact));
        for contact in stray {
            let since = *seen.entry(contact.clone()).or_insert(now);
            if now.saturating_duration_since(since) >= sessions.lost_after() {
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
                    self.host_changed(&(tenant.clone(), host.clone()), change);
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

    fn host_changed(&self, host: &HostKey, change: &Change) {
        let entries = self.entries();
        let Some(entry) = entries.get(host) else { return };
        entry.wake.notify_one();
        let end = match &change.after {
            Some(Row::Host(row)) => match row.contact {
                Contact::Connected { session, .. } if session > entry.session => End::Superseded,
                Contact::Lost { session, .. } if session >= entry.session => End::Lost,
                Contact::Connected { .. } | Contact::Lost { .. } | Contact::Never => return,
            },
            // A host that is deleted: its agent hears so when it connects again.
            Some(_) | None => End::Lost,
        };
        entry.end.send_if_modified(|said| {
            let first = said.is_none();
            if first {
                *said = Some(end);
            }
            first
        });
    }

    /// Asks for a confirmation by a majority where nothing else brings one in time.
    async fn confirm_quorum(&self) {
        let shared = self.shared();
        let old = Duration::from_millis(shared.config.lease.renew_every_ms() / 2);
        let quorum_at = shared.ledger.leadership().borrow().quorum_at;
        if self.count() > 0 && quorum_at.is_none_or(|at| at.elapsed() > old) {
            let deadline = Instant::now() + Duration::from_millis(self.config().sweep_ms.max(1));
            let read = shared.ledger.linearize(deadline);
            // Without a majority no lease is granted; agents look for another node.
            drop(tokio::time::timeout_at(deadline, read).await);
        }
    }

    /// Contacts that no living node holds, as far as this node is to end them.
    fn stray(&self) -> Vec<(HostKey, u64)> {
        let shared = self.shared();
        let held: BTreeMap<HostKey, u64> =
            self.entries().iter().map(|(host, entry)| (host.clone(), entry.session)).collect();
        let leads = shared.ledger.leadership().borrow().is_leader;
        let is_stray = |state: &State, key: &HostKey, host: &Host| {
            let Contact::Connected { node, session, .. } = host.contact else { return None };
            let stray = if node == shared.node_id {
                held.get(key).is_none_or(|held| *held < session)
            } else {
                leads && state.nodes.get(&node).is_none_or(|node| !node.alive)
            };
            stray.then(|| (key.clone(), session))
        };
        shared.ledger.read(|state| {
            state.hosts.iter().filter_map(|(key, host)| is_stray(state, key, host)).collect()
        })
    }

    /// Says that a session is over.
    pub(super) async fn lose(
        &self,
        (tenant, host): &HostKey,
        session: u64,
    ) -> Result<(), tonic::Status> {
        let shared = self.shared();
        let command = Command::LoseHost { tenant: tenant.clone(), host: host.clone(), session };
        let deadline = Instant::now() + Duration::from_millis(self.config().propose_ms);
        let caller = Caller::Node(shared.node_id);
        let outcome = shared.propose(caller, None, command, deadline).await?;
        if let Err(rejection) = outcome.result {
            // A newer session, or a host that is gone: as good.
            tracing::debug!(%tenant, %host, session, code = rejection.code, "not lost");
        }
        Ok(())
    }
}
