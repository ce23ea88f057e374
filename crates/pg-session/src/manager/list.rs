//! Listing a user's or a group's sessions.

use super::SessionManager;
use crate::error::Error;
use crate::id::{GroupId, UserId};
use crate::postgres::failure::Failure;
use crate::postgres::load::Found;
use crate::session::Session;
use crate::session::record::SharedRecord;

/// Sessions that a listing returns at most: those with the latest access.
pub const LISTED_MAX: u32 = 1_000;

impl SessionManager {
    /// The live sessions of a user, the most recently used first, at most [`LISTED_MAX`]. Always asked of the
    /// database; does not count as an access. Each comes with its attributes, and once, however often it was rotated.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the
    /// database does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn user_sessions(&self, user: impl Into<UserId>) -> Result<Vec<Session>, Error> {
        self.listed(self.0.core.database.list_user(user.into(), LISTED_MAX).await)
    }

    /// The live sessions of a group, the most recently used first, at most [`LISTED_MAX`]; as
    /// [`user_sessions`](SessionManager::user_sessions).
    ///
    /// # Errors
    /// As [`user_sessions`](SessionManager::user_sessions).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn group_sessions(&self, group: impl Into<GroupId>) -> Result<Vec<Session>, Error> {
        self.listed(self.0.core.database.list_group(group.into(), LISTED_MAX).await)
    }

    fn listed(&self, found: Result<Vec<Found>, Failure>) -> Result<Vec<Session>, Error> {
        let found = found.map_err(Failure::into_read_error)?;
        let records = found.into_iter().map(|(_, record)| record).collect::<Result<Vec<_>, _>>()?;
        for record in &records {
            // I2: what is older, in memory or under way, must not be served after this. Not installed: two loads of a
            // session at once could leave the older one behind, which is why the loader has one flight for each.
            self.0.core.cache.invalidate(record.row.id, record.row.version);
        }
        Ok(records.into_iter().map(|record| Session::from_database(SharedRecord::new(record))).collect())
    }
}
