//! Role bindings and join tokens.

use super::{Decided, Decision, check, done};
use crate::{
    Caller, Digest, Event, Name, Rejection, Role, RoleBinding, Scope, Timestamp, TokenKind,
    event::Written,
    limits::{TOKEN_LIFE_MAX_MS, TOKEN_USES_MAX, TOKENS_MAX},
    rejection::Code,
};

impl Decision<'_> {
    pub(super) fn bind_role(&mut self, operator: &Name, scope: &Scope, role: Role) -> Decided {
        if let Scope::Tenant(tenant) = scope {
            self.need_live_tenant(tenant)?;
        }
        let at = (operator.clone(), scope.clone());
        let before = self.state.bindings.get(&at).map(|row| row.role);
        if before == Some(role) {
            return done(resource(operator, scope), false);
        }
        if before.is_some() {
            self.keep_an_admin(operator, scope)?;
        }
        let created = before.is_none().then(|| self.next_uid());
        let (operator, scope) = at;
        let resource = resource(&operator, &scope);
        self.emit(Event::RoleBound { operator, scope, role, created });
        done(resource, true)
    }

    pub(super) fn unbind_role(&mut self, operator: &Name, scope: &Scope) -> Decided {
        let at = (operator.clone(), scope.clone());
        if !self.state.bindings.contains(&at) {
            let what = resource(operator, scope);
            return Err(check::unknown(Code::UnknownBinding, "role binding", what, "operator"));
        }
        self.keep_an_admin(operator, scope)?;
        let (operator, scope) = at;
        let resource = resource(&operator, &scope);
        self.emit(Event::RoleUnbound { operator, scope });
        done(resource, true)
    }

    /// Refuses an operator to leave the cluster without any administrator.
    fn keep_an_admin(&self, operator: &Name, scope: &Scope) -> Result<(), Rejection> {
        let admin = |row: &RoleBinding| row.scope == Scope::Cluster && row.role == Role::Admin;
        let at = (operator.clone(), scope.clone());
        let by_operator = matches!(self.context.caller, Caller::Operator(_));
        if !by_operator || !self.state.bindings.get(&at).is_some_and(admin) {
            return Ok(());
        }
        let others = self.state.bindings.iter().filter(|((other, _), _)| other != operator);
        match others.map(|(_, row)| row).any(admin) {
            true => Ok(()),
            false => Err(Code::LastAdmin
                .reject(format!("{operator} is the last administrator"))
                .at("operator")),
        }
    }

    pub(super) fn create_token(
        &mut self,
        id: &Name,
        kind: &TokenKind,
        secret_hash: &str,
        (expires_at, uses): (Timestamp, u32),
    ) -> Decided {
        if let TokenKind::Agent { tenant } = kind {
            self.need_live_tenant(tenant)?;
        }
        check::hash(secret_hash, "secret_hash")?;
        check::range(u64::from(uses), 1, u64::from(TOKEN_USES_MAX), "uses")?;
        let now = self.context.time;
        let latest = now.plus_ms(TOKEN_LIFE_MAX_MS);
        check::range(expires_at.0, now.plus_ms(1).0, latest.0, "expires_at")?;
        if self.state.tokens.contains(id) {
            return Err(Code::Exists.reject(format!("token {id} exists already")).at("id"));
        }
        self.clear_tokens();
        if self.state.tokens.len() >= TOKENS_MAX {
            return Err(check::too_many("tokens", TOKENS_MAX + 1, TOKENS_MAX));
        }
        let uid = self.next_uid();
        self.emit(Event::TokenCreated {
            id: id.clone(),
            uid,
            kind: kind.clone(),
            secret_hash: secret_hash.into(),
            expires_at,
            uses,
        });
        done(format!("tokens/{id}"), true)
    }

    /// Takes away tokens that expired.
    fn clear_tokens(&mut self) {
        let now = self.context.time;
        let expired = self.state.tokens.iter().filter(|(_, token)| token.expires_at <= now);
        let expired: Vec<Name> = expired.map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.emit(Event::TokenRevoked { id });
        }
    }

    pub(super) fn use_token(
        &mut self,
        id: &Name,
        secret_hash: &str,
        host: Option<&Name>,
        key: Digest,
    ) -> Decided {
        let refused = |code: Code, message: &str| Err(code.reject(message).at("token"));
        let token = self.state.tokens.get(id).filter(|token| token.secret_hash == secret_hash);
        let Some(token) = token.cloned() else {
            return refused(Code::TokenInvalid, "the token is unknown or its secret is wrong");
        };
        if token.expires_at <= self.context.time {
            return refused(Code::TokenExpired, "the token has expired");
        }
        if token.uses_left == 0 {
            return refused(Code::TokenSpent, "the token was used up");
        }
        let resource = match (&token.kind, host) {
            (TokenKind::Agent { tenant }, Some(host)) => {
                self.register_host(tenant, host)?;
                self.enrol_host(tenant, host, key)?;
                format!("tenants/{tenant}/hosts/{host}")
            }
            (TokenKind::Agent { .. }, None) => {
                return refused(Code::TokenKind, "the token is for the agent of a host");
            }
            (TokenKind::Node | TokenKind::Operator { .. }, Some(_)) => {
                return refused(Code::TokenKind, "the token is not for the agent of a host");
            }
            (TokenKind::Node | TokenKind::Operator { .. }, None) => format!("tokens/{id}"),
        };
        self.emit(Event::TokenUsed { id: id.clone() });
        done(resource, true)
    }

    /// Registers a host that joins, if it is not known.
    fn register_host(&mut self, tenant: &Name, host: &Name) -> Result<(), Rejection> {
        self.need_live_tenant(tenant)?;
        if self.state.host(tenant, host).is_some() {
            return Ok(());
        }
        let written = Written {
            name: host.clone(),
            created: Some(self.next_uid()),
            respecified: false,
            labels: Default::default(),
            annotations: Default::default(),
        };
        let tenant = tenant.clone();
        self.emit(Event::HostApplied { tenant, written, site: None, zone: None });
        Ok(())
    }

    pub(super) fn revoke_token(&mut self, id: &Name) -> Decided {
        if !self.state.tokens.contains(id) {
            return Err(check::unknown(Code::UnknownToken, "token", id, "id"));
        }
        self.emit(Event::TokenRevoked { id: id.clone() });
        done(format!("tokens/{id}"), true)
    }
}

fn resource(operator: &Name, scope: &Scope) -> String {
    match scope {
        Scope::Cluster => format!("bindings/{operator}"),
        Scope::Tenant(tenant) => format!("tenants/{tenant}/bindings/{operator}"),
    }
}
