//! The audit log: its entries, receipts of revocations, and whether it is on. The trigger `sessions_audit_delete` writes the
//! entries.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::failure::{Failure, Verdict};
use super::names::literal;
use super::own_rights::is_own_right;
use super::statement::{query, query_value, run};
use super::{Database, Dialect, Sql, interval, unexpected};
use crate::error::{Error, ErrorKind};

/// Entries that one statement erases.
const ERASED_MAX: i64 = 10_000;

/// What counting and erasing entries needs.
const ERASING: &str = "SELECT, DELETE";

/// One entry.
#[derive(Debug)]
pub(crate) struct AuditRow {
    pub(crate) number: i64,
    pub(crate) ended_at: SystemTime,
    pub(crate) handle: String,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) group_id: Option<Uuid>,
    pub(crate) cause: String,
    pub(crate) actor: Option<String>,
    pub(crate) role: String,
    pub(crate) client: String,
    pub(crate) receipt: Option<String>,
}

pub(super) fn receipt_sql(dialect: &Dialect<'_>) -> Sql {
    let function = dialect.names.function("session_audit_receipt");
    Sql {
        text: format!("SELECT {function}($1::pg_catalog.uuid, $2::pg_catalog.text)"),
        types: vec![Type::UUID, Type::TEXT],
    }
}

impl Database {
    /// Adds the receipt to the entries of a revocation. There are none while the audit log is off.
    pub(crate) async fn record_receipt(&self, revocation: Uuid, receipt: &str) -> Result<(), Failure> {
        self.call(&self.texts.audit_receipt, &[&revocation, &receipt]).rows().await.map(|_| ())
    }

    /// The newest entries first, of one user or of all, behind the entry `before`.
    pub(crate) async fn audit_entries(
        &self,
        user: Option<Uuid>,
        before: Option<i64>,
        count: u32,
    ) -> Result<Vec<AuditRow>, Failure> {
        // Two forms, so that each has its index.
        let of_user = if user.is_some() { "a.user_id = $1" } else { "$1::pg_catalog.uuid IS NULL" };
        let text = format!(
            "SELECT a.entry, a.ended_at, a.handle, a.user_id, a.group_id, a.cause, a.actor, a.role, a.client, a.receipt
             FROM {} a WHERE {of_user} AND a.entry < $2 ORDER BY a.entry DESC LIMIT $3",
            self.names.audit()
        );
        let (before, count) = (before.unwrap_or(i64::MAX), i64::from(count));
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&user, Type::UUID), (&before, Type::INT8), (&count, Type::INT8)];
        let rows = self.audit_rows(&text, &params).await;
        let rows = rows.map_err(|failure| self.explain_reading(failure, "SELECT"))?;
        rows.iter().map(entry).collect::<Result<_, _>>().map_err(unexpected)
    }

    /// How long entries stay. `None` while the audit log is off.
    pub(crate) async fn audit_keep(&self) -> Result<Option<String>, Failure> {
        let text = format!(
            "SELECT pg_catalog.convert_from(pg_catalog.substr(t.tgargs, 1, pg_catalog.length(t.tgargs) - 1), 'UTF8')
             FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = pg_catalog.to_regclass({}) AND t.tgname = 'sessions_audit_delete' AND t.tgenabled <> 'D'",
            literal(&self.names.sessions())
        );
        let rows = self.audit_rows(&text, &[]).await;
        let rows = rows.map_err(|failure| self.explain_reading(failure, "SELECT"))?;
        rows.first().map(|row| row.try_get(0).map_err(unexpected)).transpose()
    }

    pub(crate) async fn start_audit(&self, keep: Duration) -> Result<(), Failure> {
        let function = self.names.function("session_audit_on");
        let script = format!("SELECT {function}({}::pg_catalog.interval)", interval(keep));
        self.switch_audit(&script).await
    }

    pub(crate) async fn stop_audit(&self) -> Result<(), Failure> {
        let script = format!("SELECT {}()", self.names.function("session_audit_off"));
        self.switch_audit(&script).await
    }

    /// No GRANT is enough: the triggers belong to the table, which is its owner's.
    async fn switch_audit(&self, script: &str) -> Result<(), Failure> {
        let switched = self.bounded(self.timeout, async |connection| run(connection, script).await).await;
        switched.map_err(|failure| {
            let message = format!(
                "the role may not turn the audit log on or off; connect as the owner of {}, or as a superuser",
                self.names.sessions()
            );
            self.explain(failure, message)
        })
    }

    fn explain_reading(&self, failure: Failure, rights: &str) -> Failure {
        let (verb, audit) =
            (if rights == "SELECT" { "read" } else { "erase entries of" }, self.names.audit());
        let message = format!(
            "the role may not {verb} the audit log; run: GRANT {rights} ON {audit} TO <role>; GRANT USAGE ON SCHEMA {} TO <role>",
            self.names.schema()
        );
        self.explain(failure, message)
    }

    /// Rights on the audit log are not those that a node needs, so a refusal names another statement. Without a node, the tables
    /// were not looked for before.
    fn explain(&self, failure: Failure, refused: String) -> Failure {
        let Failure { error, verdict } = failure;
        let message = match error.kind() {
            ErrorKind::Permission if !is_own_right(&error) => refused,
            ErrorKind::Schema => format!(
                "there is no audit log {}; set `schema` and `table_prefix` as the application does, or run the migrations",
                self.names.audit()
            ),
            _ => return Failure { error, verdict },
        };
        Failure { error: error.with_message(message), verdict }
    }

    /// The number of entries of a user.
    ///
    /// # Errors
    /// Also if the role may not erase them.
    pub(crate) async fn count_audit(&self, user: Uuid) -> Result<u64, Failure> {
        let audit = self.names.audit();
        let table = literal(&audit);
        let rights = format!(
            "SELECT pg_catalog.has_table_privilege({table}, 'SELECT') AND pg_catalog.has_table_privilege({table}, 'DELETE')"
        );
        let may = self
            .bounded(self.timeout, async |connection| query_value::<bool>(connection, &rights, &[]).await);
        if !may.await? {
            let error = Error::new(ErrorKind::Permission, "");
            return Err(self.explain_reading(Failure { error, verdict: Verdict::Refused }, ERASING));
        }
        let text = format!("SELECT pg_catalog.count(*) FROM {audit} a WHERE a.user_id = $1");
        self.audit_count(&text, user).await
    }

    /// Erases some entries of a user. Returns how many; 0 if none is left.
    pub(crate) async fn erase_audit(&self, user: Uuid) -> Result<u64, Failure> {
        let audit = self.names.audit();
        let text = format!(
            "WITH gone AS (
                 DELETE FROM {audit} a WHERE a.entry = ANY (ARRAY (
                     SELECT o.entry FROM {audit} o WHERE o.user_id = $1 LIMIT {ERASED_MAX}))
                 RETURNING 1)
             SELECT pg_catalog.count(*) FROM gone"
        );
        self.audit_count(&text, user).await
    }

    async fn audit_count(&self, text: &str, user: Uuid) -> Result<u64, Failure> {
        let count = self.bounded(self.timeout, async |connection| {
            query_value::<i64>(connection, text, &[(&user, Type::UUID)]).await
        });
        let count = count.await.map_err(|failure| self.explain_reading(failure, ERASING))?;
        Ok(count.unsigned_abs())
    }

    async fn audit_rows(
        &self,
        text: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, Failure> {
        self.bounded(self.timeout, async |connection| query(connection, text, params).await).await
    }
}

fn entry(row: &tokio_postgres::Row) -> Result<AuditRow, tokio_postgres::Error> {
    Ok(AuditRow {
        number: row.try_get(0)?,
        ended_at: row.try_get(1)?,
        handle: row.try_get(2)?,
        user_id: row.try_get(3)?,
        group_id: row.try_get(4)?,
        cause: row.try_get(5)?,
        actor: row.try_get(6)?,
        role: row.try_get(7)?,
        client: row.try_get(8)?,
        receipt: row.try_get(9)?,
    })
}
