//! Real handshakes over in-memory streams: for each config what it takes and what it refuses.

use std::error::Error as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::authority::Authority;
use crate::certificate::CertificateRequest;
use crate::testing::{DAY_MS, NOW_MS, agent, authority, bundle, bundle_at, issue, node, operator};

type Accepted = Result<(ServerStream<DuplexStream>, Option<Peer>), TlsError>;

fn at(now_ms: u64) -> Arc<dyn TimeSource> {
    Arc::new(move || now_ms)
}

fn dial(trust: &Trust, bundle: Option<&CertificateBundle>) -> Arc<ClientConfig> {
    client_config(trust, bundle, at(NOW_MS)).unwrap()
}

/// Both ends at once; the client then reads one byte, to learn of a late refusal, and both hang up.
async fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (Result<Option<Peer>, String>, Result<Peer, String>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let accepted: Accepted = accept(far, server).await;
        let (mut stream, peer) = accepted.map_err(|error| reason(&error))?;
        stream.write_all(b"!").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(peer)
    };
    let call = async {
        let (mut stream, peer) = connect(near, client).await.map_err(|error| reason(&error))?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
        Ok(peer)
    };
    tokio::join!(serve, call)
}

/// The whole chain of an error, as a log line would have it.
fn reason(error: &TlsError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}

fn refused<T: std::fmt::Debug>(answer: &Result<T, String>, why: &str) {
    let text = answer.as_ref().unwrap_err();
    assert!(text.contains(why), "expected {why:?} in {text:?}");
}

struct House {
    authority: Authority,
    node: CertificateBundle,
}

fn house(cluster: &str) -> House {
    let authority = authority(cluster);
    let node = bundle(&authority, &node(1));
    House { authority, node }
}

impl House {
    fn client_port(&self) -> Arc<ServerConfig> {
        client_port_config(&self.node, at(NOW_MS)).unwrap()
    }

    fn peer_port(&self) -> Arc<ServerConfig> {
        peer_port_config(&self.node, at(NOW_MS)).unwrap()
    }

    fn trust(&self) -> Trust {
        self.authority.trust()
    }
}

#[tokio::test]
async fn the_client_port_knows_every_kind_of_caller() {
    let house = house("c1");
    for principal in [node(2), agent("t", "h"), operator("ann")] {
        let own = bundle(&house.authority, &principal);
        let (served, called) = shake(house.client_port(), dial(&house.trust(), Some(&own))).await;
        let peer = served.unwrap().unwrap();
        assert_eq!(peer.principal, principal);
        assert_eq!((peer.serial, peer.not_after_ms), (own.serial(), own.not_after_ms()));
        assert_eq!(called.unwrap().principal, node(1));
    }
}

#[tokio::test]
async fn without_a_certificate_a_caller_is_anonymous_at_the_client_port_only() {
    let house = house("c1");
    let client = dial(&house.trust(), None);
    let (served, called) = shake(house.client_port(), client.clone()).await;
    assert_eq!(served, Ok(None));
    assert_eq!(called.unwrap().principal, node(1));
    let (served, called) = shake(house.peer_port(), client).await;
    refused(&served, "peer sent no certificates");
    assert!(called.is_err());
}

#[tokio::test]
async fn the_peer_port_takes_this_clusters_nodes_and_nobody_else() {
    let house = house("c1");
    let second = bundle(&house.authority, &node(2));
    let (served, called) = shake(house.peer_port(), dial(&house.trust(), Some(&second))).await;
    assert_eq!(served.unwrap().unwrap().principal, node(2));
    assert_eq!(called.unwrap().principal, node(1));
    for principal in [agent("t", "h"), operator("ann")] {
        let own = bundle(&house.authority, &principal);
        let (served, called) = shake(house.peer_port(), dial(&house.trust(), Some(&own))).await;
        refused(&served, "NotNode");
        assert!(called.is_err());
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_at_both_ports() {
    let (ours, foreign) = (house("c1"), house("c1"));
    let stranger = bundle(&foreign.authority, &node(2));
    for port in [ours.client_port(), ours.peer_port()] {
        let (served, called) = shake(port, dial(&ours.trust(), Some(&stranger))).await;
        // Same cluster name, same subject: only the signature tells them apart.
        refused(&served, "invalid peer certificate");
        assert!(called.is_err());
    }
}

/// One key that signs for two clusters (it never does): the URI alone must keep them apart.
#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_however_good_its_chain() {
    let house = house("c1");
    let own = foreign_certificate(&house.authority, &node(2), "c2");
    for port in [house.client_port(), house.peer_port()] {
        let (served, called) = shake(port, with_chain(&house, &own)).await;
        refused(&served, "ForeignCluster");
        assert!(called.is_err());
    }
    let mut server = (*house.client_port()).clone();
    server.cert_resolver = resolver(&own);
    let (_, called) = shake(Arc::new(server), dial(&house.trust(), None)).await;
    refused(&called, "ForeignCluster");
}

#[tokio::test]
async fn an_expired_or_future_certificate_is_refused_at_both_ends() {
    let house = house("c1");
    for (now_ms, why) in [(NOW_MS + 400 * DAY_MS, "expired"), (NOW_MS - DAY_MS, "not valid yet")] {
        let fresh = bundle_at(&house.authority, &node(1), now_ms);
        let old = bundle(&house.authority, &node(2));
        let ports = [
            client_port_config(&fresh, at(now_ms)).unwrap(),
            peer_port_config(&fresh, at(now_ms)).unwrap(),
        ];
        for port in ports {
            let client = client_config(&house.trust(), Some(&old), at(now_ms)).unwrap();
            let (served, called) = shake(port, client).await;
            refused(&served, why);
            assert!(called.is_err());
        }
        let client = client_config(&house.trust(), None, at(now_ms)).unwrap();
        let (_, called) = shake(house.client_port(), client).await;
        refused(&called, why);
    }
}

#[tokio::test]
async fn a_client_accepts_only_a_node_of_its_own_cluster() {
    let (ours, foreign) = (house("c1"), house("c1"));
    let (_, called) = shake(foreign.client_port(), dial(&ours.trust(), None)).await;
    refused(&called, "invalid peer certificate");

    // An agent that plays the server: its certificate is for clients only.
    let agent = bundle(&ours.authority, &agent("t", "h"));
    let posing = client_port_config(&agent, at(NOW_MS)).unwrap();
    let (_, called) = shake(posing, dial(&ours.trust(), None)).await;
    refused(&called, "invalid peer certificate");
}

/// Even a certificate fit for servers must name a node.
#[tokio::test]
async fn a_server_that_names_no_node_is_refused() {
    let house = house("c1");
    let own = foreign_certificate(&house.authority, &operator("ann"), "c1");
    let mut server = (*house.client_port()).clone();
    server.cert_resolver = resolver(&own);
    let server = Arc::new(server);
    let (_, called) = shake(server.clone(), dial(&house.trust(), None)).await;
    refused(&called, "NotNode");
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pinned = connect_pinned(near, house.authority.sha256(), at(NOW_MS));
    let (_, called): (Accepted, _) = tokio::join!(accept(far, server), pinned);
    assert!(called.is_err());
}

async fn join(server: Arc<ServerConfig>, hash: [u8; 32]) -> Result<PinnedPeer, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pinned = connect_pinned(near, hash, at(NOW_MS));
    let (served, called): (Accepted, _) = tokio::join!(accept(far, server), pinned);
    let (_, peer) = called.map_err(|error| reason(&error))?;
    assert_eq!(served.unwrap().1, None, "a newcomer is anonymous");
    Ok(peer)
}

#[tokio::test]
async fn a_newcomer_finds_the_authority_by_its_hash_and_nothing_else() {
    let (ours, foreign) = (house("c1"), house("c1"));
    let found = join(ours.client_port(), ours.authority.sha256()).await.unwrap();
    assert_eq!(found.peer.principal, node(1));
    assert_eq!(found.trust, ours.trust());
    assert_eq!(Trust::from_pem(&found.trust.to_pem()).unwrap(), ours.trust());

    let wrong = join(ours.client_port(), foreign.authority.sha256()).await;
    refused(&wrong, "NoPinnedAuthority");

    // A thief that shows our authority's certificate above its own leaf.
    let mut server = (*foreign.client_port()).clone();
    let stolen = ours.trust().authority;
    server.cert_resolver = chain_resolver(
        &foreign.node,
        vec![foreign.node.certificate().clone(), stolen, foreign.trust().authority],
    );
    let stolen = join(Arc::new(server), ours.authority.sha256()).await;
    refused(&stolen, "invalid peer certificate");
}

/// The hash of a node's own certificate is not an authority's, even if the node presents it.
#[tokio::test]
async fn a_leaf_cannot_be_pinned_as_authority() {
    let house = house("c1");
    let leaf = house.node.certificate().clone();
    let mut server = (*house.client_port()).clone();
    server.cert_resolver = chain_resolver(&house.node, vec![leaf.clone(), leaf.clone()]);
    assert!(join(Arc::new(server), sha256(&leaf)).await.is_err());
}

#[tokio::test]
async fn bytes_flow_and_the_protocol_is_agreed() {
    let house = house("c1");
    let own = bundle(&house.authority, &operator("ann"));
    for (port, offered, agreed) in [
        (house.client_port(), vec![HTTP2], Some(HTTP2)),
        (house.client_port(), vec![HTTP1], Some(HTTP1)),
        (house.client_port(), vec![HTTP1, HTTP2], Some(HTTP2)),
        (house.client_port(), vec![], None),
    ] {
        let mut client = (*dial(&house.trust(), Some(&own))).clone();
        client.alpn_protocols = offered.into_iter().map(<[u8]>::to_vec).collect();
        let (near, far) = tokio::io::duplex(1024);
        let serve = async {
            let (mut stream, _) = accept(far, port).await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
            stream.flush().await.unwrap();
            stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
        };
        let call = async {
            let (mut stream, _) = connect(near, Arc::new(client)).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            stream.flush().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            word
        };
        let (protocol, echoed) = tokio::join!(serve, call);
        assert_eq!(echoed, *b"ping");
        assert_eq!(protocol.as_deref(), agreed);
    }
    let mut client = (*dial(&house.trust(), Some(&house.node))).clone();
    client.alpn_protocols = vec![HTTP1.to_vec()];
    let (served, _) = shake(house.peer_port(), Arc::new(client)).await;
    refused(&served, "any known protocol");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let house = house("c1");
    let mut roots = RootCertStore::empty();
    roots.add(house.trust().authority).unwrap();
    let client = ClientConfig::builder_with_details(provider(), Arc::new(Clock(at(NOW_MS))))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (served, called) = shake(house.client_port(), Arc::new(client)).await;
    assert!(served.is_err() && called.is_err());
}

/// A program that checks addresses, as curl does, is served too.
#[tokio::test]
async fn an_ordinary_tls_client_verifies_the_server_by_address() {
    let house = house("c1");
    let wish = CertificateRequest::generate(&node(1)).unwrap();
    let mut issue = issue(&node(1));
    issue.server_names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = house.authority.sign(wish.request_pem(), &issue).unwrap();
    let own = wish.complete(&certificate, &house.authority.certificate_pem()).unwrap();
    let client = ClientConfig::builder_with_details(provider(), Arc::new(Clock(at(NOW_MS))))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(house.trust().roots().unwrap())
        .with_no_client_auth();
    let client = Arc::new(client);
    for (address, good) in [("localhost", true), ("127.0.0.1", true), ("other.example", false)] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = client_port_config(&own, at(NOW_MS)).unwrap();
        let connector = TlsConnector::from(client.clone());
        let call = connector.connect(address.try_into().unwrap(), near);
        let (_, called): (Accepted, _) = tokio::join!(accept(far, server), call);
        assert_eq!(called.is_ok(), good, "{address}");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_or_hangs_up_is_an_error() {
    let house = house("c1");
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff]] {
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let accepted: Accepted = accept(far, house.client_port()).await;
        assert!(matches!(accepted, Err(TlsError::Handshake(_))));
    }
}

/// A node's key certified under another name or cluster by the same authority key, fit for servers:
/// what `Authority::sign` never makes.
fn foreign_certificate(
    authority: &Authority,
    principal: &Principal,
    cluster: &str,
) -> (CertificateDer<'static>, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cluster = crate::testing::name(cluster);
    let uri = Identity { cluster, principal: principal.clone() }.to_string();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, principal.to_string());
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let secret = authority.export_key();
    let signer = rcgen::KeyPair::from_pem(secret.expose()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&authority.trust().authority, signer).unwrap();
    (params.signed_by(&key, &issuer).unwrap().der().clone(), key)
}

fn with_chain(
    house: &House,
    (certificate, key): &(CertificateDer<'static>, rcgen::KeyPair),
) -> Arc<ClientConfig> {
    let trust = house.trust();
    let expected = Expected { cluster: Some(trust.cluster.clone()), nodes_only: true };
    let algorithms = provider().signature_verification_algorithms;
    let anchor = Anchor::Known(trust.roots().unwrap());
    let verifier = ServerVerifier { anchor, expected, algorithms };
    let mut client = ClientConfig::builder_with_details(provider(), Arc::new(Clock(at(NOW_MS))))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![certificate.clone()], key_der(key))
        .unwrap();
    client.alpn_protocols = vec![HTTP2.to_vec()];
    Arc::new(client)
}

fn key_der(key: &rcgen::KeyPair) -> rustls::pki_types::PrivateKeyDer<'static> {
    key.serialize_der().try_into().unwrap()
}

fn resolver(
    (certificate, key): &(CertificateDer<'static>, rcgen::KeyPair),
) -> Arc<dyn rustls::server::ResolvesServerCert> {
    let key = provider().key_provider.load_private_key(key_der(key)).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate.clone()], key);
    Arc::new(rustls::sign::SingleCertAndKey::from(certified))
}

fn chain_resolver(
    bundle: &CertificateBundle,
    chain: Vec<CertificateDer<'static>>,
) -> Arc<dyn rustls::server::ResolvesServerCert> {
    let key = provider().key_provider.load_private_key(bundle.key().unwrap()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(chain, key);
    Arc::new(rustls::sign::SingleCertAndKey::from(certified))
}
