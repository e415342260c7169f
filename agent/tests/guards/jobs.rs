//! What the jobs of these tests do, by the words after `job`; the first word is the behaviour.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

pub(crate) fn main(words: &[String]) -> ExitCode {
    match words[0].as_str() {
        "run" => forever(),
        "ignore" => {
            ignore();
            forever()
        }
        "end" => return ExitCode::from(words[1].parse::<u8>().unwrap()),
        "env" => environment(),
        "spam" => spam(),
        "hog" => hog(),
        "family" => family(&words[1]),
        "member" => {
            ignore();
            park();
        }
        other => panic!("no behaviour {other}"),
    }
    ExitCode::SUCCESS
}

/// Blocked, the signal stays pending for ever: as good as ignored.
fn ignore() {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block().unwrap();
}

fn forever() {
    say("ready\n");
    park();
}

fn park() -> ! {
    loop {
        std::thread::park_timeout(Duration::from_secs(60));
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn environment() {
    let mut lines: Vec<_> =
        std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    lines.sort();
    say(&lines.concat());
    say(&format!("cwd={}\n", std::env::current_dir().unwrap().display()));
    say(&format!("pid={}\n", std::process::id()));
    say(&format!("proc={}\n", std::fs::read_link("/proc/self").unwrap().display()));
    std::fs::write("left-behind", "x").unwrap();
}

fn spam() {
    let line = [b'x'; 1_023];
    for _ in 0..1_024 {
        say(&format!("{}\n", String::from_utf8_lossy(&line)));
    }
}

fn hog() {
    let mut hoard = Vec::new();
    for _ in 0..512 {
        hoard.push(vec![1_u8; 1 << 20]);
    }
    say(&format!("got {}\n", hoard.len()));
}

/// Ignores the stop and leaves descendants everywhere: a child, a grandchild whose parent is gone,
/// and one in a session of its own. All carry the mark in their arguments.
fn family(mark: &str) {
    ignore();
    let exe = std::env::current_exe().unwrap();
    let member = |words: &[&str]| {
        let mut command = Command::new(&exe);
        command.arg("job").args(words).arg(mark);
        command
    };
    member(&["member", "child"]).spawn().unwrap();
    if mark.starts_with("again-") {
        // The middle generation: it goes, what it started stays.
        return;
    }
    let orphaning = format!("again-{mark}");
    Command::new(&exe).args(["job", "family", &orphaning]).spawn().unwrap().wait().unwrap();
    Command::new("setsid").arg(&exe).args(["job", "member", "session", mark]).spawn().unwrap();
    forever();
}
