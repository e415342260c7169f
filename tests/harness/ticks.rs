//! Proof that no two copies of a job ran at once: what each copy wrote while it ran.
//!
//! Each copy appends `<boottime ms> <copy> <event>` lines to one file per job in a folder that all
//! hosts share, where event is `start`, `tick` (each 100 ms) or `stop`. Two copies overlap when one
//! ticks between two ticks of another.

use std::{collections::BTreeMap, fs, path::Path};

/// Two copies of a job that ran at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The job.
    pub job: String,
    /// The copies.
    pub copies: (String, String),
    /// A moment at which both ran, CLOCK_BOOTTIME in ms.
    pub at_ms: u64,
}

/// What all copies wrote.
#[derive(Debug, Default)]
pub struct Ticks {
    /// By job and copy: first and last moment seen.
    spans: BTreeMap<String, BTreeMap<String, (u64, u64)>>,
}

impl Ticks {
    /// Reads every `*.ticks` file of a folder.
    pub fn read(folder: &Path) -> Self {
        let mut ticks = Self::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "ticks") {
                let job = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                ticks.add(&job, &fs::read_to_string(&path).unwrap_or_default());
            }
        }
        ticks
    }

    /// Adds the text of one file.
    pub fn add(&mut self, job: &str, text: &str) {
        let copies = self.spans.entry(job.to_owned()).or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(at), Some(copy)) = (words.next(), words.next()) else { continue };
            let Ok(at) = at.parse::<u64>() else { continue };
            let span = copies.entry(copy.to_owned()).or_insert((at, at));
            span.0 = span.0.min(at);
            span.1 = span.1.max(at);
        }
    }

    /// Number of jobs seen.
    pub fn jobs(&self) -> usize {
        self.spans.len()
    }

    /// Number of copies of a job seen.
    pub fn copies(&self, job: &str) -> usize {
        self.spans.get(job).map_or(0, BTreeMap::len)
    }

    /// Every pair of copies that ran at once.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let mut found = Vec::new();
        for (job, copies) in &self.spans {
            let copies: Vec<_> = copies.iter().collect();
            for (n, (one, first)) in copies.iter().enumerate() {
                for (other, second) in &copies[n + 1..] {
                    let at_ms = first.0.max(second.0);
                    if at_ms < first.1.min(second.1) {
                        let copies = ((*one).clone(), (*other).clone());
                        found.push(Overlap { job: job.clone(), copies, at_ms });
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_one_after_the_other_do_not_overlap() {
        let mut ticks = Ticks::default();
        ticks.add("a", "100 x start\n200 x tick\n300 y start\n400 y tick\n");
        assert_eq!(ticks.copies("a"), 2);
        assert_eq!(ticks.overlaps(), []);
    }

    #[test]
    fn copies_at_once_are_found() {
        let mut ticks = Ticks::default();
        ticks.add("a", "100 x start\n300 x tick\n200 y start\n400 y tick\n");
        assert_eq!(ticks.overlaps().len(), 1);
    }
}
