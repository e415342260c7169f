//! Every code of a refusal, with its class and what to do about it.

use super::{Class, Rejection};
use std::{collections::BTreeMap, fmt::Display};

macro_rules! codes {
    ($($variant:ident, $text:literal, $class:ident, $remedy:literal;)*) => {
        /// Why something was refused. Each has a paragraph in `docs/rejections.md`. Answers are remembered
        /// in the state: another text, class or remedy is another decision, and needs a rules level.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the paragraphs in docs/rejections.md explain each")]
        pub enum Code { $($variant,)* }

        /// All codes, in the order of `docs/rejections.md`.
        pub const CODES: &[&str] = &[$($text,)*];

        impl Code {
            /// The stable text, such as `PARTITIONS_CHANGED`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Its class.
            pub fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    UnknownTenant, "UNKNOWN_TENANT", NotFound, "create the tenant first, or correct its name";
    UnknownHost, "UNKNOWN_HOST", NotFound, "register the host first, or correct its name";
    UnknownCluster, "UNKNOWN_CLUSTER", NotFound, "create the cluster first, or correct its name";
    UnknownImage, "UNKNOWN_IMAGE", NotFound, "push the image first, or correct its digest";
    UnknownPackage, "UNKNOWN_PACKAGE", NotFound, "store the package version first, or correct it";
    UnknownProfile, "UNKNOWN_PROFILE", NotFound, "leave the profile out: this package has none";
    UnknownApplication, "UNKNOWN_APPLICATION", NotFound, "name an application of the package";
    UnknownDeployment, "UNKNOWN_DEPLOYMENT", NotFound, "correct the deployment's name";
    UnknownJob, "UNKNOWN_JOB", NotFound, "read the jobs again";
    UnknownBinding, "UNKNOWN_BINDING", NotFound, "list the role bindings of the operator";
    UnknownToken, "UNKNOWN_TOKEN", NotFound, "list the tokens";
    UnknownNode, "UNKNOWN_NODE", NotFound, "list the control nodes";
    Exists, "EXISTS", AlreadyExists, "choose another name, or change the one that exists";
    Conflict, "CONFLICT", Aborted, "read the resource again and repeat the change";
    PackageImmutable, "PACKAGE_IMMUTABLE", AlreadyExists, "store the change under a new version";
    LabelSyntax, "LABEL_SYNTAX", InvalidArgument,
        "use keys [prefix/]name and values of at most 63 characters of A-Z, a-z, 0-9, '.', '_', '-'";
    TooMany, "TOO_MANY", ResourceExhausted, "split it into smaller parts";
    TooLarge, "TOO_LARGE", ResourceExhausted, "shorten it, or store large content as an artifact";
    Range, "RANGE", InvalidArgument, "choose a value within the range";
    VersionSyntax, "VERSION_SYNTAX", InvalidArgument,
        "use 1 to 40 characters of A-Z, a-z, 0-9, '.', '+', '-', starting with a letter or digit";
    EnvSyntax, "ENV_SYNTAX", InvalidArgument,
        "use names of letters, digits and '_' that do not start with a digit or with MUSTER_";
    DisplayName, "DISPLAY_NAME", InvalidArgument, "use 1 to 40 printable characters";
    Duplicate, "DUPLICATE", InvalidArgument, "name each once";
    Empty, "EMPTY", InvalidArgument, "name at least one";
    ArtifactMain, "ARTIFACT_MAIN", InvalidArgument, "give the artifact with the role 'main'";
    StopGrace, "STOP_GRACE", InvalidArgument,
        "choose a shorter grace, or another policy for lost contact";
    UnsuitableSelector, "UNSUITABLE_SELECTOR", InvalidArgument, "give 1 to 10 pairs";
    AddressSyntax, "ADDRESS_SYNTAX", InvalidArgument, "write it as host:port";
    HashSyntax, "HASH_SYNTAX", InvalidArgument, "write 64 lower-case hexadecimal digits";
    NestedBatch, "NESTED_BATCH", InvalidArgument, "put all commands into one batch";
    RequestExpired, "REQUEST_EXPIRED", FailedPrecondition,
        "find out whether the first try was carried out, then send it with a new request id";
    FieldOwner, "FIELD_OWNER", PermissionDenied, "leave it to the one who owns it";
    InUse, "IN_USE", FailedPrecondition, "change or delete what uses it first";
    Deleting, "DELETING", FailedPrecondition, "wait until the deletion is done";
    PartitionsChanged, "PARTITIONS_CHANGED", FailedPrecondition,
        "keep the number, or delete the deployment and deploy it anew";
    HostTaken, "HOST_TAKEN", FailedPrecondition, "take the host out of its cluster first";
    HostConnected, "HOST_CONNECTED", FailedPrecondition, "cordon or delete the host instead";
    HostDeleted, "HOST_DELETED", FailedPrecondition,
        "the agent has to stop everything; register the host again to use it";
    UntrustedHost, "UNTRUSTED_HOST", Unauthenticated,
        "delete the host and register it again to trust it";
    HostEnrolled, "HOST_ENROLLED", AlreadyExists,
        "choose another name, or declare the host lost once a broken machine is out of contact";
    HostReplaced, "HOST_REPLACED", Unauthenticated,
        "remove the agent's data and join with a new token, under another name";
    NodeAlive, "NODE_ALIVE", Aborted, "do nothing: the node that holds the session is back";
    StaleSession, "STALE_SESSION", Aborted, "do nothing: a newer session is in force";
    StalePlan, "STALE_PLAN", Aborted, "plan again from the state as it is now";
    StaleReport, "STALE_REPORT", Aborted, "do nothing: the assignment is not in force any more";
    ReportInvalid, "REPORT_INVALID", InvalidArgument, "correct the agent";
    Placed, "PLACED", FailedPrecondition, "leave the job where it is, or evict it first";
    JobInactive, "JOB_INACTIVE", FailedPrecondition, "leave the job: it is not to run";
    Unfeasible, "UNFEASIBLE", FailedPrecondition, "choose another host";
    RolloutLimit, "ROLLOUT_LIMIT", FailedPrecondition,
        "wait until more partitions run, or raise strategy.max_unavailable";
    NotEvictable, "NOT_EVICTABLE", FailedPrecondition,
        "wait for the host, or declare it lost if it will not return";
    TokenInvalid, "TOKEN_INVALID", Unauthenticated, "make a new token with muster token create";
    TokenExpired, "TOKEN_EXPIRED", Unauthenticated, "make a new token with muster token create";
    TokenSpent, "TOKEN_SPENT", Unauthenticated, "make a new token with muster token create";
    TokenKind, "TOKEN_KIND", Unauthenticated, "use a token made for this purpose";
    LastAdmin, "LAST_ADMIN", FailedPrecondition, "make another operator admin first";
    LastNode, "LAST_NODE", FailedPrecondition, "add another control node first";
    NodeRemoved, "NODE_REMOVED", PermissionDenied,
        "remove its data folder and join it anew with a token: `muster cluster add` makes one";
    RulesUnknown, "RULES_UNKNOWN", FailedPrecondition,
        "upgrade or remove the control nodes that do not know the level";
    RulesBackwards, "RULES_BACKWARDS", FailedPrecondition, "keep the level: it only rises";
}

impl Code {
    /// A refusal with this code; `message` is one sentence.
    pub fn reject(self, message: impl Into<String>) -> Rejection {
        Rejection {
            class: self.class(),
            code: self.as_str().into(),
            message: message.into(),
            field: String::new(),
            remedy: self.remedy().into(),
            details: BTreeMap::new(),
        }
    }
}

impl Rejection {
    /// Names the field that is to blame.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.details.insert(key.into(), value.to_string());
        self
    }

    /// Puts `outer` before the path of the field.
    #[must_use]
    pub(crate) fn within(mut self, outer: &str) -> Self {
        self.field = match (self.field.as_str(), outer) {
            ("", outer) => outer.into(),
            (field, outer) => format!("{outer}.{field}"),
        };
        self
    }
}
