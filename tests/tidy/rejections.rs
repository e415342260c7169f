//! Every code a user can meet has a paragraph that says what to do.

use crate::tree::root;
use std::{collections::BTreeSet, fs};

#[test]
fn every_rejection_code_is_documented() {
    let page = fs::read_to_string(root().join("docs/rejections.md")).unwrap();
    let codes = model::rejection::CODES;
    assert!(codes.len() >= 25);
    for code in codes.iter().chain(api::reason::REASONS) {
        assert!(page.contains(&format!("### {code}\n")), "docs/rejections.md lacks {code}");
    }
}

/// Where the reasons of jobs are given: each literal behind `=> "` or `= "` of capital letters is one.
const GIVE_REASONS: &[&str] = &[
    "agent/src/driver.rs",
    "agent/src/reconcile/failure.rs",
    "agent/src/executor.rs",
    "model/src/due.rs",
    "model/src/evolve/job.rs",
];

#[test]
fn every_reason_of_a_job_is_documented_and_no_other() {
    let page = fs::read_to_string(root().join("docs/job-reasons.md")).unwrap();
    let documented: Vec<_> = page.lines().filter_map(|it| it.strip_prefix("### ")).collect();
    let known: Vec<_> = api::job_reason::ALL.iter().map(|(code, _)| *code).collect();
    assert_eq!(documented, known, "docs/job-reasons.md and api::job_reason");
    let mut given = BTreeSet::new();
    for file in GIVE_REASONS {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for line in text
            .lines()
            .filter(|line| ["=> \"", "= \"", "reason: \""].iter().any(|it| line.contains(it)))
        {
            let word = line.split('"').nth(1).unwrap();
            if word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                given.insert(word.to_owned());
            }
        }
    }
    assert!(given.len() >= 15, "the walk must find the reasons: {given:?}");
    for code in &given {
        assert!(known.contains(&code.as_str()), "docs/job-reasons.md lacks {code}");
    }
    for code in known {
        assert!(given.contains(code), "{code} is documented, and nobody gives it");
    }
}
