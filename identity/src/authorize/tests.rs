//! The whole matrix of callers, scopes and roles.

use super::*;
use crate::testing::{agent, name, node, operator};

const EVERYBODY: Callers = Callers::of(&[
    CallerKind::Anonymous,
    CallerKind::Node,
    CallerKind::Agent,
    CallerKind::Operator,
]);

fn binding(who: &str, scope: &str, role: Role) -> Binding {
    Binding { principal: operator(who), scope: scope.parse().unwrap(), role }
}

/// One operator per role and place, one with both, and names that are prefixes of others.
fn bindings() -> Vec<Binding> {
    let mut all = Vec::new();
    for role in Role::ALL {
        all.push(binding(&format!("cluster-{role}"), "cluster", role));
        all.push(binding(&format!("red-{role}"), "tenant:red", role));
    }
    all.push(binding("both", "cluster", Role::Viewer));
    all.push(binding("both", "tenant:red", Role::Admin));
    all
}

fn own_host(tenant: &str, host: &str) -> RequiredScope {
    RequiredScope::OwnHost { tenant: name(tenant), host: name(host) }
}

fn decide(
    principal: Option<&Principal>,
    callers: Callers,
    role: Role,
    scope: &RequiredScope,
) -> Result<Grant, Denied> {
    authorize(principal, &bindings(), &Requirement { callers, role, scope: scope.clone() })
}

/// The answer as one word; a table of them is the specification below.
fn word(answer: Result<Grant, Denied>) -> &'static str {
    match answer {
        Ok(_) => "yes",
        Err(Denied::Unauthenticated) => "who",
        Err(Denied::Caller { .. }) => "kind",
        Err(Denied::NotVisible) => "none",
        Err(Denied::Role { .. }) => "role",
        Err(Denied::Removed { .. }) => "removed",
    }
}

// One cell of the table: the answers to a viewer's, an operator's and an admin's request.
const YES: &str = "yes yes yes";
const WHO: &str = "who who who";
const KIND: &str = "kind kind kind";
const NONE: &str = "none none none";
const ROLE: &str = "role role role";
const VIEWER: &str = "yes role role";
const OPERATOR: &str = "yes yes role";

fn scopes() -> [RequiredScope; 7] {
    [
        RequiredScope::Caller,
        RequiredScope::Cluster,
        RequiredScope::Tenant(name("red")),
        RequiredScope::Tenant(name("red-1")),
        own_host("red", "h1"),
        own_host("red", "h2"),
        own_host("red-1", "h1"),
    ]
}

/// Every caller x every scope x every role, with every kind of caller admitted. Columns: the
/// caller itself, cluster, tenant red, tenant red-1, host red/h1, host red/h2, host red-1/h1.
#[test]
fn the_matrix_is_exactly_this() {
    let nothing = [YES, ROLE, NONE, NONE, NONE, NONE, NONE];
    let red = |cell| [YES, ROLE, cell, NONE, cell, cell, NONE];
    let cluster = |cell| [YES, cell, cell, cell, cell, cell, cell];
    let table = [
        (None, [YES, WHO, WHO, WHO, WHO, WHO, WHO]),
        (Some(node(1)), cluster(YES)),
        (Some(agent("red", "h1")), [YES, KIND, NONE, NONE, YES, NONE, NONE]),
        (Some(agent("red", "h")), [YES, KIND, NONE, NONE, NONE, NONE, NONE]),
        (Some(agent("red-1", "h1")), [YES, KIND, NONE, NONE, NONE, NONE, YES]),
        (Some(operator("nobody")), nothing),
        (Some(operator("red")), nothing),
        (Some(operator("red-viewer-2")), nothing),
        (Some(operator("cluster-viewer")), cluster(VIEWER)),
        (Some(operator("cluster-operator")), cluster(OPERATOR)),
        (Some(operator("cluster-admin")), cluster(YES)),
        (Some(operator("red-viewer")), red(VIEWER)),
        (Some(operator("red-operator")), red(OPERATOR)),
        (Some(operator("red-admin")), red(YES)),
        (Some(operator("both")), [YES, VIEWER, YES, VIEWER, YES, YES, VIEWER]),
    ];
    for (caller, row) in &table {
        for (scope, cell) in scopes().iter().zip(row) {
            let answers =
                Role::ALL.map(|role| word(decide(caller.as_ref(), EVERYBODY, role, scope)));
            assert_eq!(answers.join(" "), *cell, "{caller:?} at {scope:?}");
        }
    }
}

#[test]
fn a_kind_that_is_not_listed_is_never_admitted() {
    let scopes = scopes();
    let kinds = [CallerKind::Anonymous, CallerKind::Node, CallerKind::Agent, CallerKind::Operator];
    let callers = [None, Some(node(1)), Some(agent("red", "h1")), Some(operator("cluster-admin"))];
    for (caller, kind) in callers.iter().zip(kinds) {
        let others: Vec<_> = kinds.into_iter().filter(|other| *other != kind).collect();
        for (scope, listed) in scopes.iter().flat_map(|s| [(s, &others[..]), (s, &[])]) {
            let expected = match caller {
                None => Denied::Unauthenticated,
                Some(_) => Denied::Caller { kind },
            };
            let answer = decide(caller.as_ref(), Callers::of(listed), Role::Viewer, scope);
            assert_eq!(answer, Err(expected), "{kind} at {scope:?}");
        }
    }
}

#[test]
fn no_bindings_mean_no_rights() {
    let none: &[Binding] = &[];
    for scope in [RequiredScope::Cluster, RequiredScope::Tenant(name("red"))] {
        let need = Requirement { callers: EVERYBODY, role: Role::Viewer, scope };
        assert!(authorize(Some(&operator("cluster-admin")), &none, &need).is_err());
    }
}

#[test]
fn a_grant_says_who_and_with_which_role() {
    let red = RequiredScope::Tenant(name("red"));
    let grant = decide(Some(&operator("both")), EVERYBODY, Role::Viewer, &red).unwrap();
    assert_eq!((grant.caller(), grant.role()), (CallerKind::Operator, Some(Role::Admin)));
    let grant = decide(Some(&node(1)), EVERYBODY, Role::Admin, &red).unwrap();
    assert_eq!((grant.caller(), grant.role()), (CallerKind::Node, None));
}

#[test]
fn a_denied_role_names_the_one_needed() {
    let red = RequiredScope::Tenant(name("red"));
    let answer = decide(Some(&operator("red-viewer")), EVERYBODY, Role::Admin, &red);
    assert_eq!(answer, Err(Denied::Role { needed: Role::Admin }));
}

/// A binding of an agent or a node (none is ever made) gives it nothing.
#[test]
fn bindings_count_for_operators_only() {
    let principal = agent("red", "h1");
    let bound =
        vec![Binding { principal: principal.clone(), scope: Scope::Cluster, role: Role::Admin }];
    let need = Requirement {
        callers: EVERYBODY,
        role: Role::Viewer,
        scope: RequiredScope::Tenant(name("red")),
    };
    assert_eq!(authorize(Some(&principal), &bound, &need), Err(Denied::NotVisible));
    let nothing = Visibility::Only(BTreeSet::new());
    assert_eq!(visibility(Some(&principal), &bound, Role::Viewer), nothing);
}

#[test]
fn visibility_agrees_with_authorize() {
    let callers = [
        None,
        Some(agent("red", "h1")),
        Some(node(1)),
        Some(operator("nobody")),
        Some(operator("both")),
        Some(operator("red-viewer")),
        Some(operator("red-operator")),
        Some(operator("cluster-viewer")),
        Some(operator("cluster-admin")),
    ];
    for (caller, role) in callers.iter().flat_map(|c| Role::ALL.map(|role| (c, role))) {
        let seen = visibility(caller.as_ref(), &bindings(), role);
        for tenant in ["red", "red-1", "re"] {
            let scope = RequiredScope::Tenant(name(tenant));
            let allowed = decide(caller.as_ref(), EVERYBODY, role, &scope).is_ok();
            assert_eq!(seen.contains(&name(tenant)), allowed, "{caller:?} {role} {tenant}");
        }
    }
}
