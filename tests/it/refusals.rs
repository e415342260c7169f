//! Bad input: each is refused with its own code, the place and a remedy, and nothing changes.

use crate::{BINARY, acme};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::{Answer, Cluster, until};
use tokio::time::{Duration, Instant};

/// What was refused: the error object that programs see. It names a place and a remedy.
fn refused(answer: &Answer, words: &[&str]) -> Value {
    assert_ne!(answer.code, 0, "{words:?} must be refused: {}", answer.stdout);
    let said = answer.stderr.lines().find(|line| line.starts_with('{'));
    let Some(said) = said else { panic!("{words:?} says why: {}", answer.stderr) };
    let said: Value = serde_json::from_str(said).unwrap();
    let error = &said["error"];
    let place = error["violations"].as_array().is_some_and(|all| !all.is_empty());
    assert!(place || error["field"] != "", "{words:?} says where: {error}");
    assert_ne!(error["remedy"], "", "{words:?} has a remedy: {error}");
    error.clone()
}

/// The codes of a refusal: its reason or, for an image, those of its faults.
fn refusal(cluster: &Cluster, words: &[&str]) -> BTreeSet<String> {
    let mut all = vec!["-t", "acme", "-o", "json"];
    all.extend_from_slice(words);
    let error = refused(&cluster.cli(&all), words);
    if error["reason"] != "IMAGE_LAYOUT" {
        return BTreeSet::from([error["reason"].as_str().unwrap().to_owned()]);
    }
    let code = |fault: &Value| {
        let text = fault["description"].as_str().unwrap();
        let (code, said) = text.strip_prefix('[').and_then(|it| it.split_once("] ")).unwrap();
        let (what, remedy) = said.split_once("; ").unwrap();
        assert!(!code.is_empty() && !what.is_empty() && !remedy.is_empty(), "{words:?}: {fault}");
        assert_ne!(fault["field"], "", "{words:?}: a fault has a path: {fault}");
        code.to_owned()
    };
    error["violations"].as_array().unwrap().iter().map(code).collect()
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
        document("too-many.yaml", &tenants(501, 0)),
        document("too-large.yaml", &tenants(20, 200 << 10)),
        document("far-too-large.yaml", &tenants(30, 200 << 10)),
        words("deploy shop@1 --cluster north --on-disconnect stop"),
        words("deploy shop@1 --cluster north"),
        words("get host ghost"),
        words("delete deployment ghost"),
        words("cordon ghost"),
        words(
            "delete image sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
    ]
}

/// Documents of so many tenants, each with an annotation of so many bytes.
fn tenants(number: usize, bytes: usize) -> String {
    let one = |at| {
        let note = "x".repeat(bytes);
        let metadata = format!("{{name: t{at}, annotations: {{note: '{note}'}}}}");
        format!("apiVersion: muster/v1\nkind: Tenant\nmetadata: {metadata}\n---\n")
    };
    (0..number).map(one).collect()
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
        let path = image.0.to_str().unwrap();
        let here = refusal(&cluster, &["image", "push", path]);
        let node = refusal(&cluster, &["image", "push", "--no-validate", path]);
        assert_eq!(here, node, "the console and a control node judge alike");
        codes.extend(node);
        count += 1;
    }
    for request in requests(&folder) {
        let words: Vec<_> = request.iter().map(String::as_str).collect();
        let began = Instant::now();
        codes.extend(refusal(&cluster, &words));
        assert!(began.elapsed() < Duration::from_secs(15), "{words:?} is not tried again");
        count += 1;
    }
    assert!(codes.contains("COMMAND_TOO_LARGE"), "{codes:?}");
    assert!(count >= 30, "{count} inputs");
    assert!(codes.len() >= 25, "{} distinct codes: {codes:?}", codes.len());
    assert_eq!(before.1.len(), 32, "the rows have a hash: {}", before.1);
    assert_eq!((rows(&cluster), hash(&cluster)), before, "nothing was stored");
}

const ANY_PORTS: &[&str] = &["--client-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"];

#[test]
fn verbs_of_a_machine_say_why_in_the_shape_of_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody");
    let nobody = nobody.to_str().unwrap();
    let fresh = folder.path().join("fresh");
    let fresh = fresh.to_str().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let below_a_file = file.join("data").display().to_string();
    let run = |words: &[&str]| {
        Answer::of(&Command::new(BINARY).args(words).env_remove("MUSTER_SERVER").output().unwrap())
    };
    for (words, reason, field) in [
        ([&["serve", "--data", nobody][..], ANY_PORTS].concat(), "IDENTITY", "data"),
        (vec!["serve", "--data", nobody, "--join", "MST10"], "USAGE", "server"),
        (vec!["serve", "--data", nobody, "--set", "lease.ttl_ms=1"], "SETTING", "lease.ttl_ms"),
        (vec!["serve", "--data", nobody, "--set", "nonsense"], "USAGE", "set"),
        (
            [&["serve", "--bootstrap", "--data", &below_a_file][..], ANY_PORTS].concat(),
            "DATA_FOLDER",
            "data",
        ),
        (
            vec!["serve", "--bootstrap", "--data", fresh, "--client-addr", "nowhere"],
            "LISTEN",
            "client_addr",
        ),
        (
            [&["serve", "--bootstrap", "--data", fresh, "--advertise-peer", "x:0"], ANY_PORTS]
                .concat(),
            "LISTEN",
            "advertise_peer",
        ),
        (vec!["agent", "run", "--data", nobody], "IDENTITY", "data"),
        (vec!["agent", "inspect", "--data", nobody, "ghost"], "UNKNOWN_JOB", "job"),
    ] {
        let words = [&words[..], &["-o", "json"]].concat();
        let answer = run(&words);
        let error = refused(&answer, &words);
        assert_eq!((&error["reason"], &error["field"]), (&reason.into(), &field.into()), "{error}");
        let people = run(&words[..words.len() - 2]);
        assert_eq!(people.code, answer.code);
        assert!(people.stderr.contains("error: ") && people.stderr.contains("\n  remedy: "));
    }
    assert!(!Path::new(fresh).exists(), "what is refused leaves nothing behind");
    let list = run(&["agent", "list", "--data", nobody, "-o", "yaml"]).ok();
    assert_eq!(list.trim(), "items: []");
    assert!(run(&["guard", "--help"]).ok().contains("--dir"));
}

#[test]
fn whoever_loses_the_role_reads_no_further() {
    let cluster = acme(1, 1);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ticker-exec/image");
    let words = ["-t", "acme", "deploy", example, "--name", "talk", "--cluster", "north"];
    cluster.cli(&[&words[..], &["--partitions", "1", "--wait=60s"]].concat()).ok();
    let token = cluster.token(&["--kind", "operator", "--name", "ann"]);
    let ann = cluster.root().join("ann");
    let addr = cluster.client_addr(0);
    cluster.run(&ann, &addr, &["login", "--token", &token]).ok();
    cluster.cli(&["-t", "acme", "role", "bind", "ann", "viewer"]).ok();
    let log = cluster.root().join("followed");
    let mut follower = Command::new(BINARY)
        .args(["-t", "acme", "-o", "json", "logs", "talk/north/ticker-exec/0", "-f"])
        .env("MUSTER_IDENTITY", &ann)
        .env("MUSTER_SERVER", &addr)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(&log).unwrap().lines().count();
    until("what the job says arrives", 30, || lines() > 2);
    cluster.cli(&["-t", "acme", "role", "unbind", "ann"]).ok();
    until("the reader is cut", 30, || follower.try_wait().unwrap().is_some());
    let answer = Answer::of(&follower.wait_with_output().unwrap());
    assert_eq!(refused(&answer, &["logs", "-f"])["reason"], "UNKNOWN_TENANT");
}
