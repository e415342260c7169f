//! Watching what changes: ordered, complete, resumable.
//!
//! A watch filters the ledger's events by tenant, kind and name. What its caller may see is judged when
//! it begins and again whenever the caller's roles change; events of other tenants never leave. A watcher
//! that reads too slowly is cut with the revision to resume from, so it costs a bounded queue and no
//! more. The events of one revision enter the queue together, so that a cut is never between them.
//!
//! A write concerns every watch. They are woken group by group, so that ten thousand of them do not stand
//! before the answer to the write and before Raft in the line for the one thread all run on.

mod queue;

use crate::{Shared, WatchConfig, access::Granted, refusal};
use api::{
    BoxStream,
    access::{CallerKind, RequiredScope, Requirement},
    convert::watch::{Moment, bookmark, event},
    limits::WATCH_RESOURCES_MAX,
    reason::bad_field,
    v1::{self, watch_server::Watch as Service},
};
use consensus::{Ledger, WatchError, WatchEvent, WatchStream};
use model::{Caller, Change, Key, Name, Rejection, Revision, Role, State};
use queue::{Queue, messages, queue};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Groups of watches. With as many watches as a node takes, some dozens are woken at once.
const GROUPS: usize = 512;

/// Events that one watch looks at before others have their turn.
const EVENTS_AT_ONCE: usize = 32;

/// What a watch of everything needs.
const EVERYTHING: Requirement = needs(Role::Viewer, RequiredScope::Cluster);
/// What a watch of one tenant needs.
const ONE_TENANT: Requirement = needs(Role::Viewer, RequiredScope::Tenant);
/// What it takes to see role bindings and tokens: as much as to list them.
const GRANTS: Requirement = needs(Role::Admin, RequiredScope::Cluster);

const fn needs(role: Role, scope: RequiredScope) -> Requirement {
    Requirement { role: Some(role), scope, callers: &[CallerKind::Operator] }
}

/// The service.
pub(crate) struct Watch<L: Ledger> {
    shared: Shared<L>,
    watches: Arc<Semaphore>,
    groups: Arc<[watch::Sender<()>]>,
    /// Watches begun so far: each goes to the next group.
    begun: AtomicUsize,
}

impl<L: Ledger> Watch<L> {
    pub(crate) fn new(shared: Shared<L>) -> Self {
        let watches = shared.config.watch.watches_max.min(Semaphore::MAX_PERMITS);
        let groups: Arc<[_]> = (0..GROUPS).map(|_| watch::Sender::new(())).collect();
        tokio::spawn(wake(shared.ledger.applied(), shared.stop.clone(), groups.clone()));
        let watches = Arc::new(Semaphore::new(watches));
        Self { shared, watches, groups, begun: AtomicUsize::new(0) }
    }

    /// Says when there is something to look at, to the next watch.
    fn news(&self) -> watch::Receiver<()> {
        let group = self.begun.fetch_add(1, Ordering::Relaxed) % GROUPS;
        self.groups[group].subscribe()
    }
}

/// Wakes the groups one after the other, whenever something was applied and when nothing will be any more.
async fn wake(
    mut applied: watch::Receiver<Revision>,
    stop: CancellationToken,
    groups: Arc<[watch::Sender<()>]>,
) {
    loop {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            changed = applied.changed() => changed.is_err(),
        };
        for group in groups.iter().filter(|group| group.receiver_count() > 0) {
            group.send_replace(());
            // Those woken, and whatever else is ready, come before the next group.
            tokio::task::yield_now().await;
        }
        if ended {
            return;
        }
    }
}

#[tonic::async_trait]
impl<L: Ledger> Service for Watch<L> {
    type WatchStream = BoxStream<'static, Result<v1::WatchEvent, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let shared = &self.shared;
        let call = shared.granted(request)?;
        let filter = Filter::read(&call.request).map_err(|bad| refusal::of_rejection(&bad))?;
        let (requirement, tenant) = filter.requirement();
        call.also(shared, requirement, tenant).await?;
        let watch = self.watches.clone().try_acquire_owned();
        let watch = watch.map_err(|_full| refusal::of_ledger(&consensus::Error::Overloaded))?;
        let after = match call.request.from_revision {
            Some(revision) => Revision(revision),
            None => {
                shared.linearize(call.deadline).await?;
                shared.ledger.read(|state| state.globals.revision)
            }
        };
        let events = shared.ledger.watch(after).map_err(ended)?;
        let config = shared.config.watch.clone();
        let (queue, receiver) = queue(&config);
        let watcher = Watcher {
            shared: shared.clone(),
            sees_grants: shared.ledger.read(|state| call.still(state, &GRANTS, None)),
            call,
            filter,
            config,
            queue,
            news: self.news(),
        };
        tokio::spawn(async move {
            watcher.run(events).await;
            drop(watch);
        });
        Ok(Response::new(messages(receiver)))
    }
}

/// What a watch asks for.
struct Filter {
    tenant: Option<Name>,
    kinds: BTreeSet<i32>,
    resources: BTreeSet<Key>,
}

impl Filter {
    fn read(asked: &v1::WatchRequest) -> Result<Self, Rejection> {
        let tenant = match asked.tenant.as_str() {
            "" => None,
            text => Some(Name::new(text).map_err(|bad| {
                bad_field("tenant", bad, "name a tenant, or leave it empty for everything")
            })?),
        };
        for kind in &asked.kinds {
            if matches!(v1::Kind::try_from(*kind), Ok(v1::Kind::Unspecified) | Err(_)) {
                let message = "kinds names one that this version does not know";
                return Err(bad_field("kinds", message, "leave kinds empty for all"));
            }
        }
        if asked.resources.len() > WATCH_RESOURCES_MAX {
            let message = format!("a watch names at most {WATCH_RESOURCES_MAX} resources");
            return Err(bad_field("resources", message, "watch a kind instead"));
        }
        let key =
            |(at, text): (usize, &String)| api::resource::parse(&format!("resources[{at}]"), text);
        let resources = asked.resources.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        Ok(Self { tenant, kinds: asked.kinds.iter().copied().collect(), resources })
    }

    fn requirement(&self) -> (&'static Requirement, Option<&Name>) {
        match &self.tenant {
            None => (&EVERYTHING, None),
            Some(tenant) => (&ONE_TENANT, Some(tenant)),
        }
    }

    fn passes(&self, key: &Key, sees_grants: bool) -> bool {
        let visible = match (&self.tenant, tenant_of(key)) {
            (Some(tenant), of) => of == Some(tenant),
            (None, Some(_)) => true,
            (None, None) => sees_grants || matches!(key, Key::Node(_)),
        };
        visible
            && (self.kinds.is_empty() || self.kinds.contains(&api::resource::kind(key).into()))
            && (self.resources.is_empty() || self.resources.contains(key))
    }
}

/// The tenant whose viewers may see a row; `None` for rows of the cluster and for grants.
fn tenant_of(key: &Key) -> Option<&Name> {
    match key {
        Key::Tenant(tenant)
        | Key::Host(tenant, _)
        | Key::Cluster(tenant, _)
        | Key::Image(tenant, _)
        | Key::Package(tenant, ..)
        | Key::Deployment(tenant, _)
        | Key::DeploymentCluster(tenant, ..) => Some(tenant),
        Key::Job(key) => Some(&key.tenant),
        Key::Binding(..)
        | Key::Token(_)
        | Key::Node(_)
        | Key::Tombstone(..)
        | Key::Request(_)
        | Key::RemovedNode(_) => None,
    }
}

/// One watch under way.
struct Watcher<L: Ledger> {
    shared: Shared<L>,
    call: Granted<v1::WatchRequest>,
    filter: Filter,
    sees_grants: bool,
    config: WatchConfig,
    queue: Queue,
    news: watch::Receiver<()>,
}

impl<L: Ledger> Watcher<L> {
    /// Sends until the client goes, the node stops, or the watch has to end.
    async fn run(mut self, mut events: WatchStream) {
        // One place of the queue is kept for the reason of the end.
        let Ok(last_word) = self.queue.parts.clone().reserve_owned().await else { return };
        let end = match self.mark(events.position()).await {
            Ok(()) => self.follow(&mut events).await,
            Err(end) => Some(end),
        };
        if let Some(end) = end {
            last_word.send(Err(end));
        }
    }

    /// Why the watch has to end; `None` if the client has gone.
    async fn follow(&mut self, events: &mut WatchStream) -> Option<Status> {
        let pause = Duration::from_millis(self.config.bookmark_ms);
        let mut bookmark_at = Instant::now() + pause;
        let mut looked_at = 0;
        loop {
            // Everything up to here was sent or did not pass the filter.
            let position = events.position();
            if bookmark_at <= Instant::now() {
                bookmark_at = Instant::now() + pause;
                if let Err(end) = self.mark(position).await {
                    return Some(end);
                }
            }
            if self.shared.stop.is_cancelled() {
                return Some(refusal::of_ledger(&consensus::Error::Stopped));
            }
            if self.queue.parts.is_closed() {
                return None;
            }
            let Some(event) = events.try_next() else {
                tokio::select! {
                    biased;
                    () = self.shared.stop.cancelled() => {}
                    () = self.queue.parts.closed() => {}
                    news = self.news.changed() => if news.is_err() {
                        return Some(refusal::of_ledger(&consensus::Error::Stopped));
                    },
                    () = tokio::time::sleep_until(bookmark_at) => {}
                }
                continue;
            };
            looked_at += 1;
            if looked_at % EVENTS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let sent = match event {
                Ok(event) => self.pass(&event, position).await,
                Err(error) => Err(ended(error)),
            };
            match sent {
                Ok(true) => bookmark_at = Instant::now() + pause,
                Ok(false) => {}
                Err(end) => return Some(end),
            }
        }
    }

    /// Says that everything up to `position` was sent, if that was asked for. Nothing is said of
    /// revisions that this node does not have yet: a watch may begin after those.
    async fn mark(&self, position: Revision) -> Result<(), Status> {
        self.call.unexpired(self.shared.clock.now())?;
        let reached = self.shared.ledger.read(|state| state.globals.revision >= position);
        if !self.call.request.bookmarks || !reached {
            return Ok(());
        }
        self.send(vec![bookmark(position, self.shared.clock.now())], position).await
    }

    /// Sends what passes the filter; true if anything did.
    async fn pass(&mut self, event: &WatchEvent, before: Revision) -> Result<bool, Status> {
        self.call.unexpired(self.shared.clock.now())?;
        if event.changes.iter().any(|change| self.is_own_role(change)) {
            self.judge_again()?;
        }
        let moment = Moment { revision: event.revision, time: event.time, caller: &event.caller };
        let previous = self.call.request.include_previous;
        let mut messages: Vec<_> = event
            .changes
            .iter()
            .filter(|change| self.filter.passes(&change.key, self.sees_grants))
            .filter_map(|change| self::event(&moment, change, previous))
            .collect();
        let Some(last) = messages.last_mut() else { return Ok(false) };
        last.last = true;
        self.send(messages, before).await?;
        Ok(true)
    }

    fn is_own_role(&self, change: &Change) -> bool {
        let Key::Binding(operator, _) = &change.key else { return false };
        matches!(&self.call.caller, Caller::Operator(own) if own == operator)
    }

    fn judge_again(&mut self) -> Result<(), Status> {
        let (requirement, tenant) = self.filter.requirement();
        let (may, sees_grants) = self.shared.ledger.read(|state: &State| {
            (self.call.still(state, requirement, tenant), self.call.still(state, &GRANTS, None))
        });
        self.sees_grants = sees_grants;
        match may {
            true => Ok(()),
            false => Err(refusal::of_denied(identity::Denied::NotVisible)),
        }
    }

    /// Puts messages into the queue. `before` is the revision to resume after if that takes too long.
    async fn send(&self, messages: Vec<v1::WatchEvent>, before: Revision) -> Result<(), Status> {
        let limit = Duration::from_millis(self.config.send_ms);
        match timeout(limit, self.queue.put(messages)).await {
            // A client that went is noticed by the loop.
            Ok(_sent) => Ok(()),
            Err(_elapsed) => Err(ended(WatchError::Lagged { resume_revision: before })),
        }
    }
}

/// The status that says why a watch ends.
fn ended(error: WatchError) -> Status {
    match error {
        WatchError::Compacted { oldest } => api::status::compacted(oldest),
        WatchError::Lagged { resume_revision } => api::status::lagged(resume_revision),
        WatchError::Stopped => api::status::stopped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestNode, host, tenant};
    use futures::StreamExt;
    use model::{NodeId, Scope};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_watch_of_one_tenant_sees_neither_others_nor_who_may_what() {
        let asked = v1::WatchRequest { tenant: "acme".to_owned(), ..Default::default() };
        let filter = Filter::read(&asked).unwrap();
        assert!(filter.passes(&Key::Host(name("acme"), name("h")), false));
        for hidden in [
            Key::Host(name("other"), name("h")),
            Key::Binding(name("ann"), Scope::Tenant(name("acme"))),
            Key::Token(name("t")),
            Key::Node(NodeId(1)),
            Key::Tombstone(name("acme"), name("h")),
        ] {
            assert!(!filter.passes(&hidden, true), "{hidden:?}");
        }
    }

    #[test]
    fn kinds_and_names_narrow_a_watch_and_grants_need_more_than_a_viewer() {
        let all = Filter::read(&v1::WatchRequest::default()).unwrap();
        let binding = Key::Binding(name("ann"), Scope::Cluster);
        assert!(all.passes(&Key::Node(NodeId(1)), false));
        assert!(all.passes(&binding, true) && !all.passes(&binding, false));
        let asked = v1::WatchRequest {
            kinds: vec![v1::Kind::Host.into()],
            resources: vec!["tenants/acme/hosts/h1".to_owned()],
            ..Default::default()
        };
        let some = Filter::read(&asked).unwrap();
        assert!(some.passes(&Key::Host(name("acme"), name("h1")), true));
        assert!(!some.passes(&Key::Host(name("acme"), name("h2")), true));
        assert!(!some.passes(&Key::Node(NodeId(1)), true));
        let bad = v1::WatchRequest { kinds: vec![4_711], ..Default::default() };
        assert!(Filter::read(&bad).is_err());
    }

    #[tokio::test]
    async fn a_watch_that_is_never_read_is_cut_with_the_revision_to_resume_from() {
        let node = TestNode::start().await;
        node.decide(tenant("acme")).await;
        let before = node.shared.ledger.read(|state| state.globals.revision);
        for number in 0..9 {
            node.decide(host("acme", &format!("h{number}"))).await;
        }
        tokio::time::pause();
        let config = WatchConfig { queue_events_max: 2, ..WatchConfig::default() };
        let (queue, receiver) = queue(&config);
        let mut receiver = messages(receiver);
        let call = Granted::for_test(Caller::System, v1::WatchRequest::default());
        let filter = Filter::read(&call.request).unwrap();
        let events = node.shared.ledger.watch(before).unwrap();
        let (shared, pulse) = (node.shared.clone(), watch::Sender::new(()));
        let news = pulse.subscribe();
        Watcher { shared, call, filter, sees_grants: true, config, queue, news }.run(events).await;
        let mut seen = Vec::new();
        let end = loop {
            match receiver.next().await.unwrap() {
                Ok(event) => seen.push(event.revision),
                Err(status) => break api::status::ClientError::from(status),
            }
        };
        assert_eq!(seen, [before.0 + 1, before.0 + 2]);
        assert_eq!(end.reason, api::reason::LAGGED);
        assert_eq!(end.metadata["resume_revision"], (before.0 + 2).to_string());
        assert!(receiver.next().await.is_none(), "nothing comes after the end");
    }

    #[tokio::test]
    async fn a_cut_never_parts_the_events_of_a_revision() {
        let node = TestNode::start().await;
        node.decide(tenant("acme")).await;
        let before = node.shared.ledger.read(|state| state.globals.revision);
        for number in 0..4 {
            let one = |at| host("acme", &format!("h{number}-{at}"));
            node.decide(model::Command::Batch((0..3).map(one).collect())).await;
        }
        tokio::time::pause();
        // Room for two revisions and a part of the third.
        for (queue_events_max, whole) in [(7, 2), (8, 2), (9, 3), (2, 1)] {
            let config = WatchConfig { queue_events_max, ..WatchConfig::default() };
            let (queue, receiver) = queue(&config);
            let call = Granted::for_test(Caller::System, v1::WatchRequest::default());
            let filter = Filter::read(&call.request).unwrap();
            let events = node.shared.ledger.watch(before).unwrap();
            let (shared, pulse) = (node.shared.clone(), watch::Sender::new(()));
            let news = pulse.subscribe();
            Watcher { shared, call, filter, sees_grants: true, config, queue, news }
                .run(events)
                .await;
            let (mut seen, mut end) = (Vec::new(), None);
            let mut receiver = messages(receiver);
            while let Some(message) = receiver.next().await {
                match message {
                    Ok(event) => seen.push((event.revision, event.last)),
                    Err(status) => end = Some(api::status::ClientError::from(status)),
                }
            }
            let expected: Vec<_> = (1..=whole)
                .flat_map(|at| [false, false, true].map(|last| (before.0 + at, last)))
                .collect();
            assert_eq!(seen, expected, "a queue of {queue_events_max}");
            let resume = end.unwrap().metadata["resume_revision"].clone();
            assert_eq!(resume, (before.0 + whole).to_string());
        }
    }
}
