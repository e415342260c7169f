//! Clients that write tenants one after the other and remember what they were told, and when.
//!
//! Each lane has a connection of its own and waits for each answer, so that whatever is found later
//! can be judged: of one tenant's writes the newest that was acknowledged must be there, or one that
//! was begun after it, and never anything else.

use crate::power::{Change, Trace};
use api::{BoxFuture, Tcp, fabric, fabric::WireConfig, v1};
use identity::CertificateBundle;
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One write of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The tenant.
    pub tenant: String,
    /// The text it was given.
    pub text: String,
    /// Which server was asked.
    pub server: usize,
    /// When, by CLOCK_MONOTONIC.
    pub began_ns: u64,
    /// The port the answer came to, and when, if it was an acknowledgement.
    pub acknowledged: Option<(u16, u64)>,
}

/// What writers did.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    /// All writes; those of one tenant in their order.
    pub attempts: Vec<Attempt>,
}

/// This moment, by CLOCK_MONOTONIC.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock can be read");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// TCP that remembers its own port.
#[derive(Clone)]
struct Noted {
    port: Arc<AtomicU16>,
}

impl fabric::Fabric for Noted {
    type Io = TcpStream;

    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<TcpStream>> {
        let port = self.port.clone();
        Box::pin(async move {
            let stream = Tcp::default().dial(addr).await?;
            port.store(stream.local_addr()?.port(), Ordering::SeqCst);
            Ok(stream)
        })
    }

    fn listen(&self, addr: String) -> BoxFuture<'static, io::Result<fabric::Incoming<TcpStream>>> {
        Tcp::default().listen(addr)
    }
}

impl Writers {
    /// Runs `lanes` clients spread over `servers` as the operator of `identity`; each makes
    /// `writes` writes (`size` is both), or fewer when one fails. Names begin with `round`: one round is one call.
    ///
    /// # Panics
    /// When the identity cannot be used.
    pub fn run(round: &str, servers: &[String], identity: &Path, size: (usize, usize)) -> Self {
        let (lanes, writes) = size;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bundle = CertificateBundle::load(identity).expect("the operator's certificate");
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for lane in 0..lanes {
                let server = lane % servers.len();
                let addr = servers[server].clone();
                running.spawn(run_lane(
                    format!("{round}-{lane}"),
                    (server, addr),
                    bundle.clone(),
                    writes,
                ));
            }
            let attempts = running.join_all().await.concat();
            Self { attempts }
        })
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.acknowledged.is_some()).count()
    }

    /// Moves each acknowledgement back to the moment at which the server sent it, as its trace says.
    ///
    /// # Panics
    /// When a trace does not have it.
    pub fn at_the_sender(mut self, traces: &[Trace]) -> Self {
        let sent: Vec<_> = traces.iter().map(sent_by_port).collect();
        for attempt in &mut self.attempts {
            if let Some((port, at_ns)) = &mut attempt.acknowledged {
                let times = &sent[attempt.server][port];
                let before = times.partition_point(|time| time <= at_ns);
                *at_ns = times[before.checked_sub(1).expect("an answer was sent before it came")];
            }
        }
        self
    }

    /// Compares tenants found (name to text) after a power cut at `cut_ns` with what must be there:
    /// how many acknowledged writes were due, and what is wrong.
    pub fn judge(&self, cut_ns: u64, found: &BTreeMap<String, String>) -> (usize, Vec<String>) {
        let mut by_tenant: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
        for attempt in self.attempts.iter().filter(|attempt| attempt.began_ns <= cut_ns) {
            by_tenant.entry(&attempt.tenant).or_default().push(attempt);
        }
        let mut wrong = Vec::new();
        let mut due = 0;
        for (tenant, attempts) in &by_tenant {
            let acknowledged =
                |attempt: &&Attempt| attempt.acknowledged.is_some_and(|(_, at)| at <= cut_ns);
            due += attempts.iter().copied().filter(|it| acknowledged(it)).count();
            let newest = attempts.iter().rposition(acknowledged);
            let text = found.get(*tenant);
            let position = text.and_then(|text| attempts.iter().rposition(|it| it.text == *text));
            match (newest, text, position) {
                (Some(newest), None, _) => {
                    wrong.push(format!("lost: {tenant} = {}", attempts[newest].text));
                }
                (Some(newest), Some(text), Some(position)) if position < newest => {
                    wrong.push(format!("lost: {tenant} = {}, found {text}", attempts[newest].text));
                }
                (_, Some(text), None) => wrong.push(format!("invented: {tenant} = {text}")),
                _ => {}
            }
        }
        let invented = found.iter().filter(|(name, _)| !by_tenant.contains_key(name.as_str()));
        wrong.extend(invented.map(|(name, text)| format!("invented: {name} = {text}")));
        (due, wrong)
    }
}

fn sent_by_port(trace: &Trace) -> BTreeMap<u16, Vec<u64>> {
    let mut sent: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for event in trace.events() {
        if let Change::Sent { port } = event.change {
            sent.entry(port).or_default().push(event.time_ns);
        }
    }
    sent
}

async fn run_lane(
    lane: String,
    (server, addr): (usize, String),
    bundle: CertificateBundle,
    writes: usize,
) -> Vec<Attempt> {
    let noted = Noted { port: Arc::default() };
    let tls = identity::client_config(bundle.trust(), Some(&bundle), Arc::new(unix_ms)).unwrap();
    let wrap = move |io| -> BoxFuture<'static, io::Result<_>> {
        let tls = tls.clone();
        Box::pin(async move {
            let (stream, _) = identity::connect(io, tls).await.map_err(io::Error::other)?;
            Ok(stream)
        })
    };
    let channel = fabric::channel(&noted, &addr, wrap, WireConfig::default()).unwrap();
    let mut client = v1::tenants_client::TenantsClient::new(channel);
    let mut attempts = Vec::new();
    for number in 0..writes {
        // Every other write changes the lane's own tenant, the rest make new ones.
        let tenant = match number % 2 {
            0 => lane.clone(),
            _ => format!("{lane}-{number}"),
        };
        let text = format!("write {number}");
        let draft = v1::TenantDraft {
            resource: format!("tenants/{tenant}"),
            display_name: text.clone(),
            ..Default::default()
        };
        let asked = v1::ApplyTenantRequest { tenant: Some(draft), ..Default::default() };
        let began_ns = now_ns();
        let answer = timeout(WRITE_TIMEOUT, client.apply(asked)).await;
        let done = matches!(answer, Ok(Ok(_)));
        let acknowledged = done.then(|| (noted.port.load(Ordering::SeqCst), now_ns()));
        attempts.push(Attempt { tenant, text, server, began_ns, acknowledged });
        if !done {
            break;
        }
    }
    attempts
}

/// All tenants of a cluster, name to text, as its operator sees them through one node.
///
/// # Errors
/// What the node answered.
pub async fn tenants(
    addr: &str,
    bundle: &CertificateBundle,
) -> Result<BTreeMap<String, String>, String> {
    let tls = identity::client_config(bundle.trust(), Some(bundle), Arc::new(unix_ms)).unwrap();
    let wrap = move |io| -> BoxFuture<'static, io::Result<_>> {
        let tls = tls.clone();
        Box::pin(async move {
            let (stream, _) = identity::connect(io, tls).await.map_err(io::Error::other)?;
            Ok(stream)
        })
    };
    let channel = fabric::channel(&Tcp::default(), addr, wrap, WireConfig::default()).unwrap();
    let mut client = v1::tenants_client::TenantsClient::new(channel);
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let asked = v1::ListRequest { page_size: 500, page_token, ..Default::default() };
        let answer = timeout(WRITE_TIMEOUT, client.list(asked)).await;
        let page = answer.map_err(|_| "no answer in time".to_owned())?;
        let page = page.map_err(|status| status.to_string())?.into_inner();
        for tenant in page.tenants {
            let name = tenant.meta.map(|meta| meta.name).unwrap_or_default();
            found.insert(name, tenant.display_name);
        }
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are checked by the wall clock")]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
