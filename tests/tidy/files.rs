//! What a source file looks like: it says what it is for, it is short, it holds no leftovers.

use crate::tree::{compare, sources};

/// Longest file without its tests.
const LINES_MAX: usize = 400;

/// Files over the limit.
const LONG: &[&str] = &[];

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    compare("a file opens with //!", &silent, &[]);
}

#[test]
fn no_file_is_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(name, text)| !is_test(name) && product_lines(text) > LINES_MAX)
        .map(|(name, _)| name)
        .collect();
    compare("a file has at most 400 lines without tests", &long, LONG);
}

#[test]
fn nothing_is_left_over() {
    // Spelled in halves, so that this file does not find itself.
    let words =
        [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X:"), concat!("#[ign", "ore")];
    let left: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| words.iter().any(|word| text.contains(word)))
        .map(|(name, _)| name)
        .collect();
    compare("no leftovers", &left, &[]);
}

fn is_test(name: &str) -> bool {
    name.starts_with("tests/")
        || name.contains("/tests/")
        || name.contains("/scripts/")
        || name.contains("/properties/")
        || name.ends_with("/tests.rs")
        || name.ends_with("/strategies.rs")
        || name.ends_with("_test.rs")
        || name.ends_with("_tests.rs")
}

/// Lines before the test module at the end of the file.
fn product_lines(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    lines.iter().position(|line| line.starts_with("#[cfg(test)]")).unwrap_or(lines.len())
}
