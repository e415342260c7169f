//! Who owns what: rendezvous hashing over live control nodes. Pure.
//!
//! The owner of a thing is the node with the highest hash of (node, thing). When a node goes, only
//! what it owned moves; when one comes, it takes an even share from all.

use model::{Name, NodeId, State};

/// The control nodes that may own work: alive by the state, in order. Where the state names none
/// (a cluster that is being founded) the asking node owns everything.
pub fn live_nodes(state: &State, me: NodeId) -> Vec<NodeId> {
    let live: Vec<_> =
        state.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| *id).collect();
    if live.is_empty() { vec![me] } else { live }
}

/// The owner of a cluster's reconcile, among `live`. `None` if `live` is empty.
pub fn cluster_owner(live: &[NodeId], tenant: &Name, cluster: &Name) -> Option<NodeId> {
    owner(live, &[tenant.as_str(), cluster.as_str()])
}

/// The owner of a tenant's reconcile (expansion of deployments, roll-up), among `live`.
pub fn tenant_owner(live: &[NodeId], tenant: &Name) -> Option<NodeId> {
    owner(live, &[tenant.as_str()])
}

fn owner(live: &[NodeId], parts: &[&str]) -> Option<NodeId> {
    live.iter().copied().max_by_key(|node| (weight(*node, parts), *node))
}

/// FNV-1a over the parts (each closed by a byte no name contains) and the node, then mixed so that
/// neighbouring node ids land far apart.
pub(crate) fn weight(node: NodeId, parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for part in parts {
        part.bytes().for_each(&mut eat);
        eat(0);
    }
    node.0.to_le_bytes().into_iter().for_each(&mut eat);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Name {
        Name::new(&format!("c{n}")).unwrap()
    }

    #[test]
    fn a_lost_node_moves_only_what_it_owned() {
        let all = [NodeId(1), NodeId(2), NodeId(3)];
        let rest = [NodeId(1), NodeId(3)];
        let tenant = Name::new("acme").unwrap();
        let mut moved = 0;
        for n in 0..1_000 {
            let before = cluster_owner(&all, &tenant, &name(n)).unwrap();
            let after = cluster_owner(&rest, &tenant, &name(n)).unwrap();
            if before == NodeId(2) {
                moved += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((250..420).contains(&moved), "a third each, here {moved} of 1,000");
    }

    #[test]
    fn no_live_node_has_no_owner() {
        assert_eq!(tenant_owner(&[], &name(1)), None);
    }
}
