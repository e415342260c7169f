//! Control nodes and the rules level.

use super::{Decided, Decision, check, done};
use crate::{
    Caller, Contact, Event, Name, NodeId, Rejection, limits::ADDRESS_MAX_BYTES, rejection::Code,
    rules::RULES_REMOVED_NODES,
};

impl Decision<'_> {
    pub(super) fn apply_node(
        &mut self,
        id: NodeId,
        peer_addr: &str,
        client_addr: &str,
        rules_max: u32,
    ) -> Decided {
        check::range(id.0, 1, u64::MAX, "id")?;
        address(peer_addr, "peer_addr")?;
        address(client_addr, "client_addr")?;
        if self.state.was_removed(id) {
            let message = format!("node {id} was removed from the cluster");
            return Err(Code::NodeRemoved.reject(message).at("id").with("node", id));
        }
        if rules_max < self.state.globals.rules {
            return Err(Code::RulesUnknown
                .reject(format!("node {id} does not know the rules level in force"))
                .at("rules_max")
                .with("rules", self.state.globals.rules));
        }
        let before = self.state.nodes.get(&id);
        let same = before.is_some_and(|node| {
            node.alive
                && node.peer_addr == peer_addr
                && node.client_addr == client_addr
                && node.rules_max == rules_max
        });
        if same {
            return done(resource(id), false);
        }
        let created = before.is_none().then(|| self.next_uid());
        self.emit(Event::NodeApplied {
            id,
            created,
            peer_addr: peer_addr.into(),
            client_addr: client_addr.into(),
            rules_max,
        });
        done(resource(id), true)
    }

    pub(super) fn mark_node(&mut self, id: NodeId, alive: bool) -> Decided {
        let Some(node) = self.state.nodes.get(&id) else { return Err(unknown(id)) };
        let changed = node.alive != alive;
        if changed {
            self.emit(Event::NodeMarked { id, alive });
        }
        done(resource(id), changed)
    }

    /// A node says of a session that another one holds that it is over only while that one is lost: until
    /// then its holder may grant it leases (`lease`).
    pub(super) fn need_word_of_holder(
        &self,
        (tenant, host): (&Name, &Name),
        session: u64,
    ) -> Result<(), Rejection> {
        let contact = self.state.host(tenant, host).map(|row| row.contact);
        let (Some(Contact::Connected { node, session: held, .. }), Caller::Node(caller)) =
            (contact, &self.context.caller)
        else {
            return Ok(());
        };
        if held == session && node != *caller && self.state.counts_on(node) {
            return Err(Code::NodeAlive
                .reject(format!("node {node} holds the session of host {host}, and is alive"))
                .at("session")
                .with("node", node));
        }
        Ok(())
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Decided {
        if self.state.was_removed(id) {
            return done(resource(id), false);
        }
        let known = self.state.nodes.contains(&id);
        // Control knows members of the Raft group that never got as far as a row.
        let bars = match self.context.caller {
            Caller::Operator(_) | Caller::Agent { .. } => false,
            Caller::Node(_) | Caller::System => self.context.rules >= RULES_REMOVED_NODES,
        };
        if !known && !bars {
            return Err(unknown(id));
        }
        if known && self.state.nodes.len() == 1 {
            return Err(Code::LastNode.reject(format!("node {id} is the only one")).at("id"));
        }
        self.emit(Event::NodeRemoved { id });
        done(resource(id), true)
    }

    pub(super) fn raise_rules(&mut self, level: u32) -> Decided {
        let now = self.state.globals.rules;
        if level < now {
            return Err(Code::RulesBackwards
                .reject(format!("the rules level is {now} already"))
                .at("level")
                .with("rules", now));
        }
        if level == now {
            return done("", false);
        }
        let ignorant = self.state.nodes.iter().find(|(_, node)| node.rules_max < level);
        let by = match ignorant {
            Some((id, _)) => format!("node {id} does not know rules level {level}"),
            None if self.state.nodes.is_empty() => "no control node is known".into(),
            None => {
                self.emit(Event::RulesRaised { level });
                return done("", true);
            }
        };
        Err(Code::RulesUnknown.reject(by).at("level"))
    }
}

fn resource(id: NodeId) -> String {
    format!("nodes/{id}")
}

fn unknown(id: NodeId) -> Rejection {
    check::unknown(Code::UnknownNode, "control node", id, "id")
}

fn address(text: &str, field: &str) -> Result<(), Rejection> {
    let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    match fits && printable && text.len() <= ADDRESS_MAX_BYTES {
        true => Ok(()),
        false => Err(Code::AddressSyntax.reject("the address is not host:port").at(field)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Caller, Command, Name, NodeId, Outcome, RULES_MAX, Stamp, State, Timestamp,
        limits::REMOVED_NODES_MAX, rules::RULES_REMOVED_NODES,
    };

    fn ask(state: &mut State, rules: u32, caller: Caller, command: &Command) -> Outcome {
        let stamp = Stamp { time: Timestamp(1), rules, caller, request_id: None };
        state.apply(&stamp, command).outcome
    }

    fn node(id: u64) -> Command {
        let (peer_addr, client_addr) = (format!("p{id}:1"), format!("c{id}:1"));
        Command::ApplyNode { id: NodeId(id), peer_addr, client_addr, rules_max: RULES_MAX }
    }

    fn code(outcome: &Outcome) -> &str {
        outcome.result.as_ref().map_or_else(|refused| refused.code.as_str(), |_| "")
    }

    #[test]
    fn a_removed_node_never_comes_back_and_removing_it_again_changes_nothing() {
        let mut state = State::default();
        let remove = Command::RemoveNode { id: NodeId(2) };
        let root = || Caller::Operator(Name::new("root").unwrap());
        let mut ask =
            |caller, command: &Command| ask(&mut state, RULES_REMOVED_NODES, caller, command);
        ask(Caller::System, &node(1)).result.unwrap();
        ask(Caller::System, &node(2)).result.unwrap();
        ask(root(), &remove).result.unwrap();
        assert_eq!(code(&ask(Caller::Node(NodeId(2)), &node(2))), "NODE_REMOVED");
        assert!(ask(root(), &remove).result.is_ok());
        // One that joined the Raft group and got no further is barred by control only.
        let unknown = Command::RemoveNode { id: NodeId(7) };
        assert_eq!(code(&ask(root(), &unknown)), "UNKNOWN_NODE");
        ask(Caller::System, &unknown).result.unwrap();
        assert_eq!(code(&ask(Caller::Node(NodeId(7)), &node(7))), "NODE_REMOVED");
        let again = State::load(state.globals.clone(), state.rows());
        assert_eq!(again.hash(), state.hash());
        assert!(again.was_removed(NodeId(2)) && !again.was_removed(NodeId(1)));
    }

    #[test]
    fn before_its_rules_level_a_removal_leaves_nothing_behind() {
        let mut state = State::default();
        ask(&mut state, 1, Caller::System, &node(1)).result.unwrap();
        let before = state.rows_hash();
        ask(&mut state, 1, Caller::System, &node(2)).result.unwrap();
        let remove = Command::RemoveNode { id: NodeId(2) };
        ask(&mut state, 1, Caller::System, &remove).result.unwrap();
        assert_eq!(state.rows_hash(), before, "nodes of the release before see the same");
        assert!(!state.was_removed(NodeId(2)));
    }

    #[test]
    fn the_removed_are_bounded_and_the_oldest_stay_removed() {
        let mut state = State::default();
        let mut ask = |command: &Command| ask(&mut state, RULES_MAX, Caller::System, command);
        let newest = 10 + REMOVED_NODES_MAX as u64;
        ask(&node(3)).result.unwrap();
        ask(&node(newest + 1)).result.unwrap();
        for id in 4..=newest {
            ask(&Command::RemoveNode { id: NodeId(id) }).result.unwrap();
        }
        assert_eq!(code(&ask(&node(4))), "NODE_REMOVED");
        assert_eq!(state.removed_nodes.len(), REMOVED_NODES_MAX);
        assert!(state.was_removed(NodeId(5)) && state.was_removed(NodeId(newest)));
        assert!(!state.was_removed(NodeId(3)), "it is a member");
        assert!(!state.was_removed(NodeId(newest + 1)) && !state.was_removed(NodeId(newest + 2)));
    }
}
