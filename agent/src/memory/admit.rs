//! Which orders an agent takes, and which it refuses as stale.

use std::collections::{BTreeMap, BTreeSet};

use model::{JobKey, Order, Revision};

use super::{Accepted, Fence, Memory, Record};

/// Orders as control sent them, true as of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Orders {
    /// The revision of the state they were read from.
    pub revision: Revision,
    /// Whether these are all: then every job that is not named has no order.
    pub full: bool,
    /// Orders: all of them, or those that changed.
    pub orders: Vec<Order>,
    /// Jobs that have no order any more, when `full` is not set.
    pub gone: Vec<JobKey>,
}

/// Why orders were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The whole set is older than one taken in before.
    #[error("orders of revision {revision} are older than those of {heard} taken in before")]
    Set {
        /// Revision of the set.
        revision: Revision,
        /// Revision of the newest set taken in.
        heard: Revision,
    },
    /// One order is older than the newest accepted for its job.
    #[error("the order {order} for {key} is older than {newest} accepted before")]
    Order {
        /// The job.
        key: JobKey,
        /// The order.
        order: Fence,
        /// The newest accepted.
        newest: Fence,
    },
}

/// What comes of orders heard: write the records, synced, and apply them; log what was refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// What to remember, in order. Empty when nothing is new.
    pub records: Vec<Record>,
    /// What was refused.
    pub refused: Vec<Refused>,
}

impl Memory {
    /// Judges orders against what was accepted before. Changes nothing by itself.
    pub fn admit(&self, heard: &Orders) -> Admission {
        let mut admission = Admission::default();
        if heard.revision < self.heard {
            let (revision, newest) = (heard.revision, self.heard);
            admission.refused.push(Refused::Set { revision, heard: newest });
            return admission;
        }
        let mut named: BTreeMap<&JobKey, Fence> = BTreeMap::new();
        for order in &heard.orders {
            let accepted = Accepted::from(order);
            let fence = accepted.fence();
            // A job that has two orders in one set acts on the newer one, whatever their places.
            let before = named.get(&order.key).copied();
            let newest = before.or_else(|| self.fence(&order.key)).unwrap_or_default();
            let revived =
                before.is_none() && self.job(&order.key).is_none_or(|job| job.order.is_none());
            if fence < newest {
                let key = order.key.clone();
                named.entry(&order.key).or_insert(newest);
                admission.refused.push(Refused::Order { key, order: fence, newest });
                continue;
            }
            named.insert(&order.key, fence);
            let in_force = self.job(&order.key).and_then(|job| job.order.as_ref());
            let known = in_force.and_then(|before| before.deployment);
            // A control node that does not say whose data a job gets takes back nothing.
            let accepted = Accepted { deployment: accepted.deployment.or(known), ..accepted };
            let owner_is_new = before.is_none() && accepted.deployment != known;
            if fence > newest || revived || owner_is_new {
                admission.records.push(accepted.record(order.key.clone()));
            }
        }
        let gone: BTreeSet<&JobKey> = heard.gone.iter().collect();
        let dropped = |key: &JobKey| !named.contains_key(key) && (heard.full || gone.contains(key));
        let in_force = self.jobs().filter(|(_, job)| job.order.is_some());
        for (key, _) in in_force.filter(|(key, _)| dropped(key)) {
            admission.records.push(Record::Dropped { key: key.clone() });
        }
        if heard.revision > self.heard {
            admission.records.push(Record::Heard { revision: heard.revision });
        }
        admission
    }
}
