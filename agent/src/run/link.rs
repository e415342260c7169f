//! What the agent does when control says something, or the link comes and goes.

use api::v1::{self, control_message::Message};
use model::Revision;
use storage::Disk;

use super::{Core, RunError};
use crate::memory::{Orders, Record, Refused};
use crate::naming::Folder;
use crate::stream::Event;

impl<D: Disk> Core<D> {
    /// What happened on the link.
    pub(super) async fn take(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Opened(out, peers) => {
                self.out = Some(out);
                self.heard = false;
                self.executor.standing.session(false);
                self.leftovers.pause();
                self.lease.begin_session();
                self.reporter.reset();
                self.learn(peers).await;
            }
            Event::Closed => {
                self.out = None;
                self.heard = false;
                self.executor.standing.session(false);
                self.leftovers.pause();
                self.reporter.reset();
                self.logs.clear();
            }
            Event::Renewing { sequence, at_boot_ms } => self.lease.sent(sequence, at_boot_ms),
            Event::Heard(Message::Orders(orders)) => self.obey(orders).await?,
            Event::Heard(Message::LeaseGranted(grant)) => {
                let Some(until) = self.lease.granted(grant.sequence, grant.ttl_ms) else {
                    return Ok(());
                };
                // Noted first: the driver starts whatever the lease of the moment allows.
                self.executor.standing.granted(until, self.parts.driver.boottime_ms());
                if let Err(error) = self.parts.driver.renew(until).await {
                    tracing::warn!(%error, "could not pass the lease on to the guards");
                }
            }
            Event::Heard(Message::ReportsTaken(taken)) => {
                if let Some(through) = self.reporter.taken(&taken) {
                    self.log.remember(&[Record::Sent { through }]).await?;
                }
            }
            Event::Heard(Message::LogRequest(asked)) => {
                if let Some(out) = &self.out {
                    self.logs.start(asked, out.bulk.clone());
                }
            }
            Event::Heard(Message::LogCancel(asked)) => self.logs.cancel(asked.id),
            // The link has dealt with these.
            Event::Heard(Message::Welcome(_) | Message::Goodbye(_)) => {}
        }
        Ok(())
    }

    /// Takes orders in: remembered, synced, and only then acted on.
    async fn obey(&mut self, orders: v1::Orders) -> Result<(), RunError> {
        let orders = match orders_of(orders) {
            Ok(orders) => orders,
            Err(rejection) => {
                // A newer control node says what this agent does not know: what it did know stands.
                tracing::error!(%rejection.message, "could not read orders");
                return Ok(());
            }
        };
        let admission = self.log.memory().admit(&orders);
        for refused in &admission.refused {
            tracing::warn!(%refused, "refused orders");
        }
        self.log.remember(&admission.records).await?;
        let set_refused =
            admission.refused.iter().any(|refused| matches!(refused, Refused::Set { .. }));
        self.heard |= orders.full && !set_refused;
        self.executor.standing.orders(self.log.memory());
        self.executor.standing.session(self.heard);
        for order in &orders.orders {
            let (key, deployment) = (order.key.clone(), order.deployment);
            self.leftovers.wanted(&Folder { key, deployment });
            self.look_for_data(&order.key).await;
        }
        let newest = self.log.memory().heard();
        // Nobody is to be woken by this.
        self.introduce.send_if_modified(|introduction| {
            introduction.newest = newest;
            false
        });
        Ok(())
    }

    /// Remembers control nodes that were not known.
    async fn learn(&mut self, peers: Vec<v1::Peer>) {
        let addresses = peers.into_iter().map(|peer| peer.client_addr).collect();
        if !self.parts.servers.learn(addresses) {
            return;
        }
        let text = serde_json::to_vec(&self.parts.servers.known()).unwrap_or_default();
        let kept = self.parts.disk.replace_file(&self.config.servers_path(), text.into()).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "could not keep the addresses of control nodes");
        }
    }
}

fn orders_of(orders: v1::Orders) -> Result<Orders, Box<model::Rejection>> {
    let v1::Orders { full, revision, orders, removed } = orders;
    let orders = orders.into_iter().map(api::convert::session::order_from_proto);
    let mut gone = Vec::with_capacity(removed.len());
    for removed in removed {
        let (key, _assignment) = api::convert::session::removed_from_proto(removed)?;
        gone.push(key);
    }
    let orders = orders.collect::<Result<_, _>>()?;
    Ok(Orders { full, revision: Revision(revision), orders, gone })
}
