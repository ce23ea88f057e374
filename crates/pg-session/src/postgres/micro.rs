//! Sessions and batches that need no server, for micro-benchmarks and for tests of handlers.

use uuid::Uuid;

use super::update::Columns;
use crate::clock::{Clock, DbTime};
use crate::config::Config;
use crate::id::{SessionId, UserId};
use crate::session::attributes::Attributes;
use crate::session::changes::Changes;
use crate::session::check::Check;
use crate::session::record::{Record, Row, SharedRecord};
use crate::session::request::{RowChange, UpdateRequest};
use crate::session::{IdleLimit, Session};
use crate::version::Version;

/// A session with these attributes, given as keys and JSON, that no database knows.
#[must_use]
pub fn session(attributes: &[(&str, &str)]) -> Session {
    Session::from_cache(record(SessionId::random(), None, attributes))
}

/// As [`session`], of this user.
#[must_use]
pub fn session_of(user: Option<UserId>, attributes: &[(&str, &str)]) -> Session {
    Session::from_cache(record(SessionId::random(), user, attributes))
}

/// Changes of different sessions, one attribute each, as a lane of the writer holds them.
#[derive(Debug)]
pub struct Batch(Vec<UpdateRequest>);

impl Batch {
    /// The changes of so many sessions.
    #[must_use]
    pub fn of(sessions: usize) -> Self {
        let orders = (1..=sessions).map(|number| {
            // In the order of their ids, which is the order of their locks.
            let id = SessionId::from_uuid(Uuid::from_u128(number as u128));
            let mut changes = Changes::default();
            changes.set("counter", "\"00000001\"", DbTime::NEVER);
            let base = record(id, None, &[("counter", "\"00000000\"")]);
            UpdateRequest { base, changes, row: RowChange::default(), check: Check::None, notify: true }
        });
        Self(orders.collect())
    }

    /// Makes the parameters of one statement of them, and says for how many sessions.
    #[must_use]
    pub fn assemble(&self) -> usize {
        let after: Vec<Attributes> = self.0.iter().map(UpdateRequest::attributes).collect();
        let changes = self.0.iter().zip(&after).map(|(request, after)| (request, request.writes(after)));
        std::hint::black_box(Columns::of(&changes.collect::<Vec<_>>())).ids.len()
    }
}

fn record(id: SessionId, user_id: Option<UserId>, attributes: &[(&str, &str)]) -> SharedRecord {
    let policy = Config::default().policy(Clock::monotonic());
    let now = policy.clock.database_now();
    let version = Version::FIRST;
    let row = Row {
        id,
        user_id,
        group_id: None,
        version,
        created_at: now,
        updated_at: now,
        expires_at: DbTime::NEVER,
        idle_limit: IdleLimit::Exempt,
        rotated: false,
    };
    let mut changes = Changes::default();
    attributes.iter().for_each(|&(key, text)| changes.set(key, text, DbTime::NEVER));
    SharedRecord::new(Record::new(policy, row, Attributes::default().apply(&changes, version, now), now))
}
