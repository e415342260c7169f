//! How messages look to people, and what is refused of what they write.

use super::*;
use crate::v1;
use serde_json::json;

fn schema() -> Schema {
    Schema::load().unwrap()
}

#[test]
fn a_message_is_written_as_a_person_would() {
    let deployment = v1::Deployment {
        meta: Some(v1::Meta {
            resource: "tenants/acme/deployments/shop".to_owned(),
            created_at: Some(prost_types::Timestamp { seconds: 951_782_400, nanos: 5_000_000 }),
            ..Default::default()
        }),
        spec: Some(v1::DeploymentSpec {
            package: "shop".to_owned(),
            targets: Some(v1::Targets {
                targets: Some(v1::targets::Targets::Clusters(v1::ClusterNames {
                    names: vec!["north".to_owned()],
                })),
            }),
            overrides: [(
                "web".to_owned(),
                v1::Override {
                    env: [(
                        "MODE".to_owned(),
                        v1::Value { value: Some(v1::value::Value::Literal("fast".to_owned())) },
                    )]
                    .into(),
                    num_partitions: Some(0),
                    limits: None,
                },
            )]
            .into(),
            ..Default::default()
        }),
        state: v1::DeploymentState::NoTargetClusters.into(),
        ..Default::default()
    };
    let json = schema().write(&deployment).unwrap();
    assert_eq!(json["state"], json!("NO_TARGET_CLUSTERS"));
    assert_eq!(json["meta"]["created_at"], json!("2000-02-29T00:00:00.005Z"));
    assert_eq!(json["spec"]["targets"], json!({"clusters": ["north"]}));
    let change = json!({"env": {"MODE": "fast"}, "num_partitions": 0});
    assert_eq!(json["spec"]["overrides"]["web"], change);
    assert_eq!(json["in_progress"], json!(false));
    assert_eq!(json["revisions"], json!([]));
    assert_eq!(json.get("status"), None);
    assert_eq!(schema().read(&json), Ok(deployment));
}

#[test]
fn words_are_lower_case_where_the_proto_says_so_and_read_in_any_case() {
    let application = v1::Application {
        driver: v1::DriverKind::Wasm.into(),
        on_disconnect: v1::OnDisconnect::KeepRunning.into(),
        ..Default::default()
    };
    let mut json = schema().write(&application).unwrap();
    assert_eq!(json["driver"], json!("wasm"));
    assert_eq!(json["on_disconnect"], json!("keep_running"));
    for word in ["wasm", "WASM", "DRIVER_KIND_WASM"] {
        json["driver"] = json!(word);
        assert_eq!(schema().read(&json), Ok(application.clone()), "{word}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_its_path() {
    let cases = [
        (json!({"nmae": 1}), "nmae"),
        (
            json!({"applications": [{}, {"env": {"A": {"literals": ""}}}]}),
            "applications[1].env[\"A\"].literals",
        ),
        (json!({"applications": {"driver": "wasm"}}), "applications"),
        (json!({"applications": [{"driver": "docker"}]}), "applications[0].driver"),
        (json!({"applications": [{"driver": 1}]}), "applications[0].driver"),
        (json!({"applications": [{"driver": "unspecified"}]}), "applications[0].driver"),
        (json!({"applications": [{"num_partitions": -1}]}), "applications[0].num_partitions"),
        (
            json!({"applications": [{"num_partitions": 4_294_967_296_u64}]}),
            "applications[0].num_partitions",
        ),
        (json!({"applications": [{"num_partitions": 1.5}]}), "applications[0].num_partitions"),
        (json!({"applications": [{"version": 1}]}), "applications[0].version"),
        (json!({"if_revision": true}), "if_revision"),
        (json!({"labels": {"a": 1}}), "labels[\"a\"]"),
        (json!([]), ""),
    ];
    for (json, field) in cases {
        let rejection = schema().read::<v1::PackageDraft>(&json).unwrap_err();
        assert_eq!(rejection.field, field, "{json}");
        assert!(!rejection.remedy.is_empty());
    }
    let both = json!({"partition": 1, "host": "h1"});
    let rejection = schema().read::<v1::JobKey>(&both).unwrap_err();
    assert!(rejection.message.contains("only one"), "{rejection}");
    let rejection = schema().read::<v1::WatchEvent>(&json!({"time": "now"})).unwrap_err();
    assert_eq!(rejection.field, "time");
}

#[test]
fn nesting_has_an_end() {
    let mut json = json!({"name": "leaf"});
    for _ in 0..DEPTH_MAX {
        json = json!({"children": [json]});
    }
    assert!(schema().read::<v1::InspectTree>(&json).is_err());
}

#[test]
fn numbers_may_be_texts_and_nothing_may_be_null() {
    let json = json!({"revision": "18446744073709551615", "uid": null});
    let meta: v1::Meta = schema().read(&json).unwrap();
    assert_eq!((meta.revision, meta.uid.as_str()), (u64::MAX, ""));
    assert_eq!(schema().write(&meta).unwrap()["revision"], json!(u64::MAX));
}
