//! What happened, as each process saw it: one file of JSON lines per process.
//!
//! A process may be killed between any two lines, and within one. So a process records a change *before* it makes it. A change
//! without an answer may or may not have happened. Reads are written down once they have been answered; one that is missing
//! has promised nothing. Times are the machine's monotonic clock: the beginning is read before the call, the end after it, so
//! an interval never looks shorter than it was.

mod epochs;
mod read;
mod write;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::epochs::Epoch;
pub use self::read::{keep, load, load_kept};
pub use self::write::Journal;
use crate::clock::Nanos;

/// Names one operation of one process, in all processes: also the value that it writes.
pub type Op = u64;

/// Node, incarnation and a running number in one.
pub fn op(node: usize, incarnation: usize, number: u64) -> Op {
    (node as u64 + 1) << 56 | (incarnation as u64) << 40 | number
}

/// The number of the SQL client, among those of the nodes. An operation is a positive number in the database.
pub const SQL_CLIENT: usize = 100;

/// Which process an operation belongs to: node and incarnation.
pub fn process_of(op: Op) -> u64 {
    op >> 40
}

/// Which node a process is one of; `None` for the controller.
pub fn node_of(process: u64) -> Option<u64> {
    (process >> 16).checked_sub(1)
}

/// Whether it was made in SQL.
pub fn is_in_sql(op: Op) -> bool {
    node_of(process_of(op)) == Some(SQL_CLIENT as u64)
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    Read(Read),
    Intent(Intent),
    Answer(Answer),
    /// Before its answer, a change has waited until no node could serve the old state.
    Everywhere {
        op: Op,
        /// From the commit on.
        took: Nanos,
        acknowledged: usize,
        lapsed: usize,
    },
    Listed(Listed),
    Taken(Taken),
    /// The guard of a lock said that it is held, after `at`.
    Held {
        op: Op,
        at: Nanos,
    },
    Trust {
        at: Nanos,
        trusted: bool,
    },
    Gauge(Gauge),
    Pinned(Pinned),
    /// All that the SQL client has received on the nodes' channel.
    Notified {
        notifications: u64,
        /// Those of changes that were rolled back, and one of them.
        of_rolled_back: u64,
        example: String,
    },
    Fault(Fault),
    Rewound(Box<Rewound>),
    /// A node was killed while its updates were committed and not notified.
    KilledInGap {
        node: usize,
        at: Nanos,
    },
    Sample(Sample),
    /// What the wall clock shows at a moment of the monotonic one.
    Wall {
        at: Nanos,
        wall: Nanos,
    },
    /// What the controller expected, and whether it came true.
    Reported {
        held: bool,
        what: String,
    },
}

/// A read that was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    pub session: Uuid,
    pub from: Nanos,
    pub to: Nanos,
    /// The version that the caller asked for at least; 0 if any.
    pub at_least: i64,
    /// Answered from the node's memory.
    pub cached: bool,
    pub found: Found,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Found {
    Seen(Seen),
    /// By the SQL client.
    Version(i64),
    Gone,
    /// An error, by its kind.
    Failed(String),
}

/// A session as a handle shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    pub version: i64,
    /// When it ends, on the database's clock.
    pub ends: Nanos,
    /// Whether this is only what a rotation has left under the old id.
    pub rotated: bool,
    /// Two attributes that every change writes, with its own number; and the versions that wrote them.
    pub a: Op,
    pub b: Op,
    pub a_version: i64,
    pub b_version: i64,
    /// How often `modify` has counted.
    pub n: i64,
    /// An attribute that only some changes write or remove: by which it was, 0 if it is not there; and the version.
    pub elevated: Op,
    pub elevated_version: i64,
    /// When it ends by itself, if it does, on the database's clock.
    pub elevated_until: Option<Nanos>,
}

/// A change that is about to be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intent {
    pub op: Op,
    pub at: Nanos,
    pub change: Change,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    Create {
        user: Option<usize>,
    },
    Update {
        session: Uuid,
        elevates: Elevates,
    },
    /// An update that counts.
    Modify {
        session: Uuid,
    },
    /// The session was rotated, and ends under this one after the grace.
    Rotate {
        session: Uuid,
        /// The user afterwards.
        user: Option<usize>,
        /// Whether the new session has the counter of the old one, and what elevated it.
        keeps: bool,
        grace: Nanos,
    },
    Delete {
        session: Uuid,
    },
    DeleteUser {
        user: usize,
    },
    /// Every node drops the user's sessions from memory.
    EvictUser {
        user: usize,
    },
    /// An UPDATE by hand, which writes no attribute.
    ByHand {
        session: Uuid,
    },
    /// The attribute that not every change writes is removed from all of the user's sessions.
    Unelevate {
        user: usize,
    },
}

/// What an update does with the attribute that not every change writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Elevates {
    AsBefore,
    /// It ends by itself, so it has a row of its own.
    ForAWhile,
    /// Until the session ends.
    ToTheEnd,
    NoMore,
}

/// How a change was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub op: Op,
    pub at: Nanos,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Created, or changed: this is what the database holds.
    Made {
        session: Uuid,
        seen: Seen,
    },
    /// The same, in SQL.
    Wrote {
        session: Uuid,
        version: i64,
    },
    RolledBack,
    /// The session, or what was to be removed, does not exist, by now. Or it was evicted.
    Gone,
    /// Nothing was changed: a conflict, or an error that says so.
    Refused(String),
    /// It may or may not have happened.
    Unknown,
}

/// How many sessions a user was said to have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub user: usize,
    pub count: usize,
}

/// A lock that was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    pub op: Op,
    pub name: u64,
    pub from: Nanos,
    pub to: Nanos,
    pub fence: i64,
}

/// A node's queues.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Gauge {
    pub writes_waiting: usize,
    pub touches_waiting: usize,
    pub sessions_cached: usize,
    /// Hits that the node has compared with the database since its start, and those that were too old.
    #[serde(default)]
    pub hits_compared: u64,
    #[serde(default)]
    pub hits_stale: u64,
}

/// What a pin has said while it was held.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pinned {
    pub session: Uuid,
    /// The last time before which it was not asked again and said that the session lives.
    pub alive: Nanos,
    /// When it had said that the session has ended, and the cause.
    pub ended: Option<(Nanos, String)>,
    /// How often it said that the session is not proved to live.
    pub unproved: u64,
}

/// A fault that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    pub name: String,
    pub begin: Nanos,
    pub end: Nanos,
    /// When every node was trusted again, for a while already.
    pub over: Nanos,
}

/// The database lost commits: it went on from an older state. No node reached it between the two times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rewound {
    /// No process could change anything between these times.
    pub from: Nanos,
    pub to: Nanos,
    /// Commits that were lost.
    pub lost: Vec<Written>,
    /// The sessions before, and afterwards.
    pub before: Vec<Row>,
    pub after: Vec<Row>,
    /// Commits of the new history have higher numbers than this.
    pub last: i64,
}

/// What a process takes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub node: usize,
    pub resident_kib: u64,
    /// Connections of all nodes together, as PostgreSQL counts them.
    pub connections: u64,
}

/// All that is known after a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By process; see [`process_of`]. The controller's is 0.
    pub processes: HashMap<u64, Vec<Entry>>,
    pub tables: Tables,
}

/// What the database itself remembers: every write that was committed, from a trigger, and what is left at the end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tables {
    pub writes: Vec<Written>,
    pub sessions: Vec<Row>,
    /// What the resource behind the locks has accepted, in order: the lock, the fence, and who had it.
    pub accepted: Vec<(u64, i64, Op)>,
}

/// One committed write of the attribute `a`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Grows from write to write, until commits are lost.
    pub n: i64,
    pub session: Uuid,
    pub version: i64,
    pub op: Op,
}

/// A session that is alive at the end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Row {
    pub session: Uuid,
    pub user: Option<Uuid>,
    pub version: i64,
    pub n: i64,
    /// What a rotation has left, for its grace.
    pub rotated: bool,
    /// Attributes where no reader looks for them, or in both places.
    pub misplaced: i64,
}
