//! Guards: let signed-in users through, and send all others to the login page.

use std::fmt;

use pg_session::UserId;

use crate::error::Error;
use crate::page::with_parameters;
use crate::refusal::Refusal;
use crate::session::Session;

impl Session {
    /// Returns the user who is signed in, for guards.
    ///
    /// If the session cannot be read, the layer also replaces a response of status below 400 with 503. So a handler that
    /// treats the error like a visitor does not answer a user as one.
    ///
    /// # Errors
    /// [`LoginRequired`], with the answer for the client. It leads to [`login_page`](crate::SessionConfig::login_page).
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

    /// Whether the request asks for `page` itself: for guards around a login page, which must let it pass.
    #[must_use]
    pub fn asks_for(&self, page: &str) -> bool {
        self.target().is_some_and(|target| target.split('?').next() == Some(page))
    }

    pub(crate) fn login_required(&self, page: Option<&str>) -> LoginRequired {
        let location = page.filter(|_| self.wants_page()).map(|page| self.with_next(page, None));
        LoginRequired(Cause::SignedOut { location, refusal: Error::signed_out().refusal() })
    }

    /// `page`, with the address that the user wants.
    pub(crate) fn with_next(&self, page: &str, first: Option<(&str, &str)>) -> String {
        let next = self.target().filter(|_| self.wants_page()).map(|target| ("next", target));
        with_parameters(page, first.into_iter().chain(next))
    }
}

/// The request is not signed in, or the session could not be read.
#[derive(Debug)]
pub struct LoginRequired(Cause);

#[derive(Debug)]
enum Cause {
    SignedOut { location: Option<String>, refusal: Refusal },
    Failed(Error),
}

impl LoginRequired {
    /// Where to send the client with status 303. `None`: answer with the [`refusal`](Self::refusal). A browser that asks
    /// for a page is sent to the login page; a script, or a form that is posted, gets status 401.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        match &self.0 {
            Cause::SignedOut { location, .. } => location.as_deref(),
            Cause::Failed(_) => None,
        }
    }

    /// The answer for a client that is not sent to the login page.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match &self.0 {
            Cause::SignedOut { refusal, .. } => refusal.clone(),
            Cause::Failed(error) => error.refusal(),
        }
    }

    /// The error, if the session could not be read.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match &self.0 {
            Cause::SignedOut { .. } => None,
            Cause::Failed(error) => Some(error),
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
