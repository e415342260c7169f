//! **Ring B**: the whole house in one thread, from a seed.
//!
//! Control nodes with the real ledger (openraft), actors, sessions and services; agents with the real
//! loop, memory and stream. Simulated are what lies under the product's seams: disks and stores, the
//! network, clocks, what runs jobs, and the dice and clock of the process. `README.md` beside this room's
//! manifest is the page that lists what is swapped and why.
//!
//! One process runs one seed ([`run_here`]); [`run_apart_many`] starts such processes, and compares two
//! of a seed with each other if asked to. Reading order: [`Settings`], `house` (everything there is, and
//! the loop), `control`, `edge`, `net` with `wire` and `stream` on it, `users`, `faults`, `heal`,
//! `observe`; `entropy` holds the only unsafe code.
//!
//! | oracle | holds | looked at |
//! |---|---|---|
//! | `replicas` | a revision has one state, on every node and in every life, applied, loaded or rebuilt | each entry |
//! | `watch` | revisions come in order, none missing, none twice, the same everywhere; what is compacted is said | each event |
//! | `egress` | a vote given, an entry taken: on the disk before the answer leaves | every vote, 1 in 20 appends |
//! | `linearizability` | whoever begins after an answer gets no older revision, a write a newer one | each answer |
//! | `exclusive` | a `stop` job runs once, by the machines that run it | ten times a second |
//! | `panic` | nothing panics | ten times a second |
//! | `log` | no crash of a healthy disk leaves a log that cannot be trusted | each start |
//! | `convergence` | without faults: one leader, nodes equal, hosts in contact, jobs as asked or with a reason | the end |
//! | `journal` | journals agree | the end |
//! | `acknowledged` | what a user was told is in the journal, once, with that answer | the end |
//! | `rebuild` | a node whose store is gone has the same states from snapshot and log | the end |

mod book;
mod clock;
mod control;
mod edge;
mod entropy;
mod faults;
mod heal;
mod house;
mod lines;
mod net;
mod observe;
mod process;
mod run;
mod settings;
mod stream;
mod trace;
mod users;
mod wire;

pub use book::{Broken, Figures};
pub use process::{Leak, Many, Ran, arguments, run_apart, run_apart_many, run_twice};
pub use run::{Report, run_here};
pub use settings::{Plant, Settings, Wire};
