//! One session, from Hello until nothing is left of it.
//!
//! The agent's stream may break at any time; the contact outlives it by the rest of the lease and the grace,
//! and is then ended in the log, unless a newer session took its place. Nothing in here waits for the agent:
//! what it does not take in time ends the session.

mod begin;
mod propose;

use super::{
    End, HostKey, Out, Sessions,
    logs::{LogAsk, Readers},
};
use api::v1::{self, agent_message, control_message};
use consensus::Ledger;
use model::{
    Assignment, Caller, Command, Digest, HostProfile, JobKey, LeaseTimes, Order, Rejection, Report,
    ReportNumber, Revision, State,
};
use propose::{persist, propose_reports};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::Streaming;

/// Version of the protocol spoken.
const PROTOCOL: u32 = 1;
/// Reports in one proposal: a command fits in 1 MiB.
const REPORTS_AT_ONCE: usize = 256;

/// Answers to reports, by the sequence of their message.
type Taken = (u64, Vec<Result<(), Rejection>>);

/// Why the talk with an agent is over.
enum Over {
    /// The stream broke, or the agent broke the protocol.
    Gone,
    /// No renewal for too long.
    Silent,
    /// See [`End`].
    Ended(End),
    /// The node stops.
    Stopped,
}

/// One session.
pub(super) struct Session<L: Ledger> {
    sessions: Sessions<L>,
    host: HostKey,
    /// SHA-256 of the public key the agent proved to have.
    agent_key: Digest,
    inbound: Streaming<v1::AgentMessage>,
    out: Out,
    renewed_at: Instant,
    /// Orders the agent was sent.
    sent: BTreeMap<JobKey, (Assignment, Revision, bool)>,
    readers: Readers,
    /// Reports not proposed yet, by message.
    waiting: VecDeque<(u64, Vec<Report>)>,
    /// Number of the next report to be proposed.
    next: ReportNumber,
    /// Those being proposed.
    proposing: JoinSet<Taken>,
    /// The machine changed, and the log is being told.
    profile: JoinSet<()>,
}

fn count(items: &[Report]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// What waits for a session outside of it.
struct Wires {
    session: u64,
    wake: Arc<Notify>,
    end: watch::Receiver<Option<End>>,
    asks: mpsc::Receiver<LogAsk>,
}

impl<L: Ledger> Session<L> {
    pub(super) fn new(
        sessions: Sessions<L>,
        (host, agent_key): (HostKey, Digest),
        inbound: Streaming<v1::AgentMessage>,
        out: Out,
    ) -> Self {
        Self {
            sessions,
            host,
            agent_key,
            inbound,
            out,
            renewed_at: Instant::now(),
            sent: BTreeMap::new(),
            readers: Readers::default(),
            waiting: VecDeque::new(),
            next: ReportNumber::default(),
            proposing: JoinSet::new(),
            profile: JoinSet::new(),
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) {
        let mut wires = match self.begin().await {
            Ok(Some(wires)) => wires,
            Ok(None) => return,
            Err(status) => {
                let (tenant, host) = &self.host;
                tracing::info!(%tenant, %host, error = status.message(), "no session");
                drop(self.out.try_send(Err(status)));
                return;
            }
        };
        let session = wires.session;
        self.next = ReportNumber { session: u32::try_from(session).unwrap_or(u32::MAX), item: 1 };
        let over = self.talk(&mut wires).await;
        self.readers.end_all();
        self.sessions.hang_up(&self.host, session);
        match over {
            Over::Ended(End::Superseded) => {
                self.part("SUPERSEDED", "a newer session of this host is open").await;
            }
            Over::Ended(End::Distrusted) => {
                // It is gone already if it does not take that.
                drop(self.send_orders(true).await);
                self.part("REFUSED", "this host is not trusted any more").await;
            }
            Over::Stopped => self.part("SHUTDOWN", "this control node stops").await,
            Over::Gone | Over::Silent | Over::Ended(End::Lost) => {}
        }
        let (tenant, host) = &self.host;
        tracing::info!(%tenant, %host, session, "session over");
        if matches!(over, Over::Gone | Over::Silent | Over::Ended(End::Distrusted)) {
            self.outlive(&mut wires).await;
        } else {
            self.sessions.leave(&self.host, session);
        }
    }

    /// Serves the agent until something ends that.
    async fn talk(&mut self, wires: &mut Wires) -> Over {
        let stop = self.sessions.shared().stop.clone();
        // What happened since it began to connect may have been told to nobody.
        wires.wake.notify_one();
        loop {
            let silent_at = self.renewed_at + self.sessions.lost_after();
            let going_on = tokio::select! {
                biased;
                () = stop.cancelled() => return Over::Stopped,
                end = said(&mut wires.end, |_| true) => return Over::Ended(end),
                heard = self.inbound.message() => match heard {
                    Ok(Some(v1::AgentMessage { message: Some(heard) })) => {
                        self.hear(heard, wires.session).await
                    }
                    Ok(Some(v1::AgentMessage { message: None })) => Ok(()),
                    Ok(None) | Err(_) => Err(Gone),
                },
                Some(Ok(taken)) = self.proposing.join_next() => self.answer(taken).await,
                () = wires.wake.notified() => {
                    self.sessions.look(&self.host);
                    if wires.end.borrow().is_some() {
                        continue;
                    }
                    self.send_orders(false).await
                }
                Some(ask) = wires.asks.recv() => self.ask(ask).await,
                () = sleep_until(silent_at) => return Over::Silent,
            };
            if going_on.is_err() {
                return Over::Gone;
            }
        }
    }

    async fn hear(&mut self, heard: agent_message::Message, session: u64) -> Result<(), Gone> {
        match heard {
            agent_message::Message::Renew(renew) => self.renew(&renew, session).await,
            agent_message::Message::Reports(reports) => self.take(reports),
            agent_message::Message::Profile(profile) => {
                let profile = api::convert::host::profile_from_proto(profile).map_err(|_| Gone)?;
                self.report_host(profile);
                Ok(())
            }
            agent_message::Message::LogPart(part) => {
                let id = part.id;
                match self.readers.pass(part) {
                    true => Ok(()),
                    false => self.send(cancel(id)).await,
                }
            }
            agent_message::Message::LogEnd(end) => {
                self.readers.end(end);
                Ok(())
            }
            agent_message::Message::Hello(_) => Err(Gone),
        }
    }

    async fn renew(&mut self, renew: &v1::Renew, session: u64) -> Result<(), Gone> {
        self.renewed_at = Instant::now();
        let Some(granted) = self.may_grant(session) else {
            tracing::debug!(host = %self.host.1, "no lease without a quorum, or for this host");
            return Ok(());
        };
        let ttl_ms = u64::try_from(granted.as_millis()).unwrap_or(u64::MAX);
        let grant = v1::LeaseGranted { sequence: renew.sequence, ttl_ms };
        self.send(control_message::Message::LeaseGranted(grant)).await
    }

    /// How much lease this node may grant now.
    fn may_grant(&self, session: u64) -> Option<Duration> {
        let shared = self.sessions.shared();
        let (tenant, host) = &self.host;
        // First what it rests on, then the state: that may only be newer.
        let support = shared.ledger.leases().support()?;
        let may = |state: &State| state.may_renew(shared.node_id, (tenant, host), session);
        let times = LeaseTimes { ttl: support.ttl, ..self.sessions.times() };
        times.grant(Some(support.at.elapsed())).filter(|_| shared.ledger.read(may))
    }

    fn take(&mut self, reports: v1::Reports) -> Result<(), Gone> {
        if self.waiting.len() >= self.sessions.config().reports_waiting_max {
            return Err(Gone);
        }
        let sequence = reports.sequence;
        let items = api::convert::session::reports_from_proto(reports).map_err(|_| Gone)?;
        self.waiting.push_back((sequence, items));
        self.propose_next();
        Ok(())
    }

    fn propose_next(&mut self) {
        if self.proposing.is_empty()
            && let Some((sequence, items)) = self.waiting.pop_front()
        {
            let (sessions, host) = (self.sessions.clone(), self.host.clone());
            let mut next = self.next;
            self.next.item = next.item.saturating_add(count(&items));
            self.proposing.spawn(async move {
                let mut results = Vec::with_capacity(items.len());
                for items in items.chunks(REPORTS_AT_ONCE) {
                    let first = next;
                    next.item = next.item.saturating_add(count(items));
                    results.extend(propose_reports(&sessions, &host, first, items.to_vec()).await);
                }
                (sequence, results)
            });
        }
    }

    async fn answer(&mut self, (sequence, results): Taken) -> Result<(), Gone> {
        self.propose_next();
        let taken = api::convert::session::taken_to_proto(sequence, &results);
        self.send(control_message::Message::ReportsTaken(taken)).await
    }

    /// Tells the log what the machine is now; what was on its way there is out of date.
    fn report_host(&mut self, profile: HostProfile) {
        let (sessions, (tenant, host)) = (self.sessions.clone(), self.host.clone());
        self.profile = JoinSet::new();
        self.profile.spawn(async move {
            let caller = Caller::Agent { tenant: tenant.clone(), host: host.clone() };
            let command = Command::ReportHost { tenant, host, profile: Box::new(profile) };
            drop(persist(&sessions, caller, command).await);
        });
    }

    async fn ask(&mut self, ask: LogAsk) -> Result<(), Gone> {
        match ask {
            LogAsk::Start(request, reader) => {
                self.readers.add(request.id, reader);
                self.send(control_message::Message::LogRequest(request)).await
            }
            LogAsk::Cancel(id) if self.readers.remove(id) => self.send(cancel(id)).await,
            LogAsk::Cancel(_) => Ok(()),
        }
    }

    /// Sends all orders, or what differs from what was sent.
    async fn send_orders(&mut self, full: bool) -> Result<(), Gone> {
        let (tenant, host) = &self.host;
        let ledger = &self.sessions.shared().ledger;
        let (revision, orders) =
            ledger.read(|state| (state.globals.revision, state.orders(tenant, host)));
        let mark =
            |order: &Order| (order.assignment, order.scheduled.revision, order.data_elsewhere);
        let now: BTreeMap<_, _> =
            orders.iter().map(|order| (order.key.clone(), mark(order))).collect();
        let news = |order: &&Order| full || self.sent.get(&order.key) != Some(&mark(order));
        let changed: Vec<_> =
            orders.iter().filter(news).map(api::convert::session::order_to_proto).collect();
        let gone = self.sent.iter().filter(|(key, _)| !full && !now.contains_key(key));
        let removed: Vec<_> = gone
            .map(|(key, (assignment, ..))| {
                api::convert::session::removed_to_proto(key, *assignment)
            })
            .collect();
        self.sent = now;
        if !full && changed.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let orders = v1::Orders { full, revision: revision.0, orders: changed, removed };
        self.send(control_message::Message::Orders(orders)).await
    }

    async fn send(&self, message: control_message::Message) -> Result<(), Gone> {
        let limit = Duration::from_millis(self.sessions.config().send_ms);
        let message = v1::ControlMessage { message: Some(message) };
        match timeout(limit, self.out.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn part(&self, reason: &str, text: &str) {
        let goodbye = v1::Goodbye { reason: reason.to_owned(), text: text.to_owned() };
        // An agent that is gone needs none.
        drop(self.send(control_message::Message::Goodbye(goodbye)).await);
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.sessions.config().propose_ms)
    }

    /// Waits until the lease is surely over, then says that the host is lost; unless somebody else has
    /// said something newer by then.
    async fn outlive(self, wires: &mut Wires) {
        let Self { sessions, host, inbound, out, renewed_at, .. } = self;
        // The agent sees the end of the stream now.
        drop((inbound, out));
        let stop = sessions.shared().stop.clone();
        let pause = Duration::from_millis(sessions.config().sweep_ms.max(1));
        let lost = async {
            sleep_until(renewed_at + sessions.lost_after()).await;
            while sessions.lose(&host, wires.session).await.is_err() {
                sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = said(&mut wires.end, |end| end != End::Distrusted) => {}
            () = lost => {}
        }
        sessions.leave(&host, wires.session);
    }
}

/// The agent is not there any more, or talks nonsense.
struct Gone;

fn cancel(id: u64) -> control_message::Message {
    control_message::Message::LogCancel(v1::LogCancel { id })
}

/// Why the session is to end, once somebody says so for one of the reasons that count.
async fn said(end: &mut watch::Receiver<Option<End>>, counts: impl Fn(End) -> bool) -> End {
    let said = end.wait_for(|said| said.is_some_and(&counts)).await.ok().and_then(|said| *said);
    match said {
        Some(end) => end,
        None => std::future::pending().await,
    }
}
