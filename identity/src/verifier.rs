//! The two questions asked in a handshake: is this caller one of our cluster's, and is this server
//! a node of our cluster?
//!
//! Chains, signatures and dates are webpki's; what is added is the identity: the URI in the
//! certificate must name our cluster, and a node where only nodes may be. DNS names are ignored.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::name::Name;
use crate::principal::{CallerKind, Identity, PrincipalError};
use crate::token::sha256;

/// Why a certificate with a good chain is refused all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("certificate has no valid identity")]
    Identity(#[source] PrincipalError),
    #[error("certificate belongs to another cluster")]
    ForeignCluster,
    #[error("certificate names no control node")]
    NotNode,
    #[error("server did not present the authority whose hash was expected")]
    NoPinnedAuthority,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

/// Which identities pass.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Only this cluster's; `None` only where the authority itself was pinned by hash.
    pub(crate) cluster: Option<Name>,
    pub(crate) nodes_only: bool,
}

impl Expected {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Refusal> {
        let identity = Identity::from_certificate(certificate).map_err(Refusal::Identity)?;
        if self.cluster.as_ref().is_some_and(|cluster| *cluster != identity.cluster) {
            return Err(Refusal::ForeignCluster);
        }
        if self.nodes_only && identity.principal.kind() != CallerKind::Node {
            return Err(Refusal::NotNode);
        }
        Ok(())
    }
}

/// A server's check of its callers: webpki's, then the identity.
#[derive(Debug)]
pub(crate) struct CallerVerifier {
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    pub(crate) expected: Expected,
}

impl ClientCertVerifier for CallerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.expected.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// How a client knows the authority.
#[derive(Debug)]
pub(crate) enum Anchor {
    /// It has the certificate.
    Known(RootCertStore),
    /// It has the SHA-256 of the certificate, which the server must send along.
    Pinned([u8; 32]),
}

/// A client's check of its server: signed by the authority, and a node.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) anchor: Anchor,
    pub(crate) expected: Expected,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let pinned;
        let roots = match &self.anchor {
            Anchor::Known(roots) => roots,
            Anchor::Pinned(hash) => {
                let authority = presented(intermediates, hash).ok_or(Refusal::NoPinnedAuthority)?;
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone().into_owned())?;
                pinned = roots;
                &pinned
            }
        };
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        self.expected.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The certificate with this SHA-256 among those a peer sent.
pub(crate) fn presented<'a, 'b>(
    certificates: &'a [CertificateDer<'b>],
    hash: &[u8; 32],
) -> Option<&'a CertificateDer<'b>> {
    certificates.iter().find(|certificate| sha256(certificate) == *hash)
}
