//! `muster login`: a certificate for an operator's join token, trusted by the hash in the token.

use crate::{
    client::{now_ms, request_id},
    failure::{Failure, exit},
    global::Global,
    profile::{ClientFile, config_folder, write_client_file},
    render::say,
};
use api::{BoxFuture, Tcp, TcpConfig, fabric::WireConfig, v1};
use identity::{CertificateRequest, JoinToken, Name, Principal};
use std::{io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

/// The token, and where to keep what it gives.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  muster login --token MST10... --server 10.0.0.1:7400\n  \
    MUSTER_TOKEN=MST10... muster login --server 10.0.0.1:7400 --identity ./ann")]
pub struct Arguments {
    /// Join token of kind operator
    #[arg(long, env = "MUSTER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: String,
}

pub(super) async fn run(arguments: Arguments, global: &Global) -> Result<ExitCode, Failure> {
    let token: JoinToken = arguments.token.parse().map_err(|error| {
        Failure::usage(format!("the token cannot be read: {error}"), "copy it whole").at("token")
    })?;
    let Some(folder) = global.identity.clone().or_else(config_folder) else {
        return Err(Failure::usage(
            "there is no home folder".into(),
            "name a folder with --identity",
        ));
    };
    if global.server.is_empty() {
        return Err(Failure::usage("no control node is named".into(), "add --server host:port"));
    }
    let limit = Duration::from_secs(global.timeout);
    match tokio::time::timeout(limit, enrol(&token, &arguments.token, global, folder)).await {
        Ok(done) => done,
        Err(_) => {
            let message = "no control node answered in time".to_owned();
            let remedy = "see that it runs and can be reached, or give it longer with --timeout";
            Err(Failure::of(exit::ERROR, "TIMEOUT", message, remedy).at("server"))
        }
    }
}

async fn enrol(
    token: &JoinToken,
    text: &str,
    global: &Global,
    folder: PathBuf,
) -> Result<ExitCode, Failure> {
    let internal = |what: &str, error: String| {
        Failure::of(exit::ERROR, "IDENTITY", format!("{what}: {error}"), "try again")
    };
    // The name is the token's: the node puts it into the certificate, whatever is asked for.
    let anybody = Name::new("operator").map_err(|error| internal("the name", error.to_string()))?;
    let request = CertificateRequest::generate(&Principal::Operator { name: anybody })
        .map_err(|error| internal("no key could be made", error.to_string()))?;
    let enrol = v1::EnrolRequest {
        token: text.to_owned(),
        csr_pem: request.request_pem().to_owned(),
        kind: v1::EnrolKind::Operator.into(),
        request_id: request_id()?,
        ..v1::EnrolRequest::default()
    };
    let mut last = None;
    for addr in &global.server {
        let channel = pinned(addr, token.authority_sha256())?;
        match v1::enrol_client::EnrolClient::new(channel).enrol(enrol.clone()).await {
            Ok(response) => {
                let response = response.into_inner();
                let bundle =
                    request.complete(&response.cert_pem, &response.ca_pem).map_err(|error| {
                        internal("the certificate cannot be used", error.to_string())
                    })?;
                std::fs::create_dir_all(&folder)
                    .map_err(|error| internal("the folder cannot be made", error.to_string()))?;
                bundle.save(&folder).map_err(|error| {
                    internal("the certificate cannot be kept", error.to_string())
                })?;
                let servers = response.peers.iter().map(|peer| peer.client_addr.clone()).collect();
                let file = ClientFile {
                    servers,
                    cluster_id: response.cluster_id,
                    tenant: global.tenant.clone(),
                };
                write_client_file(&folder, &file)
                    .map_err(|error| internal("client.json cannot be kept", error.to_string()))?;
                say(&format!(
                    "logged in as {}; kept in {}",
                    bundle.identity().principal,
                    folder.display()
                ));
                return Ok(ExitCode::SUCCESS);
            }
            Err(status) => last = Some(Failure::from_status(&status)),
        }
    }
    Err(last.unwrap_or_else(|| internal("no control node", "none was tried".into())))
}

/// A channel to a node that shows the authority with this hash.
fn pinned(addr: &str, sha256: [u8; 32]) -> Result<tonic::transport::Channel, Failure> {
    let wrap = move |io| -> BoxFuture<'static, io::Result<_>> {
        Box::pin(async move {
            let time = Arc::new(now_ms);
            let (stream, _) =
                identity::connect_pinned(io, sha256, time).await.map_err(io::Error::other)?;
            Ok(stream)
        })
    };
    let fabric = Tcp::new(TcpConfig::default());
    api::fabric::channel(&fabric, addr, wrap, WireConfig::default()).map_err(|error| {
        Failure::usage(format!("{addr} is no address: {error}"), "write it as host:port")
    })
}
