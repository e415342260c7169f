//! What agents say, on its way into the log.

use crate::sessions::{HostKey, Sessions};
use consensus::Ledger;
use model::{Caller, Command, Outcome, Rejection, Reply, Report, ReportNumber};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Proposes until it is answered: reports are safe to repeat.
pub(super) async fn persist<L: Ledger>(
    sessions: &Sessions<L>,
    caller: Caller,
    command: Command,
) -> Outcome {
    let config = sessions.config();
    loop {
        let deadline = Instant::now() + Duration::from_millis(config.propose_ms);
        let proposed = sessions.shared().propose(caller.clone(), None, command.clone(), deadline);
        match proposed.await {
            Ok(outcome) => return outcome,
            Err(status) => {
                tracing::debug!(error = status.message(), "what an agent said waits for the log");
                sleep(Duration::from_millis(config.sweep_ms.max(1) / 2)).await;
            }
        }
    }
}

/// Proposes reports, numbered from `first`; what came of each.
pub(super) async fn propose_reports<L: Ledger>(
    sessions: &Sessions<L>,
    (tenant, host): &HostKey,
    first: ReportNumber,
    items: Vec<Report>,
) -> Vec<Result<(), Rejection>> {
    let count = items.len();
    let caller = Caller::Agent { tenant: tenant.clone(), host: host.clone() };
    let command = Command::ReportJobs { tenant: tenant.clone(), host: host.clone(), first, items };
    match persist(sessions, caller, command).await.result {
        Ok(Reply::Items(results)) => results,
        Ok(_) => vec![Ok(()); count],
        Err(rejection) => vec![Err(rejection); count],
    }
}
