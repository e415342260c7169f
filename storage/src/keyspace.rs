//! Every key of the one [`Kv`](crate::Kv) keyspace, in one table.
//!
//! | prefix | space | key | value |
//! |---|---|---|---|
//! | `a` | [`Space::Artifact`] | what the artifact room chooses | catalogue row |
//! | `j` | [`Space::Journal`] | revision, 8 bytes big-endian | journal row |
//! | `m` | [`Space::Meta`] | a short name | applied index, revision, checksum and the like |
//! | `s` | [`Space::State`] | table byte, then the row's key | row of the state |
//!
//! One keyspace because a batch is atomic within one: state, applied index and journal change
//! together or not at all. A new space takes a new byte; a byte is never given to another use.

/// A part of the keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// The catalogue of artifacts.
    Artifact = b'a',
    /// Journal rows by revision.
    Journal = b'j',
    /// Applied index, revision, checksums: one row each.
    Meta = b'm',
    /// The materialised state, row by row.
    State = b's',
}

impl Space {
    /// The key of `suffix` in this space.
    pub fn key(self, suffix: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + suffix.len());
        key.push(self as u8);
        key.extend_from_slice(suffix);
        key
    }

    /// The bounds of the whole space: from the first, up to but without the second.
    pub fn bounds(self) -> (Vec<u8>, Vec<u8>) {
        (vec![self as u8], vec![self as u8 + 1])
    }

    /// The bounds of the keys in this space that begin with `prefix`.
    pub fn bounds_of(self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(prefix);
        let to = after_prefix(&from);
        (from, to)
    }
}

/// The smallest key that is greater than every key beginning with `prefix`. A prefix of nothing
/// but 0xff bytes has none, which a [`Space`] byte in front rules out; it answers an empty key.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < 0xff {
            key.push(last + 1);
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_a_prefix_hold_its_keys_and_no_others() {
        let (from, to) = Space::State.bounds_of(&[7, 0xff]);
        for (key, inside) in [
            (Space::State.key(&[7, 0xff]), true),
            (Space::State.key(&[7, 0xff, 0xff, 1]), true),
            (Space::State.key(&[7, 0xfe, 9]), false),
            (Space::State.key(&[8]), false),
            (Space::Meta.key(&[7, 0xff]), false),
        ] {
            assert_eq!(from <= key && key < to, inside, "{key:?}");
        }
    }
}
