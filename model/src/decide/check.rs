//! Checks that several nouns share: envelopes, names of what has to exist, ranges, syntax.

use super::Decision;
use crate::{
    Application, Draft, Labels, Meta, Name, Rejection, Resources, Value,
    event::Written,
    limits::{
        ANNOTATIONS_MAX_BYTES, CPU_MAX_MILLIS, ENV_MAX, ENV_MAX_BYTES, LABELS_MAX,
        MEMORY_MAX_BYTES, PARTITIONS_MAX, VERSION_MAX_BYTES,
    },
    rejection::Code,
};
use std::{collections::BTreeMap, fmt::Display};

type Checked = Result<(), Rejection>;

impl Decision<'_> {
    /// The tenant must be there.
    pub(super) fn need_tenant(&self, tenant: &Name) -> Checked {
        match self.state.tenants.contains(tenant) {
            true => Ok(()),
            false => {
                Err(Code::UnknownTenant.reject(format!("there is no tenant {tenant}")).at("tenant"))
            }
        }
    }

    /// The tenant must be there and stay: something is created or changed in it.
    pub(super) fn need_live_tenant(&self, tenant: &Name) -> Checked {
        self.need_tenant(tenant)?;
        let meta = self.state.tenants.get(tenant).map(|row| &row.meta);
        need_live(meta, &format!("tenant {tenant}")).map_err(|it| it.at("tenant"))
    }

    /// What the user wrote into the envelope; `None` if neither it nor the spec (`respecified`)
    /// changes.
    pub(super) fn written(
        &mut self,
        before: Option<&Meta>,
        draft: &Draft,
        respecified: bool,
    ) -> Option<Written> {
        let created = match before {
            None => Some(self.next_uid()),
            Some(meta)
                if !respecified
                    && meta.labels == draft.labels
                    && meta.annotations == draft.annotations =>
            {
                return None;
            }
            Some(_) => None,
        };
        Some(Written {
            name: draft.name.clone(),
            created,
            respecified,
            labels: draft.labels.clone(),
            annotations: draft.annotations.clone(),
        })
    }
}

/// What is to be changed must not be on its way out.
pub(super) fn need_live(meta: Option<&Meta>, what: &str) -> Checked {
    match meta.is_some_and(|meta| meta.deletion.is_some()) {
        true => Err(Code::Deleting.reject(format!("{what} is being deleted"))),
        false => Ok(()),
    }
}

/// The envelope's syntax, and the guard against lost updates.
pub(super) fn envelope(before: Option<&Meta>, draft: &Draft, what: &str) -> Checked {
    guard(before, draft, what)?;
    need_live(before, &format!("{what} {}", draft.name)).map_err(|it| it.at("metadata.name"))?;
    labels(&draft.labels, "metadata.labels", LABELS_MAX)?;
    let bytes: usize = draft.annotations.iter().map(|(key, text)| key.len() + text.len()).sum();
    if bytes > ANNOTATIONS_MAX_BYTES {
        return Err(too_large("metadata.annotations", bytes, ANNOTATIONS_MAX_BYTES));
    }
    for key in draft.annotations.keys() {
        label_key(key, "metadata.annotations")?;
    }
    Ok(())
}

fn guard(before: Option<&Meta>, draft: &Draft, what: &str) -> Checked {
    let Some(asked) = draft.if_revision else { return Ok(()) };
    let name = &draft.name;
    match before {
        Some(_) if asked.0 == 0 => {
            Err(Code::Exists.reject(format!("{what} {name} exists already")).at("metadata.name"))
        }
        Some(meta) if meta.revision != asked => Err(Code::Conflict
            .reject(format!("{what} {name} changed at revision {}", meta.revision))
            .at("if_revision")
            .with("current_revision", meta.revision)),
        None if asked.0 != 0 => Err(Code::Conflict
            .reject(format!("{what} {name} does not exist any more"))
            .at("if_revision")
            .with("current_revision", 0)),
        Some(_) | None => Ok(()),
    }
}

/// Labels: number, keys and values.
pub(super) fn labels(labels: &Labels, field: &str, max: usize) -> Checked {
    if labels.len() > max {
        return Err(too_many(field, labels.len(), max));
    }
    for (key, value) in labels {
        label_key(key, field)?;
        if !(value.is_empty() || label_word(value)) {
            return Err(Code::LabelSyntax
                .reject("a label's value breaks the rules")
                .at(format!("{field}[{}]", shown(key))));
        }
    }
    Ok(())
}

fn label_key(key: &str, field: &str) -> Checked {
    let fits = match key.split_once('/') {
        None => label_word(key),
        Some((prefix, name)) => {
            let part = |part: &str| Name::new(part).is_ok();
            prefix.len() <= 253 && prefix.split('.').all(part) && label_word(name)
        }
    };
    match fits {
        true => Ok(()),
        false => Err(Code::LabelSyntax
            .reject("a key breaks the rules")
            .at(format!("{field}[{}]", shown(key)))),
    }
}

fn label_word(text: &str) -> bool {
    let outer = |c: u8| c.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    let ends = (bytes.first().copied(), bytes.last().copied());
    let inner = |c: u8| outer(c) || matches!(c, b'.' | b'_' | b'-');
    matches!(ends, (Some(first), Some(last)) if outer(first) && outer(last))
        && bytes.len() <= 63
        && bytes.iter().copied().all(inner)
}

/// A text from outside, fit to be shown: short and printable.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// A version text.
pub(super) fn version(text: &str, field: &str) -> Checked {
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'+' | b'-');
    match first && text.len() <= VERSION_MAX_BYTES && text.bytes().all(inner) {
        true => Ok(()),
        false => Err(Code::VersionSyntax.reject("a version breaks the rules").at(field)),
    }
}

/// Environment variables: number, size, names.
pub(super) fn env(env: &BTreeMap<String, Value>, field: &str) -> Checked {
    if env.len() > ENV_MAX {
        return Err(too_many(field, env.len(), ENV_MAX));
    }
    let size = |value: &Value| match value {
        Value::Literal(text) => text.len(),
        Value::SecretRef { name, key } => name.as_str().len() + key.len(),
    };
    let bytes: usize = env.iter().map(|(name, value)| name.len() + size(value)).sum();
    if bytes > ENV_MAX_BYTES {
        return Err(too_large(field, bytes, ENV_MAX_BYTES));
    }
    for (name, value) in env {
        let digit = name.bytes().next().is_none_or(|c| c.is_ascii_digit());
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let reserved = name.starts_with("MUSTER_");
        let literal = match value {
            Value::Literal(text) => !text.contains('\0'),
            Value::SecretRef { key, .. } => label_word(key),
        };
        if digit || reserved || name.len() > 128 || !name.bytes().all(inner) || !literal {
            return Err(Code::EnvSyntax
                .reject("an environment variable breaks the rules")
                .at(format!("{field}[{}]", shown(name))));
        }
    }
    Ok(())
}

/// A number of partitions.
pub(super) fn partitions(number: u32, field: &str) -> Checked {
    range(u64::from(number), 1, u64::from(PARTITIONS_MAX), field)
}

/// Limits or capacity.
pub(super) fn resources(resources: Resources, field: &str) -> Checked {
    range(resources.cpu_millis, 0, CPU_MAX_MILLIS, &format!("{field}.cpu_millis"))?;
    range(resources.memory_bytes, 0, MEMORY_MAX_BYTES, &format!("{field}.memory_bytes"))
}

/// A number within bounds.
pub(super) fn range(number: u64, min: u64, max: u64, field: &str) -> Checked {
    match (min..=max).contains(&number) {
        true => Ok(()),
        false => Err(Code::Range
            .reject(format!("{number} is not between {min} and {max}"))
            .at(field)
            .with("min", min)
            .with("max", max)),
    }
}

/// Hex SHA-256.
pub(super) fn hash(text: &str, field: &str) -> Checked {
    let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    match text.len() == 64 && text.bytes().all(digit) {
        true => Ok(()),
        false => Err(Code::HashSyntax.reject("it is not a hash in hexadecimal").at(field)),
    }
}

/// An application of a package or image, without what it refers to.
pub(super) fn application(application: &Application, field: &str) -> Checked {
    use crate::{OnDisconnect, limits};
    let at = |part: &str| format!("{field}.{part}");
    version(&application.version, &at("version"))?;
    partitions(application.num_partitions, &at("num_partitions"))?;
    resources(application.limits, &at("limits"))?;
    env(&application.env, &at("env"))?;
    if application.artifacts.len() > limits::ARTIFACTS_MAX {
        return Err(too_many(&at("artifacts"), application.artifacts.len(), limits::ARTIFACTS_MAX));
    }
    if !application.artifacts.keys().any(|role| role.as_str() == "main") {
        return Err(Code::ArtifactMain
            .reject(format!("application {} has no artifact main", application.name))
            .at(at("artifacts")));
    }
    let longest = match application.on_disconnect {
        OnDisconnect::Stop => limits::FENCED_STOP_GRACE_MAX_MS,
        OnDisconnect::KeepRunning | OnDisconnect::Replace => limits::STOP_GRACE_MAX_MS,
    };
    if application.stop_grace_ms > longest {
        return Err(Code::StopGrace
            .reject(format!(
                "a graceful stop under {} takes at most {longest} ms",
                application.on_disconnect.as_str()
            ))
            .at(at("stop_grace_ms"))
            .with("max", longest));
    }
    if application.zones.len() > limits::ZONES_MAX {
        return Err(too_many(&at("zones"), application.zones.len(), limits::ZONES_MAX));
    }
    distinct(&application.zones, |zone| zone, &at("zones"))
}

/// No two of `items` have the same name.
pub(super) fn distinct<T>(items: &[T], name: impl Fn(&T) -> &Name, field: &str) -> Checked {
    for (position, item) in items.iter().enumerate() {
        if items[..position].iter().any(|other| name(other) == name(item)) {
            return Err(Code::Duplicate
                .reject(format!("{} is named twice", name(item)))
                .at(format!("{field}[{position}]")));
        }
    }
    Ok(())
}

/// A list that is too long.
pub(super) fn too_many(field: &str, number: usize, max: usize) -> Rejection {
    Code::TooMany.reject(format!("{number} entries are more than {max}")).at(field).with("max", max)
}

/// A text that is too long.
pub(super) fn too_large(field: &str, bytes: usize, max: usize) -> Rejection {
    Code::TooLarge.reject(format!("{bytes} bytes are more than {max}")).at(field).with("max", max)
}

/// Something that does not exist.
pub(super) fn unknown(code: Code, what: &str, name: impl Display, field: &str) -> Rejection {
    code.reject(format!("there is no {what} {name}")).at(field)
}

/// Text cut to `max` bytes at a character's end.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
