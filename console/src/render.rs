//! From resources to what is printed: JSON, YAML, names, or columns.
//!
//! Data goes to standard output through [`Printer`], talk to standard error through [`say`].

mod columns;
mod table;

pub(crate) use columns::{
    Column, columns, detail, job_name, member_columns, number, phase, placement, reason, word,
};

use crate::{
    failure::{Failure, exit},
    global::{Global, Output},
    noun::Noun,
};
use serde_json::{Value, json as object};
use std::io::{self, Write};

/// One line of talk.
pub(crate) fn say(line: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints data the way the flags ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    pub(crate) headers: bool,
}

impl Printer {
    pub(crate) fn new(global: &Global) -> Self {
        Self { output: global.output, headers: !global.no_headers }
    }

    /// Whether a program reads what is printed.
    pub(crate) fn is_structured(self) -> bool {
        self.output.is_structured()
    }

    /// A list of one kind.
    pub(crate) fn list(self, noun: Noun, rows: &[Value]) -> Result<(), Failure> {
        match self.output {
            Output::Json | Output::Yaml => self.document(&object!({ "items": rows })),
            Output::Name => self.names(noun, rows),
            Output::Table | Output::Wide => {
                if rows.is_empty() {
                    say(&format!("no {}s", noun.word()));
                    return Ok(());
                }
                let columns = noun.columns(self.output == Output::Wide);
                self.text(&table::table(&columns, rows, self.headers))
            }
        }
    }

    /// Rows that are no resources.
    pub(crate) fn table(self, columns: &[Column], rows: &[Value]) -> Result<(), Failure> {
        self.text(&table::table(columns, rows, self.headers))
    }

    /// One resource.
    pub(crate) fn one(self, noun: Noun, row: &Value) -> Result<(), Failure> {
        if self.is_structured() {
            return self.document(row);
        }
        self.list(noun, std::slice::from_ref(row))
    }

    /// Any document; as YAML where a table makes no sense.
    pub(crate) fn document(self, document: &Value) -> Result<(), Failure> {
        let text = if self.output == Output::Json {
            serde_json::to_string_pretty(document).map_err(|error| error.to_string())
        } else {
            serde_saphyr::to_string(document).map_err(|error| error.to_string())
        };
        let text = text.map_err(|error| {
            Failure::of(exit::ERROR, "ANSWER", format!("the answer cannot be printed: {error}"), "")
        })?;
        self.text(&format!("{}\n", text.trim_end()))
    }

    /// What came of a change: `deployment/shop configured`, or the document.
    pub(crate) fn outcome(self, outcome: &Value, done: &str) -> Result<(), Failure> {
        if self.is_structured() {
            return self.document(outcome);
        }
        let resource = outcome["resource"].as_str().unwrap_or_default();
        if self.output == Output::Name {
            return self.text(&format!("{resource}\n"));
        }
        let changed = outcome["changed"].as_bool().unwrap_or(false);
        self.text(&format!("{} {}\n", short(resource), if changed { done } else { "unchanged" }))
    }

    /// Text as it is.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // `muster get jobs | head` is no error.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => {
                let message = format!("standard output cannot be written: {error}");
                Err(Failure::of(exit::ERROR, "OUTPUT", message, ""))
            }
            Ok(()) => Ok(()),
        }
    }

    fn names(self, noun: Noun, rows: &[Value]) -> Result<(), Failure> {
        let mut text = String::new();
        for row in rows {
            let resource = row["meta"]["resource"].as_str().or(row["resource"].as_str());
            text.push_str(resource.unwrap_or(noun.word()));
            text.push('\n');
        }
        self.text(&text)
    }
}

/// `1 module`, `2 modules`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `deployment/shop` for `tenants/acme/deployments/shop`: as people say it.
pub(crate) fn short(resource: &str) -> String {
    let parts: Vec<_> = resource.split('/').collect();
    match parts.as_slice() {
        ["tenants", _, "packages", name, "versions", version] => {
            format!("package/{name}@{version}")
        }
        ["tenants", _, "jobs", rest @ ..] => format!("job/{}", rest.join("/")),
        ["tenants", _, kind, name] | [kind, name] => {
            format!("{}/{name}", kind.strip_suffix('s').unwrap_or(kind))
        }
        _ => resource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_shown_as_people_say_them() {
        assert_eq!(short("tenants/acme/deployments/shop"), "deployment/shop");
        assert_eq!(short("tenants/acme"), "tenant/acme");
        assert_eq!(short("tenants/a/packages/p/versions/1.0"), "package/p@1.0");
        assert_eq!(short("tenants/a/jobs/d/c/app/3"), "job/d/c/app/3");
        assert_eq!(short("tenants/a/bindings/ann"), "binding/ann");
    }
}
