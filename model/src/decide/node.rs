//! Control nodes and the rules level.

use super::{Decided, Decision, check, done};
use crate::{
    Caller, Contact, Event, Name, NodeId, Rejection, limits::ADDRESS_MAX_BYTES, rejection::Code,
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
        if !self.state.nodes.contains(&id) {
            return Err(unknown(id));
        }
        if self.state.nodes.len() == 1 {
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
