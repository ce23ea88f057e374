//! With sqlx.

use std::error::Error;

use pg_session::{Config, SessionId, sql};
use sqlx::{Connection, PgConnection};

/// Returns how many other sessions have ended. After an error, the password and all sessions are as before.
///
/// # Errors
/// Those of the database.
pub async fn change_password(
    connection: &mut PgConnection,
    config: &Config,
    (user, current): (i64, SessionId),
    password: &str,
) -> Result<i64, Box<dyn Error + Send + Sync>> {
    let others = sql::end_user(user).except(current).cause(sql::Cause::Credential);
    let statement = others.statement(config)?;

    let mut change = connection.begin().await?;
    let mut end = sqlx::query_scalar(statement.text());
    for text in statement.parameters() {
        end = end.bind(text);
    }
    let ended = end.fetch_one(&mut *change).await?;
    let update = sqlx::query("UPDATE accounts SET password = $2 WHERE id = $1");
    update.bind(user).bind(password).execute(&mut *change).await?;
    change.commit().await?;
    Ok(ended)
}
