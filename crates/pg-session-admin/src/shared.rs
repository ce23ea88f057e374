//! Names of users and groups, sessions, nodes and receipts as JSON, and times: the same in the console, the API and the program's commands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_session::{Cause, Event, Everywhere, GroupId, IdleLimit, NodeInfo, Session, UserId};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// What has five digits for the year cannot be written. SQL of other clients can store it.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// An integer, a UUID, or the text that the application gives to `UserId::named`.
#[must_use]
pub fn user_id(text: &str) -> UserId {
    match (text.parse::<i64>(), text.parse::<Uuid>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(uuid)) => uuid.into(),
        _ => UserId::named(text),
    }
}

/// As [`user_id`].
#[must_use]
pub fn group_id(text: &str) -> GroupId {
    match (text.parse::<i64>(), text.parse::<Uuid>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(uuid)) => uuid.into(),
        _ => GroupId::named(text),
    }
}

/// One object of `list --json`; docs/cli.md describes the fields.
#[derive(Debug, Serialize)]
pub struct SessionRow {
    handle: String,
    user: Option<String>,
    group: Option<String>,
    version: i64,
    created_at: String,
    updated_at: String,
    last_accessed_at: String,
    expires_at: String,
    idle_limit: bool,
    retired: bool,
}

impl SessionRow {
    /// Without the session's id.
    #[must_use]
    pub fn new(session: &Session) -> Self {
        Self {
            handle: session.id().handle().to_string(),
            user: session.user_id().map(|id| id.to_string()),
            group: session.group_id().map(|id| id.to_string()),
            version: session.version().get(),
            created_at: rfc3339(session.created_at()),
            updated_at: rfc3339(session.updated_at()),
            last_accessed_at: rfc3339(session.last_accessed_at()),
            expires_at: rfc3339(session.expires_at()),
            idle_limit: session.idle_limit() == IdleLimit::Enforced,
            retired: session.is_retired(),
        }
    }
}

/// One attribute in `show --json`.
#[derive(Debug, Serialize)]
pub struct AttributeRow {
    /// The key.
    pub key: String,
    /// The version of the session that wrote it.
    pub version: Option<i64>,
    /// When it ends.
    pub expires_at: Option<String>,
    /// The value, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
}

/// The attributes, with their values only if asked for.
#[must_use]
pub fn attributes(session: &Session, values: bool) -> Vec<AttributeRow> {
    let keys = session.keys();
    let attribute = |key: &&str| AttributeRow {
        key: (*key).to_owned(),
        version: session.attribute_version(key).map(|version| version.get()),
        expires_at: session.attribute_expires_at(key).map(rfc3339),
        value: session
            .get_raw(key)
            .filter(|_| values)
            .and_then(|text| RawValue::from_string(text.to_owned()).ok()),
    };
    keys.iter().map(attribute).collect()
}

/// A node of the registry: one object of `nodes --json`; docs/cli.md describes the fields.
#[derive(Debug, Serialize)]
pub struct NodeRow {
    id: String,
    name: String,
    version: String,
    registered_at: String,
    this_node: bool,
    answered_after_ms: Option<f64>,
    listener_lost_at: Option<String>,
    differing_settings: Vec<String>,
}

impl From<&NodeInfo> for NodeRow {
    fn from(node: &NodeInfo) -> Self {
        Self {
            id: node.id.clone(),
            name: node.name.clone(),
            version: node.version.clone(),
            registered_at: rfc3339(node.registered_at),
            this_node: node.is_this,
            answered_after_ms: node.answered_after.map(milliseconds),
            listener_lost_at: node.listener_lost_at.map(rfc3339),
            differing_settings: node.differing_settings.clone(),
        }
    }
}

/// No node can serve what was ended; docs/cli.md describes the fields.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Receipt {
    /// Nodes that have handled the revocation.
    pub acknowledged: usize,
    /// Nodes that did not answer. They read from the database until they have handled it.
    pub lapsed: usize,
    /// From the commit until no node could serve it.
    pub took_ms: f64,
}

impl From<&Everywhere> for Receipt {
    fn from(everywhere: &Everywhere) -> Self {
        let Everywhere { acknowledged, lapsed, took, .. } = *everywhere;
        Self { acknowledged, lapsed, took_ms: milliseconds(took) }
    }
}

/// What has happened, and why sessions have ended. Nothing for what happens with each login.
#[must_use]
pub fn describe(event: &Event) -> Option<(String, Option<Cause>)> {
    Some(match event {
        Event::Ended { session, user: None, cause } => (format!("session {session} ended"), Some(*cause)),
        Event::Ended { session, user: Some(user), cause } => {
            (format!("session {session} of user {user} ended"), Some(*cause))
        }
        Event::UserEnded { user, cause } => (format!("sessions of user {user} ended"), Some(*cause)),
        Event::GroupEnded { group, cause } => (format!("sessions of group {group} ended"), Some(*cause)),
        Event::AllEnded { cause } => ("all sessions ended".to_owned(), Some(*cause)),
        Event::Trusted => ("this node answers from memory".to_owned(), None),
        Event::Untrusted => ("this node reads from PostgreSQL; it may miss ends".to_owned(), None),
        Event::Lagged(lost) => (format!("{lost} events were lost"), None),
        _ => return None,
    })
}

/// A tenth is enough for people and for machines.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

/// Seconds are enough for people and for machines.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    if time < UNIX_EPOCH {
        return "before 1970".to_owned();
    }
    if time >= UNIX_EPOCH + YEAR_10000 {
        return "after 9999".to_owned();
    }
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A time, compared with `now`.
#[must_use]
pub fn relative(time: SystemTime, now: SystemTime) -> String {
    match (now.duration_since(time), time.duration_since(now)) {
        (Ok(ago), _) => format!("{} ago", roughly(ago)),
        (_, Ok(left)) => format!("in {}", roughly(left)),
        _ => rfc3339(time),
    }
}

/// A duration in its largest unit, rounded down.
#[must_use]
pub fn roughly(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..MINUTE => format!("{seconds} s"),
        seconds @ ..HOUR => format!("{} min", seconds / MINUTE),
        seconds @ ..DAY => format!("{} h", seconds / HOUR),
        seconds => format!("{} d", seconds / DAY),
    }
}

/// `1 session`, `2 sessions`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_relative_for_people_and_exact_for_programs() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let ago = |seconds| relative(now - Duration::from_secs(seconds), now);
        assert_eq!(
            [ago(59), ago(3_599), ago(86_399), ago(172_800)],
            ["59 s ago", "59 min ago", "23 h ago", "2 d ago"]
        );
        assert_eq!(relative(now + Duration::from_secs(90), now), "in 1 min");
        assert_eq!(rfc3339(now), "2001-09-09T01:46:40Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "before 1970");
        assert_eq!(rfc3339(UNIX_EPOCH + YEAR_10000 - Duration::from_secs(1)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(UNIX_EPOCH + YEAR_10000), "after 9999");
        assert_eq!(milliseconds(Duration::from_micros(1_250)).to_string(), "1.3");
    }
}
