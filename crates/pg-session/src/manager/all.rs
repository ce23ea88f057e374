//! For operators: sessions by handle, page by page, and their number.

use super::{GroupSessions, LabelSessions, Page, SessionManager, UserSessions};
use crate::error::Error;
use crate::handle::Handle;
use crate::id::{Scope, SessionId};
use crate::postgres::failure::Failure;
use crate::session::Session;

impl SessionManager {
    /// Sessions that [`find`](SessionManager::find) returns at most.
    pub const FIND_MAX: usize = 10;

    /// All sessions.
    pub fn all(&self) -> AllSessions<'_> {
        AllSessions { manager: self }
    }

    /// Finds the live sessions whose [`Handle`] begins with these digits: at least the eight that logs show. Retired ids are found,
    /// too. At most [`FIND_MAX`](SessionManager::FIND_MAX).
    ///
    /// **It reads the ids of all sessions**, in statements of 20 000 each. A million takes about a second. For requests, use
    /// [`get`](SessionManager::get) with the id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for other digits than those of a handle, otherwise as
    /// [`UserSessions::list`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn find(&self, digits: &str) -> Result<Vec<Session>, Error> {
        Handle::check_digits(digits)?;
        let database = &self.0.core.database;
        let mut found = Vec::new();
        let mut after = Some(SessionId::MIN);
        while let Some(from) = after
            && found.len() < Self::FIND_MAX
        {
            let chunk = database.find_in_chunk(digits, from, Self::FIND_MAX - found.len());
            let chunk = chunk.await.map_err(Failure::into_read_error)?;
            found.extend(chunk.found);
            after = chunk.last;
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.page(database.load(&found).await.map(|loaded| loaded.live))?.sessions)
    }

    async fn scope_page(&self, scope: Scope, after: Option<SessionId>) -> Result<Page, Error> {
        let after = after.unwrap_or(SessionId::MIN);
        self.page(self.0.core.database.page(scope, after, Self::LIST_MAX + 1).await)
    }

    async fn scope_count(&self, scope: Scope) -> Result<u64, Error> {
        self.0.core.database.count(scope).await.map_err(Failure::into_read_error)
    }
}

/// The sessions of all users; made by [`SessionManager::all`]. Errors and cancel safety are those of [`UserSessions`].
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until one of its methods is awaited"]
pub struct AllSessions<'a> {
    manager: &'a SessionManager,
}

impl AllSessions<'_> {
    /// The live sessions behind the id `after`, in the order of their ids: the first ones for `None`. At most
    /// [`LIST_MAX`](SessionManager::LIST_MAX). The last id of a page leads to the next one.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::Error> {
    /// let mut page = sessions.all().page(None).await?;
    /// while let Some(last) = page.sessions.last().filter(|_| page.truncated) {
    ///     page = sessions.all().page(Some(last.id())).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`UserSessions`](UserSessions#errors).
    pub async fn page(self, after: Option<SessionId>) -> Result<Page, Error> {
        self.manager.scope_page(Scope::All, after).await
    }

    /// The number of live sessions. It reads all rows, which takes seconds for millions.
    ///
    /// # Errors
    /// See [`UserSessions`](UserSessions#errors).
    pub async fn count(self) -> Result<u64, Error> {
        self.manager.scope_count(Scope::All).await
    }
}

impl UserSessions<'_> {
    /// As [`AllSessions::page`], of the user's sessions.
    ///
    /// # Errors
    /// See [above](UserSessions#errors).
    pub async fn page(self, after: Option<SessionId>) -> Result<Page, Error> {
        self.manager.scope_page(Scope::User(self.user), after).await
    }

    /// The number of the user's live sessions.
    ///
    /// # Errors
    /// See [above](UserSessions#errors).
    pub async fn count(self) -> Result<u64, Error> {
        self.manager.scope_count(Scope::User(self.user)).await
    }
}

impl GroupSessions<'_> {
    /// As [`AllSessions::page`], of the group's sessions.
    ///
    /// # Errors
    /// See [`UserSessions`](UserSessions#errors).
    pub async fn page(self, after: Option<SessionId>) -> Result<Page, Error> {
        self.manager.scope_page(Scope::Group(self.group), after).await
    }

    /// The number of the group's live sessions.
    ///
    /// # Errors
    /// See [`UserSessions`](UserSessions#errors).
    pub async fn count(self) -> Result<u64, Error> {
        self.manager.scope_count(Scope::Group(self.group)).await
    }
}

impl LabelSessions<'_> {
    /// As [`AllSessions::page`], of the sessions that have the label.
    ///
    /// # Errors
    /// See [above](LabelSessions).
    pub async fn page(self, after: Option<SessionId>) -> Result<Page, Error> {
        let Self { manager, label } = self;
        let (label, after) = (label?, after.unwrap_or(SessionId::MIN));
        let page = manager.0.core.database.page_of_label(&label, after, SessionManager::LIST_MAX + 1).await;
        manager.page(page)
    }

    /// The number of live sessions that have the label.
    ///
    /// # Errors
    /// See [above](LabelSessions).
    pub async fn count(self) -> Result<u64, Error> {
        let label = self.label?;
        self.manager.0.core.database.count_of_label(&label).await.map_err(Failure::into_read_error)
    }
}
