//! Which sessions a command is about.

use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{ErrorKind, GroupId, Page, Session, SessionId, SessionManager, UserId};
pub(crate) use pg_session_admin::shared::{group_id, user_id};

use crate::failure::Failure;
use crate::output::{Progress, waiting};

/// Sessions of a user, of a group, of a label, or all.
#[derive(Args, Debug)]
pub(crate) struct Scope {
    /// The sessions of this user: an integer, a UUID, or the text that the application gives to UserId::named.
    #[arg(long, value_name = "ID", group = "selected", value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// The sessions of this group, named likewise.
    #[arg(long, value_name = "ID", group = "selected", value_parser = NonEmptyStringValueParser::new())]
    group: Option<String>,
    /// The sessions that have this label.
    #[arg(long, value_name = "TEXT", group = "selected", value_parser = NonEmptyStringValueParser::new())]
    label: Option<String>,
    /// All sessions.
    #[arg(long, group = "selected")]
    all: bool,
}

/// What [`Scope`] names.
#[derive(Clone, Debug)]
pub(crate) enum Selected {
    User(UserId),
    Group(GroupId),
    Label(String),
    All,
}

/// Only the sessions that were created long ago.
#[derive(Args, Debug)]
pub(crate) struct Age {
    /// Only sessions that were created longer ago than this, as 30d, 12h or 90m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Option<Duration>,
}

impl Scope {
    /// `None` if no option was given.
    pub(crate) fn selected(&self) -> Option<Selected> {
        match (&self.user, &self.group, &self.label) {
            (Some(user), ..) => Some(Selected::User(user_id(user))),
            (_, Some(group), _) => Some(Selected::Group(group_id(group))),
            (.., Some(label)) => Some(Selected::Label(label.clone())),
            (None, None, None) => self.all.then_some(Selected::All),
        }
    }
}

impl Selected {
    async fn page(&self, sessions: &SessionManager, after: Option<SessionId>) -> Result<Page, Failure> {
        Ok(match self {
            Self::User(id) => sessions.user(*id).page(after).await?,
            Self::Group(id) => sessions.group(*id).page(after).await?,
            Self::Label(label) => sessions.label(label).page(after).await?,
            Self::All => sessions.all().page(after).await?,
        })
    }

    /// How many sessions there are.
    pub(crate) async fn count(&self, sessions: &SessionManager) -> Result<u64, pg_session::Error> {
        let count = async {
            match self {
                Self::User(id) => sessions.user(*id).count().await,
                Self::Group(id) => sessions.group(*id).count().await,
                Self::Label(label) => sessions.label(label).count().await,
                Self::All => sessions.all().count().await,
            }
        };
        waiting("counting", count).await
    }

    /// Calls `visit` with each session that is old enough, until it returns false.
    pub(crate) async fn each(
        &self,
        sessions: &SessionManager,
        age: &Age,
        mut visit: impl FnMut(Session) -> bool,
    ) -> Result<(), Failure> {
        let now = sessions.database_time();
        let mut progress = Progress::new();
        let (mut after, mut seen) = (None, 0);
        loop {
            let page = self.page(sessions, after).await?;
            after = page.sessions.last().filter(|_| page.truncated).map(Session::id);
            for session in page {
                seen += 1;
                if is_older(&session, age, now) && !visit(session) {
                    return Ok(());
                }
            }
            if after.is_none() {
                return Ok(());
            }
            progress.at(seen, "session");
        }
    }
}

fn is_older(session: &Session, age: &Age, now: SystemTime) -> bool {
    let lived = now.duration_since(session.created_at()).unwrap_or_default();
    age.older_than.is_none_or(|older_than| lived > older_than)
}

/// The one live session that the handle names.
pub(crate) async fn by_handle(sessions: &SessionManager, handle: &str) -> Result<Session, Failure> {
    let found = waiting("searching", sessions.find(handle)).await;
    let mut found = found.map_err(|error| match error.kind() {
        ErrorKind::InvalidArgument => Failure::usage(Failure::from(error).to_string()),
        _ => Failure::from(error),
    })?;
    match (found.pop(), found.is_empty()) {
        (Some(session), true) => Ok(session),
        (None, _) => {
            Err(Failure::new(format!("no live session has the handle {handle}: it is unknown, or has ended")))
        }
        (Some(session), false) => {
            found.push(session);
            let handles: Vec<String> =
                found.iter().map(|session| session.id().handle().to_string()).collect();
            Err(Failure::new(format!(
                "{handle} is not unique; give more digits of one of: {}",
                handles.join(", ")
            )))
        }
    }
}
