//! A session as the commands print it.

use std::time::SystemTime;

use pg_session::{IdleLimit, Session};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::output::{Format, rfc3339};

/// One object of `list --json`; docs/cli.md describes the fields.
#[derive(Serialize)]
pub(crate) struct SessionRow {
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

/// One attribute in `show --json`.
#[derive(Serialize)]
pub(crate) struct AttributeRow {
    pub(super) key: String,
    pub(super) version: Option<i64>,
    pub(super) expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Box<RawValue>>,
}

impl SessionRow {
    pub(crate) fn new(session: &Session) -> Self {
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

pub(super) const HEAD: [&str; 7] =
    ["HANDLE", "USER", "GROUP", "VERSION", "CREATED", "LAST ACCESS", "EXPIRES"];

/// The cells below [`HEAD`].
pub(super) fn cells(session: &Session, format: Format, now: SystemTime) -> Vec<String> {
    let absent = || "-".to_owned();
    vec![
        session.id().handle().to_string(),
        session.user_id().map_or_else(absent, |id| id.to_string()),
        session.group_id().map_or_else(absent, |id| id.to_string()),
        session.version().get().to_string(),
        format.time(session.created_at(), now),
        format.time(session.last_accessed_at(), now),
        format.time(session.expires_at(), now),
    ]
}

/// The attributes, with their values only if asked for.
pub(crate) fn attributes(session: &Session, values: bool) -> Vec<AttributeRow> {
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
