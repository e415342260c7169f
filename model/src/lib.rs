//! The domain of muster: nouns, commands, events, and the two functions that rule them.
//!
//! `decide(&State, &Context, &Command)` refuses a command or says what will happen; `evolve` is the
//! only writer of state and never refuses. Both are pure: no IO, no async, no clock, no dice, no hash
//! order. The replicated log holds commands, so every control node decides alike.
//!
//! Reading order: [`Name`], [`Meta`], the nouns ([`Tenant`], [`Host`], [`Cluster`], [`Package`],
//! [`Deployment`], [`Job`]), [`Command`], then `decide`, `evolve`, `rollup`, `invariants`.

mod access;
mod apply;
mod cluster;
mod command;
mod decide;
mod deployment;
mod digest;
mod due;
mod event;
mod evolve;
mod feasible;
mod hash;
mod host;
mod id;
mod index;
pub mod invariants;
mod job;
mod lease;
pub mod limits;
mod load;
mod meta;
mod name;
mod outlook;
mod package;
mod read;
pub mod rejection;
pub mod retry;
mod rollup;
mod rules;
mod state;
mod table;
mod tally;
mod tenant;
mod time;
mod workload;

pub use access::{Caller, ControlNode, RemovedNode, Role, RoleBinding, Scope, Token, TokenKind};
pub use apply::{Applied, Stamp};
pub use cluster::{Cluster, ClusterSpec};
pub use command::{Assign, Command, Context, Draft, HostProfile, Report, RequestId};
pub use decide::{decide, is_evictable, is_placeable, rollout_room};
pub use deployment::{
    Counts, Deployment, DeploymentCluster, DeploymentRevision, DeploymentSpec, DeploymentState,
    Override, Strategy, Targets,
};
pub use digest::{BadDigest, Digest};
pub use event::{Event, Removal, Retirement, Summary, Written};
pub use evolve::evolve;
pub use feasible::{Obstacle, feasible};
pub use hash::HASH_FORMAT;
pub use host::{Component, Contact, DriverKind, Facts, Host, HostState, Resources};
pub use id::{Assignment, NodeId, Revision, Uid};
pub use job::{
    Current, Job, JobError, JobKey, Phase, Placement, ReportNumber, Scheduled, Slot, Trouble,
    Workload,
};
pub use lease::{Heartbeats, LeaseTimes, Standing, standing};
pub use load::Loading;
pub use meta::{Condition, Deletion, Indicator, Labels, Meta, OwnerRef, Status};
pub use name::{BadName, Name};
pub use outlook::{Outlook, Outlooks, Settling};
pub use package::{Application, Image, OnDisconnect, Package, Value, Version};
pub use read::Order;
pub use rejection::{Class, Outcome, Rejection, Reply};
pub use rules::RULES_MAX;
pub use state::{Change, Due, Globals, Key, Row, State, Tombstone};
pub use table::Table;
pub use tenant::Tenant;
pub use time::{Clock, Timestamp};
pub use workload::{expected_jobs, expected_workload, is_in_line, is_update};
