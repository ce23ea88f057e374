//! Creates sessions whose users have room for them, and all of whose attributes stand in their rows: one list, and nothing to
//! join. Nearly every login is one of these; for the others there is [`create`](super::create).
//!
//! I7: a user who has as many sessions as allowed, dead or alive, gets none here, and [`Created::Crowded`] says so. All are
//! counted, because one that looks idle may be kept alive by a touch that commits meanwhile. Those that the snapshot does
//! not show came in without this user's lock, which nobody does: the lock's statement was before this one.

use std::collections::HashMap;

use quick_cache::DefaultHashBuilder;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::create::{Birth, Created};
use super::failure::Failure;
use super::load::time;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::DbTime;

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, now) = (dialect.names.sessions(), dialect.now);
    let mut parameters = Parameters::default();
    let births = parameters.unnest(&[IDS, IDS, IDS, TIMES, NUMBERS, FLAGS, TEXTS]);
    // Looked up for each user. A join would be made from a hash of the whole table as long as it was not analysed.
    let room = match dialect.config.max_sessions_per_user {
        0 => String::new(),
        limit => format!(
            "WHERE (SELECT count(*) FROM {sessions} h WHERE h.user_id = b.user_id AND h.rotated_to IS NULL) < {limit}"
        ),
    };
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
                   AS b (id, user_id, group_id, expires_at, expires_in, idle_limited, attributes) {room} OFFSET 0) b
             RETURNING s.id, s.created_at, s.expires_at"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// `users` are those whose locks are taken before.
    pub(super) async fn create_plain(
        &self,
        births: &[Birth<'_>],
        users: &[Uuid],
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Created>, Failure> {
        let sent = self.rules.clock.now();
        let rows = self.query_behind_users(users, (&self.texts.create_plain, params)).await?;
        // SQL promises no order.
        let mut made: HashMap<Uuid, (DbTime, DbTime), DefaultHashBuilder> =
            HashMap::with_capacity_and_hasher(rows.len(), DefaultHashBuilder::default());
        for row in &rows {
            let read = || Ok::<_, tokio_postgres::Error>((row.try_get(0)?, (time(row, 1)?, time(row, 2)?)));
            let (id, times) = read().map_err(unexpected)?;
            made.insert(id, times);
        }
        if let Some((created_at, _)) = made.values().max() {
            self.observe_clock(sent, *created_at);
        }
        let outcomes = births.iter().map(|birth| match made.remove(&birth.id.expose()) {
            Some((created_at, expires_at)) => Created::Made { created_at, expires_at, evicted: Vec::new() },
            None => Created::Crowded,
        });
        Ok(outcomes.collect())
    }
}
