//! A stable 128-bit hash of rows, the same on every replica and in every build.

use std::hash::{Hash, Hasher};

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
