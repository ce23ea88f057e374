//! The parameters of a run and of a node: those that have to be the same on all sides.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use pg_session::testing::Guard;
use serde::{Deserialize, Serialize};

/// The fault that takes more disk than all others, and a queue that is prepared before the nodes start.
pub const QUEUE_FULL: &str = "notify-queue-full";
/// The name of the connections of the nodes' pools; those of the listeners are named `pg-listen`.
pub const POOL_NAME: &str = "?application_name=pg-session";
pub const SQL_CLIENT_NAME: &str = "?application_name=sql-client";

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    pub length: Duration,
    pub seed: u64,
    pub nodes: usize,
    /// The faults to choose from; empty for all that are mixed.
    pub faults: Vec<String>,
    pub without: Option<Removed>,
    /// The directory that keeps the histories.
    pub keep: Option<PathBuf>,
}

/// The schema that holds the library's tables.
pub const SCHEMA: &str = "torture";
/// What represents the revocation bound: short, so that many windows fit into a run.
pub const TRUST_WINDOW: Duration = Duration::from_secs(1);
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(3);
pub const POOL_CONNECTIONS: usize = 6;
pub const WRITE_QUEUE_MAX: usize = 512;
pub const LOAD_QUEUE_MAX: usize = 512;
/// Live sessions that a user may have.
pub const SESSIONS_PER_USER_MAX: u32 = 3;
/// Users of the clients. Each user has one slot.
pub const USERS: usize = 40;
pub const SLOTS_PER_USER: usize = 3;
pub const SLOTS: usize = USERS * SLOTS_PER_USER;
/// Places behind those: of anonymous sessions, with which the clients work as well; and of further users, where only
/// meetings go, so many that each is left alone for seconds between two.
pub const ANONYMOUS_PLACES: usize = 12;
pub const CLIENT_PLACES: usize = SLOTS + ANONYMOUS_PLACES;
pub const MEETING_PLACES: usize = 24;
pub const PLACES: usize = CLIENT_PLACES + MEETING_PLACES;
/// Tasks of a node that work with sessions.
pub const CLIENTS: usize = 24;
/// Tasks of a node that hold a pin, as a socket does.
pub const PINNERS: usize = 12;
/// Tasks of a node that work with locks, and the locks that they share.
pub const LOCKERS: usize = 2;
pub const LOCKS: u64 = 4;

/// The parameters of one process of a node, or of the SQL client, as JSON in its only argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePlan {
    pub role: Role,
    /// Which node it is, from 0, and of how many.
    pub node: usize,
    pub nodes: usize,
    /// How often it has been started before.
    pub incarnation: usize,
    pub seed: u64,
    /// How the pool gets to the database.
    pub pool_url: String,
    /// How the listener gets there.
    pub listener_url: String,
    /// How the resource that the locks protect is reached: past all faults of the wire.
    pub resource_url: String,
    /// Whether its updates commit before they notify.
    pub commits_first: bool,
    /// Whether statements are sent unprepared, for a pooler.
    pub unnamed: bool,
    /// The directory of the history and of the slots' file.
    pub dir: PathBuf,
    pub without: Option<Removed>,
}

/// Which program a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    Node,
    SqlClient,
}

/// A guard that is taken away, to see that the checkers notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
pub enum Removed {
    /// Loads enter the memory without a look at what was invalidated meanwhile.
    FillTicket,
    /// Hits are served without a look at when the last barrier came back.
    Barrier,
    /// Outcomes of own writes enter the memory although a newer version was seen.
    PublishOrder,
    /// Hits are served past the session's end.
    Expiry,
    /// Taking a lock over does not raise its fence.
    Fence,
    /// An update that ended between its commit and its notification is not notified again.
    Notices,
    /// `everywhere()` does not wait for what the nodes have handled.
    Acknowledgement,
    /// After a reconnect, hits are served without a look at the database.
    Revalidation,
    /// What a node receives raises no doubt about pinned sessions.
    PinDoubt,
    /// What a node receives ends pins without a lookup.
    PinLookup,
    /// An UPDATE by hand notifies no node.
    SqlNotice,
    /// A change in SQL is notified although it was rolled back.
    SqlRollback,
}

impl Removed {
    pub const ALL: [Self; 12] = [
        Self::FillTicket,
        Self::Barrier,
        Self::PublishOrder,
        Self::Expiry,
        Self::Fence,
        Self::Notices,
        Self::Acknowledgement,
        Self::Revalidation,
        Self::PinDoubt,
        Self::PinLookup,
        Self::SqlNotice,
        Self::SqlRollback,
    ];

    /// `None`: the SQL client does what the contract rules out.
    pub fn guard(self) -> Option<Guard> {
        Some(match self {
            Self::FillTicket => Guard::FillTicket,
            Self::Barrier => Guard::TrustWindow,
            Self::PublishOrder => Guard::PublishOrder,
            Self::Expiry => Guard::Expiry,
            Self::Fence => Guard::Fence,
            Self::Notices => Guard::Notices,
            Self::Acknowledgement => Guard::Acknowledgement,
            Self::Revalidation => Guard::Revalidation,
            Self::PinDoubt => Guard::PinDoubt,
            Self::PinLookup => Guard::PinLookup,
            Self::SqlNotice | Self::SqlRollback => return None,
        })
    }

    /// The faults under which its absence shows.
    pub fn faults(self) -> &'static [&'static str] {
        match self {
            Self::FillTicket | Self::PublishOrder => &["slow-pool"],
            Self::Barrier => &["node-stop-2x", "listener-redirected"],
            Self::Notices => &["update-unnotified"],
            Self::Acknowledgement => &["listener-silent"],
            Self::Revalidation => &["copy-restored"],
            Self::Expiry
            | Self::Fence
            | Self::PinDoubt
            | Self::PinLookup
            | Self::SqlNotice
            | Self::SqlRollback => &["none"],
        }
    }

    /// The invariants one of whose checkers has to notice: a session that is stale may have ended meanwhile.
    pub fn invariants(self) -> &'static [&'static str] {
        match self {
            Self::FillTicket | Self::Barrier | Self::PublishOrder | Self::Notices | Self::SqlNotice => {
                &["I3", "I4"]
            }
            Self::Revalidation => &["I3", "I4", "I6"],
            Self::Expiry => &["I4"],
            Self::Fence => &["I8"],
            Self::Acknowledgement => &["everywhere"],
            Self::PinDoubt => &["pins end"],
            Self::PinLookup => &["pins live"],
            Self::SqlRollback => &["rollback"],
        }
    }

    /// Whether hits become older than the nodes promise, so that their observers have to notice, too.
    pub fn makes_hits_stale(self) -> bool {
        match self {
            Self::FillTicket
            | Self::Barrier
            | Self::PublishOrder
            | Self::Expiry
            | Self::Notices
            | Self::SqlNotice => true,
            // Until the verification of the memory has come that far.
            Self::Revalidation => false,
            Self::Fence | Self::Acknowledgement | Self::PinDoubt | Self::PinLookup | Self::SqlRollback => {
                false
            }
        }
    }
}

/// The user whose sessions a place holds; `None` without one.
pub fn user_of(place: usize) -> Option<usize> {
    match place {
        0..SLOTS => Some(place / SLOTS_PER_USER),
        SLOTS..CLIENT_PLACES => None,
        _ => Some(USERS + (place - CLIENT_PLACES) / SLOTS_PER_USER),
    }
}
