//! The update of one session whose attributes are all in its row: what a quiet node sends.
//!
//! It does what [`update`](super::update) does for many, without lists to be joined.

use tokio_postgres::types::Type;

use super::failure::Failure;
use super::load::time;
use super::notify::changed_payload;
use super::parameters::Parameters;
use super::update::{Applied, Order, applied, columns_of};
use super::{Database, Dialect, Sql, unexpected};
use crate::id::GroupId;
use crate::session::IdleLimit;

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (now, live, channel) = (dialect.now, dialect.live("s"), dialect.channel());
    let mut parameters = Parameters::default();
    let [id, base, packed, expires_at, expires_in, idle_limited, regroup, group_id, told] = [
        Type::UUID,
        Type::INT8,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::INT8,
        Type::BOOL,
        Type::BOOL,
        Type::UUID,
        Type::TEXT,
    ]
    .map(|scalar| parameters.scalar(&scalar));
    Sql {
        text: format!(
            "UPDATE {sessions} s
             SET version = s.version + 1,
                 attributes = COALESCE({packed}, s.attributes),
                 updated_at = {now},
                 expires_at = COALESCE({expires_at}, {now} + {expires_in} * interval '1 microsecond', s.expires_at),
                 idle_limited = COALESCE({idle_limited}, s.idle_limited),
                 group_id = CASE WHEN {regroup} THEN {group_id} ELSE s.group_id END
             WHERE s.id = {id} AND s.version = {base} AND s.rotated_to IS NULL AND {live}
             RETURNING s.version, s.updated_at, s.expires_at, s.last_accessed_at, s.idle_limited, s.group_id, {now} AS now,
                       CASE WHEN {told} IS NOT NULL THEN pg_catalog.pg_notify('{channel}', {told}) END"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// As [`update`](Database::update), of a single order that writes no row of an attribute.
    pub(super) async fn update_one(&self, order: &Order<'_>) -> Result<Option<Applied>, Failure> {
        let &Order { id, base, row, notify, ref writes } = order;
        debug_assert!(writes.set.is_empty() && writes.removed.is_empty(), "this statement writes one row");
        let (expires_at, expires_in) = columns_of(row.expiry);
        let idle_limited = row.idle_limit.map(|limit| limit == IdleLimit::Enforced);
        let group_id = row.group_id.flatten().map(GroupId::as_uuid);
        // It is applied on top of `base` or not at all, so this is the version that it makes.
        let told = notify.then(|| changed_payload(id, base.next()));
        let sent = self.rules.clock.now();
        let rows = self
            .query(
                &self.texts.update_one,
                &[
                    &id.expose(),
                    &base.get(),
                    &writes.packed,
                    &expires_at,
                    &expires_in,
                    &idle_limited,
                    &row.group_id.is_some(),
                    &group_id,
                    &told,
                ],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        self.observe_clock(sent, time(row, 6).map_err(unexpected)?);
        applied(row).map(Some).map_err(unexpected)
    }
}
