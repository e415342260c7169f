//! What the benches share: a fleet of any size, and how they are asked to run.
//!
//! The benches are in `benches/`, one binary per question; `BASELINE.md` has what was measured. Each
//! also runs in test mode (`cargo bench -p muster-bench -- --test`): every measured path once, on a
//! small fleet, so that benches do not rot.

mod fleet;
mod local;
mod rss;

pub use fleet::{Fleet, Shape, Taker, host_name, must_name, report};
pub use local::{Hands, Local, NoLedger, Started, bytes_below, on_disk};
pub use rss::{cpu_time, rss_bytes};

/// Whether the benches are only to be tried: no large fleets, no long measurements. It is so with
/// `--test`, and without the `--bench` that cargo gives when it benches.
pub fn is_quick() -> bool {
    let has = |flag: &str| std::env::args().any(|it| it == flag);
    has("--test") || !has("--bench")
}

/// Whether a bench without a harness is to run: no filter was given, or one that is part of `name`,
/// and the benches are not only to be listed.
pub fn is_selected(name: &str) -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    selects(&arguments, name)
}

fn selects(arguments: &[String], name: &str) -> bool {
    let mut value_follows = false;
    for argument in arguments {
        if argument == "--list" {
            return false;
        }
        let is_option = argument.starts_with('-');
        if !is_option && !value_follows && !name.contains(argument.as_str()) {
            return false;
        }
        value_follows = is_option && argument != "--bench" && argument != "--test";
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_options_and_their_values_are_told_apart() {
        let selects = |line: &str| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            selects(&arguments, "memory")
        };
        assert!(selects(""));
        assert!(selects("--bench"));
        assert!(selects("--bench --test mem"));
        assert!(selects("--save-baseline main --bench"));
        assert!(!selects("place --bench"));
        assert!(!selects("--bench --list"));
    }
}
