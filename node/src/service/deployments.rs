//! Deployments, their parts by cluster, and the way back to an earlier spec.

use crate::{
    freshness::Reads,
    page::{Page, Wanted},
    service::{Nouns, Rows, Terms, first_name, of_tenant, tenant_of, unknown, wanted},
};
use api::{
    convert::{self, deployment::foresee, draft},
    reason::bad_field,
    selector::Selector,
    v1::{self, deployments_server::Deployments as Service, document::Draft, resource::Resource},
};
use consensus::Ledger;
use model::{Command, Key, Name, Rejection, Revision, State, Timestamp};
use std::ops::Bound::{Excluded, Included, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Deployments<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Deployments<L> {
    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let Resource::Deployment(mut found) = self.0.get(&call, v1::Kind::Deployment).await? else {
            return Err(Status::internal("the row is of another kind"));
        };
        if let Ok(Key::Deployment(tenant, name)) =
            api::resource::parse("resource", &call.request.resource)
        {
            let outlook =
                self.0.shared.ledger.read(|state| state.outlooks(&tenant).of(&name, None));
            foresee(&mut found.status, &outlook, self.0.shared.clock.now());
        }
        Ok(Response::new(found))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListDeploymentsResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let (asked, now) = (&call.request, self.0.shared.clock.now());
        let freshness = asked.freshness()?;
        let page = self.0.list(&call, wanted("deployments", asked), freshness, |state, after| {
            let tenant = tenant_of(state, &asked.tenant)?;
            let selector = Selector::parse(&asked.selector)?;
            let rows = of_tenant(&state.deployments, &tenant, after);
            let rows = rows.filter(move |(_, row)| selector.matches(&row.meta.labels));
            let outlooks = state.outlooks(&tenant);
            Ok(Box::new(rows.map(move |((tenant, name), row)| {
                let key = Key::Deployment(tenant.clone(), name.clone());
                let mut message = convert::deployment::to_proto(tenant, row);
                foresee(&mut message.status, &outlooks.of(name, None), now);
                (key, message)
            })))
        });
        let Page { rows: deployments, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListDeploymentsResponse { deployments, next_page_token, revision }))
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListDeploymentClustersRequest>,
    ) -> Result<Response<v1::ListDeploymentClustersResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let v1::ListDeploymentClustersRequest { resource, page_size, page_token, .. } =
            &call.request;
        let filter = format!("deployment_clusters {resource}");
        let wanted = Wanted { size: *page_size, token: page_token, filter };
        let (freshness, now) = (call.request.freshness()?, self.0.shared.clock.now());
        let page = self
            .0
            .list(&call, wanted, freshness, |state, after| parts(state, resource, after, now));
        let Page { rows: deployment_clusters, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListDeploymentClustersResponse {
            deployment_clusters,
            next_page_token,
            revision,
        }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyDeploymentRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let v1::ApplyDeploymentRequest { deployment, validate_only, request_id } = &call.request;
        let command = draft::apply(deployment.clone().map(Draft::Deployment));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        self.0.deleted(&call, v1::Kind::Deployment).await
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackDeploymentRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        self.0.shared.linearize(call.deadline).await?;
        let v1::RollbackDeploymentRequest { validate_only, request_id, .. } = &call.request;
        let command = self.0.shared.ledger.read(|state| earlier(state, &call.request));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn retry(
        &self,
        request: Request<v1::RetryDeploymentRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let command = convert::command::retry_deployment(&call.request);
        let v1::RetryDeploymentRequest { validate_only, request_id, .. } = &call.request;
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }
}

/// The parts of one deployment, by cluster.
fn parts<'a>(
    state: &'a State,
    resource: &str,
    after: Option<&Key>,
    now: Timestamp,
) -> Result<Rows<'a, v1::DeploymentCluster>, Rejection> {
    let (tenant, name) = deployment_named(state, resource)?;
    let outlooks = state.outlooks(&tenant);
    let from = match after {
        Some(Key::DeploymentCluster(tenant, name, cluster)) => {
            Excluded((tenant.clone(), name.clone(), cluster.clone()))
        }
        _ => Included((tenant.clone(), name.clone(), first_name(&tenant))),
    };
    let rows = state.deployment_clusters.range((from, Unbounded));
    let own = rows.take_while(move |((of, part_of, _), _)| *of == tenant && *part_of == name);
    Ok(Box::new(own.map(move |((tenant, name, cluster), row)| {
        let key = Key::DeploymentCluster(tenant.clone(), name.clone(), cluster.clone());
        let mut message = convert::deployment::part_to_proto(tenant, name, cluster, row);
        foresee(&mut message.status, &outlooks.of(name, Some(cluster)), now);
        (key, message)
    })))
}

/// The command that asks for an earlier spec again. Labels and annotations stay as they are.
fn earlier(state: &State, asked: &v1::RollbackDeploymentRequest) -> Result<Command, Rejection> {
    let (tenant, name) = deployment_named(state, &asked.resource)?;
    let key = Key::Deployment(tenant.clone(), name.clone());
    let found = state.deployment(&tenant, &name).ok_or_else(|| unknown(&key))?;
    let wanted = match asked.generation {
        0 => found.revisions.iter().rfind(|before| before.generation < found.meta.generation),
        generation => found.revisions.iter().find(|before| before.generation == generation),
    };
    let wanted = wanted.ok_or_else(|| {
        let message = "the deployment keeps no such earlier generation";
        bad_field("generation", message, "read the deployment: it lists those it keeps")
    })?;
    let draft = model::Draft {
        name,
        labels: found.meta.labels.clone(),
        annotations: found.meta.annotations.clone(),
        if_revision: asked.if_revision.map(Revision),
    };
    Ok(Command::ApplyDeployment { tenant, draft, spec: Box::new(wanted.spec.clone()) })
}

/// Tenant and name of a deployment that exists.
fn deployment_named(state: &State, resource: &str) -> Result<(Name, Name), Rejection> {
    let key = api::resource::parse("resource", resource)?;
    match key {
        Key::Deployment(tenant, name) if state.deployment(&tenant, &name).is_some() => {
            Ok((tenant, name))
        }
        Key::Deployment(..) => Err(unknown(&key)),
        _ => {
            let message = "resource names no deployment";
            Err(bad_field("resource", message, "write it like tenants/acme/deployments/shop"))
        }
    }
}
