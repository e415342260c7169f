//! Every value of the model survives its message, and every message that lacks something is refused by
//! the field it lacks.

#[path = "strategies.rs"]
mod strategies;

use super::*;
use model::{Change, Command, Outcome, Reply, Revision};
use proptest::prelude::*;
use strategies as any_of;

#[test]
fn a_status_says_when_it_is_tried_again_and_for_how_long_copies_have_been_up() {
    use model::{Outlook, Settling, Timestamp};
    let said = |indicator: v1::Indicator, jobs, until| {
        let text = "0 of 2 partitions running".to_owned();
        let mut status =
            Some(v1::Status { indicator: indicator.into(), text, ..v1::Status::default() });
        let settling = Settling { jobs, until: Timestamp(until) };
        let outlook = Outlook { next_retry_at: Some(Timestamp(90_000)), settling };
        deployment::foresee(&mut status, &outlook, Timestamp(70_000));
        let status = status.unwrap();
        assert_eq!(status.next_retry_at.unwrap().seconds, 90);
        status.text
    };
    let none = "0 of 2 partitions running";
    assert_eq!(said(v1::Indicator::InProgress, 0, 0), none);
    assert_eq!(said(v1::Indicator::Idle, 1, 76_000), none, "it runs");
    let some = said(v1::Indicator::Error, 2, 76_000);
    assert_eq!(some, format!("{none}; 2 up, healthy for 4 s of 10 s"));
    // Clocks of nodes differ a little.
    assert!(said(v1::Indicator::Error, 1, 85_000).ends_with("; 1 up, healthy for 0 s of 10 s"));
    assert!(said(v1::Indicator::Error, 1, 60_000).ends_with("; 1 up, healthy for 10 s of 10 s"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_row_survives_its_message((key, found) in any_of::row()) {
        let message = row(&key, &found).unwrap();
        prop_assert_eq!(from_resource(message), Ok((key, found)));
    }

    #[test]
    fn every_row_survives_json((key, found) in any_of::row()) {
        let schema = crate::json::Schema::load().unwrap();
        let message = row(&key, &found).unwrap();
        let json = schema.write(&message).unwrap();
        prop_assert_eq!(schema.read::<v1::Resource>(&json), Ok(message), "{}", json);
    }

    #[test]
    fn every_resource_name_says_its_key((key, _row) in any_of::row()) {
        let name = crate::resource::format(&key).unwrap();
        prop_assert_eq!(crate::resource::parse("resource", &name), Ok(key.clone()));
        let tenant = crate::resource::tenant(&name);
        prop_assert_eq!(tenant.is_some(), name.starts_with("tenants/"));
    }

    #[test]
    fn every_draft_survives_its_document(command in any_of::apply()) {
        let document = draft::document(&command).unwrap();
        prop_assert_eq!(draft::command(document.clone()), Ok(command.clone()));
        let batch = draft::batch(vec![document.clone(), document]);
        prop_assert_eq!(batch, Ok(Command::Batch(vec![command.clone(), command])));
    }

    #[test]
    fn orders_and_reports_survive_their_messages(order in any_of::order(), report in any_of::report()) {
        let message = session::order_to_proto(&order);
        prop_assert_eq!(session::order_from_proto(message), Ok(order.clone()));
        let message = session::report_to_proto(&report);
        prop_assert_eq!(session::report_from_proto(message), Ok(report));
        let message = session::removed_to_proto(&order.key, order.assignment);
        prop_assert_eq!(session::removed_from_proto(message), Ok((order.key, order.assignment)));
    }

    #[test]
    fn profiles_survive_their_messages(profile in any_of::profile()) {
        let message = host::profile_to_proto(&profile);
        prop_assert_eq!(host::profile_from_proto(message), Ok(profile));
    }

    #[test]
    fn answers_to_reports_survive_their_messages(
        results in proptest::collection::vec(proptest::result::maybe_ok(Just(()), any_of::rejection()), 0..5),
    ) {
        let message = session::taken_to_proto(7, &results);
        prop_assert_eq!(session::taken_from_proto(message), Ok(results));
    }

    /// Bytes of anybody are decoded to a message, and the message to a row or a refusal: no panic.
    #[test]
    fn any_message_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = <v1::Resource as prost::Message>::decode(bytes.as_slice()) {
            let _ = from_resource(message);
        }
        if let Ok(message) = <v1::Document as prost::Message>::decode(bytes.as_slice()) {
            let _ = draft::command(message);
        }
    }
}

fn a_deployment() -> v1::DeploymentDraft {
    v1::DeploymentDraft {
        resource: "tenants/acme/deployments/shop".to_owned(),
        spec: Some(v1::DeploymentSpec {
            package: "shop".to_owned(),
            version: "1.0.0".to_owned(),
            targets: Some(v1::Targets {
                targets: Some(v1::targets::Targets::Clusters(v1::ClusterNames {
                    names: vec!["north".to_owned()],
                })),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn refused_field(change: impl FnOnce(&mut v1::DeploymentDraft)) -> String {
    let mut deployment = a_deployment();
    change(&mut deployment);
    let rejection = draft::apply(Some(v1::document::Draft::Deployment(deployment))).unwrap_err();
    assert_eq!(rejection.code, crate::reason::FIELD);
    assert!(!rejection.remedy.is_empty());
    rejection.field
}

#[test]
fn a_refusal_names_the_field_by_its_path() {
    assert!(draft::apply(Some(v1::document::Draft::Deployment(a_deployment()))).is_ok());
    let cases = [
        (refused_field(|draft| draft.resource.clear()), "deployment.resource"),
        (
            refused_field(|draft| draft.resource = "tenants/acme/hosts/shop".to_owned()),
            "deployment.resource",
        ),
        (refused_field(|draft| draft.spec = None), "deployment.spec"),
        (
            refused_field(|draft| draft.spec.as_mut().unwrap().package = "Shop".to_owned()),
            "deployment.spec.package",
        ),
        (
            refused_field(|draft| draft.spec.as_mut().unwrap().targets = None),
            "deployment.spec.targets",
        ),
        (
            refused_field(|draft| {
                let targets = draft.spec.as_mut().unwrap().targets.as_mut().unwrap();
                targets.targets = Some(v1::targets::Targets::Clusters(v1::ClusterNames {
                    names: vec!["north".to_owned(), "south".to_owned(), "north".to_owned()],
                }));
            }),
            "deployment.spec.targets.clusters.names[2]",
        ),
        (
            refused_field(|draft| {
                let change = v1::Override {
                    env: [("A".to_owned(), v1::Value { value: None })].into(),
                    ..Default::default()
                };
                draft.spec.as_mut().unwrap().overrides = [("web".to_owned(), change)].into();
            }),
            "deployment.spec.overrides[\"web\"].env[\"A\"].value",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_left_out_of_a_draft_has_its_documented_default() {
    let command = draft::apply(Some(v1::document::Draft::Deployment(a_deployment()))).unwrap();
    let Command::ApplyDeployment { spec, draft, .. } = command else { panic!("{command:?}") };
    assert_eq!(spec.strategy.max_unavailable, 1);
    assert_eq!(draft.if_revision, None);
}

#[test]
fn a_service_deletes_its_own_noun_only() {
    let delete = |kind, resource: &str, force| {
        let request =
            v1::DeleteRequest { resource: resource.to_owned(), force, ..Default::default() };
        command::delete(kind, &request).map_err(|rejection| rejection.field)
    };
    assert!(delete(v1::Kind::Host, "tenants/acme/hosts/h1", true).is_ok());
    assert!(delete(v1::Kind::Tenant, "tenants/acme", false).is_ok());
    assert_eq!(delete(v1::Kind::Host, "tenants/acme", false), Err("resource".to_owned()));
    assert_eq!(delete(v1::Kind::Tenant, "tenants/acme", true), Err("force".to_owned()));
    assert_eq!(
        delete(v1::Kind::Job, "tenants/acme/jobs/a/b/c/0", false),
        Err("resource".to_owned())
    );
    assert_eq!(delete(v1::Kind::Unspecified, "x", false), Err("resource".to_owned()));
}

#[test]
fn too_many_documents_or_none_are_refused() {
    assert_eq!(draft::batch(Vec::new()).unwrap_err().field, "documents");
    let many = vec![v1::Document::default(); crate::limits::DOCUMENTS_MAX + 1];
    assert_eq!(draft::batch(many).unwrap_err().field, "documents");
    let empty = draft::batch(vec![v1::Document::default()]).unwrap_err();
    assert_eq!(empty.field, "documents[0].draft");
}

#[test]
fn numbers_out_of_an_enum_are_refused() {
    let report = v1::Report { phase: 99, ..session::report_to_proto(&any_of::a_report()) };
    assert_eq!(session::report_from_proto(report).unwrap_err().field, "phase");
    let report = v1::Report { phase: 0, ..session::report_to_proto(&any_of::a_report()) };
    assert_eq!(session::report_from_proto(report).unwrap_err().field, "phase");
}

#[test]
fn times_that_the_model_cannot_hold_are_refused() {
    let times = [(-1, 0), (0, -1), (0, 1), (0, 1_000_000_000), (i64::MAX, 0), (253_402_300_800, 0)];
    for (seconds, nanos) in times {
        let time = prost_types::Timestamp { seconds, nanos };
        let rejection = time_from_proto("at", Some(time)).unwrap_err();
        assert_eq!(rejection.field, "at", "{seconds} {nanos}");
    }
}

#[test]
fn a_watcher_is_told_what_happened_to_a_row() {
    let host = |cordoned| {
        let message = r#"{"meta": {"resource": "tenants/acme/hosts/h1", "name": "h1", "uid": "4-0",
            "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z"},
            "state": "REGISTERED", "contact": {"state": "NEVER"}, "capacity": {}, "facts": {},
            "status": {}}"#;
        let schema = crate::json::Schema::load().unwrap();
        let message: v1::Host = schema.read(&serde_json::from_str(message).unwrap()).unwrap();
        let (_tenant, mut host) = host::from_proto(message).unwrap();
        host.cordoned = cordoned;
        Row::Host(Arc::new(host))
    };
    let key = crate::resource::parse("", "tenants/acme/hosts/h1").unwrap();
    let moment =
        watch::Moment { revision: Revision(9), time: Timestamp(1), caller: &model::Caller::System };
    let tell = |before: Option<Row>, after: Option<Row>, previous| {
        watch::event(&moment, &Change { key: key.clone(), before, after }, previous).unwrap()
    };
    let added = tell(None, Some(host(false)), true);
    assert_eq!(added.r#type(), v1::WatchType::Added);
    assert_eq!((added.name.as_str(), added.kind()), ("tenants/acme/hosts/h1", v1::Kind::Host));
    assert!(added.resource.is_some() && added.previous.is_none());
    let changed = tell(Some(host(false)), Some(host(true)), true);
    assert_eq!(changed.r#type(), v1::WatchType::Modified);
    assert_ne!(changed.resource, changed.previous);
    let gone = tell(Some(host(true)), None, false);
    assert_eq!(gone.r#type(), v1::WatchType::Deleted);
    assert!(gone.resource.is_none() && gone.previous.is_none());
}

#[test]
fn answers_say_what_was_touched() {
    let done = |resource: &str, changed| Reply::Done { resource: resource.to_owned(), changed };
    let one = Outcome { revision: Revision(5), result: Ok(done("tenants/a", false)) };
    let answer = outcome::outcome(&one).unwrap();
    assert_eq!(
        (answer.resource.as_str(), answer.changed, answer.revision),
        ("tenants/a", false, 5)
    );
    let batch = Reply::Batch(vec![done("tenants/a", false), done("tenants/b", true)]);
    let several = Outcome { revision: Revision(6), result: Ok(batch) };
    let answer = outcome::apply_response(&several).unwrap();
    assert_eq!((answer.outcomes.len(), answer.revision), (2, 6));
    assert!(answer.outcomes.last().unwrap().changed);
    let refused = Outcome { revision: Revision(7), result: Err(any_of::a_rejection()) };
    assert_eq!(outcome::outcome(&refused), Err(any_of::a_rejection()));
}
