//! The name that was perhaps meant.

/// Longest name compared, in characters.
const CHARS_MAX: usize = 128;

/// The name among `known` that is nearest to `name`, if one is near: a slip or two of the keyboard away,
/// or begun alike.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 2);
    let far = |it: &'a str| {
        let begun = name.len() >= 3 && it.starts_with(name);
        let distance = if begun { 1 } else { distance(name, it) };
        (distance, it)
    };
    let best = known.into_iter().map(far).min()?;
    (best.0 <= allowed).then_some(best.1)
}

/// Letters to add, leave out, change or swap with their neighbour to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(CHARS_MAX).collect();
    let other: Vec<char> = other.chars().take(CHARS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = row[j] + usize::from(a != b);
            let mut least = changed.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_and_another_name_is_not() {
        let known = ["shop", "till-17", "till-18", "warehouse"];
        for (name, meant) in [
            ("shpo", Some("shop")),
            ("shop2", Some("shop")),
            ("till17", Some("till-17")),
            ("ware", Some("warehouse")),
            ("zoo", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
        assert_eq!(nearest("shop", []), None);
    }
}
