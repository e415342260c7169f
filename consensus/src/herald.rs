//! What an operator hears of the group: who leads, and whether a majority is there.
//!
//! Raft itself has news at every turn of an election, many times a second while nobody can win one.
//! What matters is said once: the loss of the majority, its return and how long it was gone, and a
//! new leader, at most once in [`PAUSE`].

use crate::{Leadership, core::Core};
use model::NodeId;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// A majority that was not heard of for so long is lost. Every node asks several times within it.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// New leaders are told of at most this often.
const PAUSE: Duration = Duration::from_secs(3);

/// Runs until it is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(core.config.duty_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut herald = Herald::new(Instant::now());
    loop {
        ticks.tick().await;
        let seen = *core.leadership.borrow();
        for news in herald.look(Instant::now(), &seen) {
            match news {
                News::Leads { leader, term, changes } => {
                    tracing::info!(leader = leader.0, term, changes, "a control node leads");
                }
                News::Lost { silent_ms } => {
                    tracing::warn!(silent_ms, "no majority of the control nodes is in contact");
                }
                News::Regained { lost_ms } => {
                    tracing::info!(lost_ms, "a majority of the control nodes is in contact again");
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum News {
    /// This node leads; there were so many changes since the last one told.
    Leads { leader: NodeId, term: u64, changes: u64 },
    /// Nothing was heard of a majority for so long.
    Lost { silent_ms: u128 },
    /// It is back, after so long.
    Regained { lost_ms: u128 },
}

struct Herald {
    began: Instant,
    seen: Option<(NodeId, u64)>,
    told: Option<(NodeId, u64)>,
    told_at: Option<Instant>,
    changes: u64,
    lost_since: Option<Instant>,
}

impl Herald {
    fn new(began: Instant) -> Self {
        Self { began, seen: None, told: None, told_at: None, changes: 0, lost_since: None }
    }

    fn look(&mut self, now: Instant, seen: &Leadership) -> Vec<News> {
        let mut news = Vec::new();
        let heard = seen.quorum_at.unwrap_or(self.began);
        let silent = now.saturating_duration_since(heard);
        match self.lost_since {
            None if silent >= LOST_AFTER => {
                self.lost_since = Some(heard);
                news.push(News::Lost { silent_ms: silent.as_millis() });
            }
            Some(since) if silent < LOST_AFTER => {
                self.lost_since = None;
                let lost_ms = heard.saturating_duration_since(since).as_millis();
                news.push(News::Regained { lost_ms });
            }
            None | Some(_) => {}
        }
        let leads = seen.leader.map(|leader| (leader, seen.term));
        if leads.is_some() && leads != self.seen {
            self.seen = leads;
            self.changes += 1;
        }
        let due = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE);
        if let Some((leader, term)) = leads.filter(|leads| due && self.told != Some(*leads)) {
            self.told = leads;
            self.told_at = Some(now);
            news.push(News::Leads { leader, term, changes: std::mem::take(&mut self.changes) });
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(leader: u64, term: u64, quorum_at: Option<Instant>) -> Leadership {
        let leader = (leader > 0).then_some(NodeId(leader));
        Leadership { leader, term, is_leader: false, quorum_at }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_majority_is_told_once_and_its_return_with_its_length() {
        let began = Instant::now();
        let (mut herald, ms) = (Herald::new(began), |ms| began + Duration::from_millis(ms));
        let leads = |changes| News::Leads { leader: NodeId(2), term: 1, changes };
        assert_eq!(herald.look(ms(100), &led(2, 1, Some(ms(90)))), [leads(1)]);
        let mut told = Vec::new();
        for at in (200..60_000).step_by(200) {
            told.extend(herald.look(ms(at), &led(0, 5, Some(ms(90)))));
        }
        assert_eq!(told, [News::Lost { silent_ms: 3_110 }]);
        let back = herald.look(ms(60_000), &led(2, 1, Some(ms(59_990))));
        assert_eq!(back, [News::Regained { lost_ms: 59_900 }]);
    }

    #[tokio::test(start_paused = true)]
    async fn leaders_that_change_all_the_time_are_told_of_now_and_then() {
        let began = Instant::now();
        let mut herald = Herald::new(began);
        let mut told = Vec::new();
        for term in 0..100 {
            let now = began + Duration::from_millis(100 * term);
            told.extend(herald.look(now, &led(1 + term % 2, term, Some(now))));
        }
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(matches!(told[1], News::Leads { term: 30, changes: 30, .. }), "{told:?}");
    }
}
