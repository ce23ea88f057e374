//! A session as the commands print it.

use std::time::SystemTime;

use pg_session::Session;
pub(crate) use pg_session_admin::shared::{AttributeRow, SessionRow, attributes};

use crate::output::Format;

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
