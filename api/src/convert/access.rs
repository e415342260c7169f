//! Role bindings, join tokens and control nodes, to and from the wire.

use super::{
    field::{self, Read, Within},
    meta,
};
use crate::{reason::bad_field, resource, v1};
use model::{ControlNode, Key, Name, NodeId, Role, RoleBinding, Scope, Token, TokenKind};

/// The message of a role binding.
pub fn binding_to_proto(binding: &RoleBinding) -> v1::RoleBinding {
    let key = Key::Binding(binding.meta.name.clone(), binding.scope.clone());
    v1::RoleBinding {
        meta: Some(meta::to_proto(&key, &binding.meta)),
        tenant: match &binding.scope {
            Scope::Cluster => None,
            Scope::Tenant(tenant) => Some(tenant.to_string()),
        },
        role: role_to_proto(binding.role).into(),
    }
}

/// The role binding of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn binding_from_proto(binding: v1::RoleBinding) -> Read<RoleBinding> {
    let (Key::Binding(_, named), meta) = meta::from_proto(binding.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::RoleBinding));
    };
    let scope = match field::optional_name("tenant", binding.tenant.as_deref())? {
        None => Scope::Cluster,
        Some(tenant) => Scope::Tenant(tenant),
    };
    if scope != named {
        let message = "tenant is not the one that meta.resource says";
        return Err(bad_field("tenant", message, "make the two agree"));
    }
    Ok(RoleBinding { meta, scope, role: role_from_proto("role", binding.role)? })
}

/// The message of a join token. The hash of its secret stays here.
pub fn token_to_proto(token: &Token) -> v1::Token {
    v1::Token {
        meta: Some(meta::to_proto(&Key::Token(token.meta.name.clone()), &token.meta)),
        kind: Some(token_kind_to_proto(&token.kind)),
        expires_at: Some(field::time(token.expires_at)),
        uses_left: token.uses_left,
    }
}

/// The join token of a message; its `secret_hash` is empty, since messages do not carry it.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn token_from_proto(token: v1::Token) -> Read<Token> {
    let (Key::Token(_), meta) = meta::from_proto(token.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Token));
    };
    Ok(Token {
        meta,
        kind: token_kind_from_proto(token.kind)?,
        secret_hash: String::new(),
        expires_at: field::read_time("expires_at", token.expires_at)?,
        uses_left: token.uses_left,
    })
}

/// The message of what a token is for.
pub fn token_kind_to_proto(kind: &TokenKind) -> v1::TokenKind {
    let kind = match kind {
        TokenKind::Node => v1::token_kind::Kind::Node(v1::NodeToken {}),
        TokenKind::Agent { tenant } => {
            v1::token_kind::Kind::Agent(v1::AgentToken { tenant: tenant.to_string() })
        }
        TokenKind::Operator { name } => {
            v1::token_kind::Kind::Operator(v1::OperatorToken { name: name.to_string() })
        }
    };
    v1::TokenKind { kind: Some(kind) }
}

/// What a token is for, from a field `kind`.
///
/// # Errors
/// `FIELD` when it is missing or malformed.
pub fn token_kind_from_proto(kind: Option<v1::TokenKind>) -> Read<TokenKind> {
    Ok(match field::required("kind", kind.and_then(|kind| kind.kind))? {
        v1::token_kind::Kind::Node(v1::NodeToken {}) => TokenKind::Node,
        v1::token_kind::Kind::Agent(agent) => {
            TokenKind::Agent { tenant: field::name("tenant", &agent.tenant).within("kind.agent")? }
        }
        v1::token_kind::Kind::Operator(operator) => TokenKind::Operator {
            name: field::name("name", &operator.name).within("kind.operator")?,
        },
    })
}

/// The message of a control node.
pub fn node_to_proto(node: &ControlNode) -> v1::ControlNode {
    v1::ControlNode {
        meta: Some(meta::to_proto(&Key::Node(node.id), &node.meta)),
        id: node.id.0,
        peer_addr: node.peer_addr.clone(),
        client_addr: node.client_addr.clone(),
        rules_max: node.rules_max,
        alive: node.alive,
    }
}

/// The control node of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn node_from_proto(node: v1::ControlNode) -> Read<ControlNode> {
    let (Key::Node(named), meta) = meta::from_proto(node.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::ControlNode));
    };
    let id = NodeId(node.id);
    if id != named {
        let message = "id is not the one that meta.resource says";
        return Err(bad_field("id", message, "make the two agree"));
    }
    Ok(ControlNode {
        meta,
        id,
        peer_addr: node.peer_addr,
        client_addr: node.client_addr,
        rules_max: node.rules_max,
        alive: node.alive,
    })
}

pub(crate) fn role_to_proto(role: Role) -> v1::Role {
    match role {
        Role::Viewer => v1::Role::Viewer,
        Role::Operator => v1::Role::Operator,
        Role::Admin => v1::Role::Admin,
    }
}

pub(crate) fn role_from_proto(field: &str, role: i32) -> Read<Role> {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Viewer) => Ok(Role::Viewer),
        Ok(v1::Role::Operator) => Ok(Role::Operator),
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::Unspecified) | Err(_) => field::unknown_word(field, "viewer, operator, admin"),
    }
}

/// The scope as the last part of a binding's resource name has it, for `Command::BindRole`.
pub(crate) fn binding_key(field: &str, text: &str) -> Read<(Name, Scope)> {
    match resource::parse(field, text)? {
        Key::Binding(operator, scope) => Ok((operator, scope)),
        _ => Err(resource::other_kind(field, v1::Kind::RoleBinding)),
    }
}
