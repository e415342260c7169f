//! How new the state is that a read is answered from.
//!
//! A read sees every write answered before it, unless its caller names something less: a revision that
//! it must hold, which no leader has to be asked for, or by the word `stale` whatever the node has.

use crate::{Shared, refusal};
use api::{reason::bad_field, v1};
use consensus::{Error, Ledger};
use model::Revision;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// What a read asks of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It holds every write answered before the read.
    Linearizable,
    /// It is at this revision or a later one.
    AtLeast(Revision),
    /// Anything, however old.
    Stale,
}

/// Requests that read.
pub(crate) trait Reads {
    /// What it asks of the state.
    ///
    /// # Errors
    /// INVALID_ARGUMENT `FIELD` for one that asks for two things at once.
    fn freshness(&self) -> Result<Freshness, Status>;
}

macro_rules! reads {
    ($($request:ident),+) => {$(
        impl Reads for v1::$request {
            fn freshness(&self) -> Result<Freshness, Status> {
                freshness(self.stale, self.at_least)
            }
        }
    )+};
}

reads!(GetRequest, ListRequest, ListJobsRequest, ListDeploymentClustersRequest);

fn freshness(stale: bool, at_least: u64) -> Result<Freshness, Status> {
    match (stale, at_least) {
        (false, 0) => Ok(Freshness::Linearizable),
        (false, revision) => Ok(Freshness::AtLeast(Revision(revision))),
        (true, 0) => Ok(Freshness::Stale),
        (true, _) => {
            let message = "a read is stale, or at least at a revision, not both";
            let bad = bad_field("stale", message, "leave out stale or at_least");
            Err(refusal::of_rejection(&bad))
        }
    }
}

impl<L: Ledger> Shared<L> {
    /// Returns once the local state is as new as asked.
    ///
    /// # Errors
    /// UNAVAILABLE when it did not become so in time: `NO_LEADER`, or `REVISION_NOT_REACHED` where a
    /// revision was asked for.
    pub(crate) async fn fresh(&self, asked: Freshness, deadline: Instant) -> Result<(), Status> {
        let revision = match asked {
            Freshness::Linearizable => return self.linearize(deadline).await,
            Freshness::Stale => return Ok(()),
            Freshness::AtLeast(revision) => revision,
        };
        // A revision that never comes must not hold one of the places that all callers share for long.
        let limit = Duration::from_millis(self.config.server.at_least_ms);
        match self.ledger.wait_for(revision, deadline.min(Instant::now() + limit)).await {
            Ok(()) => Ok(()),
            Err(Error::Unknown) => {
                let now = self.ledger.read(|state| state.globals.revision);
                Err(api::status::revision_not_reached(revision, now))
            }
            Err(error) => Err(refusal::of_ledger(&error)),
        }
    }
}
