//! The way into a cluster that exists: a token becomes a certificate, the certificate the authority.
//!
//! The newcomer knows only the hash of the authority, from its token, and talks to nobody else. Its key
//! never leaves it. The same request is repeated until it is answered, so a lost answer costs no second
//! token. Becoming a member of the Raft group comes later, when this node serves: see `membership`.

use crate::{
    Config, Folders,
    bootstrap::server_names,
    passport::{FOLDER_FORMAT, LogLife, NodeFile, Passport, PassportError, private_folder},
    peers::wrap_as_peer,
};
use api::{
    Fabric,
    v1::{self, enrol_client::EnrolClient, join_client::JoinClient},
};
use identity::{
    Authority, CertificateBundle, CertificateRequest, Entropy, JoinToken, Principal, Secret,
};
use model::{Clock, NodeId, RequestId};
use std::{io, sync::Arc, time::Duration};
use storage::Disk;
use tokio::time::Instant;
use tonic::{Request, Status, transport::Channel};

/// How to join.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The join token.
    pub token: JoinToken,
    /// `host:port` of client ports of the cluster, tried in turn.
    pub servers: Vec<String>,
    /// Whether the node is to learn only, until an operator promotes it.
    pub learner: bool,
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No server was named.
    #[error("could not join: no server is named")]
    NoServer,
    /// An address is none.
    #[error("could not join by {addr}")]
    Address {
        /// The address.
        addr: String,
        /// What is wrong with it.
        #[source]
        source: api::fabric::AddressError,
    },
    /// The cluster refused, or nobody answered in time.
    #[error("could not join by {addr}: {status}")]
    Refused {
        /// Who was asked last.
        addr: String,
        /// What it said.
        status: Box<Status>,
    },
    /// What was received cannot be used or stored.
    #[error("could not keep what the cluster gave")]
    Passport(#[from] PassportError),
    /// TLS cannot be configured with the new certificate.
    #[error("could not use the new certificate")]
    Tls(#[from] identity::TlsError),
}

/// What a newcomer stands on.
pub(crate) struct Newcomer<'a, F: Fabric, D: Disk> {
    pub(crate) fabric: &'a F,
    pub(crate) disk: &'a D,
    pub(crate) config: &'a Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: &'a dyn Entropy,
}

impl<F: Fabric, D: Disk> Newcomer<'_, F, D> {
    /// Gets a certificate and the authority, and writes them into the data folder.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub(crate) async fn join(&self, ticket: &Ticket) -> Result<(), JoinError> {
        let folders = Folders::new(&self.config.node.data);
        if Passport::exists(self.disk, &folders).await? {
            let path = folders.data().to_owned();
            return Err(PassportError::Exists { path }.into());
        }
        private_folder(folders.data())?;
        private_folder(&folders.identity())?;
        let (bundle, peers) = self.enrol(ticket).await?;
        let Principal::Node { id } = bundle.identity().principal else {
            return Err(PassportError::Identity(identity::Error::NotAuthority).into());
        };
        bundle.save(&folders.identity()).map_err(PassportError::from)?;
        let peers: Vec<_> = peers.into_iter().map(|peer| peer.peer_addr).collect();
        let authority = self.fetch_authority(&bundle, &peers).await?;
        authority.save(&folders.identity()).map_err(PassportError::from)?;
        let cluster_id = authority.cluster().to_string();
        let (node_id, log) = (NodeId(id), LogLife::New);
        let (format, bootstrap, learner) = (FOLDER_FORMAT, false, ticket.learner);
        let node = NodeFile { format, cluster_id, node_id, bootstrap, peers, learner, log };
        node.save(self.disk, &folders).await?;
        tracing::info!(cluster_id = node.cluster_id, node = id, "joined a cluster");
        Ok(())
    }

    /// Asks the servers in turn, with the same request, until one answers for good.
    async fn enrol(
        &self,
        ticket: &Ticket,
    ) -> Result<(CertificateBundle, Vec<v1::Peer>), JoinError> {
        let hint = Principal::Node { id: 0 };
        let request = CertificateRequest::generate(&hint).map_err(PassportError::from)?;
        let asked = v1::EnrolRequest {
            token: ticket.token.to_string(),
            csr_pem: request.request_pem().to_owned(),
            kind: v1::EnrolKind::Node.into(),
            host: None,
            server_names: server_names(self.config),
            request_id: self.request_id()?,
            rules_max: self.config.raft.rules_max,
        };
        let (asked, sha256) = (&asked, ticket.token.authority_sha256());
        let answer = self.in_turn(&ticket.servers, |addr| {
            let channel = self.pinned(addr, sha256);
            async move { Ok(EnrolClient::new(channel?).enrol(self.timed(asked.clone())).await) }
        });
        let answer = answer.await?;
        let bundle = request.complete(&answer.cert_pem, &answer.ca_pem);
        let bundle = bundle.map_err(PassportError::from)?;
        if bundle.trust().sha256() != sha256 {
            return Err(PassportError::Identity(identity::Error::ForeignAuthority).into());
        }
        Ok((bundle, answer.peers))
    }

    async fn fetch_authority(
        &self,
        bundle: &CertificateBundle,
        peers: &[String],
    ) -> Result<Authority, JoinError> {
        let Principal::Node { id } = bundle.identity().principal else {
            return Err(PassportError::Identity(identity::Error::NotAuthority).into());
        };
        let tls = identity::client_config(bundle.trust(), Some(bundle), time(&self.clock))?;
        let rules_max = self.config.raft.rules_max;
        let asked = v1::JoinRequest { node_id: id, rules_max, ..v1::JoinRequest::default() };
        let (asked, tls) = (&asked, &tls);
        let answer = self.in_turn(peers, |addr| {
            let tls = tls.clone();
            let wrap = move |io| wrap_as_peer(io, tls.clone(), None);
            let channel = api::fabric::channel(self.fabric, addr, wrap, self.config.peer_wire);
            let channel =
                channel.map_err(|source| JoinError::Address { addr: addr.to_owned(), source });
            async move { Ok(JoinClient::new(channel?).join(self.timed(asked.clone())).await) }
        });
        let answer = answer.await?;
        let key = Secret::new(answer.ca_key_pem);
        let life = self.config.certificates.clone();
        let authority =
            Authority::import(&answer.ca_pem, &key, life).map_err(PassportError::from)?;
        match authority.sha256() == bundle.trust().sha256() {
            true => Ok(authority),
            false => Err(PassportError::Identity(identity::Error::ForeignAuthority).into()),
        }
    }

    /// Asks one after the other, in rounds, until an answer, a refusal that will stay, or the time is up.
    async fn in_turn<'b, T, A, Fut>(&self, addrs: &'b [String], ask: A) -> Result<T, JoinError>
    where
        A: Fn(&'b str) -> Fut,
        Fut: Future<Output = Result<Result<tonic::Response<T>, Status>, JoinError>>,
    {
        let deadline = Instant::now() + Duration::from_millis(self.config.server.join_ms);
        let pause = Duration::from_millis(self.config.server.join_retry_ms);
        let mut last = JoinError::NoServer;
        loop {
            for addr in addrs {
                match ask(addr).await? {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => {
                        let stays =
                            !api::status::ClientError::from(status.clone()).is_worth_repeating();
                        let status = Box::new(status);
                        last = JoinError::Refused { addr: addr.clone(), status };
                        if stays {
                            return Err(last);
                        }
                        tracing::info!(addr, error = %last, "could not join yet");
                    }
                }
            }
            if addrs.is_empty() || Instant::now() + pause >= deadline {
                return Err(last);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn pinned(&self, addr: &str, sha256: [u8; 32]) -> Result<Channel, JoinError> {
        let clock = self.clock.clone();
        let wrap = move |io| {
            let time = time(&clock);
            Box::pin(async move {
                let connected = identity::connect_pinned(io, sha256, time).await;
                connected.map(|(stream, _node)| stream).map_err(io::Error::other)
            }) as api::BoxFuture<'static, io::Result<identity::ClientStream<F::Io>>>
        };
        api::fabric::channel(self.fabric, addr, wrap, self.config.client_wire)
            .map_err(|source| JoinError::Address { addr: addr.to_owned(), source })
    }

    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_millis(self.config.server.call_timeout_ms));
        request
    }

    fn request_id(&self) -> Result<String, JoinError> {
        let mut unique = [0; 16];
        self.entropy.fill(&mut unique).map_err(PassportError::from)?;
        let id = RequestId { at: self.clock.now(), unique: u128::from_be_bytes(unique) };
        Ok(api::request_id::format(&id))
    }
}

/// The clock as TLS wants it.
pub(crate) fn time(clock: &Arc<dyn Clock>) -> Arc<dyn identity::TimeSource> {
    let clock = clock.clone();
    Arc::new(move || clock.now().0)
}
