//! [`Audit`]: who has ended which sessions through this process, and why. A line of JSON on stdout for each change, and the
//! last ones in memory for the console.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use pg_session::Cause;
use serde::Serialize;

use crate::output::rfc3339;

/// Changes in memory. The oldest are forgotten first.
const CHANGES_MAX: usize = 200;

/// The causes that an operator can give.
pub(super) const CAUSES: [Cause; 5] =
    [Cause::Admin, Cause::Logout, Cause::Everywhere, Cause::Credential, Cause::Backchannel];

/// The cause with this name.
pub(super) fn cause(name: &str) -> Result<Cause, String> {
    CAUSES.into_iter().find(|cause| cause.name() == name).ok_or_else(|| {
        let names = CAUSES.map(Cause::name).join(", ");
        format!("cause: {name:?} is none of {names}")
    })
}

/// The way on which a change came.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    Api,
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

/// One change, or the attempt.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    pub(super) time: String,
    pub(super) by: By,
    /// The user, the group, the handle, or all.
    pub(super) what: String,
    pub(super) cause: &'static str,
    /// How many sessions were alive. `None` if it failed.
    pub(super) ended: Option<u64>,
    pub(super) error: Option<String>,
}

/// The changes.
#[derive(Debug, Default)]
pub(super) struct Audit(Mutex<VecDeque<Change>>);

impl Audit {
    pub(super) fn record(
        &self,
        by: By,
        what: String,
        cause: Cause,
        outcome: &Result<u64, pg_session::Error>,
    ) {
        let change = Change {
            time: rfc3339(SystemTime::now()),
            by,
            what,
            cause: cause.name(),
            ended: outcome.as_ref().ok().copied(),
            error: outcome.as_ref().err().map(ToString::to_string),
        };
        let line = serde_json::json!({ "event": "revocation", "change": &change });
        if let Err(error) = writeln!(io::stdout(), "{line}") {
            tracing::error!(%error, %line, "a change could not be written to stdout");
        }
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() == CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    /// The newest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}
