//! The real fabric under real gRPC: a service that answers with the caller it was told of.

use super::*;
use crate::v1::{self, enrol_client::EnrolClient, enrol_server};
use tonic::{Request, Response, Status};

/// Who is at the other end, as the handshake found.
#[derive(Clone, Debug)]
struct Caller(String);

struct Mirror;

#[tonic::async_trait]
impl enrol_server::Enrol for Mirror {
    async fn get_authority(
        &self,
        request: Request<v1::GetAuthorityRequest>,
    ) -> Result<Response<v1::Authority>, Status> {
        let caller = request.extensions().get::<Caller>().map(|caller| caller.0.clone());
        let cluster_id = caller.unwrap_or_default();
        Ok(Response::new(v1::Authority { ca_pem: String::new(), cluster_id }))
    }

    async fn enrol(
        &self,
        _request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let field = crate::reason::bad_field("token", "the token is wrong", "make another");
        Err(crate::status::rejected(&field))
    }
}

/// Serves [`Mirror`] on a free port; a caller that does not begin with HTTP/2's preface is turned away.
async fn serve(tcp: Tcp, config: AcceptConfig) -> String {
    let (address, incoming) = tcp.bind("127.0.0.1:0").await.unwrap();
    let handshake = |io: tokio::net::TcpStream| -> BoxFuture<'static, _> {
        Box::pin(async move {
            let mut first = [0];
            io.peek(&mut first).await?;
            match first {
                [b'P'] => Ok((io, Caller("ann".to_owned()))),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })
    };
    let incoming = accept(incoming, handshake, config);
    let service = enrol_server::EnrolServer::new(Mirror);
    let serving = server(WireConfig::default()).add_service(service).serve_with_incoming(incoming);
    tokio::spawn(serving);
    address.to_string()
}

#[tokio::test]
async fn a_service_learns_who_calls() {
    let tcp = Tcp::default();
    let address = serve(tcp, AcceptConfig::default()).await;
    let channel = channel(&tcp, &address, plain, WireConfig::default()).unwrap();
    let mut client = EnrolClient::new(channel);
    let answer = client.get_authority(v1::GetAuthorityRequest {}).await.unwrap();
    assert_eq!(answer.into_inner().cluster_id, "ann");
}

#[tokio::test]
async fn an_error_crosses_the_wire_with_its_details() {
    let tcp = Tcp::default();
    let address = serve(tcp, AcceptConfig::default()).await;
    let channel = channel(&tcp, &address, plain, WireConfig::default()).unwrap();
    let status = EnrolClient::new(channel).enrol(v1::EnrolRequest::default()).await.unwrap_err();
    let error = crate::status::ClientError::from(status);
    assert_eq!((error.reason.as_str(), error.field.as_str()), (crate::reason::FIELD, "token"));
    assert_eq!((error.remedy.as_str(), error.certainly_not_done), ("make another", true));
}

#[tokio::test]
async fn callers_that_say_nothing_or_nonsense_keep_nobody_out() {
    use tokio::io::AsyncWriteExt;
    let tcp = Tcp::default();
    let config = AcceptConfig { handshakes_max: 2, handshake_timeout_ms: 200 };
    let address = serve(tcp, config).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(tcp.dial(address.clone()).await.unwrap());
    }
    let mut nonsense = tcp.dial(address.clone()).await.unwrap();
    nonsense.write_all(b"x").await.unwrap();
    let wire = WireConfig { connect_timeout_ms: 10_000, ..WireConfig::default() };
    let channel = channel(&tcp, &address, plain, wire).unwrap();
    let answer = EnrolClient::new(channel).get_authority(v1::GetAuthorityRequest {}).await;
    assert_eq!(answer.unwrap().into_inner().cluster_id, "ann");
}

#[tokio::test]
async fn a_channel_outlives_its_server() {
    let tcp = Tcp::default();
    let (address, first) = tcp.bind("127.0.0.1:0").await.unwrap();
    drop(first);
    let address = address.to_string();
    let channel = channel(&tcp, &address, plain, WireConfig::default()).unwrap();
    let mut client = EnrolClient::new(channel);
    let refused = client.get_authority(v1::GetAuthorityRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let incoming = tcp.listen(address).await.unwrap();
    let handshake = |io| -> BoxFuture<'static, _> {
        Box::pin(std::future::ready(Ok((io, Caller("bob".to_owned())))))
    };
    let incoming = accept(incoming, handshake, AcceptConfig::default());
    let service = enrol_server::EnrolServer::new(Mirror);
    tokio::spawn(server(WireConfig::default()).add_service(service).serve_with_incoming(incoming));
    let answer = client.get_authority(v1::GetAuthorityRequest {}).await.unwrap();
    assert_eq!(answer.into_inner().cluster_id, "bob");
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_ends_at_its_timeout() {
    #[derive(Clone)]
    struct Void;
    impl Fabric for Void {
        type Io = tokio::io::DuplexStream;
        fn dial(&self, _addr: String) -> BoxFuture<'static, io::Result<Self::Io>> {
            Box::pin(std::future::pending())
        }
        fn listen(&self, _addr: String) -> BoxFuture<'static, io::Result<Incoming<Self::Io>>> {
            Box::pin(async { Ok(stream::pending().boxed()) })
        }
    }
    let began = tokio::time::Instant::now();
    let channel = channel(&Void, "void:1", plain, WireConfig::default()).unwrap();
    let error = EnrolClient::new(channel).get_authority(v1::GetAuthorityRequest {}).await;
    assert_eq!(error.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(began.elapsed() < Duration::from_millis(2_100), "{:?}", began.elapsed());
}

#[test]
fn what_is_no_address_is_refused() {
    assert!(endpoint("not an address", WireConfig::default()).is_err());
    assert!(endpoint("[::1]:7000", WireConfig::default()).is_ok());
}
