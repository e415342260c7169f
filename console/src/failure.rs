//! Why a verb did not do what it was asked, in the one shape that is shown to people and programs.

use crate::global::Output;
use api::{limits::REQUEST_BYTES_MAX, reason::COMMAND_TOO_LARGE};
use serde_json::json;
use std::{collections::BTreeMap, fmt, io::Write, process::ExitCode};

/// Exit codes: 0 is done.
pub mod exit {
    /// It failed.
    pub const ERROR: u8 = 1;
    /// It was asked wrongly.
    pub const USAGE: u8 = 2;
    /// What was waited for was not reached in time.
    pub const NOT_REACHED: u8 = 3;
    /// What was waited for will not be reached without a change.
    pub const FAILED: u8 = 4;
}

/// A verb's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// gRPC code in words, such as `FAILED_PRECONDITION`; `USAGE` for what never left this machine.
    pub(crate) code: String,
    /// Stable reason, such as `PARTITIONS_CHANGED`.
    pub(crate) reason: String,
    /// Path of the offending field; empty if none.
    pub(crate) field: String,
    /// What went wrong.
    pub(crate) message: String,
    /// What to do about it; empty if nothing is known.
    pub(crate) remedy: String,
    /// Facts for programs.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Every fault, where there are several: field or path, and what is wrong.
    pub(crate) violations: Vec<(String, String)>,
    /// Exit code.
    pub(crate) exit: u8,
}

impl Failure {
    /// A failure that never left this machine: bad flags, files or settings.
    pub fn usage(message: String, remedy: &str) -> Self {
        Self {
            code: "USAGE".into(),
            reason: "USAGE".into(),
            field: String::new(),
            message,
            remedy: remedy.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            exit: exit::USAGE,
        }
    }

    /// What a node answered.
    pub fn from_status(status: &tonic::Status) -> Self {
        if is_too_large(status) {
            let remedy = "split it: apply fewer documents at a time, or shorten what each brings";
            let message = status.message().to_owned();
            let failure = Self::of(exit::ERROR, COMMAND_TOO_LARGE, message, remedy).at("request");
            return Self { code: code_word(status.code()).into(), ..failure };
        }
        let error = api::status::ClientError::from(status.clone());
        let violations =
            error.violations.iter().map(|it| (it.field.clone(), it.description.clone()));
        Self {
            code: code_word(error.code).into(),
            reason: error.reason,
            field: error.field,
            message: error.message,
            remedy: error.remedy,
            metadata: error.metadata,
            violations: violations.collect(),
            exit: exit::ERROR,
        }
    }

    /// A failure with another exit code and reason.
    pub fn of(exit: u8, reason: &str, message: String, remedy: &str) -> Self {
        Self { reason: reason.into(), code: reason.into(), exit, ..Self::usage(message, remedy) }
    }

    /// The same, about a field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The same, with what was attempted before what went wrong.
    #[must_use]
    pub fn because(mut self, attempt: &str) -> Self {
        self.message = format!("{attempt}: {}", self.message);
        self
    }

    /// What to do about it; empty if nothing is known.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// The same, with another remedy.
    #[must_use]
    pub fn then(mut self, remedy: &str) -> Self {
        self.remedy = remedy.to_owned();
        self
    }

    /// Says it on standard error, and gives the exit code.
    pub fn show(&self, output: Output) -> ExitCode {
        let mut err = std::io::stderr().lock();
        // With nobody to tell, the exit code is all that is left.
        let _ = if output.is_structured() {
            writeln!(err, "{}", self.to_json())
        } else {
            write!(err, "{}", self.to_text())
        };
        ExitCode::from(self.exit)
    }

    /// What is shown to programs.
    pub fn to_json(&self) -> serde_json::Value {
        json!({ "error": {
            "code": self.code,
            "reason": self.reason,
            "field": self.field,
            "message": self.message,
            "remedy": self.remedy,
            "metadata": self.metadata,
            "violations": self.violations.iter().map(|(field, description)| {
                json!({ "field": field, "description": description })
            }).collect::<Vec<_>>(),
        }})
    }

    fn to_text(&self) -> String {
        let mut text = if self.reason == "USAGE" {
            format!("error: {}\n", self.message)
        } else if self.reason.is_empty() {
            format!("error: {}: {}\n", self.code, self.message)
        } else {
            format!("error: {}: {}\n", self.reason, self.message)
        };
        if self.violations.len() > 1 {
            for (field, description) in &self.violations {
                text.push_str(&format!("  {field}: {description}\n"));
            }
        } else if !self.field.is_empty() {
            text.push_str(&format!("  field: {}\n", self.field));
        }
        for (name, value) in &self.metadata {
            text.push_str(&format!("  {name}: {value}\n"));
        }
        if !self.remedy.is_empty() {
            text.push_str(&format!("  remedy: {}\n", self.remedy));
        }
        text
    }
}

/// Whether a node refused to read a request for its size: gRPC says so before muster could.
fn is_too_large(status: &tonic::Status) -> bool {
    let limit = format!("the limit is: {REQUEST_BYTES_MAX} bytes");
    status.code() == tonic::Code::OutOfRange && status.message().ends_with(&limit)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A gRPC code as its users write it.
fn code_word(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_reason_field_and_remedy() {
        let failure = Failure {
            metadata: BTreeMap::from([("was".into(), "3".into())]),
            ..Failure::of(exit::ERROR, "PARTITIONS_CHANGED", "no".into(), "do").at("spec.x")
        };
        let expected = "error: PARTITIONS_CHANGED: no\n  field: spec.x\n  was: 3\n  remedy: do\n";
        assert_eq!(failure.to_text(), expected);
        assert_eq!(failure.to_json()["error"]["field"], "spec.x");
    }
    #[test]
    fn a_request_too_large_to_be_read_has_the_reason_of_one_too_large_for_the_log() {
        let message = format!("found 9 bytes, the limit is: {REQUEST_BYTES_MAX} bytes");
        let failure = Failure::from_status(&tonic::Status::out_of_range(message));
        assert_eq!(
            (failure.reason.as_str(), failure.code.as_str()),
            (COMMAND_TOO_LARGE, "OUT_OF_RANGE")
        );
        assert!(!failure.field.is_empty() && !failure.remedy.is_empty());
        let other = Failure::from_status(&tonic::Status::out_of_range("the limit is: 1 bytes"));
        assert_eq!(other.reason, "");
    }
}
