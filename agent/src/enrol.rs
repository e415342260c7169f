//! How an agent becomes known: a join token, spent once, becomes a certificate that is kept.
//!
//! The agent knows only the hash of the cluster's authority, from the token, and talks to nobody else. Its
//! key never leaves the machine. The same request is repeated until it is answered, so that a lost answer
//! costs no second token.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Fabric;
use api::v1::{self, enrol_client::EnrolClient};
use identity::{CertificateBundle, CertificateRequest, Entropy, JoinToken, Principal};
use model::{Clock, Name, RequestId};
use tokio::time::sleep;
use tonic::{Request, Status};

use crate::config::Config;

/// How to join.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The join token.
    pub token: JoinToken,
    /// The name this host is to have.
    pub host: Name,
}

/// Why an agent has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It never joined, and was given no token.
    #[error("{} holds no agent: start it with --join", path.display())]
    None {
        /// The data folder.
        path: PathBuf,
    },
    /// No control node was named.
    #[error("could not join: no server is named")]
    NoServer,
    /// The control plane refused.
    #[error("could not join by {addr}: {}", api::status::ClientError::from((**status).clone()))]
    Refused {
        /// Who was asked.
        addr: String,
        /// What it said.
        status: Box<Status>,
    },
    /// The address is none.
    #[error("could not join by {addr}")]
    Address {
        /// The address.
        addr: String,
        /// What is wrong with it.
        #[source]
        source: api::fabric::AddressError,
    },
    /// Keys or certificates cannot be made, read or kept.
    #[error("could not use the agent's key and certificate")]
    Identity(#[from] identity::Error),
    /// No randomness.
    #[error("could not choose the number of a request")]
    Entropy(#[from] identity::EntropyError),
    /// The folder cannot be made.
    #[error("could not make folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate kept is of something else than an agent.
    #[error("the certificate in {} is not that of an agent", path.display())]
    NotAgent {
        /// The folder.
        path: PathBuf,
    },
}

/// The identity kept in the agent's folder, or the one that the ticket buys.
///
/// Servers that cannot be reached are asked again and again: a machine may come up before its network.
///
/// # Errors
/// See [`EnrolError`]; a refusal by the control plane is final.
pub async fn identity<F: Fabric>(
    fabric: &F,
    config: &Config,
    ticket: Option<&Ticket>,
    (clock, entropy): (&Arc<dyn Clock>, &dyn Entropy),
) -> Result<CertificateBundle, EnrolError> {
    let folder = config.identity();
    if CertificateBundle::exists(&folder) {
        return Ok(CertificateBundle::load(&folder)?);
    }
    let ticket = ticket.ok_or_else(|| EnrolError::None { path: config.data.clone() })?;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|source| EnrolError::Folder { path: folder.clone(), source })?;
    let bundle = enrol(fabric, config, ticket, (clock, entropy)).await?;
    bundle.save(&folder)?;
    Ok(bundle)
}

/// Tenant and host of a bundle.
///
/// # Errors
/// [`EnrolError::NotAgent`].
pub fn whose(bundle: &CertificateBundle, config: &Config) -> Result<(Name, Name), EnrolError> {
    let not_agent = || EnrolError::NotAgent { path: config.identity() };
    let Principal::Agent { tenant, host } = &bundle.identity().principal else {
        return Err(not_agent());
    };
    let name = |text: &identity::Name| Name::new(text.as_str()).map_err(|_| not_agent());
    Ok((name(tenant)?, name(host)?))
}

async fn enrol<F: Fabric>(
    fabric: &F,
    config: &Config,
    ticket: &Ticket,
    (clock, entropy): (&Arc<dyn Clock>, &dyn Entropy),
) -> Result<CertificateBundle, EnrolError> {
    if config.servers.is_empty() {
        return Err(EnrolError::NoServer);
    }
    let request = CertificateRequest::generate(&Principal::Node { id: 0 })?;
    let mut unique = [0; 16];
    entropy.fill(&mut unique)?;
    let id = RequestId { at: clock.now(), unique: u128::from_be_bytes(unique) };
    let asked = v1::EnrolRequest {
        token: ticket.token.to_string(),
        csr_pem: request.request_pem().to_owned(),
        kind: v1::EnrolKind::Agent.into(),
        host: Some(ticket.host.to_string()),
        server_names: Vec::new(),
        request_id: api::request_id::format(&id),
        ..v1::EnrolRequest::default()
    };
    let sha256 = ticket.token.authority_sha256();
    let mut pause_ms = config.session.retry_first_ms;
    loop {
        for addr in &config.servers {
            match ask(fabric, config, (addr, sha256), (clock, &asked)).await? {
                Ok(answer) => {
                    let bundle = request.complete(&answer.cert_pem, &answer.ca_pem)?;
                    if bundle.trust().sha256() != sha256 {
                        return Err(identity::Error::ForeignAuthority.into());
                    }
                    tracing::info!(addr, identity = %bundle.identity(), "joined a cluster");
                    return Ok(bundle);
                }
                Err(status) => {
                    let error = api::status::ClientError::from(status.clone());
                    if !error.is_worth_repeating() && !error.reason.is_empty() {
                        let (addr, status) = (addr.clone(), Box::new(status));
                        return Err(EnrolError::Refused { addr, status });
                    }
                    tracing::info!(addr, %error, "could not join yet");
                }
            }
        }
        sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(config.session.retry_max_ms);
    }
}

async fn ask<F: Fabric>(
    fabric: &F,
    config: &Config,
    (addr, sha256): (&str, [u8; 32]),
    (clock, asked): (&Arc<dyn Clock>, &v1::EnrolRequest),
) -> Result<Result<v1::EnrolResponse, Status>, EnrolError> {
    let time = time_of(clock);
    let wrap = move |io: F::Io| {
        let connecting = identity::connect_pinned(io, sha256, time.clone());
        Box::pin(
            async move { connecting.await.map(|(stream, _node)| stream).map_err(io::Error::other) },
        ) as api::BoxFuture<'static, _>
    };
    let channel = api::fabric::channel(fabric, addr, wrap, config.wire)
        .map_err(|source| EnrolError::Address { addr: addr.to_owned(), source })?;
    let mut request = Request::new(asked.clone());
    request.set_timeout(Duration::from_millis(config.session.call_ms));
    Ok(EnrolClient::new(channel).enrol(request).await.map(tonic::Response::into_inner))
}

/// The clock as TLS wants it.
pub(crate) fn time_of(clock: &Arc<dyn Clock>) -> Arc<dyn identity::TimeSource> {
    let clock = clock.clone();
    Arc::new(move || clock.now().0)
}
