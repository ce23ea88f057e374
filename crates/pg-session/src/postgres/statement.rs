//! Statements on a given connection of the pool. A failure says whether the statement may have taken effect.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};

use super::failure::Failure;
use super::unexpected;

/// Executes statements that return nothing. They are one transaction, unless they say otherwise.
pub(super) async fn run(connection: &ClientWrapper, script: &str) -> Result<(), Failure> {
    connection.batch_execute(script).await.map_err(|error| Failure::of_statement(&error))
}

/// Executes one statement that is not prepared.
pub(super) async fn query(
    connection: &ClientWrapper,
    text: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, Failure> {
    connection.query_typed(text, params).await.map_err(|error| Failure::of_statement(&error))
}

/// Returns the first row of a statement that always has one.
pub(super) async fn query_row(
    connection: &ClientWrapper,
    text: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Row, Failure> {
    let rows = query(connection, text, params).await?;
    rows.into_iter().next().ok_or_else(|| unexpected("no row"))
}

/// Returns the first column of that row.
pub(super) async fn query_value<T: FromSqlOwned>(
    connection: &ClientWrapper,
    text: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Result<T, Failure> {
    query_row(connection, text, params).await?.try_get(0).map_err(unexpected)
}
