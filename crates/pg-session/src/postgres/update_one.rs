//! The update of one session, of which nothing but the attributes of its row changes: what a quiet node sends.
//!
//! It does what [`update`](super::update) does for many, without lists to be joined.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::failure::Failure;
use super::parameters::Parameters;
use super::{Database, Dialect, LIFTED, Sql};
use crate::notification::changed_payloads;
use crate::session::request::{Applied, UpdateRequest};

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (visible, brief) = (dialect.visible(), dialect.wait_briefly());
    let (now, live, channel) = (dialect.now, dialect.live("s"), dialect.channel());
    let mut parameters = Parameters::default();
    let [id, base, base_at, packed, notified] =
        [Type::UUID, Type::INT8, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT]
            .map(|scalar| parameters.scalar(&scalar));
    Sql {
        text: format!(
            "UPDATE {sessions} s
             SET version = s.version + 1, attributes = COALESCE({packed}, s.attributes), updated_at = {now}
             WHERE s.id = {id} AND s.version = {base} AND s.updated_at = {base_at} AND s.rotated_to IS NULL AND {live} AND {visible} AND {brief}
             RETURNING 1::pg_catalog.int8, s.updated_at, s.expires_at, s.last_accessed_at,
                       CASE WHEN {notified} IS NOT NULL AND {LIFTED} THEN pg_catalog.pg_notify('{channel}', {notified}) END"
        ),
        types: parameters.types,
    }
}

impl Database {
    pub(super) async fn update_one(
        &self,
        request: &UpdateRequest,
        inline: Option<&str>,
    ) -> Result<Vec<(i64, Applied)>, Failure> {
        let (id, base) = (request.id(), request.base());
        let notified = request.notify.then(|| changed_payloads(&[(id, base.version.next())]).pop()).flatten();
        let base_at = SystemTime::from(base.updated_at);
        self.carried_out(
            &self.texts.update_one,
            &[&id.expose(), &base.version.get(), &base_at, &inline, &notified],
        )
        .await
    }
}
