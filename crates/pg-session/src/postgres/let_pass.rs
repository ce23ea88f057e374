//! For tests: moves every stored time back, as if time had passed.
//!
//! All times move by the same span in one transaction, so their order stays. Fences stay, because they must never
//! decrease.

use super::failure::Failure;
use super::statement::run;
use super::{Database, LIBRARY, Names};
use crate::id::Scope;
use crate::notification::drop_payload;

impl Database {
    /// Moves the times and evicts all sessions from the caches of all nodes, when it commits.
    pub(crate) async fn let_pass(&self, micros: i64) -> Result<(), Failure> {
        let text = sql(&self.names, micros);
        self.bounded(self.bulk_timeout(), async |connection| run(connection, &text).await).await
    }
}

/// One message with several statements is one transaction.
///
/// The ends have a lower limit, which their column's type checks.
fn sql(names: &Names, micros: i64) -> String {
    let (sessions, attributes, locks) = (names.sessions(), names.attributes(), names.locks());
    let (channel, evict) = (names.channel(), drop_payload(Scope::All));
    let span = format!("{micros}::pg_catalog.float8 * interval '1 microsecond'");
    let past = "'1970-01-02 00:00:00+00'::pg_catalog.timestamptz";
    format!(
        "SELECT {LIBRARY};
         UPDATE {sessions} s SET
             created_at = s.created_at - {span}, updated_at = s.updated_at - {span},
             last_accessed_at = s.last_accessed_at - {span},
             expires_at = GREATEST(s.expires_at::pg_catalog.timestamptz - {span}, {past}),
             attributes = CASE WHEN s.attributes::pg_catalog.text = '{{}}' THEN s.attributes ELSE (
                 SELECT pg_catalog.concat('{{', pg_catalog.string_agg(pg_catalog.concat(
                            pg_catalog.to_json(a.key), ':[', a.value OPERATOR(pg_catalog.->) 0, ',',
                            a.value OPERATOR(pg_catalog.->) 1,
                            ',' || ((a.value OPERATOR(pg_catalog.->>) 2)::pg_catalog.int8 - {micros})::pg_catalog.text,
                            ']'), ',' ORDER BY a.n), '}}')
                 FROM pg_catalog.json_each(s.attributes::pg_catalog.json) WITH ORDINALITY AS a (key, value, n)) END;
         UPDATE {attributes} a SET expires_at = a.expires_at - {span} WHERE a.expires_at IS NOT NULL;
         UPDATE {locks} l SET acquired_at = l.acquired_at - {span}, expires_at = GREATEST(l.expires_at - {span}, {past});
         SELECT pg_catalog.pg_notify('{channel}', '{evict}')"
    )
}
