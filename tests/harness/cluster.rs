//! A cluster of control nodes and agents as separate processes.

use crate::{Answer, Faults, Process, until, until_some};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;

/// What differs from the defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of control nodes.
    pub nodes: usize,
    /// Lease TTL in ms, for nodes; agents learn it.
    pub lease_ttl_ms: u64,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Where the folder of the cluster is made; the system's place for such if not given.
    pub place: Option<PathBuf>,
    /// Faults that control nodes are put under.
    pub faults: Option<Arc<Faults>>,
}

impl Settings {
    /// `nodes` control nodes with a lease of 2 s, so that losses are seen quickly.
    pub fn new(nodes: usize) -> Self {
        let env = BTreeMap::new();
        Self { nodes, lease_ttl_ms: 2_000, env, place: None, faults: None }
    }

    /// With slow elections: on a busy machine none comes by itself, so that what fails is the fault of what
    /// the test does.
    pub fn patient(mut self) -> Self {
        let slow =
            [("HEARTBEAT_MS", "200"), ("ELECTION_MIN_MS", "2000"), ("ELECTION_MAX_MS", "3000")];
        self.env.extend(slow.map(|(name, ms)| (format!("MUSTER_RAFT__{name}"), ms.to_owned())));
        self
    }
}

/// An address that nobody listens at, and that no other call of this process gets. It is below the ports
/// that the system gives to connections, so that none takes it while its node is down.
fn free_addr() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() * 128;
    let mut ports =
        std::iter::repeat_with(|| 16_384 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 16_000);
    let is_free = |addr: &String| std::net::TcpListener::bind(addr).is_ok();
    let mut addrs = ports.by_ref().take(16_000).map(|port| format!("127.0.0.1:{port}"));
    addrs.find(is_free).expect("a free port")
}

/// A control node.
#[derive(Debug)]
pub struct Node {
    /// Its process; `None` while it is down.
    pub process: Option<Process>,
    /// Its data folder.
    pub folder: PathBuf,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process; `None` while it is down.
    pub process: Option<Process>,
    /// Its data folder.
    pub folder: PathBuf,
    /// Its host.
    pub host: String,
    join: Vec<String>,
}

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    root: TempDir,
    settings: Settings,
    /// Control nodes; index 0 was bootstrapped.
    pub nodes: Vec<Node>,
    /// Agents.
    pub agents: Vec<Agent>,
}

impl Cluster {
    /// Starts `settings.nodes` control nodes and waits until each serves.
    ///
    /// # Panics
    /// When one does not come up within a minute; its log is in the message.
    pub fn start(binary: &str, settings: Settings) -> Self {
        let place = settings.place.clone().unwrap_or_else(std::env::temp_dir);
        let root = TempDir::with_prefix_in("muster-it-", place).expect("a temporary folder");
        let mut cluster =
            Self { binary: binary.into(), root, settings, nodes: Vec::new(), agents: Vec::new() };
        if let Some(faults) = cluster.settings.faults.clone() {
            let addrs: Vec<_> = (0..faults.nodes()).map(|index| cluster.peer_addr(index)).collect();
            faults.connect(&addrs);
        }
        cluster.add_node(&["--bootstrap".to_owned()]);
        for _ in 1..cluster.settings.nodes {
            cluster.join_node();
        }
        cluster.wait_for_members();
        cluster
    }

    /// Lets one more node join, as `cluster add` says; its index. With `--learner` it only copies.
    ///
    /// # Panics
    /// When it is no member within a minute.
    pub fn grow(&mut self, flags: &[&str]) -> usize {
        let mut arguments = vec!["cluster", "add", "-o", "json"];
        arguments.extend_from_slice(flags);
        let made = self.cli(&arguments).json();
        let token = made["token"].as_str().expect("a token").to_owned();
        let servers: Vec<_> = made["servers"].as_array().expect("servers").iter().collect();
        let servers: Vec<_> = servers.iter().filter_map(|server| server.as_str()).collect();
        let mut join = vec!["--join".to_owned(), token, "--server".to_owned(), servers.join(",")];
        join.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.add_node(&join);
        let index = self.nodes.len() - 1;
        let role = if flags.contains(&"--learner") { "learner" } else { "voter" };
        until(&format!("node-{} is a {role}", index + 1), 60, || self.role(index) == role);
        index
    }

    /// The id of a node, as its folder says.
    ///
    /// # Panics
    /// When the folder does not say.
    pub fn node_id(&self, index: usize) -> u64 {
        let path = self.nodes[index].folder.join("identity/node.json");
        let text = fs::read_to_string(path).expect("the node has papers");
        let papers: serde_json::Value = serde_json::from_str(&text).expect("they can be read");
        papers["node_id"].as_u64().expect("they name it")
    }

    /// What `cluster status` says.
    pub fn status(&self) -> serde_json::Value {
        self.cli(&["cluster", "status", "-o", "json"]).json()
    }

    /// The part a node has in the cluster, as `cluster status` says; empty for none.
    pub fn role(&self, index: usize) -> String {
        let id = self.node_id(index);
        let status = self.status();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let member = members.iter().find(|it| number(&it["id"]) == Some(id));
        member.and_then(|it| it["role"].as_str()).unwrap_or_default().to_owned()
    }

    /// Waits until a node has ended by itself; its exit code.
    ///
    /// # Panics
    /// When it is down already, or does not end within half a minute.
    pub fn ended(&mut self, index: usize) -> i32 {
        let process = self.nodes[index].process.as_mut().expect("the node runs");
        let code = until_some("the node ends", 30, || process.ended());
        self.nodes[index].process = None;
        code
    }

    /// Starts one more control node, which joins by a token, and waits until it serves.
    ///
    /// # Panics
    /// When it does not come up within a minute; its log is in the message.
    pub fn join_node(&mut self) {
        let token = self.token(&["--kind", "node"]);
        let server = self.client_addr(0);
        self.add_node(&["--join".into(), token, "--server".into(), server]);
    }

    /// Waits until every control node is a member.
    ///
    /// # Panics
    /// When one is not within a minute.
    pub fn wait_for_members(&self) {
        until("all control nodes are members", 60, || {
            let answer = self.cli(&["cluster", "members", "-o", "json"]);
            let members = answer.stdout.matches("\"client_addr\"").count();
            answer.code == 0 && members == self.nodes.len()
        });
    }

    /// Replaces the environment of processes that are started from now on.
    pub fn set_env(&mut self, env: BTreeMap<String, String>) {
        self.settings.env = env;
    }

    /// Starts a node again and does not wait for it.
    pub fn spawn_node(&mut self, index: usize) {
        self.spawn(index, &[]);
    }

    /// What a node has logged so far.
    pub fn node_log(&self, index: usize) -> String {
        fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.root.path().join(format!("node-{}.log", index + 1))
    }

    /// The folder everything is in.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    fn add_node(&mut self, join: &[String]) {
        let folder = self.root.path().join(format!("node-{}", self.nodes.len() + 1));
        fs::create_dir(&folder).unwrap();
        self.nodes.push(Node { process: None, folder });
        let index = self.nodes.len() - 1;
        self.launch_node(index, join);
    }

    fn launch_node(&mut self, index: usize, join: &[String]) {
        self.spawn(index, join);
        let folder = self.nodes[index].folder.clone();
        let log = self.log_path(index);
        let what = format!("node-{} serves: {}", index + 1, log.display());
        until(&what, 60, || {
            let running = self.nodes[index].process.as_mut().is_some_and(Process::is_running);
            assert!(running, "{}", fs::read_to_string(&log).unwrap_or_default());
            folder.join("addr.json").exists()
        });
    }

    fn spawn(&mut self, index: usize, join: &[String]) {
        let folder = self.nodes[index].folder.clone();
        let _ = fs::remove_file(folder.join("addr.json"));
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--data")
            .arg(&folder)
            .args(["--client-addr", &self.port(index, "client")]);
        command.args(["--peer-addr", &self.port(index, "peer")]).args(join);
        command.env("MUSTER_LEASE__TTL_MS", self.settings.lease_ttl_ms.to_string());
        command.envs(&self.settings.env);
        command.envs(self.settings.faults.iter().flat_map(|faults| faults.env(index)));
        let log = self.log_path(index);
        let process = Process::start(&format!("node-{}", index + 1), &mut command, &log);
        self.nodes[index].process = Some(process);
    }

    /// The address a node listens at: any at first, the same one ever after.
    fn port(&self, index: usize, which: &str) -> String {
        let kept = self.root.path().join(format!("node-{}.{which}", index + 1));
        if let Ok(addr) = fs::read_to_string(&kept) {
            return addr;
        }
        let addr = free_addr();
        fs::write(kept, &addr).unwrap();
        addr
    }

    /// Starts a node again that was killed, on its old folder and addresses.
    ///
    /// # Panics
    /// When it does not come up within a minute.
    pub fn restart_node(&mut self, index: usize) {
        self.launch_node(index, &[]);
    }

    /// Asks a node to stop, and waits until it has.
    ///
    /// # Panics
    /// When it is down already, or still there after half a minute.
    pub fn stop_node(&mut self, index: usize) {
        let mut process = self.nodes[index].process.take().expect("the node runs");
        process.signal(nix::sys::signal::Signal::SIGTERM);
        until("the node has stopped", 30, || !process.is_running());
    }

    /// Processes that are started from now on are of another binary; answers the one before.
    pub fn set_binary(&mut self, binary: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.binary, binary)
    }

    /// `kill -9` of a node.
    ///
    /// # Panics
    /// When it is down already.
    pub fn kill_node(&mut self, index: usize) {
        self.nodes[index].process.take().expect("the node runs").kill();
    }

    /// Address of a node's client port.
    pub fn client_addr(&self, index: usize) -> String {
        self.port(index, "client")
    }

    /// Address of a node's peer port.
    pub fn peer_addr(&self, index: usize) -> String {
        self.port(index, "peer")
    }

    /// What one node says of itself below a path, as the console's JSON.
    pub fn inspect(&self, index: usize, path: &str) -> Option<serde_json::Value> {
        let identity = self.nodes[0].folder.join("admin");
        let words = ["inspect", path, "-o", "json"];
        let answer = self.run(&identity, &self.client_addr(index), &words);
        serde_json::from_str(&answer.stdout).ok()
    }

    /// Index of the node that leads, as the nodes say.
    pub fn leader(&self) -> usize {
        until_some("there is a leader", 30, || {
            let status = self.cli(&["cluster", "status", "-o", "json"]);
            let status: serde_json::Value = serde_json::from_str(&status.stdout).ok()?;
            let id = number(&status["leader"])?;
            let members = status["members"].as_array()?;
            let leader = members.iter().find(|it| number(&it["id"]) == Some(id))?;
            let addr = leader["client_addr"].as_str()?;
            (0..self.nodes.len()).find(|index| self.client_addr(*index) == addr)
        })
    }

    /// Makes a join token.
    pub fn token(&self, flags: &[&str]) -> String {
        let mut arguments = vec!["token", "create", "-o", "json"];
        arguments.extend_from_slice(flags);
        let token = self.cli(&arguments).json();
        token["token"].as_str().expect("a token").to_owned()
    }

    /// Starts an agent for `host` of `tenant` and waits until control has it in contact.
    ///
    /// # Panics
    /// When it does not come up within a minute.
    pub fn add_agent(&mut self, tenant: &str, host: &str, flags: &[&str]) {
        let folder = self.root.path().join(format!("agent-{host}"));
        fs::create_dir(&folder).unwrap();
        let token = self.token(&["--kind", "agent", "--tenant", tenant]);
        let servers: Vec<_> = (0..self.nodes.len()).map(|index| self.client_addr(index)).collect();
        let mut join = vec!["--join".into(), token, "--server".into(), servers.join(",")];
        join.extend(["--host".into(), host.to_owned()]);
        join.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.agents.push(Agent { process: None, folder, host: host.to_owned(), join });
        let index = self.agents.len() - 1;
        self.start_agent(index);
        until("the host is in contact", 60, || {
            let host = self.cli(&["-t", tenant, "get", "host", host, "-o", "json"]);
            host.code == 0 && host.stdout.contains("\"CONNECTED\"")
        });
    }

    /// Starts an agent (again) on its folder.
    pub fn start_agent(&mut self, index: usize) {
        let agent = &mut self.agents[index];
        let mut command = Command::new(&self.binary);
        command.arg("agent").arg("run").arg("--data").arg(&agent.folder).args(&agent.join);
        command.envs(&self.settings.env);
        let log = self.root.path().join(format!("agent-{}.log", agent.host));
        agent.process = Some(Process::start(&agent.host, &mut command, &log));
    }

    /// `kill -9` of an agent. Its jobs go on.
    ///
    /// # Panics
    /// When it is down already.
    pub fn kill_agent(&mut self, index: usize) {
        self.agents[index].process.take().expect("the agent runs").kill();
    }

    /// Runs the console with the first operator's identity.
    pub fn cli(&self, arguments: &[&str]) -> Answer {
        let servers: Vec<_> = (0..self.nodes.len()).map(|index| self.client_addr(index)).collect();
        let identity = self.nodes[0].folder.join("admin");
        self.run(&identity, &servers.join(","), arguments)
    }

    /// Runs the console with an identity, against these servers.
    ///
    /// # Panics
    /// When the binary does not start.
    pub fn run(&self, identity: &Path, servers: &str, arguments: &[&str]) -> Answer {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("MUSTER_IDENTITY", identity)
            .env("MUSTER_SERVER", servers)
            .env("NO_COLOR", "1")
            .output()
            .expect("the console runs");
        Answer::of(&output)
    }

    /// Pids of everything below an agent: guards, and what they run.
    pub fn guard_pids(&self, index: usize) -> BTreeMap<String, i32> {
        let mut found = BTreeMap::new();
        let jobs = self.agents[index].folder.join("jobs");
        for entry in fs::read_dir(jobs).into_iter().flatten().flatten() {
            let state = entry.path().join("state.json");
            let Ok(text) = fs::read_to_string(state) else { continue };
            let Ok(state) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
            if let Some(pid) = state["guard_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) {
                found.insert(entry.file_name().to_string_lossy().into_owned(), pid);
            }
        }
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.agents.len() {
            self.agents[index].process = None;
            for (_, pid) in self.guard_pids(index) {
                // A guard that is gone already is what is wanted.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        for node in &mut self.nodes {
            node.process = None;
        }
        if std::thread::panicking() {
            show_logs(self.root.path());
        }
    }
}

/// A whole number of the API, which JSON has as a text.
pub fn number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Ends of all logs, where a failing test shows them.
#[expect(clippy::print_stderr, reason = "a failing test talks to a person")]
fn show_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|end| end == "log") {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("== {}\n{tail}", entry.path().display());
        }
    }
}
