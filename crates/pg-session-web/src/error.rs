//! What can go wrong for a request: opaque, with a [`kind`](Error::kind) to branch on and the HTTP status that fits it.

use std::fmt;

use pg_session::{KeyError, UpdateError};

use crate::refusal::Refusal;

/// What went wrong, for code that branches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The session was logged out, revoked or has expired while the request was in flight. It stays gone, and nothing was
    /// saved. Status 409.
    Ended,
    /// A parallel request has signed in or stepped up, and the session was rotated. This request still sees
    /// the old state; nothing was saved. Status 409.
    Rotated,
    /// Another request has changed the same attributes, and this one did not save. Only with
    /// [`SessionConfig::check_attributes`](crate::SessionConfig::check_attributes). Status 409.
    Conflict,
    /// The request presents tokens of too many sessions to say which one is meant. Nothing was
    /// saved, or, at a logout, some may live on. The response removes cookies that are not ours.
    /// Status 409.
    Ambiguous,
    /// This node has created as many sessions without a user in this second as
    /// [`SessionConfig::anonymous_per_second`](crate::SessionConfig::anonymous_per_second) allows. Nothing was saved. Status 503.
    AnonymousLimit,
    /// Another site caused the request, which must not change anything; see
    /// [`SessionConfig::accept_cross_site_at`](crate::SessionConfig::accept_cross_site_at). Status 403.
    CrossSite,
    /// The form does not carry the token of this session; see
    /// [`Session::check_csrf_token`](crate::Session::check_csrf_token). Status 403.
    CsrfToken,
    /// The callback of a login at a provider is not that of a flow of this browser, came too late, or twice; see
    /// [`Flow::take`](crate::Flow::take). Status 400.
    Flow,
    /// The function of [`SessionConfig::load_user`](crate::SessionConfig::load_user) has failed. Status 503.
    UserLoader,
    /// The server has a [development key](crate::SessionConfig::development), and the request does not come from this
    /// machine. Status 500.
    DevelopmentKey,
    /// The request is not signed in. Status 401.
    SignedOut,
    /// The key begins with `pg-session/`, which is kept for what this library records. Status 500.
    Reserved,
    /// The response's head has left: it is too late to change the session. Status 500.
    Closed,
    /// A setting is wrong; the message names it. Status 500.
    Config,
    /// The session's layer or middleware is not around this handler. Status 500.
    NoLayer,
    /// What the core says. Status 503 where trying again can help, 409 for
    /// [`SessionLimit`](pg_session::ErrorKind::SessionLimit), 500 otherwise.
    Core(pg_session::ErrorKind),
}

/// Something went wrong with a request's session; see [`kind`](Error::kind). `Display` says what, without any secret. It is for
/// logs: clients get the [`refusal`](Error::refusal).
pub struct Error(Cause);

enum Cause {
    Update(Box<UpdateError>),
    Own(ErrorKind, &'static str),
    Key(KeyError),
    User(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What went wrong, for code that branches.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.0 {
            Cause::Own(kind, _) => *kind,
            Cause::Key(_) => ErrorKind::Config,
            Cause::User(_) => ErrorKind::UserLoader,
            Cause::Update(error) => match &**error {
                UpdateError::Conflict { .. } => ErrorKind::Conflict,
                UpdateError::NotFound => ErrorKind::Ended,
                UpdateError::Rotated => ErrorKind::Rotated,
                UpdateError::Failed(error) => ErrorKind::Core(error.kind()),
                // A later version's outcome: not saved.
                _ => ErrorKind::Core(pg_session::ErrorKind::Database),
            },
        }
    }

    /// The HTTP status that tells a client as much as it should know.
    #[must_use]
    pub fn status(&self) -> u16 {
        use pg_session::ErrorKind as Core;
        match self.kind() {
            ErrorKind::Flow => 400,
            ErrorKind::SignedOut => 401,
            ErrorKind::CrossSite | ErrorKind::CsrfToken => 403,
            ErrorKind::Ended | ErrorKind::Rotated | ErrorKind::Conflict | ErrorKind::Ambiguous => 409,
            ErrorKind::Core(Core::SessionLimit) => 409,
            ErrorKind::AnonymousLimit
            | ErrorKind::UserLoader
            | ErrorKind::Core(
                Core::Unavailable
                | Core::Timeout
                | Core::OutcomeUnknown
                | Core::Contention
                | Core::Overloaded
                | Core::ShuttingDown,
            ) => 503,
            ErrorKind::Reserved
            | ErrorKind::Closed
            | ErrorKind::Config
            | ErrorKind::DevelopmentKey
            | ErrorKind::NoLayer
            | ErrorKind::Core(_) => 500,
        }
    }

    /// The response for the client: the status, and one sentence that says what to do. What only the application can mend
    /// is in the log, except for a missing layer, whose sentence says how to add it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let sentence = match self.kind() {
            ErrorKind::Flow => {
                "The login was not begun in this browser, took too long, or was finished already. Begin it again."
            }
            ErrorKind::SignedOut => "Not signed in. Log in first.",
            ErrorKind::Ended => "The session has ended, and nothing was saved. Log in again.",
            ErrorKind::Rotated => {
                "The session has got a new id meanwhile, and nothing was saved. Load the page again."
            }
            ErrorKind::Conflict => {
                "Another request has changed the same data, and nothing was saved. Load the page again."
            }
            ErrorKind::Ambiguous => {
                "The request has cookies of too many sessions, and nothing was saved. Delete this site's cookies, then log in."
            }
            ErrorKind::Core(pg_session::ErrorKind::SessionLimit) => {
                "The user has as many sessions as are allowed. Log out elsewhere first."
            }
            ErrorKind::CrossSite => {
                "Another site has sent this request, and it was refused. Open the page on this site, then try again."
            }
            ErrorKind::CsrfToken => {
                "The form is not of this session, and nothing was done. Load the page again, then send it."
            }
            ErrorKind::AnonymousLimit => {
                "Too many visitors have come at once, and nothing was saved. Try again in a second."
            }
            ErrorKind::DevelopmentKey => {
                "The server signs its sessions with a development key, which is for localhost only. Set SESSION_KEY to the \
                 output of `openssl rand -base64 32`, then start it again."
            }
            ErrorKind::UserLoader => "The user cannot be loaded at the moment. Try again soon.",
            ErrorKind::NoLayer => {
                "No session layer is around this handler. Add it to the routes that use a session."
            }
            _ if self.status() == 503 => {
                "The sessions cannot be read or saved at the moment. Try again soon."
            }
            _ => "The session failed. The server's log says why.",
        };
        Refusal::new(self.status(), sentence)
    }

    /// Logs an error that a handler has returned: for edges. What the application or its operator has to mend at WARN or
    /// ERROR, the rest at DEBUG.
    pub fn log(&self) {
        match (self.kind(), self.status()) {
            // It was logged when it was made.
            (ErrorKind::NoLayer, _) => {}
            // The limit itself has warned, once for all requests.
            (ErrorKind::AnonymousLimit, _) => tracing::debug!("a handler found too many visitors"),
            (_, 500..) => tracing::warn!(error = ?self, "a request failed by its session"),
            (_, status) => tracing::debug!(error = ?self, status, "a request was refused by its session"),
        }
    }

    /// Whether others ended, rotated or changed the session: trouble of this request, not of the node.
    pub(crate) fn is_outcome(&self) -> bool {
        matches!(self.kind(), ErrorKind::Ended | ErrorKind::Rotated | ErrorKind::Conflict)
    }

    /// The layer is missing: for edges, whose extractors find no session in their request. Logs it at ERROR, because a
    /// framework may drop the error of an optional extractor.
    #[must_use]
    pub fn no_layer() -> Self {
        let message = "no session layer is around this handler; add it to the routes that use a session";
        let error = Self(Cause::Own(ErrorKind::NoLayer, message));
        tracing::error!(%error, "a handler has no session");
        error
    }

    pub(crate) fn signed_out() -> Self {
        Self(Cause::Own(ErrorKind::SignedOut, "not signed in; log in first"))
    }

    pub(crate) fn ambiguous() -> Self {
        let message =
            "the request presents tokens of too many sessions; delete this site's cookies, then log in";
        Self(Cause::Own(ErrorKind::Ambiguous, message))
    }

    pub(crate) fn cross_site() -> Self {
        let message = "another site caused the request; name its path in `accept_cross_site_at` or its origin in \
                       `trusted_origins` if that is meant to be";
        Self(Cause::Own(ErrorKind::CrossSite, message))
    }

    pub(crate) fn key(error: KeyError) -> Self {
        Self(Cause::Key(error))
    }

    pub(crate) fn no_key() -> Self {
        Self::config("SESSION_KEY is not set; set it to the output of `openssl rand -base64 32`")
    }

    pub(crate) fn development_key() -> Self {
        let message = "a development key serves only this machine, and the request is for another host or came from another \
                       address; set SESSION_KEY";
        Self(Cause::Own(ErrorKind::DevelopmentKey, message))
    }

    pub(crate) fn user_loader(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self(Cause::User(error))
    }

    pub(crate) fn csrf_token() -> Self {
        Self(Cause::Own(
            ErrorKind::CsrfToken,
            "the form does not carry this session's token; render it again",
        ))
    }

    pub(crate) fn flow() -> Self {
        let message = "the callback belongs to no flow of this browser: its cookie or state is missing or wrong, it is older \
                       than ten minutes, or it was taken already; begin the flow again";
        Self(Cause::Own(ErrorKind::Flow, message))
    }

    pub(crate) fn no_randomness() -> Self {
        let kind = ErrorKind::Core(pg_session::ErrorKind::Unavailable);
        Self(Cause::Own(kind, "the operating system gave no random bytes; try again"))
    }

    pub(crate) fn anonymous_limit() -> Self {
        let message = "this node has created as many anonymous sessions in this second as `anonymous_per_second` allows; \
                       raise it if these were people";
        Self(Cause::Own(ErrorKind::AnonymousLimit, message))
    }

    pub(crate) fn reserved() -> Self {
        let message = "keys that begin with `pg-session/` are reserved; choose another prefix";
        Self(Cause::Own(ErrorKind::Reserved, message))
    }

    pub(crate) fn closed() -> Self {
        let message =
            "the session was changed after the response was sent; change it before the handler returns";
        Self(Cause::Own(ErrorKind::Closed, message))
    }

    pub(crate) fn config(message: &'static str) -> Self {
        Self(Cause::Own(ErrorKind::Config, message))
    }

    pub(crate) fn encode() -> Self {
        let kind = ErrorKind::Core(pg_session::ErrorKind::Encode);
        Self(Cause::Own(kind, "the attribute's value has no JSON form; store another type"))
    }

    pub(crate) fn decode() -> Self {
        let kind = ErrorKind::Core(pg_session::ErrorKind::Decode);
        Self(Cause::Own(
            kind,
            "the attribute's value is not of the type asked for; read it as the type that was stored",
        ))
    }

    /// The task that saves was dropped with its runtime.
    pub(crate) fn interrupted() -> Self {
        let kind = ErrorKind::Core(pg_session::ErrorKind::OutcomeUnknown);
        Self(Cause::Own(kind, "the runtime ended while the session was being saved; load it again to see"))
    }
}

impl From<UpdateError> for Error {
    fn from(error: UpdateError) -> Self {
        Self(Cause::Update(Box::new(error)))
    }
}

impl From<pg_session::Error> for Error {
    fn from(error: pg_session::Error) -> Self {
        UpdateError::Failed(error).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Own(_, message) => f.write_str(message),
            Cause::Key(error) => write!(f, "SESSION_KEY: {error}"),
            Cause::User(_) => f.write_str("`load_user` has failed; its error is the source"),
            Cause::Update(error) => match &**error {
                UpdateError::Failed(error) => error.fmt(f),
                error => error.fmt(f),
            },
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Own(kind, message) => {
                f.debug_struct("Error").field("kind", kind).field("message", message).finish()
            }
            Cause::Key(error) => f.debug_tuple("Error").field(error).finish(),
            Cause::User(error) => f.debug_tuple("Error").field(&ErrorKind::UserLoader).field(error).finish(),
            Cause::Update(error) => f.debug_tuple("Error").field(error).finish(),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Own(..) => None,
            Cause::Key(error) => Some(error),
            Cause::User(error) => Some(&**error),
            Cause::Update(error) => match &**error {
                UpdateError::Failed(error) => error.source(),
                error => std::error::Error::source(error),
            },
        }
    }
}
