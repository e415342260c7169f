//! Becoming known: the authority for everybody, a certificate for whoever shows a join token.
//!
//! The token is spent through the ledger, so it counts once wherever it is shown. The request is
//! checked before that, as far as it can be: a malformed one costs no token. A control node's id is the
//! revision at which its token was spent: nobody else can have it, and a repeat of the same request gets
//! the same one.

use crate::{Shared, refusal};
use api::{
    reason::bad_field,
    v1::{self, enrol_server::Enrol as Service},
};
use consensus::Ledger;
use identity::{Issue, JoinToken, Principal, random_serial};
use model::{Caller, Class, Command, Digest, Name, Rejection, RequestId, Revision, TokenKind};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Enrol<L: Ledger>(pub(crate) Shared<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Enrol<L> {
    async fn get_authority(
        &self,
        request: Request<v1::GetAuthorityRequest>,
    ) -> Result<Response<v1::Authority>, Status> {
        let _call = self.0.granted(request)?;
        Ok(Response::new(v1::Authority {
            ca_pem: self.0.authority.certificate_pem(),
            cluster_id: self.0.cluster_id.to_string(),
        }))
    }

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let call = self.0.granted(request)?;
        let asked = &call.request;
        let joiner = self.joiner(asked)?;
        self.0.linearize(call.deadline).await?;
        let kind = self.kind_of(&joiner.token, asked.kind())?;
        if matches!(kind, TokenKind::Agent { .. }) != joiner.host.is_some() {
            let message = "an agent names its host, and nobody else does";
            return Err(refused(bad_field("host", message, "set host for an agent only")));
        }
        super::join::need_rules(&self.0, asked.rules_max)?;
        // Signed once for nobody, to see that it can be: a token is not spent on a bad request.
        let rehearsed = self.sign(asked, Principal::Node { id: 0 })?;
        let key = identity::key_sha256(&rehearsed);
        let key = key.map_err(|error| Status::internal(error.to_string()))?;
        let command = Command::UseToken {
            id: joiner.id,
            secret_hash: joiner.token.hash().to_string(),
            host: joiner.host.clone(),
            key: Digest(key),
        };
        // This node acts for a caller that is nobody yet.
        let caller = Caller::Node(self.0.node_id);
        let spent = self.0.decided(caller, joiner.request_id, command, call.deadline).await;
        let (revision, _reply) = spent?;
        let (principal, node_id, tenant) = become_known(&kind, joiner.host, revision)?;
        let cert_pem = self.sign(asked, principal)?;
        tracing::info!(kind = ?asked.kind(), revision = revision.0, "enrolled a newcomer");
        Ok(Response::new(v1::EnrolResponse {
            cert_pem,
            ca_pem: self.0.authority.certificate_pem(),
            cluster_id: self.0.cluster_id.to_string(),
            peers: peers_of(&self.0),
            node_id,
            tenant,
        }))
    }
}

/// A request to enrol, as far as it can be understood without the state.
struct Joiner {
    token: JoinToken,
    id: Name,
    host: Option<Name>,
    request_id: Option<RequestId>,
}

impl<L: Ledger> Enrol<L> {
    fn joiner(&self, asked: &v1::EnrolRequest) -> Result<Joiner, Status> {
        let token: JoinToken = asked.token.parse().map_err(|bad: identity::TokenError| {
            refused(bad_field("token", bad, "copy the whole token as it was printed"))
        })?;
        if token.authority_sha256() != self.0.authority.sha256() {
            let message = "the token is of another cluster";
            return Err(refused(bad_field("token", message, "ask a node of the token's cluster")));
        }
        let id = Name::new(token.id()).map_err(|_| unknown_token())?;
        let host = asked.host.as_deref().map(Name::new).transpose();
        let host = host.map_err(|bad| {
            refused(bad_field("host", bad, "choose a name such as edge-1 for the host"))
        })?;
        let request_id = api::request_id::parse(&asked.request_id).map_err(refused)?;
        let request_id = request_id.map(|id| bound_to(id, asked));
        Ok(Joiner { token, id, host, request_id })
    }

    /// What the token is for, if it is for what is asked. Tells nothing to who does not know the secret.
    fn kind_of(&self, token: &JoinToken, asked: v1::EnrolKind) -> Result<TokenKind, Status> {
        let id = Name::new(token.id()).map_err(|_| unknown_token())?;
        let known = self.0.ledger.read(|state| state.tokens.get(&id).cloned());
        let known = known.ok_or_else(unknown_token)?;
        let hash: identity::TokenHash = known.secret_hash.parse().map_err(|_| unknown_token())?;
        if !hash.verify(token) {
            return Err(unknown_token());
        }
        let fits = matches!(
            (&known.kind, asked),
            (TokenKind::Node, v1::EnrolKind::Node)
                | (TokenKind::Agent { .. }, v1::EnrolKind::Agent)
                | (TokenKind::Operator { .. }, v1::EnrolKind::Operator)
        );
        match fits {
            true => Ok(known.kind),
            false => {
                let message = "the token is for another kind of newcomer";
                Err(refused(bad_field("kind", message, "use a token made for this kind")))
            }
        }
    }

    fn sign(&self, asked: &v1::EnrolRequest, principal: Principal) -> Result<String, Status> {
        let serial =
            random_serial(&*self.0.entropy).map_err(|error| Status::internal(error.to_string()))?;
        let is_node = matches!(principal, Principal::Node { .. });
        let server_names = if is_node && asked.kind() == v1::EnrolKind::Node {
            asked.server_names.clone()
        } else {
            Vec::new()
        };
        let issue = Issue { principal, serial, now_ms: self.0.clock.now().0, server_names };
        self.0.authority.sign(&asked.csr_pem, &issue).map_err(|bad| {
            refused(bad_field("csr_pem", bad, "send a PEM request for an ECDSA P-256 key"))
        })
    }
}

/// Who the newcomer is from now on, its node id and its tenant.
fn become_known(
    kind: &TokenKind,
    host: Option<Name>,
    revision: Revision,
) -> Result<(Principal, Option<u64>, Option<String>), Status> {
    let name = |name: &Name| {
        identity::Name::new(name.as_str()).map_err(|bad| Status::internal(bad.to_string()))
    };
    Ok(match (kind, host) {
        (TokenKind::Node, None) => (Principal::Node { id: revision.0 }, Some(revision.0), None),
        (TokenKind::Agent { tenant }, Some(host)) => {
            let principal = Principal::Agent { tenant: name(tenant)?, host: name(&host)? };
            (principal, None, Some(tenant.to_string()))
        }
        (TokenKind::Operator { name: operator }, None) => {
            (Principal::Operator { name: name(operator)? }, None, None)
        }
        _ => return Err(Status::internal("the token and the request do not fit")),
    })
}

/// All control nodes that the state knows.
pub(crate) fn peers_of<L: Ledger>(shared: &Shared<L>) -> Vec<v1::Peer> {
    shared.ledger.read(|state| {
        let peer = |node: &model::ControlNode| v1::Peer {
            id: node.id.0,
            client_addr: node.client_addr.clone(),
            peer_addr: node.peer_addr.clone(),
        };
        state.nodes.iter().map(|(_, node)| peer(node)).collect()
    })
}

/// A request id that only the same request of the same token holder has: the answer to a repeat hands
/// out a certificate.
fn bound_to(id: RequestId, asked: &v1::EnrolRequest) -> RequestId {
    let mut hash = Sha256::new();
    hash.update(id.unique.to_be_bytes());
    for part in [&asked.token, &asked.csr_pem, asked.host.as_ref().unwrap_or(&String::new())] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    let unique = hash.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    RequestId { at: id.at, unique }
}

fn refused(rejection: Rejection) -> Status {
    refusal::of_rejection(&rejection)
}

fn unknown_token() -> Status {
    let message = "the token is unknown, spent or wrong";
    let remedy = "ask an admin of the cluster for a new token";
    refused(refusal::refusal(Class::Unauthenticated, refusal::TOKEN, message, remedy))
}
