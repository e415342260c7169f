//! The gRPC services, one file each, and what the administrator's nouns have in common.
//!
//! A service asks `access` for its grant, converts by `api::convert`, proposes or reads, and converts
//! back. It decides nothing.

pub(crate) mod agents;
pub(crate) mod apply;
pub(crate) mod artifacts;
pub(crate) mod bindings;
pub(crate) mod clusters;
pub(crate) mod control_plane;
pub(crate) mod deployments;
pub(crate) mod enrol;
pub(crate) mod forward;
pub(crate) mod hosts;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod packages;
pub(crate) mod peer_artifacts;
pub(crate) mod raft;
pub(crate) mod relay;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod watch;

use crate::{
    Shared,
    access::Granted,
    freshness::{Freshness, Reads},
    page::{Page, Pages, Wanted},
    refusal,
};
use api::{reason::bad_field, v1};
use consensus::Ledger;
use model::{Class, Command, Key, Name, Outcome, Rejection, State, Table};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};
use tonic::{Response, Status};

/// Rows of a list in key order, as messages.
pub(crate) type Rows<'a, M> = Box<dyn Iterator<Item = (Key, M)> + 'a>;

/// What the services of all nouns share.
#[derive(Clone)]
pub(crate) struct Nouns<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pages: Pages,
}

/// The terms of a change.
pub(crate) struct Terms<'a> {
    /// Say what would happen, and change nothing.
    pub(crate) validate_only: bool,
    /// Names the request across retries; empty for none.
    pub(crate) request_id: &'a str,
}

impl<L: Ledger> Nouns<L> {
    pub(crate) fn new(shared: Shared<L>) -> Self {
        let pages = Pages::new(shared.config.pages.clone());
        Self { shared, pages }
    }

    /// Carries out a change, or says what it would do on a fork of the state.
    pub(crate) async fn change<T>(
        &self,
        call: &Granted<T>,
        command: Result<Command, Rejection>,
        terms: Terms<'_>,
    ) -> Result<Outcome, Status> {
        let command = command.map_err(|bad| refusal::of_rejection(&bad))?;
        let request_id =
            api::request_id::parse(terms.request_id).map_err(|bad| refusal::of_rejection(&bad))?;
        if !terms.validate_only {
            let caller = call.caller.clone();
            return self.shared.propose(caller, request_id, command, call.deadline).await;
        }
        self.shared.linearize(call.deadline).await?;
        Ok(self.shared.rehearse(call.caller.clone(), &command))
    }

    /// [`Nouns::change`] of one resource, answered as its message.
    pub(crate) async fn changed<T>(
        &self,
        call: &Granted<T>,
        command: Result<Command, Rejection>,
        terms: Terms<'_>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let outcome = self.change(call, command, terms).await?;
        let answer = api::convert::outcome::outcome(&outcome);
        answer.map(Response::new).map_err(|rejection| refusal::of_rejection(&rejection))
    }

    /// [`Nouns::changed`] for a deletion of one kind.
    pub(crate) async fn deleted(
        &self,
        call: &Granted<v1::DeleteRequest>,
        kind: v1::Kind,
    ) -> Result<Response<v1::Outcome>, Status> {
        let command = api::convert::command::delete(kind, &call.request);
        let v1::DeleteRequest { validate_only, request_id, .. } = &call.request;
        self.changed(call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    /// Reads one resource of `kind`.
    pub(crate) async fn get(
        &self,
        call: &Granted<v1::GetRequest>,
        kind: v1::Kind,
    ) -> Result<v1::resource::Resource, Status> {
        let resource = &call.request.resource;
        let key = api::resource::parse("resource", resource)
            .map_err(|bad| refusal::of_rejection(&bad))?;
        if api::resource::kind(&key) != kind {
            let message = format!("resource names a {}", api::resource::kind(&key).as_str_name());
            let bad = bad_field("resource", message, "ask the service of that kind");
            return Err(refusal::of_rejection(&bad));
        }
        self.shared.fresh(call.request.freshness()?, call.deadline).await?;
        let row = self.shared.ledger.read(|state| state.row(&key));
        let found = row.and_then(|row| api::convert::row(&key, &row)?.resource);
        found.ok_or_else(|| refusal::of_rejection(&unknown(&key)))
    }

    /// One page of a list. `rows` begins after the row that it is given, if it is given one.
    pub(crate) async fn list<T, M>(
        &self,
        call: &Granted<T>,
        wanted: Wanted<'_>,
        freshness: Freshness,
        rows: impl for<'a> FnOnce(&'a State, Option<&'a Key>) -> Result<Rows<'a, M>, Rejection>,
    ) -> Result<Page<M>, Status> {
        let again = |revision| {
            let ledger = &self.shared.ledger;
            ledger.read(|state| (state.globals.revision == revision).then(|| state.clone()))
        };
        let start = match self.pages.resume(&wanted, again)? {
            Some(start) => start,
            None => {
                self.shared.fresh(freshness, call.deadline).await?;
                self.pages.first(&wanted, self.shared.ledger.read(State::clone))?
            }
        };
        let rows = rows(start.state(), start.after())
            .map_err(|rejection| refusal::of_rejection(&rejection))?;
        Ok(self.pages.page(&start, rows))
    }
}

/// What is asked of the list of a noun.
pub(crate) fn wanted<'a>(noun: &str, request: &'a v1::ListRequest) -> Wanted<'a> {
    let v1::ListRequest { tenant, page_size, page_token, selector, .. } = request;
    let filter = format!("{noun} {tenant} {selector}");
    Wanted { size: *page_size, token: page_token, filter }
}

/// The tenant that a list is of, if the state knows it.
pub(crate) fn tenant_of(state: &State, tenant: &str) -> Result<Name, Rejection> {
    let name = Name::new(tenant)
        .map_err(|bad| bad_field("tenant", bad, "name the tenant whose resources to list"))?;
    match state.tenants.contains(&name) {
        true => Ok(name),
        false => Err(unknown(&Key::Tenant(name))),
    }
}

/// Refuses a tenant where the kind belongs to none.
pub(crate) fn no_tenant(tenant: &str) -> Result<(), Rejection> {
    match tenant.is_empty() {
        true => Ok(()),
        false => Err(bad_field("tenant", "the kind belongs to no tenant", "leave tenant empty")),
    }
}

/// Rows of a tenant in a table by (tenant, name), after the row at `after`.
pub(crate) fn of_tenant<'a, V: Clone + std::hash::Hash>(
    table: &'a Table<(Name, Name), V>,
    tenant: &Name,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a (Name, Name), &'a V)> + use<'a, V> {
    let from = match after {
        Some(
            Key::Host(tenant, name) | Key::Cluster(tenant, name) | Key::Deployment(tenant, name),
        ) => Excluded((tenant.clone(), name.clone())),
        _ => Included((tenant.clone(), first_name(tenant))),
    };
    let tenant = tenant.clone();
    table.range((from, Unbounded)).take_while(move |((of, _), _)| *of == tenant)
}

/// The first of all names, to begin a range with.
pub(crate) fn first_name(any: &Name) -> Name {
    // "0" is a name, so `any` is never needed.
    Name::new("0").unwrap_or_else(|_| any.clone())
}

/// The refusal of what is not there.
pub(crate) fn unknown(key: &Key) -> Rejection {
    let kind = api::resource::kind(key).as_str_name().trim_start_matches("KIND_").to_owned();
    let code = match key {
        Key::Binding(..) => "UNKNOWN_BINDING".to_owned(),
        Key::Node(_) => "UNKNOWN_NODE".to_owned(),
        Key::DeploymentCluster(..) => "UNKNOWN_DEPLOYMENT".to_owned(),
        _ => format!("UNKNOWN_{kind}"),
    };
    let resource = api::resource::format(key).unwrap_or_default();
    Rejection {
        class: Class::NotFound,
        code,
        message: format!("{resource} does not exist"),
        field: "resource".to_owned(),
        remedy: "list what there is, or correct the name".to_owned(),
        details: BTreeMap::from([("resource".to_owned(), resource)]),
    }
}

#[cfg(test)]
mod tests;
