//! The settings that the functions of the SQL contract need: each node writes its own into the table when it starts.

use super::failure::Failure;
use super::migrate::run;
use super::{Database, Dialect, interval, unexpected};
use crate::config::SessionLimit;
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Texts {
    /// Whether the table has these settings.
    read: String,
    write: String,
}

impl Texts {
    pub(super) fn new(dialect: &Dialect<'_>) -> Self {
        let table = dialect.names.settings();
        let config = dialect.config;
        let evict = config.on_session_limit == SessionLimit::EvictLeastRecentlyUsed;
        let (columns, values): (Vec<&str>, Vec<String>) = [
            ("absolute_timeout", interval(config.absolute_timeout)),
            ("idle_timeout", interval(config.idle_timeout)),
            ("sessions_per_user_max", config.sessions_per_user_max.to_string()),
            ("evict", evict.to_string()),
            ("attribute_key_bytes_max", config.attribute_key_bytes_max.to_string()),
            ("attribute_value_bytes_max", config.attribute_value_bytes_max.to_string()),
            ("attributes_max", config.attributes_max.to_string()),
            ("session_bytes_max", config.session_bytes_max.to_string()),
        ]
        .into_iter()
        .unzip();
        let assignments: Vec<String> =
            columns.iter().map(|name| format!("{name} = EXCLUDED.{name}")).collect();
        let (names, values, assignments) = (columns.join(", "), values.join(", "), assignments.join(", "));
        Self {
            read: format!("SELECT EXISTS (SELECT FROM {table} WHERE ({names}) = ({values}))"),
            write: format!(
                "INSERT INTO {table} ({names}) VALUES ({values})
                 ON CONFLICT (only_row) DO UPDATE SET {assignments}"
            ),
        }
    }
}

impl Database {
    /// Writes the settings of this node, if the table has others. Of nodes with different settings, the last to start
    /// decides for the functions.
    ///
    /// # Errors
    /// As those of any statement.
    pub(super) async fn publish_settings(&self) -> Result<(), Error> {
        let Texts { read, write } = &self.texts.settings;
        let publish = self.bounded(self.timeout, async |connection| {
            let rows = connection.query_typed(read, &[]).await;
            let rows = rows.map_err(|error| Failure::of_statement(&error))?;
            if rows[0].try_get(0).map_err(unexpected)? {
                return Ok(());
            }
            run(connection, write).await
        });
        publish.await.map_err(Failure::into_read_error)
    }
}
