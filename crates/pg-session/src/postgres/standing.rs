//! Reads whether sessions that are cached, pinned or observed still live, and what has become of those that do not.

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::parameters::{IDS, Parameters};
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId, UserId};
use crate::notification::ServerId;
use crate::session::record::Revision;
use crate::version::Version;

/// The row of a session. A session without one is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) id: SessionId,
    pub(crate) revision: Revision,
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) expires_at: DbTime,
    pub(crate) idle_limited: bool,
    pub(crate) last_accessed_at: DbTime,
    /// By the database's clock. A retired id may live, too.
    pub(crate) live: bool,
    /// Whether the absolute limit has passed.
    pub(crate) expired: bool,
    /// The id that it goes on under, and the user there.
    pub(crate) successor: Option<(SessionId, Option<UserId>)>,
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let (now, server) = (dialect.now, dialect.server_id());
    let mut parameters = Parameters::default();
    let ids = parameters.any(&IDS);
    let from = dialect.read(&sessions, "s", &format!("s.id = {ids}"));
    Sql {
        // One row at least: the server counts, also if no session is left.
        text: format!(
            "SELECT v.now, v.server, f.*
             FROM (SELECT {now} AS now, {server} AS server) v LEFT JOIN (
                 SELECT s.id, s.version, s.updated_at, s.user_id, s.group_id, s.expires_at::pg_catalog.timestamptz AS expires_at, s.idle_limited,
                        s.last_accessed_at, {live} AS live, s.expires_at::pg_catalog.timestamptz <= {now} AS expired, s.rotated_to,
                        CASE WHEN s.rotated_to IS NOT NULL THEN (SELECT x.user_id FROM {sessions} x WHERE x.id = s.rotated_to) END
                            AS successor_user
                 {from}
             ) f ON true"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// The rows of those sessions that have one, and the server that has read them. One array parameter, however many
    /// ids: the protocol's limit of 65 535 parameters is out of reach.
    pub(crate) async fn standings(&self, ids: &[SessionId]) -> Result<(Vec<Standing>, ServerId), Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let sent = self.policy.clock.now();
        let rows = self.call(&self.texts.standings, &[&ids]).repeatable().rows().await?;
        let row = rows.first().ok_or_else(|| unexpected("no row with the time of the database"))?;
        let read = || {
            self.observe_clock(sent, time(row, "now")?);
            let found = rows.iter().filter_map(|row| standing(row).transpose()).collect::<Result<_, _>>()?;
            Ok::<_, tokio_postgres::Error>((found, ServerId(row.try_get("server")?)))
        };
        read().map_err(unexpected)
    }
}

/// `None` for the row that represents no row.
fn standing(row: &SqlRow) -> Result<Option<Standing>, tokio_postgres::Error> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    let successor: Option<Uuid> = row.try_get("rotated_to")?;
    let user =
        |column| Ok::<_, tokio_postgres::Error>(row.try_get::<_, Option<Uuid>>(column)?.map(UserId::from));
    let successor_user = user("successor_user")?;
    Ok(Some(Standing {
        id: SessionId::from_uuid(id),
        revision: Revision {
            version: Version::new(row.try_get("version")?),
            updated_at: time(row, "updated_at")?,
        },
        user_id: user("user_id")?,
        group_id: row.try_get::<_, Option<Uuid>>("group_id")?.map(GroupId::from),
        expires_at: time(row, "expires_at")?,
        idle_limited: row.try_get("idle_limited")?,
        last_accessed_at: time(row, "last_accessed_at")?,
        live: row.try_get("live")?,
        expired: row.try_get("expired")?,
        successor: successor.map(|id| (SessionId::from_uuid(id), successor_user)),
    }))
}
