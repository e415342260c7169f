//! The root actor: reads the watch, decides which tenants this node has business with, and keeps
//! their actors.

use crate::{
    board::Subject,
    mailbox::{Mailbox, Touched},
    ownership::{live_nodes, tenant_owner},
    reconcile::Shared,
    route::{Route, route},
    supervise::Children,
    tenant::{Tenant, TenantArguments, TenantMessage, owned_clusters},
};
use consensus::{Ledger, WatchError};
use model::{Name, State};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    time::Duration,
};
use tokio::task::AbortHandle;

pub(crate) struct Root<L>(pub(crate) PhantomData<L>);

#[derive(Debug)]
pub(crate) enum RootMessage {
    /// Something was touched.
    Wake,
    /// Look at everything.
    Sweep,
    /// A crashed tenant actor has waited long enough.
    Restart(Name),
    /// Nobody reads the watch any more.
    PumpFailed(String),
    /// Crash, or make somebody below crash, to see the tree recover.
    #[cfg(test)]
    Panic(Victim),
}

/// Who is to crash.
#[cfg(test)]
#[derive(Debug)]
pub(crate) enum Victim {
    Root,
    Pump,
    Cluster(Name, Name),
    Partition(model::JobKey),
}

pub(crate) struct RootState<L> {
    shared: Shared<L>,
    mailbox: Mailbox<(Name, Option<Name>)>,
    tenants: Children<Name, TenantMessage>,
    mailboxes: BTreeMap<Name, Mailbox<Name>>,
    pump: Option<Pump>,
}

impl<L: Ledger> Actor for Root<L> {
    type Msg = RootMessage;
    type State = RootState<L>;
    type Arguments = Shared<L>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        shared: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        shared.board.update(&Subject::Root, |status| status.up = true);
        let mailbox = Mailbox::new();
        let pumping = pump(shared.ledger.clone(), mailbox.clone(), myself.clone());
        let pump = Pump::start(pumping, myself.clone());
        myself.cast(RootMessage::Sweep)?;
        let (tenants, mailboxes) = (Children::new(), BTreeMap::new());
        Ok(RootState { shared, mailbox, tenants, mailboxes, pump: Some(pump) })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::Wake => {
                let touched = state.mailbox.take();
                state.run(&myself, touched).await?;
            }
            RootMessage::Sweep => {
                state.run(&myself, Touched::everything()).await?;
                myself.send_after(state.shared.sweep(&Subject::Root), || RootMessage::Sweep);
            }
            RootMessage::Restart(tenant) => {
                if state.tenants.waits(&tenant) {
                    state.start(&myself, tenant).await?;
                }
            }
            RootMessage::PumpFailed(error) => return Err(error.into()),
            #[cfg(test)]
            RootMessage::Panic(victim) => state.crash(&myself, victim)?,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some((tenant, delay)) = state.tenants.crashed(&cell, &state.shared.config) {
                    state.crashed(&myself, tenant, delay, &error.to_string());
                }
            }
            SupervisionEvent::ActorTerminated(cell, ..) => state.tenants.ended(&cell),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        drop(state.pump.take());
        state.tenants.stop_all();
        Ok(())
    }
}

impl<L: Ledger> RootState<L> {
    async fn run(
        &mut self,
        myself: &ActorRef<RootMessage>,
        touched: Touched<(Name, Option<Name>)>,
    ) -> Result<(), ActorProcessingErr> {
        let fork = self.shared.ledger.read(State::clone);
        let me = self.shared.ledger.node_id();
        let live = live_nodes(&fork, me);
        let wanted: BTreeSet<Name> = fork
            .tenants
            .iter()
            .map(|(tenant, _)| tenant)
            .filter(|tenant| {
                tenant_owner(&live, tenant) == Some(me)
                    || !owned_clusters(&fork, &live, Some(me), tenant).is_empty()
            })
            .cloned()
            .collect();
        for tenant in self.tenants.names() {
            if !wanted.contains(&tenant) {
                self.tenants.stop(&tenant);
                self.mailboxes.remove(&tenant);
            }
        }
        for tenant in &wanted {
            if self.tenants.get(tenant).is_none() {
                if !self.tenants.waits(tenant) {
                    self.start(myself, tenant.clone()).await?;
                }
            } else {
                self.wake(tenant, &touched);
            }
        }
        self.shared.board.update(&Subject::Root, |status| {
            status.runs += 1;
            status.revision = fork.globals.revision.0;
            status.last_run = format!("{} live nodes, {} tenants here", live.len(), wanted.len());
        });
        Ok(())
    }

    fn wake(&self, tenant: &Name, touched: &Touched<(Name, Option<Name>)>) {
        let more = if touched.all {
            Touched::everything()
        } else {
            let mut more = Touched { own: false, all: false, children: BTreeSet::new() };
            for (_, cluster) in touched
                .children
                .range((tenant.clone(), None)..)
                .take_while(|(name, _)| name == tenant)
            {
                match cluster {
                    Some(cluster) => drop(more.children.insert(cluster.clone())),
                    None => more.own = true,
                }
            }
            more
        };
        if let (Some(actor), Some(mailbox)) = (self.tenants.get(tenant), self.mailboxes.get(tenant))
            && mailbox.add(more)
        {
            // One that has just crashed is started again and looks at everything.
            let _ = actor.cast(TenantMessage::Wake);
        }
    }

    async fn start(
        &mut self,
        myself: &ActorRef<RootMessage>,
        tenant: Name,
    ) -> Result<(), ActorProcessingErr> {
        let mailbox = self.mailboxes.entry(tenant.clone()).or_insert_with(Mailbox::new).clone();
        let arguments =
            TenantArguments { shared: self.shared.clone(), tenant: tenant.clone(), mailbox };
        let (actor, _) =
            Actor::spawn_linked(None, Tenant(PhantomData), arguments, myself.get_cell()).await?;
        self.tenants.put(tenant, actor);
        Ok(())
    }

    fn crashed(&self, myself: &ActorRef<RootMessage>, tenant: Name, delay: Duration, error: &str) {
        let subject = Subject::Tenant(tenant.clone());
        tracing::error!(actor = %subject, error, delay_ms = delay.as_millis(), "actor crashed, it starts again");
        self.shared.board.crashed(&subject, error);
        myself.send_after(delay, move || RootMessage::Restart(tenant));
    }

    #[cfg(test)]
    fn crash(
        &mut self,
        myself: &ActorRef<RootMessage>,
        victim: Victim,
    ) -> Result<(), ActorProcessingErr> {
        let (tenant, message) = match victim {
            Victim::Root => panic!("asked to"),
            Victim::Pump => {
                let pump = Pump::start(async { panic!("asked to") }, myself.clone());
                self.pump = Some(pump);
                return Ok(());
            }
            Victim::Cluster(tenant, cluster) => (tenant, TenantMessage::Panic(cluster, None)),
            Victim::Partition(key) => {
                (key.tenant.clone(), TenantMessage::Panic(key.cluster.clone(), Some(key)))
            }
        };
        if let Some(actor) = self.tenants.get(&tenant) {
            actor.cast(message)?;
        }
        Ok(())
    }
}

/// The task that reads the watch; it ends with the root.
struct Pump(AbortHandle);

impl Pump {
    /// Spawns it; the root hears of a panic in it.
    fn start(
        pumping: impl Future<Output = ()> + Send + 'static,
        root: ActorRef<RootMessage>,
    ) -> Self {
        let task = tokio::spawn(pumping);
        let abort = task.abort_handle();
        tokio::spawn(async move {
            if let Err(ended) = task.await
                && ended.is_panic()
            {
                // A root that has gone started another one.
                let _ = root.cast(RootMessage::PumpFailed(format!("reading the watch: {ended}")));
            }
        });
        Self(abort)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Turns watch events into wake-ups. A watch that is cut starts again from the revision of now, with
/// everything touched: what was missed is found by looking at the state.
async fn pump<L: Ledger>(
    ledger: L,
    mailbox: Mailbox<(Name, Option<Name>)>,
    root: ActorRef<RootMessage>,
) {
    loop {
        let from = ledger.read(|state| state.globals.revision);
        let mut watch = match ledger.watch(from) {
            Ok(watch) => watch,
            Err(WatchError::Stopped) => return,
            // The ring moved on between the two lines: begin again at a newer revision.
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        if mailbox.add(Touched::everything()) && root.cast(RootMessage::Wake).is_err() {
            return;
        }
        loop {
            match watch.next().await {
                Some(Ok(event)) => {
                    let mut route_of = Route::default();
                    route(&event.changes, &mut route_of);
                    if mailbox.add(touched(route_of)) && root.cast(RootMessage::Wake).is_err() {
                        return;
                    }
                }
                Some(Err(WatchError::Stopped)) | None => return,
                Some(Err(_)) => break,
            }
        }
    }
}

fn touched(route: Route) -> Touched<(Name, Option<Name>)> {
    let mut touched = Touched { own: false, all: route.ownership, children: BTreeSet::new() };
    for (tenant, below) in route.tenants {
        if below.own || below.all {
            touched.children.insert((tenant.clone(), None));
        }
        for cluster in below.clusters {
            touched.children.insert((tenant.clone(), Some(cluster)));
        }
        touched.all |= below.all;
    }
    touched
}
