//! Commands of bounded size: at most so many items, and well below the size of a log entry.

use model::{JobKey, Name, limits::ITEMS_MAX};

/// Bytes of items in one command, estimated: well below the 1 MiB of a log entry.
const BYTES_MAX: usize = 384 << 10;

/// Something whose encoded size can be told from above.
pub(crate) trait Weigh {
    /// At most so many bytes.
    fn bytes(&self) -> usize;
}

impl Weigh for Name {
    fn bytes(&self) -> usize {
        self.as_str().len() + 1
    }
}

impl Weigh for JobKey {
    fn bytes(&self) -> usize {
        let names = [&self.tenant, &self.deployment, &self.cluster, &self.application];
        let slot = match &self.slot {
            model::Slot::Host(host) => host.bytes(),
            model::Slot::Partition(_) | model::Slot::Run(_) => 9,
        };
        names.into_iter().map(Weigh::bytes).sum::<usize>() + slot + 1
    }
}

impl Weigh for model::Assign {
    fn bytes(&self) -> usize {
        self.key.bytes() + self.host.bytes() + 9
    }
}

impl Weigh for (JobKey, model::Revision, String) {
    fn bytes(&self) -> usize {
        self.0.bytes() + 9 + self.2.len() + 9
    }
}

impl Weigh for (JobKey, model::Assignment) {
    fn bytes(&self) -> usize {
        self.0.bytes() + 9
    }
}

/// `items` in their order, cut into pieces that each fit one command.
pub(crate) fn chunks<T: Weigh>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut chunks = Vec::new();
    let mut chunk: Vec<T> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = item.bytes();
        if chunk.len() == ITEMS_MAX || bytes + more > BYTES_MAX && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += more;
        chunk.push(item);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_the_order_and_both_bounds() {
        let long = "a".repeat(Name::BYTES_MAX);
        for name in ["a", long.as_str()] {
            let name: Name = name.parse().unwrap_or_else(|_| unreachable!("a name"));
            let items: Vec<(JobKey, model::Assignment)> = (0..10_000)
                .map(|n| {
                    let key = JobKey {
                        tenant: name.clone(),
                        deployment: name.clone(),
                        cluster: name.clone(),
                        application: name.clone(),
                        slot: model::Slot::Partition(n),
                    };
                    (key, model::Assignment(n.into()))
                })
                .collect();
            let pieces = chunks(items.clone());
            for piece in &pieces {
                assert!(piece.len() <= ITEMS_MAX);
                assert!(piece.iter().map(Weigh::bytes).sum::<usize>() <= BYTES_MAX);
            }
            assert!(pieces.len() >= 3);
            assert_eq!(pieces.concat(), items);
        }
    }
}
