//! Creates sessions whose users have room for them, and all of whose attributes stand in their rows: one statement, one list, and
//! nothing to join. Nearly every login is one of these; for the others there is [`create`](super::create).
//!
//! I7: a function (`migrations/0001_initial.sql`) finds the users with room. It takes the users' locks and then looks,
//! with a snapshot that is younger than the locks. It is called before the first row is inserted, and once. A user who has as
//! many sessions as allowed, dead or alive, gets none here, and [`Created::Crowded`] says so.

use std::collections::HashMap;

use quick_cache::DefaultHashBuilder;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::create::{Birth, Created};
use super::failure::Failure;
use super::load::time;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::session_limit::lock_seed;
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::DbTime;

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, now) = (dialect.names.sessions(), dialect.now);
    let mut parameters = Parameters::default();
    let births = parameters.unnest(&[IDS, IDS, IDS, TIMES, NUMBERS, FLAGS, TEXTS]);
    let room = match dialect.config.max_sessions_per_user {
        0 => String::new(),
        limit => {
            let (room, seed, users) = (dialect.names.room(), lock_seed(dialect), parameters.hidden(&IDS));
            format!(
                "WHERE b.user_id IS NULL OR b.user_id IN (SELECT r.id FROM {room}({users}, {seed}, {limit}) AS r (id))"
            )
        }
    };
    // `OFFSET 0`: the clock is read once for each session.
    Sql {
        text: format!(
            "INSERT INTO {sessions} AS s
                 (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at,
                  attributes, spilled)
             SELECT b.id, b.user_id, b.group_id, 1, b.idle_limited, b.now, b.now, b.now,
                    COALESCE(b.expires_at, b.now + b.expires_in::pg_catalog.float8 * interval '1 microsecond'),
                    COALESCE(b.attributes, '{{}}'), false
             FROM (SELECT b.*, {now} AS now FROM {births}
                   AS b (id, user_id, group_id, expires_at, expires_in, idle_limited, attributes) {room} OFFSET 0) b
             RETURNING s.id, s.created_at, s.expires_at"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// `users` are those whose number of sessions is limited, `None` if nobody's is.
    pub(super) async fn create_plain(
        &self,
        births: &[Birth<'_>],
        users: Option<&Vec<Uuid>>,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Created>, Failure> {
        let mut params = params.to_vec();
        params.extend(users.map(|users| users as &(dyn ToSql + Sync)));
        let sent = self.rules.clock.now();
        // SQL promises no order.
        let mut made: HashMap<Uuid, (DbTime, DbTime), DefaultHashBuilder> =
            HashMap::with_capacity_and_hasher(births.len(), DefaultHashBuilder::default());
        let read =
            |row: &Row| Ok::<_, tokio_postgres::Error>((row.try_get(0)?, (time(row, 1)?, time(row, 2)?)));
        self.query_each(&self.texts.create_plain, &params, |row| {
            let (id, times) = read(row).map_err(unexpected)?;
            made.insert(id, times);
            Ok(())
        })
        .await?;
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
