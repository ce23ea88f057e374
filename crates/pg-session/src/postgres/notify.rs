//! Telling the other nodes: the payloads' grammar and the SQL that builds them inside the writing statement.
//!
//! ```text
//! 1s<id>.<version>,<id>.<version>…   these sessions changed, to these versions
//! 1d<id>,<id>…                       these sessions are gone
//! 1u<id>  1g<id>                     drop every session of this user, of this group
//! 1a                                 drop every session
//! 1l<digest>                         this lock was released
//! 1p<number>                         a node's proof that its listener receives what its pool commits
//! ```
//!
//! Ids and digests are 32 hexadecimal digits, versions decimal. The leading digit is the format's version. A payload stays under
//! PostgreSQL's 8 000 bytes by a fixed number of entries whose longest form is known.

use std::time::Duration;

use uuid::Uuid;

use super::failure::Failure;
use super::parameters::{Parameters, TEXTS};
use super::{Database, Dialect, Sql};
use crate::id::{Scope, SessionId};
use crate::version::Version;

/// PostgreSQL refuses payloads of 8 000 bytes and more (documentation of NOTIFY).
pub(crate) const PAYLOAD_BYTES_MAX: usize = 7_999;
const HEADER_BYTES: usize = 2;
/// 32 digits, a full stop, 19 digits, a comma.
const CHANGED_BYTES_MAX: usize = 53;
/// 32 digits and a comma.
const DELETED_BYTES_MAX: usize = 33;
/// Sessions that one notification tells of.
pub(crate) const CHANGED_ENTRIES_MAX: usize = (PAYLOAD_BYTES_MAX - HEADER_BYTES) / CHANGED_BYTES_MAX;
/// Deleted sessions that one notification tells of.
pub(crate) const DELETED_ENTRIES_MAX: usize = (PAYLOAD_BYTES_MAX - HEADER_BYTES) / DELETED_BYTES_MAX;

/// A query that notifies of the rows `(id, version)` of `source`, in as many notifications as they need, and
/// returns one row for each. **The caller must refer to its result**, or PostgreSQL skips it.
pub(super) fn changed(dialect: &Dialect<'_>, source: &str) -> String {
    let channel = dialect.channel();
    format!(
        "SELECT pg_catalog.pg_notify('{channel}', '1s' || pg_catalog.string_agg(pg_catalog.replace(p.id::pg_catalog.text, '-', '') || '.' || p.version::pg_catalog.text, ','))
         FROM (SELECT q.id, q.version, (pg_catalog.row_number() OVER () - 1) / {CHANGED_ENTRIES_MAX} AS part FROM ({source}) q) p
         GROUP BY p.part"
    )
}

/// The payloads that tell of these sessions.
pub(super) fn changed_payloads(sessions: &[(SessionId, Version)]) -> Vec<String> {
    let payload = |sessions: &[(SessionId, Version)]| {
        let mut payload = String::with_capacity(HEADER_BYTES + sessions.len() * CHANGED_BYTES_MAX);
        payload.push_str("1s");
        for (n, (id, version)) in sessions.iter().enumerate() {
            payload.push_str(if n > 0 { "," } else { "" });
            payload.push_str(id.expose().simple().encode_lower(&mut Uuid::encode_buffer()));
            payload.push('.');
            payload.push_str(itoa::Buffer::new().format(version.get()));
        }
        payload
    };
    sessions.chunks(CHANGED_ENTRIES_MAX).map(payload).collect()
}

/// The same for the deleted rows `(id)` of `source`.
pub(super) fn deleted(dialect: &Dialect<'_>, source: &str) -> String {
    let channel = dialect.channel();
    format!(
        "SELECT pg_catalog.pg_notify('{channel}', '1d' || pg_catalog.string_agg(pg_catalog.replace(p.id::pg_catalog.text, '-', ''), ','))
         FROM (SELECT q.id, (pg_catalog.row_number() OVER () - 1) / {DELETED_ENTRIES_MAX} AS part FROM ({source}) q) p
         GROUP BY p.part"
    )
}

/// A query that notifies that the lock whose payload is the parameter `payload` was released, once for each row of
/// `source`. **The caller must refer to its result**, or PostgreSQL skips it.
pub(super) fn released(dialect: &Dialect<'_>, payload: &str, source: &str) -> String {
    let channel = dialect.channel();
    format!("SELECT pg_catalog.pg_notify('{channel}', {payload}) FROM {source}")
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let channel = dialect.channel();
    let mut parameters = Parameters::default();
    let payloads = parameters.unnest(&[TEXTS]);
    Sql {
        text: format!("SELECT pg_catalog.pg_notify('{channel}', p.payload) FROM {payloads} AS p (payload)"),
        types: parameters.types,
    }
}

impl Scope {
    pub(crate) fn payload(self) -> String {
        match self {
            Self::User(id) => format!("1u{}", id.as_uuid().simple()),
            Self::Group(id) => format!("1g{}", id.as_uuid().simple()),
            Self::All => "1a".to_owned(),
        }
    }
}

/// The lock whose waiters wake: a digest of its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LockTopic(pub(crate) Uuid);

impl LockTopic {
    pub(crate) fn payload(self) -> String {
        format!("1l{}", self.0.simple())
    }
}

impl Database {
    /// Tells every node to drop sessions from memory; nothing in the tables changes.
    pub(crate) async fn notify_drop(&self, scope: Scope) -> Result<(), Failure> {
        self.query(&self.texts.notify, &[&[scope.payload()].as_slice()]).await.map(|_| ())
    }

    /// Sends a number through the pool, for `invalidation::proof`. A number that is sent twice proves the same, so a lost
    /// connection is no failure: the next one is tried.
    pub(crate) async fn notify_proof(&self, number: Uuid, timeout: Duration) -> Result<(), Failure> {
        let payload = format!("1p{}", number.simple());
        self.query_read(timeout, &self.texts.notify, &[&[payload].as_slice()]).await.map(|_| ())
    }

    /// Tells every node what versions these sessions have; nothing in the tables changes.
    pub(crate) async fn notify_changed(&self, sessions: &[(SessionId, Version)]) -> Result<(), Failure> {
        let payloads = changed_payloads(sessions);
        self.query(&self.texts.notify, &[&payloads]).await.map(|_| ())
    }
}
