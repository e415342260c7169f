//! Jobs: what follows from deployments, one row per copy.

use crate::{
    freshness::Reads,
    page::{Page, Wanted},
    refusal,
    service::{Nouns, Rows, Terms, first_name, tenant_of},
};
use api::{
    convert,
    reason::bad_field,
    v1::{self, jobs_server::Jobs as Service, resource::Resource},
};
use consensus::Ledger;
use model::{Job, JobKey, Key, Name, Rejection, Slot, State};
use std::ops::Bound::{Excluded, Included, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Jobs<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Jobs<L> {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Job>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        match self.0.get(&call, v1::Kind::Job).await? {
            Resource::Job(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let asked = &call.request;
        let filter = Filter::read(asked).map_err(|bad| refusal::of_rejection(&bad))?;
        let wanted = Wanted {
            size: asked.page_size,
            token: &asked.page_token,
            filter: format!(
                "jobs {} {:?} {:?} {:?}",
                asked.tenant, asked.deployment, asked.cluster, asked.host
            ),
        };
        let page = self.0.list(&call, wanted, asked.freshness()?, |state, after| {
            let tenant = tenant_of(state, &asked.tenant)?;
            Ok(filter.rows(state, tenant, after))
        });
        let Page { rows: jobs, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListJobsResponse { jobs, next_page_token, revision }))
    }

    async fn retry(
        &self,
        request: Request<v1::RetryJobRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let command = convert::command::retry_job(&call.request);
        let v1::RetryJobRequest { validate_only, request_id, .. } = &call.request;
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }
}

/// Which jobs of a tenant.
struct Filter {
    deployment: Option<Name>,
    cluster: Option<Name>,
    host: Option<Name>,
}

impl Filter {
    fn read(asked: &v1::ListJobsRequest) -> Result<Self, Rejection> {
        let name = |field: &str, text: &Option<String>| {
            let name = text.as_deref().map(Name::new).transpose();
            name.map_err(|bad| bad_field(field, bad, format!("give the name of a {field}")))
        };
        Ok(Self {
            deployment: name("deployment", &asked.deployment)?,
            cluster: name("cluster", &asked.cluster)?,
            host: name("host", &asked.host)?,
        })
    }

    /// By host through the index; otherwise in the order of keys.
    fn rows<'a>(self, state: &'a State, tenant: Name, after: Option<&Key>) -> Rows<'a, v1::Job> {
        let after = match after {
            Some(Key::Job(key)) => Some(key.clone()),
            _ => None,
        };
        if let Some(host) = &self.host {
            let on_host: Vec<_> = state.jobs_on(&tenant, host).collect();
            let later = move |key: &JobKey| after.as_ref().is_none_or(|after| key > after);
            let rows = on_host.into_iter().filter(move |(key, _)| later(key) && self.takes(key));
            return Box::new(rows.map(row));
        }
        let deployment = self.deployment.clone();
        let from = match after {
            Some(after) => Excluded(after),
            None => Included(JobKey {
                tenant: tenant.clone(),
                deployment: deployment.clone().unwrap_or_else(|| first_name(&tenant)),
                cluster: first_name(&tenant),
                application: first_name(&tenant),
                slot: Slot::Partition(0),
            }),
        };
        let rows = state.jobs.range((from, Unbounded)).take_while(move |(key, _)| {
            key.tenant == tenant
                && deployment.as_ref().is_none_or(|wanted| key.deployment == *wanted)
        });
        Box::new(rows.filter(move |(key, _)| self.takes(key)).map(row))
    }

    fn takes(&self, key: &JobKey) -> bool {
        self.deployment.as_ref().is_none_or(|wanted| key.deployment == *wanted)
            && self.cluster.as_ref().is_none_or(|wanted| key.cluster == *wanted)
    }
}

fn row((key, job): (&JobKey, &Job)) -> (Key, v1::Job) {
    (Key::Job(key.clone()), convert::job::to_proto(key, job))
}
