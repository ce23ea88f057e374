//! Updates by procedure: UPDATE, COMMIT, then NOTIFY, in one message.
//!
//! At its commit, a transaction that notifies takes one lock of the server, until its WAL is flushed. So commits that
//! notify run one at a time. The procedures (`migrations/0001_initial.sql`) commit the update first. The transaction
//! that follows only notifies, and waits for no flush.
//!
//! ```text
//! server    UPDATE ── COMMIT ──✕ the process ends        the update is committed, and no node is notified
//! node      OutcomeUnknown ── notifies about the sessions until that succeeds
//! ```
//!
//! The node sends these notifications itself; see `writer/notices.rs`.

use std::time::SystemTime;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::parameters::{FLAGS, IDS, NUMBERS, TEXTS, TIMES};
use super::{Dialect, Sql, unexpected};
use crate::clock::DbTime;
use crate::notification::ServerId;
use crate::session::request::Applied;

const TIME: &str = "timestamptz";
const TIMES_TYPE: &str = "timestamptz[]";
const NUMBERS_TYPE: &str = "int8[]";

/// For one order that changes only inline attributes.
pub(super) fn one_sql(dialect: &Dialect<'_>) -> Sql {
    let types = vec![Type::UUID, Type::INT8, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT];
    call(dialect, &dialect.names.update_one(), types, &[TIME; 3])
}

/// For orders that change only inline attributes.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let types = vec![IDS, NUMBERS, TIMES, TEXTS, TEXTS];
    call(dialect, &dialect.names.update(), types, &[NUMBERS_TYPE, TIMES_TYPE, TIMES_TYPE, TIMES_TYPE])
}

/// For any orders.
pub(super) fn full_sql(dialect: &Dialect<'_>) -> Sql {
    let types = vec![
        IDS, NUMBERS, TIMES, TEXTS, FLAGS, TIMES, NUMBERS, FLAGS, FLAGS, IDS, IDS, TEXTS, TEXTS, TIMES, IDS,
        TEXTS, TEXTS,
    ];
    call(dialect, &dialect.names.update_in_full(), types, &[NUMBERS_TYPE, TIMES_TYPE, TIMES_TYPE, TIMES_TYPE])
}

/// The arguments have exactly the types of the procedure, so no procedure of another role with this name fits better.
fn call(dialect: &Dialect<'_>, procedure: &str, types: Vec<Type>, results: &[&str]) -> Sql {
    let parameters: Vec<String> = (1..=types.len()).map(|number| format!("${number}")).collect();
    let (parameters, channel) = (parameters.join(", "), dialect.channel());
    let (idle_timeout, wait) = (super::interval(dialect.config.idle_timeout), dialect.row_lock_wait());
    let (policies_active, server) = (dialect.policies_active(), dialect.server_of_call());
    let results =
        results.iter().map(|name| format!("NULL::pg_catalog.{name}")).collect::<Vec<_>>().join(", ");
    Sql {
        text: format!(
            "CALL {procedure}({parameters}, '{channel}'::pg_catalog.text, {idle_timeout}, {wait}::pg_catalog.text, {policies_active}, {results}, {server})"
        ),
        types,
    }
}

/// By position: looking columns up by their names took longer than decoding them. `None` if the order was not applied.
pub(super) fn applied_one(row: &SqlRow) -> Result<(Option<Applied>, ServerId), tokio_postgres::Error> {
    let time = |column| row.try_get::<_, Option<SystemTime>>(column).map(|time| time.map(DbTime::from));
    let server = ServerId(row.try_get(3)?);
    let (Some(updated_at), Some(expires_at), Some(last_accessed_at)) = (time(0)?, time(1)?, time(2)?) else {
        return Ok((None, server));
    };
    Ok((Some(Applied { updated_at, expires_at, last_accessed_at }), server))
}

/// The orders that were applied, by number. NULL arrays if none was.
pub(super) fn applied(row: &SqlRow) -> Result<(Vec<(i64, Applied)>, ServerId), Failure> {
    let numbers: Option<Vec<i64>> = row.try_get(0).map_err(unexpected)?;
    let server = ServerId(row.try_get(4).map_err(unexpected)?);
    let Some(numbers) = numbers else { return Ok((Vec::new(), server)) };
    let times = |column| row.try_get::<_, Vec<SystemTime>>(column).map_err(unexpected);
    let (updated_at, expires_at, last_accessed_at) = (times(1)?, times(2)?, times(3)?);
    // Or `zip` would lose some silently.
    if [updated_at.len(), expires_at.len(), last_accessed_at.len()] != [numbers.len(); 3] {
        return Err(unexpected("arrays of different lengths"));
    }
    let times = updated_at.into_iter().zip(expires_at).zip(last_accessed_at);
    let applied = times.map(|((updated_at, expires_at), last_accessed_at)| Applied {
        updated_at: updated_at.into(),
        expires_at: expires_at.into(),
        last_accessed_at: last_accessed_at.into(),
    });
    Ok((numbers.into_iter().zip(applied).collect(), server))
}
