//! Telling the other nodes: the SQL that builds payloads inside the writing statement; see [`notification`](crate::notification).

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::parameters::{Parameters, TEXTS};
use super::statement::query;
use super::{Database, Dialect, Sql, unexpected};
use crate::id::{Scope, SessionId};
use crate::notification::{
    CHANGED_ENTRIES_MAX, DELETED_ENTRIES_MAX, ServerId, changed_payloads, drop_payload,
};
use crate::version::Version;

/// A query that notifies of the rows `(id, version)` of `source`, and returns a row for each notification. **The
/// caller must refer to its result**, or PostgreSQL skips it.
pub(super) fn changed(dialect: &Dialect<'_>, source: &str) -> String {
    let channel = dialect.channel();
    format!(
        "SELECT pg_catalog.pg_notify('{channel}', '1s' || pg_catalog.string_agg(pg_catalog.replace(p.id::pg_catalog.text, '-', '') || '.' || p.version::pg_catalog.text, ','))
         FROM (SELECT q.id, q.version, (pg_catalog.row_number() OVER () - 1) / {CHANGED_ENTRIES_MAX} AS part FROM ({source}) q) p
         GROUP BY p.part"
    )
}

/// The same for the deleted rows `(id)` of `source`. `cause` is an expression of the letter that says why. The cause comes
/// first: a node that knows of the deletion knows why.
pub(super) fn deleted(dialect: &Dialect<'_>, source: &str, cause: &str) -> String {
    let (channel, lists) = (dialect.channel(), id_lists(source));
    format!(
        "SELECT pg_catalog.pg_notify('{channel}', '1c' || {cause} || 's' || l.ids) AS cause,
                pg_catalog.pg_notify('{channel}', '1d' || l.ids) AS deletion
         FROM ({lists}) l"
    )
}

/// The same, with the payloads of the causes as a parameter `payloads`.
pub(super) fn deleted_because(dialect: &Dialect<'_>, source: &str, payloads: &str) -> String {
    let (channel, lists) = (dialect.channel(), id_lists(source));
    format!(
        "SELECT pg_catalog.pg_notify('{channel}', c.payload) FROM {payloads} AS c (payload) WHERE EXISTS ({source})
         UNION ALL
         SELECT pg_catalog.pg_notify('{channel}', '1d' || l.ids) FROM ({lists}) l"
    )
}

/// A query of lists `(ids)`, each for one notification.
fn id_lists(source: &str) -> String {
    format!(
        "SELECT pg_catalog.string_agg(pg_catalog.replace(p.id::pg_catalog.text, '-', ''), ',') AS ids
         FROM (SELECT q.id, (pg_catalog.row_number() OVER () - 1) / {DELETED_ENTRIES_MAX} AS part FROM ({source}) q) p
         GROUP BY p.part"
    )
}

/// A query that notifies of a released lock, once for each row of `source`. The parameter `payload` names the lock.
/// **The caller must refer to its result**, or PostgreSQL skips it.
pub(super) fn released(dialect: &Dialect<'_>, payload: &str, source: &str) -> String {
    let channel = dialect.channel();
    format!("SELECT pg_catalog.pg_notify('{channel}', {payload}) FROM {source}")
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (channel, server) = (dialect.channel(), dialect.server_id());
    let mut parameters = Parameters::default();
    let payloads = parameters.unnest(&[TEXTS]);
    Sql {
        text: format!(
            "SELECT pg_catalog.pg_notify('{channel}', p.payload), {server} AS server FROM {payloads} AS p (payload)"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// Notifies once on this channel. It needs no table.
    pub(crate) async fn notify_on(&self, channel: &str, payload: &str) -> Result<(), Failure> {
        let text = "SELECT pg_catalog.pg_notify($1, $2)";
        let notify = async |connection: &Object| {
            query(connection, text, &[(&channel, Type::TEXT), (&payload, Type::TEXT)]).await
        };
        self.bounded(self.timeout, notify).await.map(|_| ())
    }

    /// Tells every node to drop sessions from memory; nothing in the tables changes. Returns the server that has notified them.
    pub(crate) async fn notify_drop(&self, scope: Scope) -> Result<ServerId, Failure> {
        let rows = self.call(&self.texts.notify, &[&[drop_payload(scope)].as_slice()]).rows().await?;
        let row = rows.first().ok_or_else(|| unexpected("no row for a notification"))?;
        row.try_get("server").map(ServerId).map_err(unexpected)
    }

    /// Tells every node what versions these sessions have; nothing in the tables changes.
    pub(crate) async fn notify_changed(&self, sessions: &[(SessionId, Version)]) -> Result<(), Failure> {
        let payloads = changed_payloads(sessions);
        self.call(&self.texts.notify, &[&payloads]).rows().await.map(|_| ())
    }
}
