//! Reconcilers of control: each node plans for what it owns by its own, possibly stale, state.

use crate::{event::Event, ledger::Origin, settings::Plant, world::World};
use actors::ownership::{cluster_owner, live_nodes, tenant_owner};
use model::{Caller, Command, Name};

/// How long a plan may be unanswered, in ms.
const ANSWER_MS: u64 = 4_000;
/// How often everything is looked at although nothing changed, in ms.
const SWEEP_MS: u64 = 15_000;

/// What is reconciled: a tenant as a whole, or one of its clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) tenant: Name,
    pub(crate) cluster: Option<Name>,
}

/// A plan under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) since: u64,
    pub(crate) unanswered: usize,
}

impl World {
    /// A node looks at what it owns.
    pub(crate) fn plan(&mut self, node: usize, incarnation: u64) {
        if !self.nodes[node].up || self.nodes[node].incarnation != incarnation {
            return;
        }
        let it = &self.nodes[node];
        let wall = it.wall(self.now);
        let due = |tenant: &Name| it.state.next_due(tenant).is_some_and(|due| due <= wall);
        let swept = it.planned_at + SWEEP_MS <= self.now;
        let moved = it.planned != it.applied;
        if moved || swept || it.state.tenants.iter().any(|(tenant, _)| due(tenant)) {
            let owned = self.owned(node);
            let it = &mut self.nodes[node];
            it.planned = it.applied;
            it.planned_at = self.now;
            for resource in owned {
                self.plan_one(node, resource);
            }
        }
        let at = self.now + self.dice.range(300, 900);
        self.at(at, Event::Plan { node, incarnation });
    }

    /// What a node owns, by its own state.
    fn owned(&self, node: usize) -> Vec<Resource> {
        let it = &self.nodes[node];
        let live = live_nodes(&it.state, it.id);
        let mut owned = Vec::new();
        for (tenant, _) in it.state.tenants.iter() {
            if tenant_owner(&live, tenant) == Some(it.id) {
                owned.push(Resource { tenant: tenant.clone(), cluster: None });
            }
        }
        for ((tenant, cluster), _) in it.state.clusters.iter() {
            if cluster_owner(&live, tenant, cluster) == Some(it.id) {
                owned.push(Resource { tenant: tenant.clone(), cluster: Some(cluster.clone()) });
            }
        }
        owned
    }

    fn plan_one(&mut self, node: usize, resource: Resource) {
        let now = self.now;
        let it = &mut self.nodes[node];
        if self.settings.plant != Some(Plant::PlanTwice)
            && it.plans.get(&resource).is_some_and(|flight| now < flight.since + ANSWER_MS)
        {
            // Looked at again when the answer is there.
            it.planned = usize::MAX;
            return;
        }
        let wall = it.wall(now);
        let commands: Vec<Command> = match &resource.cluster {
            None => planner::plan_tenant(&it.state, &resource.tenant, wall).commands,
            Some(cluster) => {
                planner::plan_cluster(&it.state, &resource.tenant, cluster, wall).commands
            }
        };
        if commands.is_empty() {
            return;
        }
        self.check_flight(node, &resource);
        let flight = Flight { since: now, unanswered: commands.len() };
        self.nodes[node].plans.insert(resource.clone(), flight);
        for command in commands {
            let origin = Origin::Plan { resource: resource.clone() };
            self.propose(node, (Caller::System, command), origin);
        }
    }

    /// A planned command was answered.
    pub(crate) fn plan_answered(&mut self, node: usize, resource: &Resource) {
        let it = &mut self.nodes[node];
        if let Some(flight) = it.plans.get_mut(resource) {
            flight.unanswered = flight.unanswered.saturating_sub(1);
            if flight.unanswered == 0 {
                it.plans.remove(resource);
            }
        }
    }
}
