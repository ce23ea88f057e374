//! The update of one session that nobody else has changed since its caller saw it, and that removes nothing: what a
//! quiet node sends.
//!
//! It does what [`update_newest`](super::update_newest) does for many, without lists to be joined, and without the part
//! that removes: 0.20 ms of the server's time instead of 0.27.

use tokio_postgres::types::Type;

use super::failure::Failure;
use super::load::time;
use super::notify::changed_payload;
use super::parameters::{Parameters, TEXTS, TIMES};
use super::update::{Items, Order, Updated, columns_of};
use super::update_newest::applied;
use super::{Database, Dialect, Sql, unexpected};
use crate::id::GroupId;
use crate::session::IdleLimit;
use crate::version::Version;

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (now, live, channel) = (dialect.now, dialect.live("s"), dialect.channel());
    let mut parameters = Parameters::default();
    let [id, base, expires_at, expires_in, idle_limited, regroup, group_id, told] = [
        Type::UUID,
        Type::INT8,
        Type::TIMESTAMPTZ,
        Type::INT8,
        Type::BOOL,
        Type::BOOL,
        Type::UUID,
        Type::TEXT,
    ]
    .map(|scalar| parameters.scalar(&scalar));
    let items = parameters.unnest(&[TEXTS, TEXTS, TIMES]);
    Sql {
        text: format!(
            "WITH done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1,
                     updated_at = {now},
                     expires_at = COALESCE({expires_at}, {now} + {expires_in} * interval '1 microsecond', s.expires_at),
                     idle_limited = COALESCE({idle_limited}, s.idle_limited),
                     group_id = CASE WHEN {regroup} THEN {group_id} ELSE s.group_id END
                 WHERE s.id = {id} AND s.version = {base} AND s.rotated_to IS NULL AND {live}
                 RETURNING s.id, s.version, s.updated_at, s.expires_at, s.last_accessed_at, s.idle_limited, s.group_id
             ), written AS (
                 INSERT INTO {attributes} AS a (session_id, key, value, expires_at, version)
                 SELECT d.id, i.key, i.text, i.expires_at, d.version
                 FROM done d CROSS JOIN {items} AS i (key, text, expires_at)
                 ON CONFLICT (session_id, key) DO UPDATE
                 SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, version = EXCLUDED.version
             )
             SELECT d.version, d.updated_at, d.expires_at, d.last_accessed_at, d.idle_limited, d.group_id, {now} AS now,
                    CASE WHEN {told} IS NOT NULL THEN pg_catalog.pg_notify('{channel}', {told}) END
             FROM done d"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// As [`update_newest`](Database::update_newest), of a single order, which sets the `items`.
    pub(super) async fn update_one(&self, order: &Order<'_>, items: &Items<'_>) -> Result<Updated, Failure> {
        debug_assert!(items.removed_keys.is_empty(), "this statement removes nothing");
        let &Order { base, row, notify, .. } = order;
        let (id, version) = (base.row.id, base.row.version);
        let (expires_at, expires_in) = columns_of(row.expiry);
        let idle_limited = row.idle_limit.map(|limit| limit == IdleLimit::Enforced);
        let group_id = row.group_id.flatten().map(GroupId::as_uuid);
        // It is applied on top of `base` or not at all, so this is the version that it makes.
        let told = notify.then(|| changed_payload(id, Version::new(version.get() + 1)));
        let sent = self.rules.clock.now();
        let rows = self
            .query(
                &self.texts.update_one,
                &[
                    &id.expose(),
                    &version.get(),
                    &expires_at,
                    &expires_in,
                    &idle_limited,
                    &row.group_id.is_some(),
                    &group_id,
                    &told,
                    &items.keys,
                    &items.texts,
                    &items.expires_at,
                ],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(Updated::Moved) };
        self.observe_clock(sent, time(row, "now").map_err(unexpected)?);
        applied(row).map(Updated::Applied).map_err(unexpected)
    }
}
