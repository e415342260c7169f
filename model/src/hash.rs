//! A stable 128-bit hash of rows, the same on every replica and in every build.

use crate::{Key, State};
use std::hash::{Hash, Hasher};

/// What a state hash is made of. It rises when a row gets another shape: two builds that differ in it
/// have nothing to compare.
pub const HASH_FORMAT: u32 = 1;

/// Two independent FNV-1a lanes with a final mix; stable across processes, unlike std's hasher.
struct Stable {
    low: u64,
    high: u64,
}

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.low = (self.low ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            self.high =
                (self.high.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        mix(self.low)
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// Hash of one row with its key.
pub(crate) fn row_hash<K: Hash, V: Hash>(key: &K, row: &V) -> u128 {
    let mut hasher = Stable { low: 0xcbf2_9ce4_8422_2325, high: 0x6c62_272e_07bb_0142 };
    key.hash(&mut hasher);
    row.hash(&mut hasher);
    (u128::from(mix(hasher.high)) << 64) | u128::from(hasher.finish())
}

impl State {
    /// A hash of each row, in key order: what tells which rows of two replicas differ.
    pub fn row_hashes(&self) -> impl Iterator<Item = (Key, u128)> + '_ {
        self.rows().map(|(key, row)| {
            let hash = row_hash(&key, &row);
            (key, hash)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Command, Draft, Name, NodeId, Stamp, Timestamp};

    #[test]
    fn golden_hash_of_a_state_rises_with_its_format() {
        let mut state = State::default();
        let name = Name::new("acme").unwrap();
        let draft = Draft { name, labels: [].into(), annotations: [].into(), if_revision: None };
        let display_name = "Acme".to_owned();
        let (peer_addr, client_addr) = ("10.0.0.1:1".to_owned(), "10.0.0.1:2".to_owned());
        let commands = [
            Command::ApplyNode { id: NodeId(1), peer_addr, client_addr, rules_max: 1 },
            Command::ApplyTenant { draft, display_name },
        ];
        for command in commands {
            let (time, caller) = (Timestamp(1_000_000_000), Caller::System);
            let stamp = Stamp { time, rules: 1, caller, request_id: None };
            assert!(state.apply(&stamp, &command).outcome.result.is_ok());
        }
        let hash = format!("{HASH_FORMAT}: {:032x}", state.hash());
        assert_eq!(
            hash, "1: d43458497375f9643cb329fbeb8d48ef",
            "another hash is another HASH_FORMAT"
        );
    }
}
