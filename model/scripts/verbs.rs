//! Verbs of the scripts: one command each, or a helper that a planner or agent would be.

use crate::{
    World, control, loops,
    parse::{self, Parsed, Words},
};
use model::{
    Application, Caller, ClusterSpec, Command, Contact, DeploymentSpec, Digest, Draft, Name,
    NodeId, Override, Resources, Revision, Role, Scope, Strategy, Targets, Timestamp, TokenKind,
    Value,
};
use std::collections::{BTreeMap, BTreeSet};

/// The caller of people's commands.
pub(crate) fn operator() -> Caller {
    Caller::Operator(Name::new("root").unwrap())
}

pub(crate) fn run(world: &mut World, words: &mut Words) -> Parsed<String> {
    let (usual, command) = match words.verb() {
        "run" => return loops::agent(world, words),
        "place" => return loops::place(world, words),
        "sync" | "assign" | "explain" | "evict" => (control(), loops::planner(world, words)?),
        "report" => loops::report(world, words)?,
        "connect" | "lose" | "settle" | "image" | "use-token" | "node" | "mark" | "rules" => {
            (control(), node(world, words)?)
        }
        "facts" => {
            let (tenant, host) = words.pair()?;
            let caller = Caller::Agent { tenant: tenant.clone(), host: host.clone() };
            let profile = Box::new(parse::profile(words)?);
            (caller, Command::ReportHost { tenant, host, profile })
        }
        _ => (operator(), person(words)?),
    };
    let caller = words.caller(usual);
    let request_id = words.request_id();
    Ok(world.apply(caller, request_id, command))
}

/// Name, revision guard and labels; what is left of the pairs is labels.
fn draft(name: Name, words: &mut Words) -> Parsed<Draft> {
    let if_revision = words.number("rev")?.map(Revision);
    let annotations = words.take("note").map(|note| ("note".to_owned(), note));
    let kept = ["by", "id"];
    let labels: BTreeMap<String, String> = words
        .pairs
        .iter()
        .filter(|(key, _)| !kept.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    words.pairs.retain(|key, _| kept.contains(&key.as_str()));
    Ok(Draft { name, labels, annotations: annotations.into_iter().collect(), if_revision })
}

fn person(words: &mut Words) -> Parsed<Command> {
    Ok(match words.verb() {
        "tenant" => {
            let name = words.name()?;
            let display_name = words.take("display").unwrap_or_else(|| name.to_string());
            Command::ApplyTenant { draft: draft(name, words)?, display_name }
        }
        "host" => {
            let (tenant, name) = words.pair()?;
            let site = words.take("site").map(|it| parse::name(&it)).transpose()?;
            let zone = words.take("zone").map(|it| parse::name(&it)).transpose()?;
            Command::ApplyHost { tenant, draft: draft(name, words)?, site, zone }
        }
        "cordon" | "uncordon" => {
            let (tenant, host) = words.pair()?;
            Command::CordonHost { tenant, host, cordoned: words.verb() == "cordon" }
        }
        "declare-lost" | "declare-found" => {
            let (tenant, host) = words.pair()?;
            Command::DeclareHostLost { tenant, host, lost: words.verb() == "declare-lost" }
        }
        "distrust" => {
            let (tenant, host) = words.pair()?;
            Command::DistrustHost { tenant, host, reason: words.rest().join(" ") }
        }
        "retry" => {
            let (tenant, deployment) = words.pair()?;
            let cluster = words.take("cluster").map(|it| parse::name(&it)).transpose()?;
            Command::RetryDeployment { tenant, deployment, cluster }
        }
        "retry-job" => {
            let tenant = words.name()?;
            Command::RetryJob { key: parse::job(&tenant, &words.next()?)? }
        }
        "cluster" => {
            let (tenant, name) = words.pair()?;
            let members = words.take("members").unwrap_or_default();
            let members = members.split(',').filter(|it| !it.is_empty()).map(parse::name);
            let members = members.collect::<Parsed<BTreeSet<Name>>>()?;
            let environment = words.take("env").map(|it| parse::name(&it)).transpose()?;
            let spec = ClusterSpec { environment, members };
            Command::ApplyCluster { tenant, draft: draft(name, words)?, spec }
        }
        "package" => package(words)?,
        "deploy" => deploy(words)?,
        "delete" => delete(words)?,
        "bind" => Command::BindRole {
            operator: words.name()?,
            scope: scope(words)?,
            role: match words.next()?.as_str() {
                "viewer" => Role::Viewer,
                "operator" => Role::Operator,
                _ => Role::Admin,
            },
        },
        "unbind" => Command::UnbindRole { operator: words.name()?, scope: scope(words)? },
        "token" => Command::CreateToken {
            id: words.name()?,
            kind: match (words.take("tenant"), words.take("operator")) {
                (Some(tenant), _) => TokenKind::Agent { tenant: parse::name(&tenant)? },
                (None, Some(name)) => TokenKind::Operator { name: parse::name(&name)? },
                (None, None) => TokenKind::Node,
            },
            secret_hash: hash(&words.take("secret").unwrap_or_default()),
            expires_at: Timestamp(words.number("expires")?.unwrap_or(2_000_000_000)),
            uses: u32::try_from(words.number("uses")?.unwrap_or(1))?,
        },
        verb => return Err(format!("unknown verb {verb}").into()),
    })
}

/// The key of a machine, all alike unless one is named.
fn key(words: &mut Words) -> Digest {
    parse::digest(&words.take("key").unwrap_or_else(|| "machine".into()))
}

/// 64 digits that follow from a letter; another text is taken as it is.
fn hash(secret: &str) -> String {
    if secret.len() == 1 { secret.repeat(64) } else { secret.into() }
}

/// `everywhere`, or a tenant.
fn scope(words: &mut Words) -> Parsed<Scope> {
    let word = words.next()?;
    Ok(match word.as_str() {
        "everywhere" => Scope::Cluster,
        tenant => Scope::Tenant(parse::name(tenant)?),
    })
}

fn delete(words: &mut Words) -> Parsed<Command> {
    let force = words.flag("force");
    let kind = words.next()?;
    Ok(match kind.as_str() {
        "tenant" => Command::DeleteTenant { tenant: words.name()? },
        "token" => Command::RevokeToken { id: words.name()? },
        "node" => Command::RemoveNode { id: NodeId(words.next()?.parse()?) },
        kind => {
            let (tenant, name) = words.pair()?;
            match kind {
                "host" => Command::DeleteHost { tenant, host: name, force },
                "cluster" => Command::DeleteCluster { tenant, cluster: name, force },
                "deployment" => Command::DeleteDeployment { tenant, deployment: name, force },
                "image" => Command::DeleteImage { tenant, digest: parse::digest(name.as_str()) },
                "package" => {
                    Command::DeletePackage { tenant, package: name, version: words.next()? }
                }
                kind => return Err(format!("unknown kind {kind}").into()),
            }
        }
    })
}

/// An application whose content is the image `image`.
fn application(name: Name, image: &str, words: &mut Words) -> Parsed<Application> {
    let usual = Resources { cpu_millis: 100, memory_bytes: 64 << 20 };
    let role = words.take("role").unwrap_or_else(|| "main".into());
    let zones = words.take("zones").unwrap_or_default();
    let zones = zones.split(',').filter(|it| !it.is_empty()).map(parse::name);
    let env = words.take("env").map(|name| (name, Value::Literal("value".into())));
    Ok(Application {
        name,
        version: words.take("app-version").unwrap_or_else(|| "1".into()),
        driver: parse::driver(&words.take("driver").unwrap_or_else(|| "wasm".into()))?,
        num_partitions: u32::try_from(words.number("partitions")?.unwrap_or(1))?,
        artifacts: [(parse::name(&role)?, parse::digest(image))].into(),
        limits: parse::resources(words, usual)?,
        on_disconnect: parse::policy(
            &words.take("policy").unwrap_or_else(|| "keep_running".into()),
        )?,
        stop_grace_ms: words.number("grace")?.unwrap_or(1_000),
        env: env.into_iter().collect(),
        zones: zones.collect::<Parsed<_>>()?,
    })
}

/// `package acme/shop 1 web=web-v1 api=api-v1 partitions=4 ..`: options hold for all applications.
fn package(words: &mut Words) -> Parsed<Command> {
    let (tenant, name) = words.pair()?;
    let version = words.next()?;
    let mut applications = Vec::new();
    for word in words.rest() {
        let (app, image) = word.split_once(':').ok_or("wants app:image")?;
        let kept = words.pairs.clone();
        applications.push(application(parse::name(app)?, image, words)?);
        words.pairs = kept;
    }
    application(name.clone(), "x", words)?;
    Ok(Command::ApplyPackage { tenant, draft: draft(name, words)?, version, applications })
}

/// `deploy acme/shop package version to=north,south select=color:blue max=1 partitions.web=3`.
fn deploy(words: &mut Words) -> Parsed<Command> {
    let (tenant, name) = words.pair()?;
    let (package, version) = (words.name()?, words.next()?);
    let list = |text: Option<String>| -> Vec<String> {
        let text = text.unwrap_or_default();
        text.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    let targets = match words.take("to") {
        Some(to) => {
            let names = list(Some(to)).into_iter().map(|it| parse::name(&it));
            Targets::Clusters(names.collect::<Parsed<_>>()?)
        }
        None => {
            let pairs = list(words.take("select"));
            let pairs = pairs.iter().map(|it| it.split_once(':').unwrap_or((it, "")));
            Targets::Selector(pairs.map(|(key, value)| (key.into(), value.into())).collect())
        }
    };
    let mut overrides: BTreeMap<Name, Override> = BTreeMap::new();
    for (key, value) in words.pairs.clone() {
        let Some((what, app)) = key.split_once('.') else { continue };
        words.take(&key);
        let changes = overrides.entry(parse::name(app)?).or_default();
        match what {
            "partitions" => changes.num_partitions = Some(value.parse()?),
            "memory" => {
                let memory_bytes = parse::bytes(&value)?;
                changes.limits = Some(Resources { cpu_millis: 100, memory_bytes });
            }
            "env" => {
                changes.env.insert(value, Value::Literal("new".into()));
            }
            what => return Err(format!("unknown override {what}").into()),
        }
    }
    let max_unavailable = u32::try_from(words.number("max")?.unwrap_or(1))?;
    let profile = words.take("profile").map(|it| parse::name(&it)).transpose()?;
    let spec = Box::new(DeploymentSpec {
        package,
        version,
        profile,
        overrides,
        targets,
        strategy: Strategy { max_unavailable },
    });
    Ok(Command::ApplyDeployment { tenant, draft: draft(name, words)?, spec })
}

fn node(world: &World, words: &mut Words) -> Parsed<Command> {
    Ok(match words.verb() {
        "connect" => {
            let (tenant, host) = words.pair()?;
            let node = NodeId(words.number("node")?.unwrap_or(1));
            let agent_key = key(words);
            let profile = Box::new(parse::profile(words)?);
            Command::ConnectHost { tenant, host, node, agent_key, profile }
        }
        "lose" => {
            let (tenant, host) = words.pair()?;
            let session = match words.number("session")? {
                Some(session) => session,
                None => {
                    let row = world.state.host(&tenant, &host);
                    row.map_or(Contact::Never, |row| row.contact).session()
                }
            };
            Command::LoseHost { tenant, host, session }
        }
        "settle" => Command::Settle { tenant: words.name()? },
        "image" => {
            let (tenant, image) = words.pair()?;
            let digest = parse::digest(image.as_str());
            let size_bytes = words.number("size")?.unwrap_or(1_000);
            let app = words.take("app").unwrap_or_else(|| "web".into());
            let main = words.take("main").unwrap_or_else(|| image.to_string());
            let application = Box::new(application(parse::name(&app)?, &main, words)?);
            Command::RegisterImage { tenant, digest, size_bytes, application }
        }
        "use-token" => Command::UseToken {
            id: words.name()?,
            secret_hash: hash(&words.take("secret").unwrap_or_default()),
            host: words.take("host").map(|it| parse::name(&it)).transpose()?,
            key: key(words),
        },
        "node" => Command::ApplyNode {
            id: NodeId(words.next()?.parse()?),
            peer_addr: words.take("peer").unwrap_or_else(|| "10.0.0.1:7101".into()),
            client_addr: words.take("client").unwrap_or_else(|| "10.0.0.1:7100".into()),
            rules_max: u32::try_from(words.number("rules")?.unwrap_or(1))?,
        },
        "mark" => Command::MarkNode {
            id: NodeId(words.next()?.parse()?),
            alive: words.next()? == "alive",
        },
        _ => Command::RaiseRules { level: words.next()?.parse()? },
    })
}
