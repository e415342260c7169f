//! Histograms of integers in buckets that grow with the value: four to each power of two, so that a
//! percentile is less than a quarter too low. The part of `base2histogram`'s interface that openraft
//! calls, in constant memory: 252 counters each.

#![warn(missing_docs)]

use std::{fmt, marker::PhantomData};

/// Bits of a value that a bucket keeps, the leading one included.
const WIDTH: usize = 3;
/// Buckets to a power of two.
const GROUP: usize = 1 << (WIDTH - 1);
const BUCKETS: usize = GROUP * (u64::BITS as usize - WIDTH + 2);

/// How often values occurred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    kind: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// One without values.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], kind: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let at = &mut self.counts[bucket_of(value)];
        *at = at.saturating_add(count);
    }

    /// The usual percentiles, each rounded down to the start of its bucket; 0 without values.
    pub fn percentile_stats(&self) -> PercentileStats {
        let at = |permille| self.at_permille(permille);
        PercentileStats {
            samples: self.samples(),
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    fn samples(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    fn at_permille(&self, permille: u128) -> u64 {
        let wanted = (u128::from(self.samples()) * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return least_of(bucket);
            }
        }
        0
    }
}

fn bucket_of(value: u64) -> usize {
    if value < GROUP as u64 {
        return value as usize;
    }
    let shift = (u64::BITS - value.leading_zeros()) as usize - WIDTH;
    GROUP + shift * GROUP + ((value >> shift) as usize & (GROUP - 1))
}

fn least_of(bucket: usize) -> u64 {
    match bucket.checked_sub(GROUP) {
        None => bucket as u64,
        Some(above) => ((above % GROUP + GROUP) as u64) << (above / GROUP),
    }
}

/// Percentiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// Number of values.
    pub samples: u64,
    /// 0.1 of a hundred are at most this.
    pub p0_1: u64,
    /// 1 of a hundred.
    pub p1: u64,
    /// 5 of a hundred.
    pub p5: u64,
    /// 10 of a hundred.
    pub p10: u64,
    /// Half of them.
    pub p50: u64,
    /// 90 of a hundred.
    pub p90: u64,
    /// 99 of a hundred.
    pub p99: u64,
    /// 99.9 of a hundred.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, P50: {p50}, \
             P90: {p90}, P99: {p99}, P99.9: {p99_9}]"
        )
    }
}

/// Several histograms, to be shown one below the other.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// One without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram under a name.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }

    /// The chart as text.
    pub fn detailed(&self) -> impl fmt::Display + '_ {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name} {stats}"))
    }
}
