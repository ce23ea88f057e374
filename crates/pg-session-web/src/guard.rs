//! Guards: let signed-in users through, and send all others to the login page.

use std::fmt;

use pg_session::UserId;

use crate::error::Error;
use crate::page::{NextPage, with_parameters};
use crate::session::Session;

impl Session {
    /// Returns the user who is signed in, for guards.
    ///
    /// If the session cannot be read, the layer also replaces a response of status below 400 with 503. So a handler that
    /// treats the error like a visitor does not answer a user as one.
    ///
    /// # Errors
    /// [`LoginRequired`], with the [`Answer`](crate::Answer) for the client. It leads to [`login_page`](crate::SessionConfig::login_page).
    pub async fn require_login(&self) -> Result<UserId, LoginRequired> {
        let page = self.sessions().parts().login_page.as_deref();
        self.require_login_at(page).await
    }

    /// As [`require_login`](Session::require_login), with another login page. It must be a path of this site.
    ///
    /// # Errors
    /// As [`require_login`](Session::require_login).
    pub async fn require_login_at(&self, page: Option<&str>) -> Result<UserId, LoginRequired> {
        match self.user_id().await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(self.login_required(page)),
            Err(error) => Err(self.unreadable(error).await),
        }
    }

    /// A guard cannot tell whether this is a user's request: the response must not be a visitor's.
    pub(crate) async fn unreadable(&self, error: Error) -> LoginRequired {
        self.lock().await.unread = Some(error.refusal());
        LoginRequired(Cause::Failed(error))
    }

    /// Whether the request asks for `page` itself: for guards around a login page, which must let
    /// it pass. Also with a slash more or less at its end. A router that adds or removes it would
    /// lead back here for ever.
    fn asks_for(&self, page: &str) -> bool {
        let without_slash = |path| str::strip_suffix(path, '/').unwrap_or(path);
        let path = self.target().and_then(|target| target.split('?').next());
        path.is_some_and(|path| without_slash(path) == without_slash(page))
    }

    pub(crate) fn login_required(&self, page: Option<&str>) -> LoginRequired {
        let location = page.filter(|_| self.wants_page()).map(|page| self.with_next(page, None));
        LoginRequired(Cause::SignedOut { location })
    }

    /// `page`, with the address that the user wants.
    pub(crate) fn with_next(&self, page: &str, first: Option<(&str, &str)>) -> String {
        let next = self.target().filter(|_| self.wants_page()).map(|target| ("next", target));
        with_parameters(page, first.into_iter().chain(next))
    }
}

/// What `require_login` of an edge does, whatever the framework.
#[derive(Clone, Copy, Debug)]
pub struct LoginGuard(&'static str);

impl LoginGuard {
    /// Sends visitors to `page`.
    ///
    /// # Panics
    /// If `page` is not a path of this site, without a query, such as `/login`. Routers panic for a
    /// wrong path as well. It is a mistake in the program that shows at the first start.
    #[must_use]
    #[allow(clippy::panic, reason = "as routers do for a wrong path: it shows at the first start")]
    pub fn new(page: &'static str) -> Self {
        let own = NextPage::new(page).as_str() == page && !page.contains(['?', '#']);
        assert!(own, "the login page must be a path on this site, like `/login`");
        Self(page)
    }

    /// Lets requests of signed-in users through, and those for the login page itself. `session` is what the layer has put
    /// into the request.
    ///
    /// # Errors
    /// [`LoginRequired`], with the [`Answer`](crate::Answer) for the client.
    pub async fn admit(self, session: Option<Session>) -> Result<(), LoginRequired> {
        let session = session.ok_or_else(Error::no_layer)?;
        if !session.asks_for(self.0) {
            session.require_login_at(Some(self.0)).await?;
        }
        Ok(())
    }
}

/// The request is not signed in, or the session could not be read.
#[derive(Debug)]
pub struct LoginRequired(pub(crate) Cause);

#[derive(Debug)]
pub(crate) enum Cause {
    SignedOut {
        /// Where to send the client.
        location: Option<String>,
    },
    Failed(Error),
}

impl LoginRequired {
    /// The error, if the session could not be read.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match &self.0 {
            Cause::SignedOut { .. } => None,
            Cause::Failed(error) => Some(error),
        }
    }

    /// Logs the error, if the session could not be read: for edges.
    pub fn log(&self) {
        if let Some(error) = self.error() {
            error.log();
        }
    }
}

impl From<Error> for LoginRequired {
    fn from(error: Error) -> Self {
        Self(Cause::Failed(error))
    }
}

impl fmt::Display for LoginRequired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::SignedOut { .. } => f.write_str("not signed in; log in first"),
            Cause::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoginRequired {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error().and_then(std::error::Error::source)
    }
}
