//! Reports on their way to control: gathered for a moment, one message in flight, in order.
//!
//! What is reported lies in the memory until control has confirmed it. A message that was not confirmed
//! when its session ended is sent again in the next one; control takes a repeat for what it is.

use std::time::Duration;

use api::v1::{self, agent_message};
use tokio::time::Instant;

use crate::config::SessionConfig;
use crate::memory::Memory;
use crate::stream::{Outbound, message};

/// What is in flight.
#[derive(Debug)]
pub(crate) struct Reporter {
    config: SessionConfig,
    sequence: u64,
    /// Sequence of the message in flight, and the number of its last report.
    in_flight: Option<(u64, u64)>,
    due: Option<Instant>,
}

impl Reporter {
    pub(crate) fn new(config: SessionConfig) -> Self {
        Self { config, sequence: 0, in_flight: None, due: None }
    }

    /// A session began or ended: nothing is in flight.
    pub(crate) fn reset(&mut self) {
        self.in_flight = None;
        self.sequence = 0;
        self.due = None;
    }

    /// When something is to be sent: call [`Reporter::send`] then.
    pub(crate) fn due(&mut self, memory: &Memory) -> Option<Instant> {
        if self.in_flight.is_some() || memory.unsent().next().is_none() {
            return None;
        }
        let gather = Duration::from_millis(self.config.gather_ms);
        Some(*self.due.get_or_insert_with(|| Instant::now() + gather))
    }

    /// Sends what is not confirmed, if it is due and nothing is in flight.
    pub(crate) fn send(&mut self, memory: &Memory, out: &Outbound) {
        if self.due(memory).is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        let reports_max = self.config.reports_max.clamp(1, api::convert::session::REPORTS_MAX);
        let batch: Vec<_> = memory.unsent().take(reports_max).collect();
        let Some((through, _)) = batch.last() else { return };
        let (sequence, through) = (self.sequence + 1, *through);
        let report =
            |(_, report): &(u64, &model::Report)| api::convert::session::report_to_proto(report);
        let items = batch.iter().map(report).collect();
        let reports = agent_message::Message::Reports(v1::Reports { sequence, items });
        // A full queue: the next gathering tries again.
        if out.urgent.try_send(message(reports)).is_ok() {
            self.sequence = sequence;
            self.in_flight = Some((sequence, through));
        }
    }

    /// Control answered: the number through which reports are confirmed.
    pub(crate) fn taken(&mut self, taken: &v1::ReportsTaken) -> Option<u64> {
        let (sequence, through) = self.in_flight?;
        if taken.sequence != sequence {
            return None;
        }
        self.in_flight = None;
        self.due = Some(Instant::now());
        for rejection in taken.results.iter().filter_map(|result| result.rejection.as_ref()) {
            let (code, text) = (&rejection.code, &rejection.message);
            tracing::info!(code, text, "control refused a report");
        }
        Some(through)
    }
}
