//! TLS at both ends: TLS 1.3 only, ring only, no session resumption (every connection proves its
//! certificate anew), over any byte stream, so that a simulation can wrap its own.
//!
//! Client port: a certificate is optional; without one the caller is anonymous and may only fetch
//! the authority's certificate and enrol. A bad certificate is refused, not ignored. Peer port:
//! only this cluster's control nodes. Clients accept only a node of their cluster, known by the
//! identity URI, whatever address they dialled.
//!
//! **A handshake has no deadline here: the caller wraps `accept` and `connect` in a timeout**, or a
//! silent peer holds its slot for ever. With TLS 1.3 a client's `connect` succeeds before the
//! server has judged the client's certificate: a refusal shows at the first read.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificate::CertificateBundle;
use crate::error::Error;
use crate::name::Name;
use crate::principal::{Identity, Principal};
use crate::token::sha256;
use crate::verifier::{Anchor, CallerVerifier, Expected, ServerVerifier, presented};
use crate::x509::{self, Facts};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The server's end of an encrypted stream.
pub type ServerStream<IO> = tokio_rustls::server::TlsStream<IO>;
/// The client's end of an encrypted stream.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// Why there is no encrypted connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Key, certificate or authority cannot be used.
    #[error("cannot use the certificate for TLS")]
    Certificate(#[source] Error),
    /// The TLS library refused the configuration.
    #[error("cannot configure TLS")]
    Config(#[source] rustls::Error),
    /// The check of callers could not be built.
    #[error("cannot configure the check of client certificates")]
    Verifier(#[source] VerifierBuilderError),
    /// The peer was refused, refused us, spoke no TLS or hung up.
    #[error("cannot complete the TLS handshake")]
    Handshake(#[source] io::Error),
    /// The handshake passed without the certificate it must have had.
    #[error("peer showed no certificate")]
    NoCertificate,
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Config(error)
    }
}

/// Where certificates' dates are compared with now: the node's clock, or a simulation's. Any
/// `Fn() -> u64` will do.
pub trait TimeSource: Send + Sync + 'static {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync + 'static> TimeSource for F {
    fn now_ms(&self) -> u64 {
        self()
    }
}

/// The public half of an authority: which cluster, and the certificate that vouches for its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    cluster: Name,
    authority: CertificateDer<'static>,
}

impl Trust {
    /// From an authority's certificate (exactly one PEM block).
    pub fn from_pem(ca_pem: &str) -> Result<Self, Error> {
        let authority = x509::certificate_from_pem(ca_pem, "authority certificate")?;
        Ok(Self { cluster: x509::cluster_of_authority(&authority)?, authority })
    }

    /// The authority's certificate as PEM.
    pub fn to_pem(&self) -> String {
        x509::certificate_to_pem(&self.authority)
    }

    /// SHA-256 of the authority's certificate (DER).
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.authority)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    pub(crate) fn new(cluster: Name, authority: CertificateDer<'static>) -> Self {
        Self { cluster, authority }
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(roots)
    }
}

/// The proven other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is, in this connection's cluster.
    pub principal: Principal,
    /// Its certificate's serial, for revocation.
    pub serial: u128,
    /// When its certificate ends, unix milliseconds: a connection should not outlive it.
    pub not_after_ms: u64,
    /// SHA-256 of the public key it proved to have, as `key_sha256` gives it.
    pub key_sha256: [u8; 32],
}

impl Peer {
    fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let identity = Identity::from_certificate(certificate).map_err(Error::Principal)?;
        let Facts { serial, not_after_ms, key_sha256, .. } = Facts::read(certificate)?;
        Ok(Self { principal: identity.principal, serial, not_after_ms, key_sha256 })
    }
}

/// The proven server of a newcomer that knew only a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedPeer {
    /// The node that answered.
    pub peer: Peer,
    /// The authority it presented, which has the expected hash: trust it from now on.
    pub trust: Trust,
}

/// For the port of clients and agents (h2 and http/1.1; certificate optional). The bundle must be a
/// node's. A renewed certificate needs a new config, used for the connections to come.
pub fn client_port_config(
    bundle: &CertificateBundle,
    time: Arc<dyn TimeSource>,
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(bundle, time, false)
}

/// For the port of control nodes among themselves (h2; only this cluster's nodes get in).
pub fn peer_port_config(
    bundle: &CertificateBundle,
    time: Arc<dyn TimeSource>,
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(bundle, time, true)
}

/// For whoever dials either port (h2): accepts only nodes of the trusted cluster, shows the bundle
/// if there is one. To insist on one particular node, compare `Peer::principal` after `connect`.
pub fn client_config(
    trust: &Trust,
    bundle: Option<&CertificateBundle>,
    time: Arc<dyn TimeSource>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let expected = Expected { cluster: Some(trust.cluster.clone()), nodes_only: true };
    dialling_config(Anchor::Known(trust.roots()?), expected, bundle, time)
}

/// Serves the handshake of one connection. `None` is an anonymous caller (client port only).
/// The caller sets the deadline.
pub async fn accept<IO>(
    io: IO,
    config: Arc<ServerConfig>,
) -> Result<(ServerStream<IO>, Option<Peer>), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsAcceptor::from(config).accept(io).await.map_err(TlsError::Handshake)?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = certificates.first().map(Peer::from_certificate).transpose()?;
    Ok((stream, peer))
}

/// Opens one connection; returns the node that answered. The caller sets the deadline.
pub async fn connect<IO>(
    io: IO,
    config: Arc<ClientConfig>,
) -> Result<(ClientStream<IO>, Peer), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Required by the protocol library, neither sent nor checked: identity goes by URI.
    let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    let dialled = TlsConnector::from(config).connect(name, io).await;
    let stream = dialled.map_err(TlsError::Handshake)?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or(TlsError::NoCertificate)?;
    let peer = Peer::from_certificate(certificate)?;
    Ok((stream, peer))
}

/// Opens a newcomer's first connection: the server must present the authority with this SHA-256
/// (from the join token) and be a node certified by it. The caller stays anonymous and sets the
/// deadline.
pub async fn connect_pinned<IO>(
    io: IO,
    authority_sha256: [u8; 32],
    time: Arc<dyn TimeSource>,
) -> Result<(ClientStream<IO>, PinnedPeer), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let expected = Expected { cluster: None, nodes_only: true };
    let config = dialling_config(Anchor::Pinned(authority_sha256), expected, None, time)?;
    let (stream, peer) = connect(io, config).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let authority = presented(certificates, &authority_sha256).ok_or(TlsError::NoCertificate)?;
    let authority = authority.clone().into_owned();
    let trust = Trust { cluster: x509::cluster_of_authority(&authority)?, authority };
    Ok((stream, PinnedPeer { peer, trust }))
}

fn server_config(
    bundle: &CertificateBundle,
    time: Arc<dyn TimeSource>,
    peers_only: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    let trust = bundle.trust();
    let roots = Arc::new(trust.roots()?);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let chain = if peers_only { chain } else { chain.allow_unauthenticated() };
    let chain = chain.build().map_err(TlsError::Verifier)?;
    let expected = Expected { cluster: Some(trust.cluster.clone()), nodes_only: peers_only };
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Clock(time)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(CallerVerifier { chain, expected }))
        // The authority goes along, for newcomers that know only its hash.
        .with_single_cert(
            vec![bundle.certificate().clone(), trust.authority.clone()],
            bundle.key()?,
        )?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    if !peers_only {
        config.alpn_protocols.push(HTTP1.to_vec());
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn dialling_config(
    anchor: Anchor,
    expected: Expected,
    bundle: Option<&CertificateBundle>,
    time: Arc<dyn TimeSource>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Clock(time)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier {
            anchor,
            expected,
            algorithms,
        }));
    let mut config = match bundle {
        None => builder.with_no_client_auth(),
        Some(bundle) => {
            builder.with_client_auth_cert(vec![bundle.certificate().clone()], bundle.key()?)?
        }
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Handed to every builder: nothing is installed for the whole process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

struct Clock(Arc<dyn TimeSource>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now_ms())))
    }
}

#[cfg(test)]
mod tests;
