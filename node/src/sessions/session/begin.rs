//! The beginning of a session: Hello, the entry in the log, Welcome, all orders; or a refusal.

use super::{PROTOCOL, Session, Wires};
use crate::{refusal, service::enrol::peers_of, sessions::Entry};
use api::v1::{self, agent_message, control_message};
use consensus::Ledger;
use model::{Caller, Command, HostProfile, Outcome, Rejection, Reply, Revision};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout},
};
use tonic::Status;

impl<L: Ledger> Session<L> {
    /// Hello, the entry in the log, Welcome and all orders. `None` for a host that is refused for good
    /// or has a newer session already; it was told.
    pub(super) async fn begin(&mut self) -> Result<Option<Wires>, Status> {
        let profile = self.hello().await?;
        self.renewed_at = Instant::now();
        let Outcome { revision, result } = self.connect(profile).await?;
        let session = match result {
            Ok(Reply::Session(session)) => session,
            Ok(_) => return Err(Status::internal("connecting a host has another answer")),
            Err(rejection) => {
                self.refuse(revision, &rejection).await;
                return Ok(None);
            }
        };
        let (end, ended) = watch::channel(None);
        let (asks, asked) = mpsc::channel(self.sessions.config().queue_messages_max.max(1));
        let wake = Arc::new(Notify::new());
        let entry = Entry { session, wake: wake.clone(), end, asks: Some(asks) };
        if !self.sessions.enter(&self.host, entry) {
            self.part("SUPERSEDED", "a newer session of this host is open").await;
            return Ok(None);
        }
        let (tenant, host) = &self.host;
        tracing::info!(%tenant, %host, session, "session open");
        let wires = Wires { session, wake, end: ended, asks: asked };
        let deadline = self.deadline();
        let caught_up = self.sessions.shared().ledger.wait_for(revision, deadline).await;
        let greeted = match caught_up {
            Ok(()) => self.greet(session).await,
            Err(error) => Err(refusal::of_ledger(&error)),
        };
        match greeted {
            Ok(()) => Ok(Some(wires)),
            // The contact stands in the log: let its lease run out.
            Err(status) => {
                drop(self.out.try_send(Err(status)));
                Ok(Some(wires))
            }
        }
    }

    async fn greet(&mut self, session: u64) -> Result<(), Status> {
        let welcome = self.welcome(session);
        let gone = || Status::cancelled("the agent went");
        self.send(control_message::Message::Welcome(welcome)).await.map_err(|_| gone())?;
        self.send_orders(true).await.map_err(|_| gone())
    }

    async fn hello(&mut self) -> Result<HostProfile, Status> {
        let limit = Duration::from_millis(self.sessions.config().hello_ms);
        let first = timeout(limit, self.inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
        let Some(v1::AgentMessage { message: Some(agent_message::Message::Hello(hello)) }) = first
        else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        if hello.protocol != PROTOCOL {
            let text = format!("this node speaks protocol {PROTOCOL}, not {}", hello.protocol);
            return Err(Status::failed_precondition(text));
        }
        let profile = hello.profile.unwrap_or_default();
        let profile = api::convert::host::profile_from_proto(profile);
        profile.map_err(|rejection| refusal::of_rejection(&rejection))
    }

    async fn connect(&self, profile: HostProfile) -> Result<Outcome, Status> {
        let shared = self.sessions.shared();
        let (tenant, host) = self.host.clone();
        let (node, agent_key, profile) = (shared.node_id, self.agent_key, Box::new(profile));
        let command = Command::ConnectHost { tenant, host, node, agent_key, profile };
        let caller = Caller::Node(node);
        match self.refusal(&caller, &command).await? {
            Some(refused) => Ok(refused),
            None => shared.propose(caller, None, command, self.deadline()).await,
        }
    }

    /// What the log would surely answer, if that is a refusal: a host that is not wanted any more asks
    /// again and again, and none of it needs an entry.
    async fn refusal(&self, caller: &Caller, command: &Command) -> Result<Option<Outcome>, Status> {
        let shared = self.sessions.shared();
        let rehearsed = || shared.rehearse(caller.clone(), command);
        if rehearsed().result.is_err() {
            // This node may be behind.
            let current = shared.ledger.linearize(self.deadline()).await;
            current.map_err(|error| refusal::of_ledger(&error))?;
        }
        Ok(Some(rehearsed()).filter(|outcome| outcome.result.is_err()))
    }

    /// A host that is deleted, not trusted any more or another machine by now keeps nothing of what it ran.
    async fn refuse(&self, revision: Revision, rejection: &Rejection) {
        let (tenant, host) = &self.host;
        let code = &rejection.code;
        tracing::info!(%tenant, %host, code, "refused a session");
        let welcome = control_message::Message::Welcome(self.welcome(0));
        let (full, revision) = (true, revision.0);
        let orders = v1::Orders { full, revision, orders: Vec::new(), removed: Vec::new() };
        let keeps_nothing = ["HOST_DELETED", "HOST_REPLACED", "UNTRUSTED_HOST", "UNKNOWN_HOST"];
        if keeps_nothing.contains(&code.as_str()) && self.send(welcome).await.is_ok() {
            drop(self.send(control_message::Message::Orders(orders)).await);
        }
        self.part("REFUSED", &rejection.message).await;
    }

    fn welcome(&self, session: u64) -> v1::Welcome {
        let shared = self.sessions.shared();
        v1::Welcome {
            session,
            lease_ttl_ms: shared.config.lease.ttl_ms,
            renew_every_ms: shared.config.lease.renew_every_ms(),
            peers: peers_of(shared),
            node_id: shared.node_id.0,
        }
    }
}
