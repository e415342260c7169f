//! Runs the golden scripts: every file in `scripts/<noun>/` tells a story about the domain, one
//! command per line, and states what happened or why it was refused.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p muster-model --test scripts` writes the answers; read them
//! before you commit them. After every command the invariants are checked.

#![expect(clippy::unwrap_used, reason = "a script that cannot be read is a failed test")]

mod loops;
mod parse;
mod show;
mod verbs;

use model::{Applied, Caller, Command, NodeId, Outcome, Reply, RequestId, Stamp, State, Timestamp};
use std::{error::Error, fmt::Write as _};

/// A state, its clock, and a batch being collected.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) time: Timestamp,
    batch: Option<Vec<Command>>,
}

impl World {
    fn new() -> Self {
        Self { state: State::default(), time: Timestamp(1_000_000_000), batch: None }
    }

    /// Applies a command, and says what came of it.
    pub(crate) fn apply(
        &mut self,
        caller: Caller,
        request_id: Option<RequestId>,
        command: Command,
    ) -> String {
        if let Some(batch) = &mut self.batch {
            batch.push(command);
            return String::new();
        }
        let stamp = Stamp { time: self.time, rules: 1, caller, request_id };
        let Applied { outcome, events, changes: _ } = self.state.apply(&stamp, &command);
        let mut out = String::new();
        let Outcome { revision, result } = &outcome;
        match result {
            Err(it) => {
                let details: Vec<String> =
                    it.details.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let details = match details.is_empty() {
                    true => String::new(),
                    false => format!(" {{{}}}", details.join(", ")),
                };
                writeln!(
                    out,
                    "refused [{}] {}: {}; {}{details}",
                    it.code, it.field, it.message, it.remedy
                )
                .unwrap();
            }
            Ok(reply) if events.is_empty() => {
                writeln!(out, "{revision}: {}", answer(reply)).unwrap();
            }
            Ok(reply) => {
                for event in &events {
                    writeln!(out, "{revision}: {event}").unwrap();
                }
                let text = answer(reply);
                if !text.starts_with("done") {
                    writeln!(out, "{text}").unwrap();
                }
            }
        }
        let violations = model::invariants::check(&self.state);
        assert!(violations.is_empty(), "{violations:#?}");
        out
    }
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Done { changed: true, .. } => "done".into(),
        Reply::Done { changed: false, .. } => "unchanged".into(),
        Reply::Session(session) => format!("session {session}"),
        Reply::Batch(replies) => {
            let replies: Vec<String> = replies.iter().map(answer).collect();
            format!("batch: {}", replies.join(", "))
        }
        Reply::Items(items) => {
            let refused = items.iter().enumerate().filter_map(|(position, item)| {
                let it = item.as_ref().err()?;
                Some(format!("item {position} refused [{}] {}: {}", it.code, it.field, it.message))
            });
            let refused: Vec<String> = refused.collect();
            match refused.is_empty() {
                true => "done".into(),
                false => refused.join("\n"),
            }
        }
    }
}

impl goldenscript::Runner for World {
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        _context: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let mut words = parse::Words::new(command);
        if let Some(text) = show::show(self, &mut words)? {
            return Ok(text);
        }
        match words.verb() {
            "tick" => {
                self.time = self.time.plus_ms(parse::duration_ms(words.next()?)?);
                Ok(String::new())
            }
            "begin" => {
                self.batch = Some(Vec::new());
                Ok(String::new())
            }
            "commit" => {
                let commands = self.batch.take().ok_or("no batch")?;
                let caller = words.caller(verbs::operator());
                Ok(self.apply(caller, None, Command::Batch(commands)))
            }
            _ => verbs::run(self, &mut words),
        }
    }
}

/// The caller of a control node's commands.
pub(crate) fn control() -> Caller {
    Caller::Node(NodeId(1))
}

#[test]
fn golden_scripts_say_what_happens() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(&root).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            files.extend(std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
        }
    }
    files.sort();
    assert!(files.len() >= 15, "only {} scripts found", files.len());
    for file in files {
        println!("{}", file.display());
        goldenscript::run(&mut World::new(), file).unwrap();
    }
}

#[test]
fn every_code_is_documented_and_no_other() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rejections.md");
    let page = std::fs::read_to_string(path).unwrap();
    let documented: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::trim).collect();
    for code in model::rejection::CODES {
        assert!(documented.contains(code), "{code} has no paragraph in docs/rejections.md");
    }
    let ours = page.split("## From the domain").nth(1).unwrap();
    let ours = ours.split("\n## ").next().unwrap();
    for code in ours.lines().filter_map(|line| line.strip_prefix("### ")).map(str::trim) {
        assert!(model::rejection::CODES.contains(&code), "{code} is documented but unknown");
    }
}
