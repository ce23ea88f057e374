//! [`Ending`]: why sessions end, and what the audit log has about it.
//!
//! A statement that deletes sessions hands JSON to the audit log's trigger, one object for each group of sessions:
//! `[{"cause":"l","actor":"ann","revocation":"…","ids":["…"]}]`. Without `ids` it is about all of them. Keep it in step with
//! `session_audit_ends` in `migrations/0001_audit.sql`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::cause::Cause;
use crate::error::{Error, ErrorKind};
use crate::id::SessionId;

/// Bytes of an actor. The trigger cuts the actors of other clients to as many characters.
const ACTOR_BYTES_MAX: usize = 255;

/// Why sessions end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ending {
    letter: char,
    actor: Option<Arc<str>>,
    /// The call of `everywhere()` whose receipt belongs to them.
    revocation: Option<Uuid>,
}

impl Ending {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { letter: cause.letter(), actor: None, revocation: None }
    }

    pub(crate) fn cause(&self) -> Cause {
        Cause::from_letter(self.letter)
    }

    pub(crate) fn with_cause(self, cause: Cause) -> Self {
        Self { letter: cause.letter(), ..self }
    }

    pub(crate) fn with_revocation(self, revocation: Uuid) -> Self {
        Self { revocation: Some(revocation), ..self }
    }

    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a text that is empty, too long or has a control character.
    pub(crate) fn with_actor(self, actor: &str) -> Result<Self, Error> {
        let fault = if actor.is_empty() {
            "the actor is empty; pass a name".to_owned()
        } else if actor.len() > ACTOR_BYTES_MAX {
            format!("the actor has {} bytes; use at most {ACTOR_BYTES_MAX}", actor.len())
        } else if actor.contains(char::is_control) {
            "the actor has a control character; remove it".to_owned()
        } else {
            return Ok(Self { actor: Some(actor.into()), ..self });
        };
        Err(Error::new(ErrorKind::InvalidArgument, fault))
    }
}

/// An actor may be a person, so no log shows it.
impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").field("cause", &self.cause()).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Group<'a> {
    cause: char,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Uuid>>,
}

impl<'a> Group<'a> {
    fn new(ending: &'a Ending, ids: Option<Vec<Uuid>>) -> Self {
        let Ending { letter, actor, revocation } = ending;
        Self { cause: *letter, actor: actor.as_deref(), revocation: *revocation, ids }
    }
}

/// For the trigger: all sessions of a statement end so.
pub(crate) fn of_all(ending: &Ending) -> String {
    text(&[Group::new(ending, None)])
}

/// For the trigger: each of these sessions ends so.
pub(crate) fn of_each(sessions: &[(SessionId, Ending)]) -> String {
    let mut groups: BTreeMap<&Ending, Vec<Uuid>> = BTreeMap::new();
    for (id, ending) in sessions {
        groups.entry(ending).or_default().push(id.expose());
    }
    let is_one = groups.len() == 1;
    let groups = groups.into_iter().map(|(ending, ids)| Group::new(ending, (!is_one).then_some(ids)));
    text(&groups.collect::<Vec<_>>())
}

fn text(groups: &[Group<'_>]) -> String {
    // Texts and UUIDs can always be written as JSON.
    serde_json::to_string(groups).unwrap_or_default()
}

/// An SQL literal for the trigger, where the cause is always the same.
pub(crate) fn literal(cause: Cause) -> String {
    format!("'[{{\"cause\":\"{}\"}}]'", cause.letter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_with_different_endings_are_named() {
        let (first, second) = (SessionId::random(), SessionId::random());
        let logout = Ending::new(Cause::Logout);
        let theft = logout.clone().with_cause(Cause::Admin).with_actor("ann \"a\"").unwrap();
        let same = of_each(&[(first, logout.clone()), (second, logout.clone())]);
        assert_eq!(same, r#"[{"cause":"l"}]"#);
        assert_eq!(same, of_all(&logout));
        let (first_id, second_id) = (first.expose(), second.expose());
        assert_eq!(
            of_each(&[(first, logout), (second, theft)]),
            format!(
                r#"[{{"cause":"a","actor":"ann \"a\"","ids":["{second_id}"]}},{{"cause":"l","ids":["{first_id}"]}}]"#
            )
        );
    }

    #[test]
    fn an_actor_is_a_short_line() {
        let long = "a".repeat(ACTOR_BYTES_MAX + 1);
        for wrong in ["", "a\nb", "a\0", &long] {
            let error = Ending::new(Cause::Admin).with_actor(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{wrong:?}");
        }
        assert!(Ending::new(Cause::Admin).with_actor(&long[1..]).is_ok());
    }
}
