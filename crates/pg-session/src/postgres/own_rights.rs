//! Rights on PostgreSQL's own functions and catalogs. PUBLIC has them by default, and some administrators revoke them.

use crate::error::Error;

/// The functions that the statements need, with the types of their arguments as PostgreSQL writes them.
pub(super) const OWN_FUNCTIONS: [(&str, &str); 16] = [
    ("clock_timestamp", ""),
    ("current_setting", "text"),
    ("current_setting", "text,boolean"),
    ("hashtextextended", "text,bigint"),
    ("pg_advisory_xact_lock", "bigint"),
    ("pg_backend_pid", ""),
    ("pg_is_in_recovery", ""),
    ("pg_notification_queue_usage", ""),
    ("pg_notify", "text,text"),
    ("pg_postmaster_start_time", ""),
    ("pg_relation_filenode", "regclass"),
    ("pg_trigger_depth", ""),
    ("pg_try_advisory_xact_lock", "bigint"),
    ("row_security_active", "oid"),
    ("set_config", "text,text,boolean"),
    ("uuid_hash_extended", "uuid,bigint"),
];
/// The catalogs that a start reads.
const OWN_CATALOGS: [&str; 12] = [
    "pg_attrdef",
    "pg_auth_members",
    "pg_class",
    "pg_constraint",
    "pg_database",
    "pg_depend",
    "pg_index",
    "pg_namespace",
    "pg_proc",
    "pg_roles",
    "pg_settings",
    "pg_type",
];
const OWN_RIGHT: &str = "PUBLIC has this right by default, and it was revoked";

/// PostgreSQL's own function or catalog that a message names, in the form of GRANT. The server translates its messages, but
/// not the names in them.
pub(super) fn own_object(message: &str) -> Option<String> {
    let is_named = |name: &&str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        message.split(|c| !is_part(c)).any(|word| word == *name)
    };
    if let Some((function, arguments)) = OWN_FUNCTIONS.into_iter().find(|(function, _)| is_named(function)) {
        return Some(format!("EXECUTE ON FUNCTION pg_catalog.{function}({arguments})"));
    }
    OWN_CATALOGS.into_iter().find(is_named).map(|catalog| format!("SELECT ON pg_catalog.{catalog}"))
}

/// What to do about a missing right on PostgreSQL's own objects: `EXECUTE ON FUNCTION …` or `SELECT ON …`.
pub(super) fn own_right(object: &str) -> String {
    format!("{OWN_RIGHT}; run: GRANT {object} TO <role>")
}

/// Whether the error is about a right that [`own_right`] names.
pub(super) fn is_own_right(error: &Error) -> bool {
    error.to_string().contains(OWN_RIGHT)
}
