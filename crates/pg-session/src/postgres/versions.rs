//! Reads the revisions of cached sessions, to find after a lost connection which of them were missed.

use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::parameters::{IDS, Parameters};
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::DbTime;
use crate::id::SessionId;
use crate::notification::ServerId;
use crate::session::record::Revision;
use crate::version::Version;

/// What the database says of a cached session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VersionState {
    pub(crate) id: SessionId,
    pub(crate) revision: Revision,
    pub(crate) last_accessed_at: DbTime,
    pub(crate) server: ServerId,
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let (now, server) = (dialect.now, dialect.server_id());
    let mut parameters = Parameters::default();
    let ids = parameters.any(&IDS);
    let from = dialect.read(&sessions, "s", &format!("s.id = {ids} AND {live}"));
    Sql {
        text: format!(
            "SELECT s.id, s.version, s.updated_at, s.last_accessed_at, {now} AS now, {server} AS server {from}"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// The live ones among `ids`. One array parameter, however many ids: the protocol's limit of 65 535 parameters is
    /// out of reach.
    pub(crate) async fn versions(&self, ids: &[SessionId]) -> Result<Vec<VersionState>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let sent = self.policy.clock.now();
        let rows = self.call(&self.texts.versions, &[&ids]).repeatable().rows().await?;
        let standings = rows.iter().map(|row| {
            self.observe_clock(sent, time(row, "now")?);
            Ok::<_, tokio_postgres::Error>(VersionState {
                id: SessionId::from_uuid(row.try_get("id")?),
                revision: Revision {
                    version: Version::new(row.try_get("version")?),
                    updated_at: time(row, "updated_at")?,
                },
                last_accessed_at: time(row, "last_accessed_at")?,
                server: ServerId(row.try_get("server")?),
            })
        });
        standings.collect::<Result<_, _>>().map_err(unexpected)
    }
}
