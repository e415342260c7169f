//! What events do to role bindings, join tokens, control nodes and the rules level.

use super::Write;
use crate::{ControlNode, Meta, Name, NodeId, Role, RoleBinding, Scope, Uid};

impl Write<'_> {
    pub(super) fn role_bound(
        &mut self,
        operator: &Name,
        scope: &Scope,
        role: Role,
        created: Option<Uid>,
    ) {
        let at = (operator.clone(), scope.clone());
        let before = self.state.bindings.get(&at);
        let mut meta = match (before, created) {
            (Some(before), _) => before.meta.clone(),
            (None, uid) => Meta::new(operator.clone(), uid.unwrap_or_default(), self.context),
        };
        if before.is_some() {
            meta.generation += 1;
            meta.spec_revision = self.context.revision;
            meta.touch(self.context);
        }
        self.state.bindings.put(at, RoleBinding { meta, scope: scope.clone(), role });
    }

    pub(super) fn change_node(
        &mut self,
        id: NodeId,
        created: Option<Uid>,
        change: impl FnOnce(&mut ControlNode),
    ) {
        let mut node = match (self.state.nodes.get(&id), created) {
            (Some(node), _) => node.clone(),
            (None, Some(uid)) => {
                let Ok(name) = Name::new(&format!("node-{id}")) else { return };
                ControlNode {
                    meta: Meta::new(name, uid, self.context),
                    id,
                    peer_addr: String::new(),
                    client_addr: String::new(),
                    rules_max: 1,
                    alive: true,
                }
            }
            (None, None) => return,
        };
        change(&mut node);
        node.meta.touch(self.context);
        self.state.nodes.put(id, node);
    }
}
