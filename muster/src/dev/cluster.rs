//! The cluster of `muster dev`: three control nodes, three agents, one tenant, one cluster.

use super::{
    console::Console,
    processes::{Member, REVIVALS_MAX, stop, stop_jobs},
    report::say,
};
use ::console::{Failure, exit};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// Number of control nodes, and of agents.
const SIZE: usize = 3;

/// The tenant everything is in.
pub(crate) const TENANT: &str = "dev";

/// The cluster the examples are deployed to.
pub(crate) const NAME: &str = "edge";

/// The running processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Folder of all data.
    pub(crate) folder: PathBuf,
    /// Control nodes.
    pub(crate) nodes: Vec<Member>,
    /// Agents.
    pub(crate) agents: Vec<Member>,
}

impl Cluster {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), nodes: Vec::new(), agents: Vec::new() }
    }

    /// The console of the first operator.
    pub(crate) fn console(&self) -> Console {
        let servers = (1..=SIZE).filter_map(|n| self.kept_addr(n, "client")).collect();
        Console { identity: self.folder.join("node-1").join("admin"), servers }
    }

    /// Starts the control nodes: the first founds the cluster, the others join it by token.
    pub(crate) async fn start_nodes(&mut self) -> Result<()> {
        for n in 1..=SIZE {
            let name = format!("node-{n}");
            let folder = self.folder.join(&name);
            let known = folder.join("identity").join("node.json").exists();
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            let mut words = vec!["serve".into(), "--data".into(), text(&folder)?];
            for which in ["client", "peer"] {
                words.extend([format!("--{which}-addr"), self.addr(n, which)?]);
            }
            if !known && n == 1 {
                words.push("--bootstrap".into());
            } else if !known {
                let token = self.token(&["--kind", "node"]).await?;
                let server = self.addr(1, "client")?;
                words.extend(["--join".into(), token, "--server".into(), server]);
            }
            // A file of an earlier run would be taken for this one's.
            let _ = fs::remove_file(folder.join("addr.json"));
            say(&format!("starting {name}"));
            self.nodes.push(Member::start(&name, &folder, &words)?);
            // Nodes that know their cluster need each other to serve: start them all, then wait.
            if !known {
                self.serving(n - 1).await?;
            }
        }
        for index in 0..SIZE {
            self.serving(index).await?;
        }
        self.announce()
    }

    /// Starts the agents and makes them members of the cluster.
    pub(crate) async fn start_agents(&mut self) -> Result<()> {
        let console = self.console();
        console.run(&["tenant", "create", TENANT]).await?;
        let servers = console.servers.join(",");
        let hosts: Vec<_> = (1..=SIZE).map(|n| format!("edge-{n}")).collect();
        for (index, host) in hosts.iter().enumerate() {
            let folder = self.folder.join(host);
            let known = folder.join("identity").exists();
            let mut words = vec![
                "agent".into(),
                "run".into(),
                "--data".into(),
                text(&folder)?,
                "--host".into(),
            ];
            words.extend([host.clone(), "--server".into(), servers.clone()]);
            let zone = format!("zone-{}", index + 1);
            console.run(&["-t", TENANT, "host", "register", host, "--zone", &zone]).await?;
            if !known {
                let token = self.token(&["--kind", "agent", "--tenant", TENANT]).await?;
                words.extend(["--join".into(), token]);
            }
            say(&format!("starting agent {host}"));
            self.agents.push(Member::start(host, &folder, &words)?);
        }
        for host in &hosts {
            self.connected(&console, host).await?;
        }
        console
            .run(&["-t", TENANT, "cluster", "create", NAME, "--members", &hosts.join(",")])
            .await?;
        Ok(())
    }

    /// Starts again what has ended, while not everything runs yet; an error if it ends again and again.
    pub(crate) fn check(&mut self) -> Result<()> {
        for member in self.nodes.iter_mut().chain(&mut self.agents) {
            if let Some(what) = member.revive_some()? {
                say(&what);
            }
        }
        Ok(())
    }

    /// Starts again what ends, unless it was removed: users are told to kill what they like.
    pub(crate) async fn watch(&mut self) -> Result<()> {
        loop {
            for index in (0..self.nodes.len()).rev() {
                if self.nodes[index].was_removed()? {
                    say(&format!("{} was removed from its cluster", self.nodes[index].name));
                    self.nodes.remove(index);
                }
            }
            for member in self.nodes.iter_mut().chain(&mut self.agents) {
                if let Some(what) = member.revive()? {
                    say(&what);
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Why it does not all run: what the console says, for a person.
    pub(crate) async fn explain(&mut self, limit: Duration) -> anyhow::Error {
        let mut all = self.nodes.iter_mut().chain(&mut self.agents);
        if let Err(error) = all.try_for_each(Member::check) {
            return error;
        }
        let console = self.console();
        let seen = match timeout(limit, console.run(&["-t", TENANT, "get", "jobs"])).await {
            Ok(Ok(table)) => table,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the control nodes do not answer".to_owned(),
        };
        let message = format!("not everything runs in time\n{seen}");
        let remedy = "keep the logs with --data DIR, and read DIR/*.log";
        Failure::of(exit::NOT_REACHED, "NOT_RUNNING", message, remedy).at("jobs").into()
    }

    /// Stops everything: agents, then the jobs they leave running, then control nodes.
    pub(crate) async fn stop(self) {
        let folders: Vec<_> = self.agents.iter().map(|agent| agent.folder.clone()).collect();
        stop(self.agents).await;
        stop_jobs(&folders);
        stop(self.nodes).await;
        retire_announcement(&self.folder);
    }

    async fn token(&self, flags: &[&str]) -> Result<String> {
        // One that is killed while it joins joins again.
        let uses = (REVIVALS_MAX + 1).to_string();
        let mut words = vec!["token", "create", "--uses", &uses];
        words.extend_from_slice(flags);
        let token: Value = self.console().json(&words).await?;
        token["token"].as_str().map(str::to_owned).context("`muster token create` printed no token")
    }

    async fn serving(&mut self, index: usize) -> Result<()> {
        let file = self.nodes[index].folder.join("addr.json");
        while !file.exists() {
            self.check()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn connected(&mut self, console: &Console, host: &str) -> Result<()> {
        loop {
            self.check()?;
            let seen = console.json(&["-t", TENANT, "get", "hosts"]).await?;
            let Some(hosts) = seen["items"].as_array() else { bail!("no list of hosts") };
            let is_it =
                |it: &Value| it["meta"]["name"] == host && it["contact"]["state"] == "CONNECTED";
            if hosts.iter().any(is_it) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The address of a node's port: free when first asked for, the same ever after.
    fn addr(&self, n: usize, which: &str) -> Result<String> {
        if let Some(addr) = self.kept_addr(n, which) {
            return Ok(addr);
        }
        // A port that was found a moment ago is still free: the system may give it twice.
        let others: Vec<_> =
            ["client", "peer"].iter().filter_map(|which| self.kept_addr(n, which)).collect();
        let listeners: std::io::Result<Vec<_>> =
            (0..=others.len()).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
        let addrs = listeners.context("find a free port")?;
        let mut addrs = addrs.iter().filter_map(|it| Some(it.local_addr().ok()?.to_string()));
        let addr = addrs.find(|addr| !others.contains(addr)).context("find a free port")?;
        let file = self.folder.join(format!("node-{n}.{which}"));
        fs::write(&file, &addr).with_context(|| format!("write {}", file.display()))?;
        Ok(addr)
    }

    fn kept_addr(&self, n: usize, which: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(format!("node-{n}.{which}"))).ok()
    }

    /// Leaves word where the console looks when it is told nothing else.
    fn announce(&self) -> Result<()> {
        let admin = self.folder.join("node-1").join("admin");
        let console = self.console();
        let client = admin.join("client.json");
        let text = fs::read_to_string(&client).unwrap_or_else(|_| "{}".into());
        let mut known: Value = serde_json::from_str(&text).context("read client.json")?;
        known["servers"] = console.servers.into();
        known["tenant"] = TENANT.into();
        fs::write(&client, known.to_string()).context("write client.json")?;
        ::console::announce_dev(&admin).context("tell the console where the cluster is")
    }
}

fn retire_announcement(folder: &Path) {
    ::console::retire_dev(&folder.join("node-1").join("admin"));
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("the data folder's path must be UTF-8")
}
