//! Step-up: a privilege that has to be earned again, and ends by itself.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use crate::error::Error;
use crate::guard::LoginRequired;
use crate::session::Session;
use crate::state::{SessionState, TokenAction};

/// The response header that names the privilege which is missing, beside status 403.
pub const STEP_UP_HEADER: &str = "session-step-up";

/// Before each privilege's name in the key of its attribute; reserved.
const PREFIX: &str = "pg-session/elevated/";

/// A privilege that a handler demands with the extractor `Elevated` of an edge.
///
/// ```
/// struct Billing;
///
/// impl pg_session_web::Privilege for Billing {
///     const NAME: &'static str = "billing";
/// }
/// ```
pub trait Privilege {
    /// The name that [`Session::elevate`] takes: 1 to 64 of lower-case letters, digits, `-` and `_`.
    const NAME: &'static str;
}

impl Session {
    /// Gives the session a privilege for a while, after the user has proved again who they are. The session gets a new id, in
    /// the same statement; everything else it has stays.
    ///
    /// The privilege ends by itself, with [`revoke_elevation`](Session::revoke_elevation), and with the session. It is never handed on to another user.
    ///
    /// Awaiting the builder does it.
    pub fn elevate<'a>(&'a self, privilege: &'a str, lifetime: Duration) -> Elevate<'a> {
        Elevate { session: self, privilege, lifetime, grace: None }
    }

    /// Whether the session has a privilege now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a name that no [`Privilege`] can have; or the session cannot be read.
    pub async fn is_elevated(&self, privilege: &str) -> Result<bool, Error> {
        let key = key(privilege)?;
        Ok(self.open().await?.present().is_some_and(|session| session.contains(&key)))
    }

    /// Takes a privilege away. Saved with the request.
    ///
    /// # Errors
    /// As [`is_elevated`](Session::is_elevated).
    pub async fn revoke_elevation(&self, privilege: &str) -> Result<(), Error> {
        let key = key(privilege)?;
        if let SessionState::Present(session) = &mut self.open_to_change().await?.session_state {
            session.remove(&key);
        }
        Ok(())
    }

    /// For extractors: lets through a session that has the privilege.
    ///
    /// # Errors
    /// [`Denied`], with the [`Answer`](crate::Answer) for the client.
    pub async fn require_elevation(&self, privilege: &'static str) -> Result<(), Denied> {
        if self.is_elevated(privilege).await? {
            return Ok(());
        }
        let parts = self.sessions().parts();
        if parts.login_page.is_some() && self.user_id().await?.is_none() {
            return Err(Denied::SignedOut(self.login_required(parts.login_page.as_deref())));
        }
        let page = parts.step_up_page.as_deref();
        let page = page.filter(|_| self.is_read_only());
        let page = page.map(|page| self.with_next(page, Some(("privilege", privilege))));
        Err(Denied::Missing { privilege, page })
    }
}

/// A step-up to be carried out by awaiting this; made by [`Session::elevate`].
///
/// # Errors
/// [`ErrorKind::SignedOut`](crate::ErrorKind::SignedOut), [`ErrorKind::Rotated`](crate::ErrorKind::Rotated),
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for a name that no [`Privilege`] can have; see also
/// [`save`](Session::save). The privilege is not given then.
///
/// # Cancel safety
/// **Dropping the future does not undo a step-up that was submitted**, but the client never learns the new id.
#[derive(Debug)]
#[must_use = "the privilege is not given until this is awaited"]
pub struct Elevate<'a> {
    session: &'a Session,
    privilege: &'a str,
    lifetime: Duration,
    grace: Option<Duration>,
}

impl Elevate<'_> {
    /// Ends the old id at once, instead of after [`Config::rotation_grace`](pg_session::Config::rotation_grace).
    pub fn without_grace(mut self) -> Self {
        self.grace = Some(Duration::ZERO);
        self
    }

    async fn submit(self) -> Result<(), Error> {
        let key = key(self.privilege)?;
        let web = self.session.sessions();
        let mut state = self.session.open_to_change().await?;
        let (former, _) = state.signed_in()?;
        // On a copy: otherwise a rotation that fails would leave the privilege to a later save.
        let mut session = former.clone();
        session.set_for(&key, &true, self.lifetime)?;
        self.session.supersede();
        let mut rotate = web.manager().rotate(&mut session).keep_all();
        if let Some(grace) = self.grace {
            rotate = rotate.grace(grace);
        }
        rotate.await?;
        state.session_state = SessionState::Present(Box::new(session));
        state.tell(TokenAction::NewId);
        Ok(())
    }
}

impl<'a> IntoFuture for Elevate<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.submit())
    }
}

/// Why a request was not let through.
#[derive(Debug)]
pub enum Denied {
    /// The session does not have the privilege, or not any more; or the request is not signed in.
    Missing {
        /// Which one.
        privilege: &'static str,
        /// Where to send the client, if that was [configured](crate::SessionConfig::step_up_page), and the method is `GET` or
        /// `HEAD`.
        page: Option<String>,
    },
    /// The request is not signed in, and there is a [login page](crate::SessionConfig::login_page).
    SignedOut(LoginRequired),
    /// The session could not be read.
    Failed(Error),
}

impl Denied {
    /// The error, if the session could not be read.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) => Some(error),
            Self::SignedOut(required) => required.error(),
            Self::Missing { .. } => None,
        }
    }

    /// Logs the error, if the session could not be read: for edges.
    pub fn log(&self) {
        if let Some(error) = self.error() {
            error.log();
        }
    }
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { privilege, .. } => write!(
                f,
                "a step-up to {privilege:?} is needed; call `elevate` after the user has proved who they are"
            ),
            Self::SignedOut(required) => required.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Denied {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Missing { .. } => None,
            Self::SignedOut(required) => required.source(),
            Self::Failed(error) => error.source(),
        }
    }
}

/// Whether a session has any privilege now.
pub(crate) fn has_any_privilege(session: &pg_session::Session) -> bool {
    session.keys().iter().any(|key| key.starts_with(PREFIX))
}

/// Names go into keys, headers and addresses as they are.
fn key(privilege: &str) -> Result<String, Error> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if privilege.is_empty() || privilege.len() > 64 || !privilege.bytes().all(fine) {
        return Err(Error::config(
            "a privilege's name must have 1 to 64 lower-case letters, digits, `-` and `_`",
        ));
    }
    Ok(format!("{PREFIX}{privilege}"))
}
