//! Bad input: each is refused with its own code, the place and a remedy, and nothing changes.

use crate::acme;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tests::Cluster;

/// What a refusal says: reasons or, for an image, the codes of its faults.
fn refusal(cluster: &Cluster, words: &[&str]) -> BTreeSet<String> {
    let mut all = vec!["-t", "acme", "-o", "json"];
    all.extend_from_slice(words);
    let answer = cluster.cli(&all);
    assert_ne!(answer.code, 0, "{words:?} must be refused: {}", answer.stdout);
    let said = answer.stderr.lines().find(|line| line.starts_with('{'));
    let Some(said) = said else { panic!("{words:?} says why: {}", answer.stderr) };
    let said: Value = serde_json::from_str(said).unwrap();
    let error = &said["error"];
    assert_ne!(error["remedy"], "", "{words:?} has a remedy: {error}");
    if error["reason"] == "IMAGE_LAYOUT" {
        let faults = error["violations"].as_array().unwrap();
        let code = |fault: &Value| {
            let text = fault["description"].as_str().unwrap();
            let code = text.strip_prefix('[').and_then(|it| it.split(']').next());
            code.unwrap_or_else(|| panic!("a fault has a code: {fault}")).to_owned()
        };
        return faults.iter().map(code).collect();
    }
    let located = error["field"] != "" || error["message"].as_str().unwrap().len() > 10;
    assert!(located, "{words:?} says where: {error}");
    BTreeSet::from([error["reason"].as_str().unwrap().to_owned()])
}

/// An image's files; a change to a good one makes it bad.
struct Image(PathBuf);

impl Image {
    fn good(folder: &Path) -> Self {
        let image = Self(folder.join("image"));
        let _ = fs::remove_dir_all(&image.0);
        image.put("application.json", &application(&json!({})));
        image.put("main/package.json", &json!({"name": "main", "version": "1.0.0"}).to_string());
        image.put("main/package.exe.x86_64", "#!/bin/sh\n");
        image
    }

    fn put(&self, path: &str, text: &str) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.join(path)).unwrap();
    }
}

fn application(change: &Value) -> String {
    let mut all = json!({
        "schema_version": 1, "name": "app", "version": "1.0.0", "driver": "exec",
        "num_partitions": 1, "on_disconnect": "stop",
        "limits": { "cpu_millis": 100, "memory_bytes": 1_048_576 }, "stop_grace_ms": 500,
    });
    for (key, value) in change.as_object().unwrap() {
        all[key] = value.clone();
    }
    all.to_string()
}

/// Changes that each break one rule of images.
const BREAKS: &[fn(&Image)] = &[
    |it| it.remove("application.json"),
    |it| it.put("application.json", "{"),
    |it| it.put("application.json", &application(&json!({"surprise": 1}))),
    |it| it.put("application.json", &application(&json!({"name": "No Name"}))),
    |it| it.put("application.json", &application(&json!({"version": "one"}))),
    |it| it.put("application.json", &application(&json!({"num_partitions": 0}))),
    |it| it.put("application.json", &application(&json!({"on_disconnect": "hope"}))),
    |it| it.put("application.json", &application(&json!({"driver": "jar"}))),
    |it| it.put("application.json", &application(&json!({"driver": "wasm"}))),
    |it| it.put("application.json", &application(&json!({"schema_version": 9}))),
    |it| it.put("application.json", &application(&json!({"stop_grace_ms": 99_999_999}))),
    |it| it.put("application.json", &application(&json!({"num_partitions": "three"}))),
    |it| it.put("notes.txt", "hello"),
    |it| it.remove("main/package.exe.x86_64"),
    |it| it.put("main/package.wasm", "no module"),
    |it| it.put("main/package.exe.x86_64", "neither a script nor a program"),
    |it| it.put("main/package.exe.vax", "#!/bin/sh\n"),
    |it| it.put("main/package.lua", "print(1)"),
    |it| it.put("main/stray.bin", "x"),
    |it| it.put("main/package.json", r#"{"name": "main"}"#),
    |it| {
        it.put(
            "main/package.json",
            r#"{"name": "main", "version": "1.0.0", "dependencies": {"lost": "1"}}"#,
        )
    },
    |it| {
        it.put("twin/package.json", r#"{"name": "main", "version": "1.0.0"}"#);
        it.put("twin/package.exe.x86_64", "#!/bin/sh\n");
    },
    |it| it.put("templates/wstemplate.json", r#"{"name": "t", "data": ["gone.bin"]}"#),
    |it| {
        it.put("assets/static.json", r#"{"name": "same"}"#);
        it.put("more/static.json", r#"{"name": "same"}"#);
    },
];

/// Specs and requests that each break one rule of the domain.
fn requests(folder: &Path) -> Vec<Vec<String>> {
    let document = |name: &str, text: &str| -> Vec<String> {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        vec!["apply".into(), "-f".into(), file.display().to_string()]
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let head = "apiVersion: muster/v1\nkind: Deployment\nmetadata: {name: d}\nspec: ";
    vec![
        document(
            "unknown-package.yaml",
            &format!("{head}{{package: ghost, version: '1', targets: {{clusters: [north]}}}}"),
        ),
        document(
            "empty-targets.yaml",
            &format!("{head}{{package: ghost, version: '1', targets: {{clusters: []}}}}"),
        ),
        document(
            "bad-name.yaml",
            "apiVersion: muster/v1\nkind: Cluster\nmetadata: {name: Not_A_Name}",
        ),
        document(
            "bad-label.yaml",
            "apiVersion: muster/v1\nkind: Cluster\nmetadata: {name: c, labels: {'a b': c}}",
        ),
        document(
            "stale.yaml",
            "apiVersion: muster/v1\nkind: Cluster\nmetadata: {name: north, revision: 1}",
        ),
        document(
            "unknown-member.yaml",
            "apiVersion: muster/v1\nkind: Cluster\nmetadata: {name: c}\nspec: {members: [ghost]}",
        ),
        document(
            "second-cluster.yaml",
            "apiVersion: muster/v1\nkind: Cluster\nmetadata: {name: c}\nspec: {members: [h1]}",
        ),
        words("get host ghost"),
        words("delete deployment ghost"),
        words("cordon ghost"),
        words(
            "delete image sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
    ]
}

fn hash(cluster: &Cluster) -> String {
    let tree = cluster.cli(&["inspect", "ledger", "-o", "json"]).json();
    let hash = &tree["values"]["rows_hash"];
    hash.as_str().unwrap_or_else(|| panic!("inspect shows the hash: {tree}")).to_owned()
}

fn rows(cluster: &Cluster) -> String {
    let mut all = String::new();
    for kind in ["hosts", "clusters", "images", "packages", "deployments", "jobs"] {
        all.push_str(&cluster.cli(&["-t", "acme", "get", kind, "-o", "name"]).ok());
    }
    all
}

#[test]
fn bad_images_and_specs_are_refused_and_nothing_changes() {
    let cluster = acme(1, 1);
    let folder = cluster.root().to_owned();
    let before = (rows(&cluster), hash(&cluster));
    let mut codes = BTreeSet::new();
    let mut count = 0;
    for change in BREAKS {
        let image = Image::good(&folder);
        change(&image);
        codes.extend(refusal(&cluster, &["image", "push", image.0.to_str().unwrap()]));
        count += 1;
    }
    for request in requests(&folder) {
        let words: Vec<_> = request.iter().map(String::as_str).collect();
        codes.extend(refusal(&cluster, &words));
        count += 1;
    }
    assert!(count >= 30, "{count} inputs");
    assert!(codes.len() >= 25, "{} distinct codes: {codes:?}", codes.len());
    assert_eq!(before.1.len(), 32, "the rows have a hash: {}", before.1);
    assert_eq!((rows(&cluster), hash(&cluster)), before, "nothing was stored");
}
