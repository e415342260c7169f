//! Arbitrary values of the model, within what messages can say.

use crate::convert::field::TIME_MAX;
use model::{
    Application, Assignment, Class, Cluster, ClusterSpec, Command, Component, Condition, Contact,
    ControlNode, Counts, Current, Deletion, Deployment, DeploymentCluster, DeploymentRevision,
    DeploymentSpec, DeploymentState, Digest, Draft, DriverKind, Facts, Host, HostProfile,
    HostState, Image, Indicator, Job, JobError, JobKey, Key, Meta, Name, NodeId, OnDisconnect,
    Order, Override, OwnerRef, Package, Phase, Placement, Rejection, Report, ReportNumber,
    Resources, Revision, Role, RoleBinding, Row, Scheduled, Scope, Slot, Status,
    Strategy as Rollout, Targets, Tenant, Timestamp, Token, TokenKind, Trouble, Uid, Value,
    Workload,
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};
use std::{collections::BTreeMap, sync::Arc};

fn name() -> impl Strategy<Value = Name> + Clone {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?".prop_map(|text| Name::new(&text).unwrap())
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn version() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9.+-]{0,10}"
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..=TIME_MAX).prop_map(Timestamp)
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision)
}

fn uid() -> impl Strategy<Value = Uid> {
    (revision(), any::<u32>()).prop_map(|(revision, ordinal)| Uid { revision, ordinal })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z/.]{1,6}", text(), 0..3)
}

fn meta(name: impl Strategy<Value = Name>) -> impl Strategy<Value = Meta> {
    let deletion =
        (time(), any::<bool>(), vec(text(), 0..3)).prop_map(|(at, force, waiting_on)| {
            Box::new(Deletion { requested_at: at, force, waiting_on })
        });
    let owner = (text(), uid()).prop_map(|(resource, uid)| OwnerRef { resource, uid });
    let numbers = (any::<u64>(), revision(), revision(), time(), time());
    (name, uid(), pairs(), pairs(), numbers, option::of(deletion), vec(owner, 0..3)).prop_map(
        |(name, uid, labels, annotations, numbers, deletion, owners)| {
            let (generation, spec_revision, revision, created_at, updated_at) = numbers;
            Meta {
                name,
                uid,
                labels,
                annotations,
                generation,
                spec_revision,
                revision,
                created_at,
                updated_at,
                deletion,
                owners,
            }
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    let indicators =
        vec![Indicator::Unspecified, Indicator::Error, Indicator::InProgress, Indicator::Idle];
    let rest = (any::<bool>(), any::<u32>(), option::of(time()), option::of(text()));
    (select(indicators), text(), time(), rest).prop_map(|(indicator, text, since, rest)| {
        let (retryable, attempt, next_retry_at, last_error) = rest;
        Status { indicator, text, since, retryable, attempt, next_retry_at, last_error }
    })
}

fn driver() -> impl Strategy<Value = DriverKind> {
    select(vec![DriverKind::Exec, DriverKind::Wasm])
}

fn resources() -> impl Strategy<Value = Resources> {
    (any::<u64>(), any::<u64>())
        .prop_map(|(cpu_millis, memory_bytes)| Resources { cpu_millis, memory_bytes })
}

fn facts() -> impl Strategy<Value = Facts> {
    let component =
        (text(), text(), text()).prop_map(|(kind, name, detail)| Component { kind, name, detail });
    (vec(text(), 8), any::<u32>(), any::<u64>(), vec(component, 0..3)).prop_map(
        |(texts, cpu_count, memory_bytes, components)| {
            let [arch, os, kernel, cpu_model, hostname, boot_id, agent_version, _]: [String; 8] =
                texts.try_into().unwrap();
            Facts {
                arch,
                os,
                kernel,
                cpu_model,
                cpu_count,
                memory_bytes,
                hostname,
                boot_id,
                agent_version,
                components,
            }
        },
    )
}

pub(super) fn profile() -> impl Strategy<Value = HostProfile> {
    (facts(), resources(), btree_set(driver(), 0..3), any::<bool>()).prop_map(
        |(facts, capacity, drivers, fenced)| HostProfile { facts, capacity, drivers, fenced },
    )
}

fn contact() -> impl Strategy<Value = Contact> {
    prop_oneof![
        Just(Contact::Never),
        (any::<u64>(), any::<u64>(), time()).prop_map(|(node, session, since)| {
            Contact::Connected { node: NodeId(node), session, since }
        }),
        (any::<u64>(), time()).prop_map(|(session, since)| Contact::Lost { since, session }),
    ]
}

fn host() -> impl Strategy<Value = Host> {
    let states = vec![HostState::Registered, HostState::Onboarded, HostState::Untrusted];
    let places = (option::of(name()), option::of(name()), select(states));
    let contact = (contact(), option::of(digest()));
    (meta(name()), places, any::<[bool; 3]>(), contact, profile(), revision(), status()).prop_map(
        |(meta, (site, zone, state), flags, contact, profile, capacity_revision, status)| Host {
            meta,
            site,
            zone,
            state,
            cordoned: flags[0],
            declared_lost: flags[1],
            replaceable: flags[2],
            agent_key: contact.1,
            contact: contact.0,
            capacity: profile.capacity,
            capacity_revision,
            drivers: profile.drivers,
            fenced: profile.fenced,
            facts: Box::new(profile.facts),
            status,
        },
    )
}

fn cluster_spec() -> impl Strategy<Value = ClusterSpec> {
    (option::of(name()), btree_set(name(), 0..4))
        .prop_map(|(environment, members)| ClusterSpec { environment, members })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::Literal),
        (name(), text()).prop_map(|(name, key)| Value::SecretRef { name, key }),
    ]
}

fn env() -> impl Strategy<Value = BTreeMap<String, Value>> {
    btree_map("[A-Z_]{1,6}", value(), 0..3)
}

fn policy() -> impl Strategy<Value = OnDisconnect> {
    select(vec![OnDisconnect::KeepRunning, OnDisconnect::Stop, OnDisconnect::Replace])
}

fn application() -> impl Strategy<Value = Application> {
    let first = (name(), version(), driver(), any::<u32>(), btree_map(name(), digest(), 0..3));
    let rest = (resources(), policy(), any::<u64>(), env(), vec(name(), 0..3));
    (first, rest).prop_map(|(first, rest)| {
        let (name, version, driver, num_partitions, artifacts) = first;
        let (limits, on_disconnect, stop_grace_ms, env, zones) = rest;
        Application {
            name,
            version,
            driver,
            num_partitions,
            artifacts,
            limits,
            on_disconnect,
            stop_grace_ms,
            env,
            zones,
        }
    })
}

fn targets() -> impl Strategy<Value = Targets> {
    prop_oneof![
        btree_set(name(), 0..4).prop_map(Targets::Clusters),
        pairs().prop_map(Targets::Selector),
    ]
}

fn deployment_spec() -> impl Strategy<Value = DeploymentSpec> {
    let change = (env(), option::of(any::<u32>()), option::of(resources()))
        .prop_map(|(env, num_partitions, limits)| Override { env, num_partitions, limits });
    let overrides = btree_map(name(), change, 0..3);
    (name(), version(), option::of(name()), overrides, targets(), any::<u32>()).prop_map(
        |(package, version, profile, overrides, targets, max_unavailable)| DeploymentSpec {
            package,
            version,
            profile,
            overrides,
            targets,
            strategy: Rollout { max_unavailable },
        },
    )
}

fn state() -> impl Strategy<Value = DeploymentState> {
    select(vec![
        DeploymentState::Unknown,
        DeploymentState::Running,
        DeploymentState::Down,
        DeploymentState::InternalError,
        DeploymentState::Deploying,
        DeploymentState::Updating,
        DeploymentState::Terminating,
        DeploymentState::Error,
        DeploymentState::NoTargetClusters,
    ])
}

fn counts() -> impl Strategy<Value = Counts> {
    any::<[u64; 5]>().prop_map(|[total, running, pending, unknown, failed]| Counts {
        total,
        running,
        pending,
        unknown,
        failed,
    })
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let revision_of = (any::<u64>(), time(), deployment_spec())
        .prop_map(|(generation, at, spec)| DeploymentRevision { generation, at, spec });
    let condition = (text(), any::<bool>(), text(), text(), time()).prop_map(
        |(kind, holds, reason, message, since)| Condition { kind, holds, reason, message, since },
    );
    let rest = (any::<bool>(), option::of(time()), state(), counts(), status(), revision());
    let lists = (vec(revision_of, 0..2), vec(condition, 0..2));
    (meta(name()), deployment_spec(), lists, rest).prop_map(
        |(meta, spec, (revisions, conditions), rest)| {
            let (in_progress, targetless_since, state, counts, status, workload_revision) = rest;
            Deployment {
                meta,
                spec,
                revisions,
                workload_revision,
                in_progress,
                targetless_since,
                state,
                counts,
                status,
                conditions,
            }
        },
    )
}

fn part() -> impl Strategy<Value = DeploymentCluster> {
    (any::<bool>(), btree_map(name(), any::<u32>(), 0..3), state(), counts(), status()).prop_map(
        |(targeted, num_partitions, state, counts, status)| DeploymentCluster {
            targeted,
            num_partitions,
            state,
            counts,
            status,
        },
    )
}

fn job_key() -> impl Strategy<Value = JobKey> {
    let slot = prop_oneof![
        any::<u32>().prop_map(Slot::Partition),
        name().prop_map(Slot::Host),
        any::<u64>().prop_map(Slot::Run),
    ];
    (name(), name(), name(), name(), slot).prop_map(
        |(tenant, deployment, cluster, application, slot)| JobKey {
            tenant,
            deployment,
            cluster,
            application,
            slot,
        },
    )
}

fn workload() -> impl Strategy<Value = Arc<Workload>> {
    (application(), revision(), digest()).prop_map(|(application, spec_revision, image)| {
        Arc::new(Workload {
            spec_revision,
            version: application.version,
            driver: application.driver,
            num_partitions: application.num_partitions,
            image,
            limits: application.limits,
            on_disconnect: application.on_disconnect,
            stop_grace_ms: application.stop_grace_ms,
            env: application.env,
            zones: application.zones,
        })
    })
}

fn phase() -> impl Strategy<Value = Phase> {
    select(vec![
        Phase::Accepted,
        Phase::Downloading,
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Stopped,
        Phase::Failing,
        Phase::Failed,
    ])
}

fn job_error() -> impl Strategy<Value = JobError> {
    (text(), text(), any::<bool>(), any::<u32>()).prop_map(|(reason, text, retryable, attempt)| {
        JobError { reason, text, retryable, attempt }
    })
}

fn scheduled() -> impl Strategy<Value = Scheduled> {
    (any::<bool>(), workload(), revision()).prop_map(|(active, workload, revision)| Scheduled {
        active,
        workload,
        revision,
    })
}

pub(super) fn report() -> impl Strategy<Value = Report> {
    let rest = (digest(), any::<u32>(), any::<bool>(), option::of(job_error()));
    (job_key(), any::<u64>(), revision(), phase(), revision(), rest).prop_map(
        |(key, assignment, order, phase, spec_revision, rest)| {
            let (image, restarts, data_left_behind, error) = rest;
            Report {
                key,
                assignment: Assignment(assignment),
                order,
                phase,
                spec_revision,
                image,
                restarts,
                data_left_behind,
                error,
            }
        },
    )
}

fn placement() -> impl Strategy<Value = Placement> {
    let number = (any::<u32>(), any::<u32>());
    let number = number.prop_map(|(session, item)| ReportNumber { session, item });
    let current = (report(), number, time(), any::<bool>());
    let current = current.prop_map(|(report, number, since, settled)| Current {
        phase: report.phase,
        spec_revision: report.spec_revision,
        image: report.image,
        order: report.order,
        number,
        since,
        restarts: report.restarts,
        settled,
        data_left_behind: report.data_left_behind,
        error: report.error.map(Box::new),
    });
    (any::<u64>(), name(), scheduled(), option::of(current)).prop_map(
        |(assignment, host, scheduled, current)| Placement {
            assignment: Assignment(assignment),
            host,
            scheduled,
            current,
        },
    )
}

fn job() -> impl Strategy<Value = Job> {
    let trouble = (text(), text(), time(), any::<u32>(), option::of(time())).prop_map(
        |(reason, text, since, attempt, next_retry_at)| {
            Box::new(Trouble { reason, text, since, attempt, next_retry_at })
        },
    );
    let first = (uid(), revision(), time(), any::<bool>(), workload());
    let rest = (option::of(trouble), option::of(time()), time(), option::of(name()));
    (first, vec(placement(), 0..3), rest).prop_map(|(first, placements, rest)| {
        let (uid, revision, created_at, active, workload) = first;
        let (trouble, due_at, progress_since, data_on) = rest;
        Job {
            uid,
            revision,
            created_at,
            active,
            workload,
            placements,
            trouble,
            due_at,
            progress_since,
            data_on,
        }
    })
}

pub(super) fn order() -> impl Strategy<Value = Order> {
    (job_key(), any::<u64>(), scheduled(), any::<bool>(), option::of(uid())).prop_map(
        |(key, assignment, scheduled, data_elsewhere, deployment)| Order {
            key,
            assignment: Assignment(assignment),
            scheduled,
            data_elsewhere,
            deployment,
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    select(vec![Role::Viewer, Role::Operator, Role::Admin])
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Cluster), name().prop_map(Scope::Tenant)]
}

fn token_kind() -> impl Strategy<Value = TokenKind> {
    prop_oneof![
        Just(TokenKind::Node),
        name().prop_map(|tenant| TokenKind::Agent { tenant }),
        name().prop_map(|name| TokenKind::Operator { name }),
    ]
}

/// Any row that is a resource, with its key.
pub(super) fn row() -> BoxedStrategy<(Key, Row)> {
    let tenant = (meta(name()), text(), status()).prop_map(|(meta, display_name, status)| {
        let row = Tenant { meta, display_name, status };
        (Key::Tenant(row.meta.name.clone()), Row::Tenant(Arc::new(row)))
    });
    let host = (name(), host()).prop_map(|(tenant, row)| {
        (Key::Host(tenant, row.meta.name.clone()), Row::Host(Arc::new(row)))
    });
    let cluster = (name(), meta(name()), cluster_spec(), status());
    let cluster = cluster.prop_map(|(tenant, meta, spec, status)| {
        let row = Cluster { meta, spec, status };
        (Key::Cluster(tenant, row.meta.name.clone()), Row::Cluster(Arc::new(row)))
    });
    let image = (name(), meta(name()), digest(), any::<u64>(), application());
    let image = image.prop_map(|(tenant, meta, digest, size_bytes, application)| {
        let row = Image { meta, digest, size_bytes, application };
        (Key::Image(tenant, digest), Row::Image(Arc::new(row)))
    });
    let package = (name(), meta(name()), version(), vec(application(), 0..3));
    let package = package.prop_map(|(tenant, meta, version, applications)| {
        let row = Package { meta, version: version.clone(), applications };
        (Key::Package(tenant, row.meta.name.clone(), version), Row::Package(Arc::new(row)))
    });
    let deployment = (name(), deployment()).prop_map(|(tenant, row)| {
        (Key::Deployment(tenant, row.meta.name.clone()), Row::Deployment(Arc::new(row)))
    });
    let part = (name(), name(), name(), part()).prop_map(|(tenant, name, cluster, row)| {
        (Key::DeploymentCluster(tenant, name, cluster), Row::DeploymentCluster(Arc::new(row)))
    });
    let job = (job_key(), job()).prop_map(|(key, row)| (Key::Job(key), Row::Job(Arc::new(row))));
    prop_oneof![tenant, host, cluster, image, package, deployment, part, job, access_row()].boxed()
}

fn access_row() -> impl Strategy<Value = (Key, Row)> {
    let binding = (meta(name()), scope(), role()).prop_map(|(meta, scope, role)| {
        let row = RoleBinding { meta, scope: scope.clone(), role };
        (Key::Binding(row.meta.name.clone(), scope), Row::Binding(Arc::new(row)))
    });
    let token = (meta(name()), token_kind(), time(), any::<u32>());
    let token = token.prop_map(|(meta, kind, expires_at, uses_left)| {
        let row = Token { meta, kind, secret_hash: String::new(), expires_at, uses_left };
        (Key::Token(row.meta.name.clone()), Row::Token(Arc::new(row)))
    });
    let node = any::<u64>().prop_flat_map(|id| {
        let name = Just(Name::new(&format!("node-{id}")).unwrap());
        (Just(NodeId(id)), meta(name), text(), text(), any::<u32>(), any::<bool>())
    });
    let node = node.prop_map(|(id, meta, peer_addr, client_addr, rules_max, alive)| {
        let row = ControlNode { meta, id, peer_addr, client_addr, rules_max, alive };
        (Key::Node(id), Row::Node(Arc::new(row)))
    });
    prop_oneof![binding, token, node]
}

fn draft() -> impl Strategy<Value = Draft> {
    (name(), pairs(), pairs(), option::of(revision())).prop_map(
        |(name, labels, annotations, if_revision)| Draft { name, labels, annotations, if_revision },
    )
}

/// Any command that a document asks for.
pub(super) fn apply() -> impl Strategy<Value = Command> {
    prop_oneof![
        (draft(), text())
            .prop_map(|(draft, display_name)| Command::ApplyTenant { draft, display_name }),
        (name(), draft(), option::of(name()), option::of(name())).prop_map(
            |(tenant, draft, site, zone)| Command::ApplyHost { tenant, draft, site, zone }
        ),
        (name(), draft(), cluster_spec()).prop_map(|(tenant, draft, spec)| Command::ApplyCluster {
            tenant,
            draft,
            spec
        }),
        (name(), draft(), version(), vec(application(), 0..3)).prop_map(
            |(tenant, draft, version, applications)| Command::ApplyPackage {
                tenant,
                draft,
                version,
                applications,
            }
        ),
        (name(), draft(), deployment_spec()).prop_map(|(tenant, draft, spec)| {
            Command::ApplyDeployment { tenant, draft, spec: Box::new(spec) }
        }),
        (name(), scope(), role()).prop_map(|(operator, scope, role)| Command::BindRole {
            operator,
            scope,
            role
        }),
    ]
}

pub(super) fn rejection() -> impl Strategy<Value = Rejection> {
    let classes = vec![
        Class::InvalidArgument,
        Class::NotFound,
        Class::AlreadyExists,
        Class::Aborted,
        Class::FailedPrecondition,
        Class::PermissionDenied,
        Class::Unauthenticated,
        Class::ResourceExhausted,
    ];
    (select(classes), text(), text(), text(), text(), pairs()).prop_map(
        |(class, code, message, field, remedy, details)| Rejection {
            class,
            code,
            message,
            field,
            remedy,
            details,
        },
    )
}

pub(super) fn a_rejection() -> Rejection {
    crate::reason::bad_field("spec", "the spec is wrong", "correct it")
}

pub(super) fn a_report() -> Report {
    Report {
        key: JobKey {
            tenant: Name::new("acme").unwrap(),
            deployment: Name::new("shop").unwrap(),
            cluster: Name::new("north").unwrap(),
            application: Name::new("web").unwrap(),
            slot: Slot::Partition(0),
        },
        assignment: Assignment(7),
        order: Revision(8),
        phase: Phase::Running,
        spec_revision: Revision(5),
        image: Digest([0; 32]),
        restarts: 0,
        data_left_behind: false,
        error: None,
    }
}
