//! The settings that the functions of the SQL contract need: each node writes its own into the table when it starts. Tools
//! for operators read them.

use std::time::Duration;

use super::failure::Failure;
use super::statement::{query, query_value, run};
use super::{Database, Dialect, interval, unexpected};
use crate::config::{Config, SessionLimit};
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Texts {
    /// Whether the table has these settings.
    read: String,
    write: String,
    columns: String,
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
            columns: format!(
                "SELECT {}, {}, l.sessions_per_user_max, l.evict, l.attribute_key_bytes_max, l.attribute_value_bytes_max,
                        l.attributes_max, l.session_bytes_max FROM {table} l",
                micros("l.absolute_timeout"),
                micros("l.idle_timeout")
            ),
        }
    }
}

fn micros(interval: &str) -> String {
    format!("(pg_catalog.date_part('epoch', {interval}) * 1000000::pg_catalog.float8)::pg_catalog.int8")
}

impl Database {
    /// `config` with the settings that the application's nodes have published. As it is, if there are no tables yet, or the role
    /// may not read them: another check names the GRANT.
    ///
    /// # Errors
    /// As those of any statement. [`ErrorKind::Schema`] for tables of another role.
    pub(crate) async fn with_published_settings(&self, config: &Config) -> Result<Config, Error> {
        match self.published_settings(config.clone()).await {
            Err(error) if error.kind() == ErrorKind::Permission => Ok(config.clone()),
            adopted => adopted,
        }
    }

    async fn published_settings(&self, mut config: Config) -> Result<Config, Error> {
        if !self.are_tables_current().await? {
            return Ok(config);
        }
        let read = self.bounded(self.timeout, async |connection| {
            let rows = query(connection, &self.texts.settings.columns, &[]).await?;
            rows.first().map_or(Ok(()), |row| adopt(&mut config, row).map_err(unexpected))
        });
        read.await.map_err(Failure::into_read_error)?;
        let nodes = self.node_descriptions().await.map_err(Failure::into_read_error)?;
        config.adopt_trust_window(nodes.iter().map(|node| &*node.settings));
        Ok(config)
    }

    /// The statement that publishes the settings of this node.
    pub(super) fn settings_statement(&self) -> String {
        format!("{};", self.texts.settings.write)
    }

    /// Writes the settings of this node, if the table has others. Of nodes with different settings, the last to start
    /// decides for the functions.
    ///
    /// # Errors
    /// As those of any statement.
    pub(crate) async fn publish_settings(&self) -> Result<(), Error> {
        let Texts { read, write, .. } = &self.texts.settings;
        let publish = self.bounded(self.timeout, async |connection| {
            if query_value::<bool>(connection, read, &[]).await? {
                return Ok(());
            }
            run(connection, write).await
        });
        publish.await.map_err(Failure::into_read_error)
    }
}

fn adopt(config: &mut Config, row: &tokio_postgres::Row) -> Result<(), tokio_postgres::Error> {
    let duration = |column: usize| Ok(Duration::from_micros(row.try_get::<_, i64>(column)?.unsigned_abs()));
    let size = |column: usize| Ok(usize::try_from(row.try_get::<_, i64>(column)?).unwrap_or(usize::MAX));
    config.absolute_timeout = duration(0)?;
    config.idle_timeout = duration(1)?;
    config.last_access_flush_interval = config.last_access_flush_interval.min(config.idle_timeout / 4);
    config.sessions_per_user_max = u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u32::MAX);
    config.on_session_limit =
        if row.try_get(3)? { SessionLimit::EvictLeastRecentlyUsed } else { SessionLimit::Refuse };
    config.attribute_key_bytes_max = size(4)?;
    config.attribute_value_bytes_max = size(5)?;
    config.attributes_max = size(6)?;
    config.session_bytes_max = size(7)?;
    Ok(())
}
