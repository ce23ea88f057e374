//! Finds the session that a retired id goes on as.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::parameters::Parameters;
use super::{Database, Dialect, Sql, unexpected};
use crate::id::SessionId;

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (retired, current) = (dialect.live("o"), dialect.current("s"));
    let mut parameters = Parameters::default();
    let id = parameters.scalar(&Type::UUID);
    // A rotation moves the retired ids before it along: one step leads to the session.
    let condition = format!(
        "s.id = (SELECT o.rotated_to FROM {sessions} o WHERE o.id = {id} AND {retired}) AND {current}"
    );
    let from = dialect.read(&sessions, "s", &condition);
    Sql { text: format!("SELECT s.id {from}"), types: parameters.types }
}

impl Database {
    /// `None` if the id is not retired, or its grace is over, or the session has ended.
    pub(crate) async fn successor(&self, retired: SessionId) -> Result<Option<SessionId>, Failure> {
        let rows = self.call(&self.texts.successor, &[&retired.expose()]).repeatable().rows().await?;
        let id = rows.first().map(|row| row.try_get::<_, Uuid>("id")).transpose().map_err(unexpected)?;
        Ok(id.map(SessionId::from_uuid))
    }
}
