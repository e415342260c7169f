//! Words of a script line and what they mean.

use model::{
    Caller, Digest, DriverKind, HostProfile, Name, NodeId, OnDisconnect, RequestId, Resources,
    Slot, Timestamp,
};
use std::{collections::BTreeMap, error::Error};

pub(crate) type Parsed<T> = Result<T, Box<dyn Error>>;

/// A line: a verb, words and `key=value` pairs.
pub(crate) struct Words {
    verb: String,
    words: std::collections::VecDeque<String>,
    pub(crate) pairs: BTreeMap<String, String>,
}

impl Words {
    pub(crate) fn new(command: &goldenscript::Command) -> Self {
        let mut words = std::collections::VecDeque::new();
        let mut pairs = BTreeMap::new();
        for argument in &command.args {
            match argument {
                goldenscript::Argument::Positional(word) => words.push_back(word.clone()),
                goldenscript::Argument::KeyValue(key, value) => {
                    pairs.insert(key.clone(), value.clone());
                }
                other => panic!("{other:?} is neither a word nor a pair"),
            }
        }
        Self { verb: command.name.clone(), words, pairs }
    }

    pub(crate) fn verb(&self) -> &str {
        &self.verb
    }

    pub(crate) fn next(&mut self) -> Parsed<String> {
        self.words.pop_front().ok_or_else(|| format!("{} wants another word", self.verb).into())
    }

    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.words.drain(..).collect()
    }

    pub(crate) fn name(&mut self) -> Parsed<Name> {
        name(&self.next()?)
    }

    /// `tenant/name`.
    pub(crate) fn pair(&mut self) -> Parsed<(Name, Name)> {
        let word = self.next()?;
        let (tenant, name_) = word.split_once('/').ok_or("wants tenant/name")?;
        Ok((name(tenant)?, name(name_)?))
    }

    pub(crate) fn flag(&mut self, flag: &str) -> bool {
        let found = self.words.iter().position(|word| word == flag);
        found.map(|position| self.words.remove(position)).is_some()
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        self.pairs.remove(key)
    }

    pub(crate) fn number(&mut self, key: &str) -> Parsed<Option<u64>> {
        self.take(key).map(|text| Ok(text.parse()?)).transpose()
    }

    /// `by=operator:alice`, `by=agent:acme/h1`, `by=node:1` or `by=system`.
    pub(crate) fn caller(&mut self, usual: Caller) -> Caller {
        let Some(by) = self.take("by") else { return usual };
        match by.split_once(':') {
            Some(("operator", who)) => Caller::Operator(Name::new(who).unwrap()),
            Some(("agent", who)) => {
                let (tenant, host) = who.split_once('/').unwrap();
                Caller::Agent { tenant: Name::new(tenant).unwrap(), host: Name::new(host).unwrap() }
            }
            Some(("node", who)) => Caller::Node(NodeId(who.parse().unwrap())),
            _ => Caller::System,
        }
    }

    /// `id=7@1000000000`: the request id 7, made at that time.
    pub(crate) fn request_id(&mut self) -> Option<RequestId> {
        let text = self.take("id")?;
        let (unique, at) = text.split_once('@').unwrap();
        let at = Timestamp(at.parse().unwrap());
        Some(RequestId { at, unique: unique.parse().unwrap() })
    }
}

pub(crate) fn name(text: &str) -> Parsed<Name> {
    Ok(Name::new(text)?)
}

/// `10s`, `5m`, `250ms`.
pub(crate) fn duration_ms(text: String) -> Parsed<u64> {
    if let Some(number) = text.strip_suffix("ms") {
        return Ok(number.parse()?);
    }
    if let Some(number) = text.strip_suffix('m') {
        return Ok(number.parse::<u64>()? * 60_000);
    }
    Ok(text.strip_suffix('s').ok_or("wants ms, s or m")?.parse::<u64>()? * 1_000)
}

/// `512`, `64M`, `8G`.
pub(crate) fn bytes(text: &str) -> Parsed<u64> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    Ok(number.parse::<u64>()?.saturating_mul(unit))
}

/// A digest that follows from a word.
pub(crate) fn digest(word: &str) -> Digest {
    let mut bytes = [b'.'; 32];
    for (byte, letter) in bytes.iter_mut().zip(word.bytes()) {
        *byte = letter;
    }
    Digest(bytes)
}

/// `deployment/cluster/application/0` within a tenant.
pub(crate) fn job(tenant: &Name, text: &str) -> Parsed<model::JobKey> {
    let parts: Vec<&str> = text.split('/').collect();
    let [deployment, cluster, application, slot] = parts[..] else {
        return Err(format!("{text} is no job").into());
    };
    Ok(model::JobKey {
        tenant: tenant.clone(),
        deployment: name(deployment)?,
        cluster: name(cluster)?,
        application: name(application)?,
        slot: Slot::Partition(slot.parse()?),
    })
}

pub(crate) fn policy(text: &str) -> Parsed<OnDisconnect> {
    let all = [OnDisconnect::KeepRunning, OnDisconnect::Stop, OnDisconnect::Replace];
    all.into_iter().find(|it| it.as_str() == text).ok_or_else(|| format!("policy {text}").into())
}

pub(crate) fn driver(text: &str) -> Parsed<DriverKind> {
    let all = [DriverKind::Exec, DriverKind::Wasm];
    all.into_iter().find(|it| it.as_str() == text).ok_or_else(|| format!("driver {text}").into())
}

/// `cpu=` and `memory=`.
pub(crate) fn resources(words: &mut Words, usual: Resources) -> Parsed<Resources> {
    let memory = words.take("memory").map(|text| bytes(&text)).transpose()?;
    Ok(Resources {
        cpu_millis: words.number("cpu")?.unwrap_or(usual.cpu_millis),
        memory_bytes: memory.unwrap_or(usual.memory_bytes),
    })
}

/// `cpu=`, `memory=`, `drivers=`, `fenced=`, `os=`.
pub(crate) fn profile(words: &mut Words) -> Parsed<HostProfile> {
    let usual = Resources { cpu_millis: 4_000, memory_bytes: 8 << 30 };
    let capacity = resources(words, usual)?;
    let drivers = words.take("drivers").unwrap_or_else(|| "wasm,exec".into());
    let drivers = drivers.split(',').filter(|it| !it.is_empty()).map(driver);
    let os = words.take("os").unwrap_or_else(|| "linux".into());
    let facts = model::Facts { os, ..model::Facts::default() };
    Ok(HostProfile {
        facts,
        capacity,
        drivers: drivers.collect::<Parsed<_>>()?,
        fenced: words.take("fenced").is_none_or(|text| text == "true"),
    })
}
