//! With diesel, over diesel-async. With diesel's own `PgConnection`, the statements are the same, without `await`.

use std::error::Error;

use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{QueryableByName, pg::Pg, sql_query};
use diesel_async::scoped_futures::ScopedFutureExt;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use pg_session::{Config, SessionId, sql};

#[derive(QueryableByName)]
struct Ended {
    #[diesel(sql_type = BigInt)]
    session_end_user: i64,
}

/// Returns how many other sessions have ended. After an error, the password and all sessions are as before.
///
/// # Errors
/// Those of the database.
pub async fn change_password(
    connection: &mut AsyncPgConnection,
    config: &Config,
    (user, current): (i64, SessionId),
    password: &str,
) -> Result<i64, Box<dyn Error + Send + Sync>> {
    let others = sql::end_user(user).except(current).cause(sql::Cause::Credential);
    let statement = others.statement(config)?;

    let mut end = sql_query(statement.text()).into_boxed::<Pg>();
    for text in statement.parameters() {
        end = end.bind::<Nullable<Text>, _>(text);
    }
    let update = sql_query("UPDATE accounts SET password = $2 WHERE id = $1");
    let update = update.bind::<BigInt, _>(user).bind::<Text, _>(password);
    let change = connection.transaction(|change| {
        async move {
            let ended: Ended = end.get_result(change).await?;
            update.execute(change).await?;
            Ok::<_, diesel::result::Error>(ended.session_end_user)
        }
        .scope_boxed()
    });
    Ok(change.await?)
}
