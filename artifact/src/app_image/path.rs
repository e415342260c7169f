//! Which paths an image may have, alone and together.
//!
//! The rules are those of the strictest file system that an image may be unpacked on: a path that
//! is harmless on Linux but escapes, vanishes or collides elsewhere is refused everywhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::app_image::violation::ViolationCode;

/// How deep folders may lie in each other; it also bounds the memory of a `PathSet`.
const PARTS_MAX: usize = 16;

/// The rule that `path` breaks by itself, if any, and what was found.
pub(crate) fn broken_rule(path: &str, bytes_max: usize) -> Option<(ViolationCode, String)> {
    let first = path.as_bytes().first().copied();
    if matches!(first, Some(b'/' | b'\\')) || has_drive(path) {
        return Some((ViolationCode::AbsolutePath, "the path is absolute".into()));
    }
    // Both separators count: a backslash is one on other systems.
    if path.split(['/', '\\']).any(|part| part == "..") {
        return Some((ViolationCode::PathEscape, "the path has a `..` part".into()));
    }
    let bad = |detail: String| Some((ViolationCode::BadPath, detail));
    if path.len() > bytes_max {
        return bad(format!("the path has {} bytes, {bytes_max} are allowed", path.len()));
    }
    if path.contains('\\') {
        return bad("the path has a backslash".into());
    }
    if path.chars().any(char::is_control) {
        return bad("the path has a control character".into());
    }
    let parts = path.strip_suffix('/').unwrap_or(path);
    if parts.split('/').any(str::is_empty) {
        return bad("the path has an empty part".into());
    }
    if parts.split('/').any(|part| part == ".") {
        return bad("the path has a `.` part".into());
    }
    if parts.split('/').count() > PARTS_MAX {
        return bad(format!("the path has more than {PARTS_MAX} parts"));
    }
    if parts.split('/').any(|part| part.len() > 255) {
        return bad("a part of the path has more than 255 bytes".into());
    }
    None
}

/// Whether the path begins with a drive, as `C:`.
fn has_drive(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':'
}

/// The paths met so far, to find those that cannot lie beside each other.
#[derive(Debug, Default)]
pub(crate) struct PathSet {
    /// Folded spelling -> the first exact spelling, and whether it is a file.
    seen: BTreeMap<String, (String, bool)>,
    /// Exact paths that had an entry of their own (folders may be implied by files).
    entries: BTreeSet<String>,
}

impl PathSet {
    /// Takes a path in (a trailing slash means a folder), or names the rule that it breaks beside
    /// those already there.
    pub(crate) fn insert(&mut self, path: &str) -> Option<(ViolationCode, String)> {
        let is_folder = path.ends_with('/');
        let exact = path.strip_suffix('/').unwrap_or(path);
        if !self.entries.insert(path.to_owned()) {
            return Some((ViolationCode::DuplicateEntry, "the path occurs twice".into()));
        }
        let folders = exact.match_indices('/').map(|(at, _)| (&exact[..at], false));
        for (prefix, is_file) in folders.chain([(exact, !is_folder)]) {
            let folded = prefix.to_lowercase();
            let Some((known, known_is_file)) = self.seen.get(&folded) else {
                self.seen.insert(folded, (prefix.to_owned(), is_file));
                continue;
            };
            if known != prefix {
                let detail = format!("`{prefix}` and `{known}` differ only in case");
                return Some((ViolationCode::CaseCollision, detail));
            }
            if *known_is_file != is_file {
                let detail = format!("`{prefix}` is a file and a folder");
                return Some((ViolationCode::FileAndFolder, detail));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str) -> Option<ViolationCode> {
        broken_rule(path, 1024).map(|(code, _)| code)
    }

    #[test]
    fn a_path_is_relative_and_stays_inside() {
        use ViolationCode::{AbsolutePath, BadPath, PathEscape};
        for (path, expected) in [
            ("a", None),
            ("a/b.c/d e", None),
            ("folder/", None),
            ("...", None),
            ("a..b", None),
            ("ü/ß", None),
            ("/etc/passwd", Some(AbsolutePath)),
            ("\\\\server\\share", Some(AbsolutePath)),
            ("C:/windows", Some(AbsolutePath)),
            ("c:", Some(AbsolutePath)),
            ("../a", Some(PathEscape)),
            ("a/../../b", Some(PathEscape)),
            ("a/..", Some(PathEscape)),
            ("a\\..\\b", Some(PathEscape)),
            ("a\\b", Some(BadPath)),
            ("", Some(BadPath)),
            ("a//b", Some(BadPath)),
            ("./a", Some(BadPath)),
            ("a/./b", Some(BadPath)),
            ("a\0b", Some(BadPath)),
            ("a\nb", Some(BadPath)),
        ] {
            assert_eq!(rule(path), expected, "{path:?}");
        }
        assert_eq!(rule(&"a".repeat(256)), Some(BadPath));
        assert_eq!(rule(&"ab/".repeat(400)), Some(BadPath));
        assert_eq!(rule(&["a"; 16].join("/")), None);
        assert_eq!(rule(&["a"; 17].join("/")), Some(BadPath));
    }

    #[test]
    fn paths_collide_as_on_the_strictest_file_system() {
        use ViolationCode::{CaseCollision, DuplicateEntry, FileAndFolder};
        for (first, second, expected) in [
            ("a/b", "a/c", None),
            ("a/", "a/c", None),
            ("a/c", "a/", None),
            ("a/b", "a/b", Some(DuplicateEntry)),
            ("a/", "a/", Some(DuplicateEntry)),
            ("a/b", "a/B", Some(CaseCollision)),
            ("A/b", "a/c", Some(CaseCollision)),
            ("ä", "Ä", Some(CaseCollision)),
            ("a", "a/b", Some(FileAndFolder)),
            ("a/b", "a", Some(FileAndFolder)),
            ("a/", "a", Some(FileAndFolder)),
        ] {
            let mut paths = PathSet::default();
            assert_eq!(paths.insert(first), None, "{first}");
            let found = paths.insert(second).map(|(code, _)| code);
            assert_eq!(found, expected, "{first} {second}");
        }
    }
}
