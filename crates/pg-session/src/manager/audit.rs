//! The audit log: which sessions have ended, why, when, by whom, and with which receipt.

use std::time::{Duration, SystemTime};

use super::{Builder, Everywhere, SessionManager};
use crate::error::{Error, ErrorKind};
use crate::id::{GroupId, UserId};
use crate::postgres::Database;
use crate::postgres::audit::AuditRow;
use crate::postgres::failure::Failure;

/// 1,000 years, as PostgreSQL counts their days. With a longer time, each deletion would fail.
const KEEP_MAX: Duration = Duration::from_secs(360_000 * 86_400);

/// A session that has ended while the audit log was on.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct AuditEntry {
    /// Grows with each entry.
    pub number: i64,
    /// When it ended, by the database's clock.
    pub ended_at: SystemTime,
    /// The public name of the session, as [`Handle`](crate::Handle) shows it.
    pub handle: String,
    /// Its user.
    pub user_id: Option<UserId>,
    /// Its group.
    pub group_id: Option<GroupId>,
    /// Why it ended: a name of a [`Cause`](crate::Cause).
    pub cause: String,
    /// Who ended it, as [`by`](crate::Revocation::by) or the setting `pg_session.actor` says. It is not checked.
    pub actor: Option<String>,
    /// The role of the connection that ended it.
    pub role: String,
    /// The `application_name` of that connection.
    pub client: String,
    /// The receipt of [`everywhere`](crate::Revocation::everywhere), if the sessions were ended with it.
    pub receipt: Option<Everywhere>,
}

/// The audit log; made by [`SessionManager::audit`] or [`AuditConnection::audit`].
///
/// While it is on, a trigger records each session that ends, in the transaction that ends it. This includes SQL of other
/// clients, and sessions that a clean-up deletes. The page [audit] has the table and the rights.
///
/// # Errors
/// [`ErrorKind::Permission`] with the GRANT, otherwise those of a read.
///
/// # Cancel safety
/// Dropping a future may leave its statement to take effect.
///
/// [audit]: https://github.com/pg-session/pg-session/blob/main/docs/audit.md
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until one of its methods is awaited"]
pub struct AuditLog<'a> {
    database: &'a Database,
}

/// A connection to the audit log without a node; made by [`Builder::open_audit`].
#[derive(Debug)]
pub struct AuditConnection(Database);

impl SessionManager {
    /// The audit log, which is off by default.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::Error> {
    /// // Once, as the owner of the tables.
    /// sessions.audit().start(Duration::from_secs(90 * 86_400)).await?;
    ///
    /// sessions.user(42).delete().by("ann, helpdesk").everywhere().await?;
    /// for entry in sessions.audit().page(Some(42.into()), None).await? {
    ///     println!("{} ended: {}, by {:?}", entry.handle, entry.cause, entry.actor);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn audit(&self) -> AuditLog<'_> {
        AuditLog { database: &self.0.core.database }
    }
}

impl Builder {
    /// Opens the audit log, and starts no node: an auditor needs no right of the application. It connects with the
    /// first statement.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), pg_session::Error> {
    /// # use pg_session::{Config, SessionManager};
    /// let builder = SessionManager::builder(Config::default()).url("postgres://auditor@localhost/app")?;
    /// let connection = builder.open_audit().await?;
    /// let newest = connection.audit().page(None, None).await?;
    /// # drop(newest); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting or a connection string. [`ErrorKind::Unavailable`] if PostgreSQL cannot be
    /// reached.
    pub async fn open_audit(mut self) -> Result<AuditConnection, Error> {
        self.validate()?;
        self.open().await.map(AuditConnection)
    }
}

impl AuditConnection {
    /// The audit log.
    pub fn audit(&self) -> AuditLog<'_> {
        AuditLog { database: &self.0 }
    }
}

impl Drop for AuditConnection {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl AuditLog<'_> {
    /// Turns the log on, for all nodes and clients. An entry is deleted when it is older than `keep` and other sessions end. Call it
    /// again for another `keep`. The role must own the tables.
    ///
    /// # Errors
    /// See [above](AuditLog#errors). [`ErrorKind::InvalidArgument`] if `keep` is zero, or longer than 1,000 years.
    pub async fn start(self, keep: Duration) -> Result<(), Error> {
        if keep.is_zero() || keep > KEEP_MAX {
            let message =
                "the audit log cannot keep entries for no time or over 1,000 years; pass another duration";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.database.start_audit(keep).await.map_err(Failure::into_read_error)
    }

    /// Turns it off. The entries stay.
    ///
    /// # Errors
    /// See [above](AuditLog#errors).
    pub async fn stop(self) -> Result<(), Error> {
        self.database.stop_audit().await.map_err(Failure::into_read_error)
    }

    /// How long entries stay, as an interval of PostgreSQL. `None` while the log is off.
    ///
    /// # Errors
    /// See [above](AuditLog#errors).
    pub async fn keep(self) -> Result<Option<String>, Error> {
        self.database.audit_keep().await.map_err(Failure::into_read_error)
    }

    /// The newest entries of a user, or of all, before the entry with the number `before`: at most
    /// [`LIST_MAX`](SessionManager::LIST_MAX).
    ///
    /// # Errors
    /// See [above](AuditLog#errors).
    pub async fn page(self, user: Option<UserId>, before: Option<i64>) -> Result<Vec<AuditEntry>, Error> {
        let database = self.database;
        let rows = database.audit_entries(user.map(UserId::as_uuid), before, SessionManager::LIST_MAX);
        let rows = rows.await.map_err(Failure::into_read_error)?;
        Ok(rows.into_iter().map(AuditEntry::from).collect())
    }

    /// The number of entries of a user.
    ///
    /// # Errors
    /// See [above](AuditLog#errors). Also if the role may not erase them.
    pub async fn count(self, user: UserId) -> Result<u64, Error> {
        let database = self.database;
        database.count_audit(user.as_uuid()).await.map_err(Failure::into_read_error)
    }

    /// Erases the entries of a user. Returns how many. Sessions that end later are recorded again.
    ///
    /// # Errors
    /// See [above](AuditLog#errors).
    pub async fn erase(self, user: UserId) -> Result<u64, Error> {
        let mut erased = 0;
        loop {
            let some = self.database.erase_audit(user.as_uuid()).await;
            match some.map_err(Failure::into_read_error)? {
                0 => return Ok(erased),
                some => erased += some,
            }
        }
    }
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let AuditRow { number, ended_at, handle, user_id, group_id, cause, actor, role, client, receipt } =
            row;
        Self {
            number,
            ended_at,
            handle,
            user_id: user_id.map(UserId::from),
            group_id: group_id.map(GroupId::from),
            cause,
            actor,
            role,
            client,
            // A receipt of a newer version may say what this one does not know.
            receipt: receipt.and_then(|receipt| serde_json::from_str(&receipt).ok()),
        }
    }
}
