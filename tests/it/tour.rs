//! The README's tour, executed: every `$` line of its `console` blocks, against one cluster.

use crate::BINARY;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};
use tests::{Answer, until};

/// Stops the development cluster as its user would.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        // It may have ended by itself: then the test has failed already.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.0.wait();
    }
}

#[test]
fn every_command_of_the_tour_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.len() >= 8, "the tour has commands: {commands:?}");

    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("dev.log");
    let dev = Command::new(BINARY)
        .args(["dev", "--data"])
        .arg(folder.path().join("data"))
        .env("XDG_RUNTIME_DIR", folder.path())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _dev = Dev(dev);
    until("everything runs", 120, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("Ctrl-C stops everything"))
    });
    let path = format!("{}:/usr/bin:/bin", Path::new(BINARY).parent().unwrap().display());
    for command in commands {
        let run = || {
            let output = Command::new("/bin/sh")
                .args(["-euc", &command])
                .current_dir(root)
                .env("PATH", &path)
                .env("XDG_RUNTIME_DIR", folder.path())
                .env("XDG_CONFIG_HOME", folder.path().join("none"))
                .output()
                .unwrap();
            Answer::of(&output)
        };
        let mut answer = run();
        // On a busy machine an election may come in between; whoever reads that asks again.
        for _ in 0..5 {
            if answer.code == 0 || !command.contains("transfer-leader") {
                break;
            }
            answer = run();
        }
        assert_eq!(answer.code, 0, "{command}\n{}\n{}", answer.stdout, answer.stderr);
    }
}

/// Lines that begin with `$ muster` in blocks marked `console`.
fn commands(readme: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            found.push(command.to_owned());
        }
    }
    found
}
