//! Ends sessions for the admin API and the console: what to end, and the record of it.

use pg_session::{Cause, Error, Everywhere, Session, SessionManager};

use super::Server;
use super::audit::By;
use crate::admin::select::{Selected, group_id, user_id};

/// What is to end.
#[derive(Debug)]
pub(super) enum Target {
    /// The session with this handle.
    One(Box<Session>),
    Many(Selected),
}

/// What a caller has given to name a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) label: Option<&'a str>,
    pub(super) handle: Option<&'a str>,
    pub(super) all: bool,
}

/// Why a target is none.
#[derive(Debug)]
pub(super) enum NoTarget {
    /// Not exactly one of user, group, label, handle and all.
    Unclear,
    /// No live session has the handle.
    Unknown,
    /// Several sessions have it.
    Ambiguous,
    Failed(Error),
}

impl Target {
    /// Exactly one of these.
    pub(super) async fn of(manager: &SessionManager, named: Named<'_>) -> Result<Self, NoTarget> {
        let Named { user, group, label, handle, all } = named;
        match (user, group, label, handle, all) {
            (Some(user), None, None, None, false) => Ok(Self::Many(Selected::User(user_id(user)))),
            (None, Some(group), None, None, false) => Ok(Self::Many(Selected::Group(group_id(group)))),
            (None, None, Some(label), None, false) => Ok(Self::Many(Selected::Label(label.to_owned()))),
            (None, None, None, Some(handle), false) => {
                by_handle(manager, handle).await.map(|session| Self::One(Box::new(session)))
            }
            (None, None, None, None, true) => Ok(Self::Many(Selected::All)),
            _ => Err(NoTarget::Unclear),
        }
    }

    /// How many sessions it has.
    pub(super) async fn count(&self, manager: &SessionManager) -> Result<u64, Error> {
        match self {
            Self::One(_) => Ok(1),
            Self::Many(selected) => selected.count(manager).await,
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::One(session) => format!("session {}", session.id().handle()),
            Self::Many(Selected::User(user)) => format!("user {user}"),
            Self::Many(Selected::Group(group)) => format!("group {group}"),
            Self::Many(Selected::Label(label)) => format!("label {label}"),
            Self::Many(Selected::All) => "all sessions".to_owned(),
        }
    }
}

/// The live session whose handle begins so.
pub(super) async fn by_handle(manager: &SessionManager, handle: &str) -> Result<Session, NoTarget> {
    let mut found = manager.find(handle).await.map_err(NoTarget::Failed)?;
    match (found.pop(), found.is_empty()) {
        (Some(session), true) => Ok(session),
        (None, _) => Err(NoTarget::Unknown),
        (Some(_), false) => Err(NoTarget::Ambiguous),
    }
}

/// What a revocation did.
#[derive(Clone, Debug)]
pub(super) struct Revoked {
    /// How many sessions were alive.
    pub(super) ended: u64,
    /// The proof that no node can serve them, if it was asked for.
    pub(super) everywhere: Option<Everywhere>,
}

/// Ends the sessions, and records it. With `everywhere`, waits until no node can serve them.
///
/// # Errors
/// Those of the deletion.
pub(super) async fn revoke(
    server: &Server,
    target: &Target,
    cause: Cause,
    everywhere: bool,
    by: By,
) -> Result<Revoked, Error> {
    let manager = server.manager();
    let outcome = match target {
        Target::One(session) => manager.delete(session.id()).cause(cause).await.map(u64::from),
        Target::Many(selected) => selected.end(manager, cause).await,
    };
    server.audit.record(by, target.name(), cause, &outcome);
    let ended = outcome?;
    // The sessions are gone. What is behind that commit is the wait alone.
    let everywhere = if everywhere { Some(manager.everywhere().await?) } else { None };
    Ok(Revoked { ended, everywhere })
}
