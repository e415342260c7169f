//! The link to control: one session after the other, with whichever control node takes it.
//!
//! This task dials, says Hello, renews the lease and passes on what it hears; it decides nothing about
//! jobs. When a session ends it dials the next control node, after a pause that grows with each round of
//! all of them and is spread by a hash of the host, so that a thousand agents that lost the same node do
//! not come back in the same moment.

use std::sync::Arc;
use std::time::Duration;

use api::limits::SESSION_BYTES_MAX;
use api::v1::{self, agent_message, agents_client::AgentsClient, control_message};
use futures::stream::{PollNext, select_with_strategy};
use model::{HostProfile, Revision};
use planner::retry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::config::SessionConfig;
use crate::driver::Driver;
use crate::images::stored::with_sources;
use crate::servers::Servers;

/// Version of the protocol spoken.
const PROTOCOL: u32 = 1;

/// What the agent says of itself in each session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Introduction {
    /// The machine.
    pub(crate) profile: HostProfile,
    /// Revision of the newest orders taken in.
    pub(crate) newest: Revision,
}

/// The way out of a session. What is sent by `urgent` overtakes what is sent by `bulk`.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    pub(crate) urgent: mpsc::Sender<v1::AgentMessage>,
    pub(crate) bulk: mpsc::Sender<v1::AgentMessage>,
}

/// What happens on the link.
#[derive(Debug)]
pub(crate) enum Event {
    /// A session began.
    Opened(Outbound, Vec<v1::Peer>),
    /// A renewal is about to be sent.
    Renewing { sequence: u64, at_boot_ms: u64 },
    /// Control said something.
    Heard(control_message::Message),
    /// The session ended.
    Closed,
}

/// Everything the link stands on.
pub(crate) struct Link {
    pub(crate) servers: Arc<Servers>,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) config: SessionConfig,
    pub(crate) introduction: watch::Receiver<Introduction>,
    pub(crate) events: mpsc::Sender<Event>,
    /// Spreads pauses.
    pub(crate) who: u64,
    pub(crate) incarnation: String,
}

/// How a session ended.
enum End {
    /// Nobody answered, or the connection broke.
    Broken(String),
    /// The node said goodbye: whether to stay away for long.
    Goodbye { stay_away: bool },
    /// The agent ends.
    Stopped,
}

impl Link {
    /// Keeps a session open until the agent ends.
    pub(crate) async fn run(mut self) {
        let mut attempt: u64 = 0;
        loop {
            let known = self.servers.known();
            let count = known.len().max(1) as u64;
            let at = usize::try_from(self.who.wrapping_add(attempt) % count).unwrap_or(0);
            let Some(addr) = known.get(at) else {
                tracing::warn!("no control node is known: this agent works on its own");
                return;
            };
            let began = Instant::now();
            let mut opened = false;
            let end = self.session(addr, &mut opened).await;
            if opened {
                attempt = attempt.wrapping_add(1) % count;
                if self.events.send(Event::Closed).await.is_err() {
                    return;
                }
            } else {
                attempt += 1;
            }
            let pause = match end {
                End::Stopped => return,
                End::Goodbye { stay_away: true } => self.config.retry_max_ms,
                End::Goodbye { stay_away: false } => self.config.retry_first_ms,
                End::Broken(why) => {
                    let lasted_ms = began.elapsed().as_millis();
                    tracing::info!(addr, why, lasted_ms, "no session with this control node");
                    let round = if opened { 0 } else { attempt.saturating_sub(1) / count };
                    (self.config.retry_first_ms << round.min(16)).min(self.config.retry_max_ms)
                }
            };
            sleep(Duration::from_millis(self.spread(pause, attempt))).await;
        }
    }

    /// Half of the pause and up to as much again.
    fn spread(&self, pause_ms: u64, attempt: u64) -> u64 {
        let text = format!("{} {attempt} {}", self.who, self.incarnation);
        pause_ms / 2 + retry::stable_hash([text.as_str()]) % (pause_ms + 1)
    }

    async fn session(&mut self, addr: &str, opened: &mut bool) -> End {
        let limit = Duration::from_millis(self.config.welcome_ms);
        let (out, inbound) = match timeout(limit, self.open(addr)).await {
            Ok(Ok(session)) => session,
            Ok(Err(why)) => return End::Broken(why),
            Err(_elapsed) => return End::Broken("no answer in time".to_owned()),
        };
        let mut inbound = inbound;
        let welcome = match timeout(limit, inbound.message()).await {
            Ok(Ok(Some(v1::ControlMessage { message: Some(first) }))) => first,
            Ok(Ok(_)) => return End::Broken("the session ended before it began".to_owned()),
            Ok(Err(status)) => return End::Broken(said(&status)),
            Err(_elapsed) => return End::Broken("no welcome in time".to_owned()),
        };
        let welcome = match welcome {
            control_message::Message::Welcome(welcome) => welcome,
            control_message::Message::Goodbye(goodbye) => return parted(&goodbye),
            _ => return End::Broken("the node did not begin with a welcome".to_owned()),
        };
        *opened = true;
        tracing::info!(addr, session = welcome.session, node = welcome.node_id, "session open");
        let event = Event::Opened(out.clone(), welcome.peers.clone());
        if self.events.send(event).await.is_err() {
            return End::Stopped;
        }
        self.talk(&welcome, &out, &mut inbound).await
    }

    async fn open(
        &mut self,
        addr: &str,
    ) -> Result<(Outbound, Streaming<v1::ControlMessage>), String> {
        let calls = self.servers.calls(addr).map_err(|error| with_sources(&error))?;
        let (urgent, urgent_out) = mpsc::channel(self.config.queue_messages_max.max(2));
        let (bulk, bulk_out) = mpsc::channel(self.config.queue_messages_max.max(2));
        let introduction = self.introduction.borrow_and_update().clone();
        let hello = v1::Hello {
            profile: Some(api::convert::host::profile_to_proto(&introduction.profile)),
            newest_revision: introduction.newest.0,
            boottime_ms: self.driver.boottime_ms(),
            incarnation: self.incarnation.clone(),
            protocol: PROTOCOL,
        };
        // The queue is empty and has room.
        drop(urgent.try_send(message(agent_message::Message::Hello(hello))));
        let first = |(): &mut ()| PollNext::Left;
        let out = select_with_strategy(
            ReceiverStream::new(urgent_out),
            ReceiverStream::new(bulk_out),
            first,
        );
        let mut client = AgentsClient::new(calls)
            .max_decoding_message_size(SESSION_BYTES_MAX)
            .max_encoding_message_size(SESSION_BYTES_MAX);
        let answer = client.session(out).await.map_err(|status| said(&status))?;
        Ok((Outbound { urgent, bulk }, answer.into_inner()))
    }

    /// Renews the lease and passes on what is heard, until the session ends.
    async fn talk(
        &mut self,
        welcome: &v1::Welcome,
        out: &Outbound,
        inbound: &mut Streaming<v1::ControlMessage>,
    ) -> End {
        let every = Duration::from_millis(welcome.renew_every_ms.max(10));
        // A node that grants nothing for so long may be cut off: another may not be.
        let patience = Duration::from_millis((welcome.lease_ttl_ms / 2).max(1_000));
        let (mut sequence, mut renew_at) = (0, Instant::now());
        let mut silent_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                heard = inbound.message() => {
                    let heard = match heard {
                        Ok(Some(v1::ControlMessage { message: Some(heard) })) => heard,
                        Ok(Some(v1::ControlMessage { message: None })) => continue,
                        Ok(None) => return End::Broken("the node ended the session".to_owned()),
                        Err(status) => return End::Broken(said(&status)),
                    };
                    match &heard {
                        control_message::Message::Goodbye(goodbye) => return parted(goodbye),
                        control_message::Message::LeaseGranted(_) => silent_since = Instant::now(),
                        _ => {}
                    }
                    if self.events.send(Event::Heard(heard)).await.is_err() {
                        return End::Stopped;
                    }
                }
                () = sleep_until(renew_at) => {
                    if silent_since.elapsed() >= patience {
                        return End::Broken("the node grants no lease".to_owned());
                    }
                    sequence += 1;
                    renew_at = Instant::now() + every;
                    // Counted from before it is sent: never later than control counts it.
                    let at_boot_ms = self.driver.boottime_ms();
                    let renewing = Event::Renewing { sequence, at_boot_ms };
                    if self.events.send(renewing).await.is_err() {
                        return End::Stopped;
                    }
                    let renew = v1::Renew { sequence, sent_at_boottime_ms: at_boot_ms };
                    let renew = message(agent_message::Message::Renew(renew));
                    // A queue that is full means a link that does not move: the next one counts.
                    drop(out.urgent.try_send(renew));
                }
                changed = self.introduction.changed() => {
                    if changed.is_err() {
                        return End::Stopped;
                    }
                    let profile = self.introduction.borrow_and_update().profile.clone();
                    let profile = api::convert::host::profile_to_proto(&profile);
                    drop(out.urgent.try_send(message(agent_message::Message::Profile(profile))));
                }
            }
        }
    }
}

pub(crate) fn message(message: agent_message::Message) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(message) }
}

fn parted(goodbye: &v1::Goodbye) -> End {
    tracing::info!(reason = goodbye.reason, text = goodbye.text, "the node said goodbye");
    End::Goodbye { stay_away: goodbye.reason != "SHUTDOWN" }
}

/// What a status says, with what made it.
fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.message(), with_sources(source)),
        None => status.message().to_owned(),
    }
}
