//! [`Audit`]: who has ended which sessions through this process, and why. The application is given each change, and the
//! last ones stay in memory for the console.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use pg_session::Cause;
use serde::Serialize;

use crate::OnChange;
use crate::shared::rfc3339;

/// Changes in memory. The oldest are forgotten first.
const CHANGES_MAX: usize = 200;

/// The causes that an operator can give.
pub(crate) const CAUSES: [Cause; 5] =
    [Cause::Admin, Cause::Logout, Cause::Everywhere, Cause::Credential, Cause::Backchannel];

/// The cause with this name.
pub(crate) fn cause(name: &str) -> Result<Cause, String> {
    CAUSES.into_iter().find(|cause| cause.name() == name).ok_or_else(|| {
        let names = CAUSES.map(Cause::name).join(", ");
        format!("cause is none of {names}")
    })
}

/// The way on which a change came.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum By {
    /// The admin API.
    Api,
    /// The console.
    Console,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "api",
            Self::Console => "console",
        })
    }
}

/// One change, or the attempt. As JSON, it is a line for the application's log.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// RFC 3339.
    pub time: String,
    /// The way on which it came.
    pub by: By,
    /// The name of the [`Operator`](crate::Operator). `None` with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The user, the group, the handle, or all.
    pub what: String,
    /// The cause that the operator has given.
    pub cause: &'static str,
    /// How many sessions were alive. `None` if it failed.
    pub ended: Option<u64>,
    /// Why it failed. **It may have been committed nevertheless.**
    pub error: Option<String>,
}

/// Who asks for a change.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) by: By,
    pub(crate) operator: Option<String>,
}

impl Author {
    /// As the audit log of the database names the author.
    pub(crate) fn actor(&self) -> &str {
        match (&self.operator, self.by) {
            (Some(name), _) => name,
            (None, By::Api) => "admin API",
            (None, By::Console) => "console",
        }
    }
}

/// The changes.
pub(crate) struct Audit {
    on_change: Option<OnChange>,
    last: Mutex<VecDeque<Change>>,
}

impl Audit {
    pub(crate) fn new(on_change: Option<OnChange>) -> Self {
        Self { on_change, last: Mutex::default() }
    }

    pub(crate) fn record(
        &self,
        author: Author,
        what: String,
        cause: Cause,
        ended: Result<u64, &pg_session::Error>,
    ) {
        let change = Change {
            time: rfc3339(SystemTime::now()),
            by: author.by,
            operator: author.operator,
            what,
            cause: cause.name(),
            ended: ended.ok(),
            error: ended.err().map(ToString::to_string),
        };
        match &self.on_change {
            Some(on_change) => on_change(&change),
            None => {
                let change = serde_json::json!(&change);
                tracing::info!(target: "pg_session_admin::audit", %change, "sessions were ended");
            }
        }
        let mut changes = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() == CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    /// The newest first.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("last", &self.last).finish_non_exhaustive()
    }
}
