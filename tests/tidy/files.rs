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

/// Lines without the tests at the end of the file. Those in a file of their own, and what else is for tests
/// only, do not end the product's lines.
fn product_lines(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    lines.iter().position(|line| *line == "mod tests {").unwrap_or(lines.len())
}

#[test]
fn only_tests_at_the_end_of_a_file_are_not_counted() {
    assert_eq!(product_lines("//! x\n#[cfg(test)]\nmod tests;\nfn y() {}\n"), 4);
    assert_eq!(product_lines("//! x\n#[cfg(test)]\nfn z() {}\n#[cfg(test)]\nmod tests {\n}\n"), 4);
}
