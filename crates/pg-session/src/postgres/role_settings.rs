//! Settings that a role or a database gives to its connections, and that break what the statements rely on.
//!
//! They may change while a node runs, so each new connection is asked.

use deadpool_postgres::ClientWrapper;

use super::failure::{Failure, Verdict};
use super::names::literal;
use super::own_rights::{OWN_FUNCTIONS, own_right};
use super::statement::{query_row, query_value};
use super::unexpected;
use crate::error::{Error, ErrorKind};

/// An expression: whether [`check`] finds nothing, apart from the path, which a pool of our own sets.
pub(super) const SOUND: &str =
    "pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed'
    AND pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.<>) 'replica'";

/// - **Isolation.** A statement that waits for a lock has to see afterwards what its holder did. An
///   update must see that it was overtaken, a login who came before it, a deletion what was
///   inserted meanwhile. A transaction of another isolation has one snapshot.
/// - **Triggers.** They end retired ids, attributes and locks with their session, and notify of hand-written SQL. In the
///   role of a replica they do not run.
/// - **Path.** PostgreSQL looks for operators in `pg_catalog` first, unless the path names it behind another schema. Then
///   a role that may create in that schema can have its operators run as this role. `pg_temp` holds none.
///
/// # Errors
/// A failure of the kind [`ErrorKind::Config`] that names the setting.
pub(super) async fn check(connection: &ClientWrapper) -> Result<(), Failure> {
    let text = "SELECT pg_catalog.current_setting('transaction_isolation'),
                       pg_catalog.current_setting('session_replication_role'), pg_catalog.current_schemas(true)";
    let row = query_row(connection, text, &[]).await?;
    let isolation: String = row.try_get(0).map_err(unexpected)?;
    let replication: String = row.try_get(1).map_err(unexpected)?;
    let path: Vec<String> = row.try_get(2).map_err(unexpected)?;
    if isolation != "read committed" {
        return Err(refused(format!(
            "the transactions of this role are {isolation}, and sessions need read committed; run: \
             ALTER ROLE <role> SET default_transaction_isolation = 'read committed', or connect as another role"
        )));
    }
    if replication == "replica" {
        return Err(refused(
            "session_replication_role is replica for this role, so that the triggers of the session tables do not run; \
             run: ALTER ROLE <role> SET session_replication_role = origin, or connect as another role"
                .to_owned(),
        ));
    }
    match path.iter().find(|schema| !schema.starts_with("pg_temp_")) {
        Some(first) if first != "pg_catalog" => Err(refused(format!(
            "the search_path of the pool's connections puts schema \"{first}\" before pg_catalog, so that code of other \
             roles could run as this one; take pg_catalog out of the search_path, or put it first"
        ))),
        _ => Ok(()),
    }
}

/// Asked at start: whether the role may execute PostgreSQL's own functions that the statements need. Everyone may by default,
/// and administrators revoke it from some.
///
/// # Errors
/// A failure of the kind [`ErrorKind::Permission`] that names the GRANT.
pub(super) async fn check_functions(connection: &ClientWrapper) -> Result<(), Failure> {
    let names = OWN_FUNCTIONS.map(|(name, _)| literal(name)).join(", ");
    let needed = OWN_FUNCTIONS.map(|(name, arguments)| literal(&format!("{name}({arguments})"))).join(", ");
    // The names first: there is an index on them.
    let text = format!(
        "SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', pg_catalog.')
         FROM pg_catalog.pg_proc p
         WHERE p.proname = ANY (ARRAY[{names}]::pg_catalog.name[]) AND p.proacl IS NOT NULL
           AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
           AND pg_catalog.replace(p.oid::pg_catalog.regprocedure::pg_catalog.text, 'pg_catalog.', '') = ANY (ARRAY[{needed}])
           AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"
    );
    match query_value::<Option<String>>(connection, &text, &[]).await? {
        None => Ok(()),
        Some(functions) => {
            let advice = own_right(&format!("EXECUTE ON FUNCTION pg_catalog.{functions}"));
            let message =
                format!("the role may not execute functions of PostgreSQL that sessions need; {advice}");
            Err(Failure { error: Error::new(ErrorKind::Permission, message), verdict: Verdict::Refused })
        }
    }
}

fn refused(message: String) -> Failure {
    Failure { error: Error::new(ErrorKind::Config, message), verdict: Verdict::Refused }
}
