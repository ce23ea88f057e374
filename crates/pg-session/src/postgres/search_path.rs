//! The `search_path` of a connection that is not ours: an application's pool, or a pooler's.

use deadpool_postgres::ClientWrapper;

use super::failure::{Failure, Verdict};
use super::unexpected;
use crate::error::{Error, ErrorKind};

/// PostgreSQL looks for operators in `pg_catalog` first, unless the path names it behind another schema. Then a role
/// that may create in that schema can have its operators run as this role. `pg_temp` holds none.
///
/// # Errors
/// A failure of the kind [`ErrorKind::Config`] that names the schema.
pub(super) async fn check(connection: &ClientWrapper) -> Result<(), Failure> {
    let rows = connection.query_typed("SELECT pg_catalog.current_schemas(true)", &[]).await;
    let rows = rows.map_err(|error| Failure::of_statement(&error))?;
    let row = rows.first().ok_or_else(|| unexpected("no row for the search_path"))?;
    let path: Vec<String> = row.try_get(0).map_err(unexpected)?;
    match path.iter().find(|schema| !schema.starts_with("pg_temp_")) {
        Some(first) if first != "pg_catalog" => {
            let message = format!(
                "the search_path of the pool's connections puts schema \"{first}\" before pg_catalog, so that code of other \
                 roles could run as this one; take pg_catalog out of the search_path, or put it first"
            );
            Err(Failure { error: Error::new(ErrorKind::Config, message), verdict: Verdict::Refused })
        }
        _ => Ok(()),
    }
}
