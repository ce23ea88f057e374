//! Ends sessions for the admin API and the console: what to end, and the record of it.

use axum::http::StatusCode;
use pg_session::{Cause, Error, ErrorKind, Everywhere, GroupId, Revocation, Session, SessionManager, UserId};

use crate::Admin;
use crate::audit::Author;
use crate::shared::{group_id, user_id};

/// What is to end.
#[derive(Debug)]
pub(crate) enum Target {
    /// The session with this handle.
    One(Box<Session>),
    User(UserId),
    Group(GroupId),
    Label(String),
    All,
}

/// What a caller has given to name a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
    pub(crate) label: Option<&'a str>,
    pub(crate) handle: Option<&'a str>,
    pub(crate) all: bool,
}

/// Why a target is none.
#[derive(Debug)]
pub(crate) enum NoTarget {
    /// Not exactly one of user, group, label, handle and all.
    Unclear,
    /// The member with this name is an empty text, which names nothing.
    Empty(&'static str),
    /// No live session has the handle.
    Unknown,
    /// Several sessions have it.
    Ambiguous,
    Failed(Error),
}

/// Whether the request is wrong, or the database does not answer it.
pub(crate) fn status_of(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::Malformed | ErrorKind::LimitExceeded => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Target {
    /// Exactly one of these.
    pub(crate) async fn of(manager: &SessionManager, named: Named<'_>) -> Result<Self, NoTarget> {
        let Named { user, group, label, handle, all } = named;
        match (user, group, label, handle, all) {
            (Some(user), None, None, None, false) => Ok(Self::User(user_id(given("user", user)?))),
            (None, Some(group), None, None, false) => Ok(Self::Group(group_id(given("group", group)?))),
            (None, None, Some(label), None, false) => Ok(Self::Label(given("label", label)?.to_owned())),
            (None, None, None, Some(handle), false) => {
                by_handle(manager, given("handle", handle)?).await.map(|session| Self::One(Box::new(session)))
            }
            (None, None, None, None, true) => Ok(Self::All),
            _ => Err(NoTarget::Unclear),
        }
    }

    /// How many sessions it has.
    pub(crate) async fn count(&self, manager: &SessionManager) -> Result<u64, Error> {
        match self {
            Self::One(_) => Ok(1),
            Self::User(user) => manager.user(*user).count().await,
            Self::Group(group) => manager.group(*group).count().await,
            Self::Label(label) => manager.label(label).count().await,
            Self::All => manager.all().count().await,
        }
    }

    fn delete<'a>(&self, manager: &'a SessionManager) -> Revocation<'a, u64> {
        match self {
            Self::One(session) => manager.delete_many([session.id()]),
            Self::User(user) => manager.user(*user).delete(),
            Self::Group(group) => manager.group(*group).delete(),
            Self::Label(label) => manager.label(label).delete(),
            Self::All => manager.delete_all_sessions(),
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::One(session) => format!("session {}", session.id().handle()),
            Self::User(user) => format!("user {user}"),
            Self::Group(group) => format!("group {group}"),
            Self::Label(label) => format!("label {label}"),
            Self::All => "all sessions".to_owned(),
        }
    }
}

/// The text, unless it is empty: `UserId::named("")` is a user that no application has, and ends nothing without an error.
pub(crate) fn given<'a>(name: &'static str, text: &'a str) -> Result<&'a str, NoTarget> {
    if text.is_empty() { Err(NoTarget::Empty(name)) } else { Ok(text) }
}

/// The live session whose handle begins so.
pub(crate) async fn by_handle(manager: &SessionManager, handle: &str) -> Result<Session, NoTarget> {
    let mut found = manager.find(handle).await.map_err(NoTarget::Failed)?;
    match (found.pop(), found.is_empty()) {
        (Some(session), true) => Ok(session),
        (None, _) => Err(NoTarget::Unknown),
        (Some(_), false) => Err(NoTarget::Ambiguous),
    }
}

/// What a revocation did.
#[derive(Clone, Debug)]
pub(crate) struct Revoked {
    /// How many sessions were alive.
    pub(crate) ended: u64,
    /// The proof that no node can serve them, if it was asked for.
    pub(crate) everywhere: Option<Everywhere>,
}

/// Ends the sessions, and records it. With `everywhere`, waits until no node can serve them. The audit log of the database
/// gets the name of the author, and the receipt.
///
/// # Errors
/// Those of the deletion.
///
/// # Cancel safety
/// A client that goes away stops neither the change nor its record.
pub(crate) async fn revoke(
    admin: &Admin,
    target: Target,
    cause: Cause,
    everywhere: bool,
    author: Author,
) -> Result<(Revoked, Target), Error> {
    let admin = admin.clone();
    let task = tokio::spawn(async move {
        let change = target.delete(&admin.0.manager).cause(cause).by(author.actor());
        let outcome = if everywhere {
            let done = change.with_everywhere().await;
            done.map(|(ended, receipt)| Revoked { ended, everywhere: Some(receipt) })
        } else {
            change.await.map(|ended| Revoked { ended, everywhere: None })
        };
        let ended = outcome.as_ref().map(|revoked| revoked.ended);
        admin.0.audit.record(author, target.name(), cause, ended);
        outcome.map(|revoked| (revoked, target))
    });
    match task.await {
        Ok(outcome) => outcome,
        // The runtime cancels no task while this one lives, so it has panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
