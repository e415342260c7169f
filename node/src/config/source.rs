//! Where settings come from: a TOML file, then the environment, then flags; the later wins. Any type
//! that can be read from TOML is a set of settings; it refuses keys it does not know by itself.

use super::ConfigError;
use serde::{Serialize, de::DeserializeOwned};
use std::{io, path::Path};

/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file, if one is named, the environment (`<prefix><SECTION>__<KEY>`; other variables are left
/// alone) and the flags, each `(section.key, value)`; the later wins. A value of a table inside a section
/// is named `section.table.key`.
///
/// # Errors
/// [`ConfigError::Read`] and [`ConfigError::Malformed`].
pub fn load<C: DeserializeOwned>(
    env_prefix: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = (String, String)>,
) -> Result<C, ConfigError> {
    let mut table = toml::Table::new();
    if let Some(path) = file {
        table = read(path)?;
        check::<C>(&table, &path.display().to_string())?;
    }
    for (name, value) in env {
        let Some(key) = name.strip_prefix(env_prefix) else { continue };
        let Some((section, key)) = key.split_once("__") else { continue };
        let key = format!("{}.{}", section.to_lowercase(), key.to_lowercase().replace("__", "."));
        set::<C>(&mut table, &key, &value, &name)?;
    }
    for (key, value) in flags {
        set::<C>(&mut table, &key, &value, &format!("flag {key}"))?;
    }
    check(&table, "the configuration")
}

/// Settings as a file that [`load`] reads.
pub fn to_toml<C: Serialize>(config: &C) -> String {
    toml::to_string_pretty(config).unwrap_or_default()
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    use io::Read as _;
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    text.parse::<toml::Table>().map_err(|bad| ConfigError::Malformed {
        place: path.display().to_string(),
        problem: bad.message().to_owned(),
    })
}

fn check<C: DeserializeOwned>(table: &toml::Table, place: &str) -> Result<C, ConfigError> {
    C::deserialize(table.clone()).map_err(|bad| ConfigError::Malformed {
        place: place.to_owned(),
        problem: bad.message().to_owned(),
    })
}

/// Sets `section.key`. The value is read as TOML, and as a plain text where it is none or where a
/// text is what is wanted.
fn set<C: DeserializeOwned>(
    table: &mut toml::Table,
    key: &str,
    value: &str,
    place: &str,
) -> Result<(), ConfigError> {
    let malformed = |problem: String| ConfigError::Malformed { place: place.to_owned(), problem };
    let (path, key) = key
        .rsplit_once('.')
        .ok_or_else(|| malformed("a setting is named section.key".to_owned()))?;
    let text = toml::Value::String(value.to_owned());
    let parsed = format!("value = {value}").parse::<toml::Table>();
    let parsed = parsed.ok().and_then(|mut one| one.remove("value")).unwrap_or(text.clone());
    let not_section = || malformed(format!("{path} is not a section"));
    section(table, path).ok_or_else(not_section)?.insert(key.to_owned(), parsed);
    let Err(problem) = check::<C>(table, place) else { return Ok(()) };
    section(table, path).ok_or_else(not_section)?.insert(key.to_owned(), text);
    check::<C>(table, place).map(|_| ()).map_err(|_| problem)
}

/// The table named `a.b`, made if there is none; `None` where something else has the name.
fn section<'a>(table: &'a mut toml::Table, path: &str) -> Option<&'a mut toml::Table> {
    let mut held = table;
    for part in path.split('.') {
        let next = held.entry(part).or_insert_with(|| toml::Table::new().into());
        held = next.as_table_mut()?;
    }
    Some(held)
}
