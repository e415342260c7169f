//! What goes in at the server comes out at the client.

use super::*;
use proptest::prelude::*;

fn classes() -> impl Strategy<Value = Class> {
    proptest::sample::select(vec![
        Class::InvalidArgument,
        Class::NotFound,
        Class::AlreadyExists,
        Class::Aborted,
        Class::FailedPrecondition,
        Class::PermissionDenied,
        Class::Unauthenticated,
        Class::ResourceExhausted,
    ])
}

proptest! {
    #[test]
    fn a_refusal_survives_the_wire(
        class in classes(),
        code in "[A-Z][A-Z_]{0,20}",
        message in "\\PC{0,80}",
        field in "[a-z.\\[\\]0-9]{0,40}",
        remedy in "\\PC{0,80}",
        details in proptest::collection::btree_map("[a-c]{1,4}", "\\PC{0,20}", 0..4),
    ) {
        let rejection = Rejection { class, code, message, field, remedy, details };
        let error = ClientError::from(rejected(&rejection));
        prop_assert!(error.certainly_not_done);
        prop_assert_eq!(error.code, code_of(class));
        if !error.is_worth_repeating() {
            prop_assert_eq!(error.rejection(), Some(rejection));
        }
    }
}

#[test]
fn only_an_unknown_outcome_may_have_been_done() {
    let certain = [
        unavailable_not_leader(Some(NodeId(2))),
        unavailable_not_leader(None),
        revision_not_reached(Revision(9), Revision(7)),
        overloaded(),
        command_too_large(2, 1),
        stopped(),
        state_disputed(),
        compacted(Revision(7)),
        lagged(Revision(9)),
        upload_offset(1_024),
        host_not_connected(),
        fault(),
    ];
    let mut reasons = vec![reason::FIELD.to_owned(), reason::UNKNOWN_OUTCOME.to_owned()];
    for status in certain {
        let error = ClientError::from(status);
        assert!(error.certainly_not_done, "{error}");
        assert!(!error.remedy.is_empty(), "{error}");
        reasons.push(error.reason);
    }
    assert!(!ClientError::from(unknown_outcome()).certainly_not_done);
    assert!(!ClientError::from(Status::unavailable("broken pipe")).certainly_not_done);
    // What is said of members is worded where they are changed.
    let of_members = [
        reason::LEARNER,
        reason::NODE_SILENT,
        reason::NOT_CAUGHT_UP,
        reason::NOT_TAKEN_OVER,
        reason::NO_SUCCESSOR,
        reason::QUORUM_AT_RISK,
    ];
    reasons.extend(of_members.map(str::to_owned));
    reasons.sort();
    let mut all: Vec<&str> = reason::REASONS.to_vec();
    all.sort();
    assert_eq!(reasons, all);
}

#[test]
fn facts_of_errors_reach_the_client() {
    let fact = |status, key: &str| ClientError::from(status).metadata.get(key).cloned();
    assert_eq!(fact(unavailable_not_leader(Some(NodeId(2))), "leader").as_deref(), Some("2"));
    assert_eq!(fact(unavailable_not_leader(None), "leader"), None);
    let behind = revision_not_reached(Revision(9), Revision(7));
    assert_eq!(fact(behind, "revision").as_deref(), Some("7"));
    assert_eq!(fact(compacted(Revision(7)), "oldest").as_deref(), Some("7"));
    assert_eq!(fact(lagged(Revision(9)), "resume_revision").as_deref(), Some("9"));
    assert_eq!(fact(upload_offset(5), "offset").as_deref(), Some("5"));
}

#[test]
fn many_faults_are_cut_to_what_headers_carry_and_counted() {
    let rejection = Rejection {
        class: Class::InvalidArgument,
        code: "IMAGE_LAYOUT".to_owned(),
        message: "the image breaks the layout".to_owned(),
        field: String::new(),
        remedy: "correct the image".to_owned(),
        details: BTreeMap::new(),
    };
    let fault = Violation { field: "ä".repeat(400), description: "x".repeat(400) };
    let status = rejected_with(&rejection, &vec![fault; 1_000]);
    assert!(status.details().len() < 48 << 10, "{}", status.details().len());
    let error = ClientError::from(status);
    assert_eq!(error.violations.len(), VIOLATIONS_MAX);
    assert_eq!(error.metadata.get("violations").unwrap(), "1000");
}

#[test]
fn an_error_of_another_domain_is_not_taken_for_ours() {
    let details = ErrorDetails::with_error_info(
        "EXISTS",
        "other.example",
        [("done", "no")].map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let error = ClientError::from(Status::with_error_details(Code::AlreadyExists, "x", details));
    assert_eq!((error.reason.as_str(), error.certainly_not_done), ("", false));
    assert_eq!(error.rejection(), None);
}
