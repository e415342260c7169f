//! `muster retry`: what failed or waits is tried at once, as if for the first time.

use crate::{
    client::request_id,
    command::{Session, change},
    failure::Failure,
    noun::Noun,
};
use api::v1;

/// What to try again.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Tries the failed and waiting jobs of a deployment at once, at most 4,096 a time
    #[command(
        after_help = "Examples:\n  muster retry deployment shop\n  muster retry deployment shop --cluster north"
    )]
    Deployment {
        /// Name
        name: String,
        /// Only its jobs on this cluster
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Tries one failed or waiting job at once
    #[command(after_help = "Examples:\n  muster retry job shop/north/web/0")]
    Job {
        /// Name, as `muster get jobs` shows it
        name: String,
    },
}

/// What is said when it was done.
const DONE: &str = "tried again";

pub(super) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let tenant = session.client.tenant().await?;
    let request_id = request_id()?;
    match verb {
        Verb::Deployment { name, cluster } => {
            let request = v1::RetryDeploymentRequest {
                resource: Noun::Deployment.resource(&tenant, &name)?,
                cluster,
                request_id,
                ..v1::RetryDeploymentRequest::default()
            };
            let call = session.client.change(|channel| {
                let request = request.clone();
                async move {
                    v1::deployments_client::DeploymentsClient::new(channel).retry(request).await
                }
            });
            change::about(session, Noun::Deployment, &name, call.await, DONE).await
        }
        Verb::Job { name } => {
            let request = v1::RetryJobRequest {
                resource: Noun::Job.resource(&tenant, &name)?,
                request_id,
                ..v1::RetryJobRequest::default()
            };
            let call = session.client.change(|channel| {
                let request = request.clone();
                async move { v1::jobs_client::JobsClient::new(channel).retry(request).await }
            });
            change::about(session, Noun::Job, &name, call.await, DONE).await
        }
    }
}
