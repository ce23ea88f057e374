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
/// The catalogs and views that a start, the migrations, the registry of nodes and the doctor read.
const OWN_CATALOGS: [&str; 30] = [
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_class",
    "pg_constraint",
    "pg_database",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_index",
    "pg_inherits",
    "pg_locks",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_policy",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_proc",
    "pg_publication",
    "pg_publication_tables",
    "pg_rewrite",
    "pg_roles",
    "pg_settings",
    "pg_stat_activity",
    "pg_stat_all_tables",
    "pg_stat_replication",
    "pg_stat_ssl",
    "pg_trigger",
    "pg_type",
];
/// Types as GRANT names them, where PostgreSQL's messages do not.
const TYPES: [(&str, &str); 4] = [
    ("bigint", "int8"),
    ("boolean", "bool"),
    ("integer", "int4"),
    ("timestamp with time zone", "timestamptz"),
];
const OWN_RIGHT: &str = "PUBLIC has this right by default, and it was revoked";

/// PostgreSQL's own object that a message names, in the form of GRANT. The server translates its messages, but not the names in
/// them. So those of functions and catalogs are known; the others are found in English messages.
pub(super) fn own_object(message: &str) -> Option<String> {
    let is_named = |name: &&str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        message.split(|c| !is_part(c)).any(|word| word == *name)
    };
    if let Some((function, arguments)) = OWN_FUNCTIONS.into_iter().find(|(function, _)| is_named(function)) {
        return Some(format!("EXECUTE ON FUNCTION pg_catalog.{function}({arguments})"));
    }
    let catalog = OWN_CATALOGS.into_iter().find(is_named);
    catalog.map(|catalog| format!("SELECT ON pg_catalog.{catalog}")).or_else(|| in_english(message))
}

/// Everyone may use PostgreSQL's languages, types and functions. Those of the library have `session` in their names, and no
/// other role may use them.
fn in_english(message: &str) -> Option<String> {
    let object = message.strip_prefix("permission denied for ")?;
    if object.contains("session") {
        return None;
    }
    if let Some(name) = object.strip_prefix("type ") {
        let known = TYPES.iter().find(|(message, _)| *message == name);
        return Some(format!("USAGE ON TYPE {}", known.map_or(name, |(_, grant)| *grant)));
    }
    let form = |kind: &str, right: &str| Some(format!("{right} {}", object.strip_prefix(kind)?));
    form("language ", "USAGE ON LANGUAGE")
        .or_else(|| form("function ", "EXECUTE ON FUNCTION"))
        .or_else(|| (object == "schema pg_catalog").then(|| "USAGE ON SCHEMA pg_catalog".to_owned()))
}

/// What to do about a missing right on PostgreSQL's own objects: `EXECUTE ON FUNCTION …` or `SELECT ON …`.
pub(super) fn own_right(object: &str) -> String {
    format!("{OWN_RIGHT}; run: GRANT {object} TO <role>")
}

/// Whether the error is about a right that [`own_right`] names.
pub(super) fn is_own_right(error: &Error) -> bool {
    error.to_string().contains(OWN_RIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_on_an_own_object_is_named() {
        for (message, grant) in [
            (
                "permission denied for function pg_notify",
                "EXECUTE ON FUNCTION pg_catalog.pg_notify(text,text)",
            ),
            (
                "keine Berechtigung für Funktion pg_notify",
                "EXECUTE ON FUNCTION pg_catalog.pg_notify(text,text)",
            ),
            ("permission denied for view pg_stat_activity", "SELECT ON pg_catalog.pg_stat_activity"),
            ("permission denied for table pg_default_acl", "SELECT ON pg_catalog.pg_default_acl"),
            ("permission denied for function texteq", "EXECUTE ON FUNCTION texteq"),
            ("permission denied for language plpgsql", "USAGE ON LANGUAGE plpgsql"),
            ("permission denied for type uuid", "USAGE ON TYPE uuid"),
            ("permission denied for type timestamp with time zone", "USAGE ON TYPE timestamptz"),
            ("permission denied for schema pg_catalog", "USAGE ON SCHEMA pg_catalog"),
        ] {
            assert_eq!(own_object(message).as_deref(), Some(grant), "{message}");
        }
        for message in [
            "permission denied for table sessions",
            "permission denied for schema auth",
            "permission denied for function session_end",
            "permission denied for type session_packed",
            "permission denied for database app",
        ] {
            assert_eq!(own_object(message), None, "{message}");
        }
    }

    /// Another catalog or view that a statement reads belongs into the list.
    #[test]
    fn each_catalog_of_the_doctor_is_in_the_list() {
        for text in [
            include_str!("doctor/flush.rs"),
            include_str!("doctor/locks.rs"),
            include_str!("doctor/nodes.rs"),
            include_str!("doctor/server.rs"),
            include_str!("doctor/shape.rs"),
            include_str!("doctor/tables.rs"),
            include_str!("nodes.rs"),
            include_str!("owners.rs"),
            include_str!("../../migrations/0001_rights.sql"),
        ] {
            for read in
                ["FROM pg_catalog.", "JOIN pg_catalog."].iter().flat_map(|word| text.split(word).skip(1))
            {
                let name: String =
                    read.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let is_function = read[name.len()..].starts_with('(');
                if name.starts_with("pg_") && !is_function {
                    assert!(OWN_CATALOGS.contains(&name.as_str()), "{name}");
                }
            }
        }
    }
}
