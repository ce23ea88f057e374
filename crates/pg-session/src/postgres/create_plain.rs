//! Creates sessions that nothing limits the number of, and all of whose attributes stand in their rows: one list, and nothing
//! to join. It does what [`create`](super::create) does for any, in two thirds of the server's time.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::create::{Birth, Created};
use super::failure::Failure;
use super::load::time;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::{Database, Dialect, Sql, same_length, unexpected};
use crate::clock::DbTime;

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, now) = (dialect.names.sessions(), dialect.now);
    let mut parameters = Parameters::default();
    let births = parameters.unnest(&[IDS, IDS, IDS, TIMES, NUMBERS, FLAGS, TEXTS]);
    // `OFFSET 0`: the clock is read once for each session.
    Sql {
        text: format!(
            "INSERT INTO {sessions} AS s
                 (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at,
                  attributes, spilled)
             SELECT b.id, b.user_id, b.group_id, 1, b.idle_limited, b.now, b.now, b.now,
                    COALESCE(b.expires_at, b.now + b.expires_in * interval '1 microsecond'),
                    COALESCE(b.attributes, '{{}}'), false
             FROM (SELECT b.*, {now} AS now FROM {births}
                   AS b (id, user_id, group_id, expires_at, expires_in, idle_limited, attributes) OFFSET 0) b
             RETURNING s.id, s.created_at, s.expires_at"
        ),
        types: parameters.types,
    }
}

impl Database {
    pub(super) async fn create_plain(
        &self,
        births: &[Birth<'_>],
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Created>, Failure> {
        let sent = self.rules.clock.now();
        let rows = self.query(&self.texts.create_plain, params).await?;
        same_length(&rows, births.len())?;
        // SQL promises no order.
        let mut made: HashMap<Uuid, (DbTime, DbTime)> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let read = || Ok::<_, tokio_postgres::Error>((row.try_get(0)?, (time(row, 1)?, time(row, 2)?)));
            let (id, times) = read().map_err(unexpected)?;
            made.insert(id, times);
        }
        if let Some((created_at, _)) = made.values().max() {
            self.observe_clock(sent, *created_at);
        }
        let outcomes = births.iter().map(|birth| {
            let (created_at, expires_at) = *made.get(&birth.id.expose())?;
            Some(Created::Made { created_at, expires_at, evicted: Vec::new() })
        });
        outcomes.collect::<Option<_>>().ok_or_else(|| unexpected("no row for a session that was created"))
    }
}
