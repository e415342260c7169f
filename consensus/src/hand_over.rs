//! Another node leads: asked for, or because this one stops.
//!
//! Raft gives up what a leader has under way when another one takes over, and then nobody knows whether
//! it was done. So the queue is held first, and what is under way ends; the next leader gets all of the
//! log; and only then it is told to take over. What waits meanwhile goes to it, certainly not done here.
//!
//! Raft never takes a hand-over back: a leader whose successor does not come proposes nothing more and
//! sends no heartbeats, until the others elect one of them. So it is checked first who can take over.

use crate::{Error, MemberRefusal, core::Core};
use model::NodeId;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two looks at how far the next leader is.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Time for the next leader to take over before it is told again.
const OFFER_EVERY: Duration = Duration::from_millis(250);

impl Core {
    /// [`MemberChange::Transfer`](crate::MemberChange) on the node that may be the leader.
    pub(crate) async fn transfer(&self, from: NodeId, to: Option<NodeId>) -> Result<(), Error> {
        if to == Some(self.node_id) || (to.is_none() && from != self.node_id) {
            return Ok(());
        }
        if let Some(to) = to {
            match self.member(to) {
                None => return Err(MemberRefusal::Unknown { node: to }.into()),
                Some(member) if !member.voter => {
                    return Err(MemberRefusal::Learner { node: to }.into());
                }
                Some(_) => self.check_caught_up(to, self.config.learner_lag_entries).await?,
            }
        }
        match self.hand_over(to).await? {
            Some(_) => Ok(()),
            None => Err(MemberRefusal::NobodyElse.into()),
        }
    }

    /// Hands leadership over, to the voter in contact that holds the most if none is named. Answers who
    /// leads now; `None` if there is nobody to lead.
    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<Option<NodeId>, Error> {
        let _turn = self.changes.lock().await;
        if !self.leadership.borrow().is_leader {
            return Err(Error::NotLeader { hint: self.leadership.borrow().leader });
        }
        if to.is_none() && self.voters().len() > 1 {
            self.hear_out(|| self.heir().is_some()).await;
        }
        let named = to.is_some();
        let Some(to) = to.or_else(|| self.heir()) else { return Ok(None) };
        let deadline = Instant::now() + Duration::from_millis(self.config.hand_over_ms);
        let _held = Held(self);
        if !self.queue.hold(deadline).await {
            return Err(MemberRefusal::NotTakenOver { node: to }.into());
        }
        loop {
            match self.lag(to)? {
                0 => break,
                lag if Instant::now() >= deadline => {
                    return Err(MemberRefusal::Lagging { node: to, lag, max: 0 }.into());
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        tracing::info!(to = to.0, "handing leadership over");
        let begun = Instant::now();
        let leader = self.offer(to, begun).await?;
        tracing::info!(?leader, took = ?begun.elapsed(), "leadership was handed over");
        match leader {
            Some(leader) if leader == to || (!named && leader != self.node_id) => Ok(Some(leader)),
            Some(_) | None => Err(MemberRefusal::NotTakenOver { node: to }.into()),
        }
    }

    /// Tells `to` to take over until somebody does, or the time is up; who leads then.
    async fn offer(&self, to: NodeId, begun: Instant) -> Result<Option<NodeId>, Error> {
        let deadline = begun + Duration::from_millis(self.config.hand_over_ms);
        let mut leadership = self.leadership.subscribe();
        while Instant::now() < deadline {
            // The word may be lost, and Raft sends it once.
            if leadership.borrow().is_leader {
                let told = self.raft.trigger().transfer_leader(to.0).await;
                told.map_err(|_| Error::Stopped)?;
            }
            let until = deadline.min(Instant::now() + OFFER_EVERY);
            let gone = leadership.wait_for(|now| !now.is_leader && now.leader.is_some());
            match tokio::time::timeout_at(until, gone).await {
                Ok(Ok(now)) => return Ok(now.leader),
                Ok(Err(_)) => return Err(Error::Stopped),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// The voter to hand over to: in contact, and before others that hold less.
    fn heir(&self) -> Option<NodeId> {
        let others = self.voters().into_iter().filter(|id| *id != self.node_id);
        let up = others.filter(|id| self.is_up(*id));
        up.min_by_key(|id| self.lag(*id).unwrap_or(u64::MAX))
    }
}

/// Lets the queue go on, whatever becomes of a hand-over.
struct Held<'a>(&'a Core);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.queue.release();
    }
}
