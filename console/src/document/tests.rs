//! Documents that are read, and documents that are refused with the field or line.

use super::*;

const GOOD: &str = "
apiVersion: muster/v1
kind: Cluster
metadata: {name: north, labels: {color: blue}}
spec: {environment: production, members: [h1, h2]}
---
apiVersion: muster/v1
kind: Deployment
metadata:
  name: shop
spec:
  package: shop
  version: '1.0'
  targets: {selector: {color: blue}}
  overrides:
    web: {numPartitions: 3, env: {A: b}, limits: {cpu: 250m, memory: 64MiB}}
";

#[test]
fn several_documents_are_read_in_order() {
    let all = parse("f.yaml", GOOD, "acme").unwrap();
    let names: Vec<_> = all.iter().map(|it| resource(&it.document)).collect();
    assert_eq!(names, ["tenants/acme/clusters/north", "tenants/acme/deployments/shop"]);
    let Some(v1::document::Draft::Deployment(draft)) = &all[1].document.draft else {
        unreachable!("the second is a deployment")
    };
    let web = &draft.spec.as_ref().unwrap().overrides["web"];
    assert_eq!(web.num_partitions, Some(3));
    assert_eq!(web.limits.unwrap().memory_bytes, 64 << 20);
}

#[test]
fn a_fault_is_placed_in_the_file_and_not_in_its_document() {
    let text = GOOD.replace("package: shop", "package: [shop]");
    let line = text.lines().position(|line| line.contains("[shop]")).unwrap() + 1;
    let failure = parse("f.yaml", &text, "acme").unwrap_err();
    assert!(failure.message.contains(&format!("line {line}")), "{failure:?}");
}

#[test]
fn what_is_wrong_is_named() {
    let head = "apiVersion: muster/v1\n";
    let deploy = "kind: Deployment\nmetadata: {name: a}\nspec: ";
    let package = "kind: Package\nmetadata: {name: a}\nspec: ";
    let cases = [
        ("no yaml", "a: [".to_owned()),
        ("no version", "kind: Tenant\nmetadata: {name: a}".to_owned()),
        ("other version", "apiVersion: v2\nkind: Tenant\nmetadata: {name: a}".to_owned()),
        ("unknown kind", format!("{head}kind: Pod\nmetadata: {{name: a}}")),
        ("no kind", format!("{head}metadata: {{name: a}}")),
        ("no name", format!("{head}kind: Tenant\nmetadata: {{}}")),
        ("no metadata", format!("{head}kind: Tenant")),
        ("unknown field above", format!("{head}kind: Tenant\nmetadata: {{name: a}}\nstatus: {{}}")),
        ("unknown metadata", format!("{head}kind: Tenant\nmetadata: {{name: a, x: b}}")),
        ("unknown spec field", format!("{head}kind: Host\nmetadata: {{name: a}}\nspec: {{x: b}}")),
        ("list for text", format!("{head}kind: Host\nmetadata: {{name: a}}\nspec: {{zone: [b]}}")),
        ("no targets", format!("{head}{deploy}{{package: p, version: v}}")),
        (
            "both targets",
            format!(
                "{head}{deploy}{{package: p, version: v, targets: {{clusters: [c], selector: {{a: b}}}}}}"
            ),
        ),
        ("neither target", format!("{head}{deploy}{{package: p, version: v, targets: {{}}}}")),
        (
            "bad memory",
            format!(
                "{head}{deploy}{{package: p, version: v, targets: {{clusters: [c]}}, overrides: {{w: {{limits: {{memory: lots}}}}}}}}"
            ),
        ),
        (
            "bad driver",
            format!(
                "{head}{package}{{version: v, applications: [{{name: a, version: v, driver: jar, numPartitions: 1, image: d}}]}}"
            ),
        ),
        (
            "bad policy",
            format!(
                "{head}{package}{{version: v, applications: [{{name: a, version: v, driver: wasm, numPartitions: 1, image: d, onDisconnect: hope}}]}}"
            ),
        ),
        (
            "bad role",
            format!("{head}kind: RoleBinding\nmetadata: {{name: a}}\nspec: {{role: king}}"),
        ),
    ];
    for (case, text) in cases {
        let failure = parse("f.yaml", &text, "acme").expect_err(case);
        assert!(failure.message.contains("f.yaml"), "{case}: {failure:?}");
        assert!(!failure.remedy.is_empty(), "{case}");
        let located = !failure.field.is_empty() || failure.message.contains("line");
        assert!(located, "{case} says where: {failure:?}");
    }
}

#[tokio::test]
async fn the_tenant_is_asked_only_for_documents_that_name_none_and_its_failure_is_told() {
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("apiVersion: muster/v1\n{text}\n")).unwrap();
        file
    };
    let missing = || Failure::of(crate::failure::exit::ERROR, "NO_LEADER", "none".into(), "wait");
    for (text, asks) in [
        ("kind: Tenant\nmetadata: {name: t}", false),
        ("kind: Cluster\nmetadata: {name: c, tenant: t}", false),
        ("kind: Cluster\nmetadata: {name: c}", true),
    ] {
        let found = read(file(text).path(), async || Err(missing())).await;
        assert_eq!(found.is_err(), asks, "{text}");
        if let Err(failure) = found {
            assert_eq!(failure, missing(), "the document is not to blame");
        }
    }
}

#[tokio::test]
async fn as_many_documents_as_the_rules_take_are_read_and_one_more_is_refused() {
    let acme = async || Ok("acme".to_owned());
    let write = |number: usize| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let one = |at| format!("apiVersion: muster/v1\nkind: Tenant\nmetadata: {{name: t{at}}}\n");
        fs::write(file.path(), (0..number).map(one).collect::<Vec<_>>().join("---\n")).unwrap();
        file
    };
    assert_eq!(read(write(500).path(), acme).await.unwrap().len(), 500);
    let refused = read(write(501).path(), acme).await.unwrap_err();
    assert_eq!((refused.exit, refused.field.as_str()), (crate::failure::exit::USAGE, "file"));
    assert!(refused.remedy.contains("500"), "{}", refused.remedy);
}
