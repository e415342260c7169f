//! What a plan did and did not do, for people: kept by its owner and shown by `inspect`.

use std::fmt;

use model::JobKey;

/// Why a job has no host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// The job.
    pub key: JobKey,
    /// How many hosts fail which rule, and the first few of them.
    pub text: String,
}

/// The account of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Jobs brought in line with their deployments.
    pub synced: usize,
    /// Updates of running jobs that wait for earlier ones to run.
    pub held_back: usize,
    /// Updates that wait for a host to return.
    pub out_of_contact: usize,
    /// Copies on lost hosts given up.
    pub evicted: usize,
    /// Jobs given a host.
    pub placed: usize,
    /// Jobs that fit nowhere, in key order; those whose reason was noted before are among them.
    pub unplaced: Vec<Unplaced>,
    /// Whether time has made something due.
    pub settles: bool,
}

impl Report {
    pub(crate) fn join(&mut self, other: Self) {
        self.synced += other.synced;
        self.held_back += other.held_back;
        self.out_of_contact += other.out_of_contact;
        self.evicted += other.evicted;
        self.placed += other.placed;
        self.unplaced.extend(other.unplaced);
        self.settles |= other.settles;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut part = |count: usize, what: &str| {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        };
        part(self.synced, "jobs brought in line");
        part(self.held_back, "updates held back");
        part(self.out_of_contact, "updates wait for their host");
        part(self.evicted, "copies given up");
        part(self.placed, "jobs placed");
        part(self.unplaced.len(), "jobs fit nowhere");
        part(usize::from(self.settles), "settle due");
        match parts.is_empty() {
            true => f.write_str("nothing to do"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}
