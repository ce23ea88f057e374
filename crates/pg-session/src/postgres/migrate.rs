//! The tables: created and upgraded by numbered SQL files, or only checked.
//!
//! Each migration runs once, in its own transaction, under an advisory lock that all nodes share. A table records it.
//! [`Migrations::sql`] prints them for users of other migration tools.

use deadpool_postgres::{ClientWrapper, Object};
use tokio_postgres::types::Type;

use super::connection::from_pool_error;
use super::failure::{Failure, ROW_SECURITY, Verdict, seconds};
use super::names::Names;
use super::statement::{query_row, query_value, run};
use super::{Database, LONG_FACTOR, own_rights, owners, role_settings, unexpected};
use crate::config::{Config, Migrations};
use crate::error::{Error, ErrorKind};
use crate::retry::MIGRATION_TRIES_MAX;

/// The numbered migrations; never edit one that was published.
const MIGRATIONS: [(i32, &str, &str); 1] = [(1, "initial", INITIAL)];
pub(super) const INITIAL: &str = concat!(
    include_str!("../../migrations/0001_audit.sql"),
    "\n",
    include_str!("../../migrations/0001_initial.sql"),
    "\n",
    include_str!("../../migrations/0001_contract.sql"),
    "\n",
    include_str!("../../migrations/0001_rights.sql")
);
/// The version that this library works with.
const LATEST: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;
/// Types and operators without a schema mean PostgreSQL's own, whatever path the client has. `SET LOCAL` would do nothing
/// outside a transaction, and a client that goes on keeps its own path.
const PIN_PATH: &str = "DO $pg_session$
BEGIN
    PERFORM pg_catalog.set_config('pg_session.search_path', pg_catalog.current_setting('search_path'), false);
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog', false);
END
$pg_session$;
";
const RESTORE_PATH: &str = "DO $pg_session$
BEGIN
    PERFORM pg_catalog.set_config('search_path', pg_catalog.current_setting('pg_session.search_path'), false);
END
$pg_session$;
";
/// Nodes that start together wait for each other here.
const LOCK_KEY: i64 = 0x7067_5f73_6573_7300; // "pg_sess\0"
/// What a node does with each of the tables that it writes.
const RIGHTS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

impl Migrations {
    /// All migrations as plain SQL for the schema and prefix of `config`, records included. Another
    /// tool can run them in one transaction on a database that has none of them. They set the `search_path` to
    /// `pg_catalog`, as a node does that applies them, and at their end restore it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names that PostgreSQL cannot hold.
    pub fn sql(config: &Config) -> Result<String, Error> {
        Self::sql_after(config, 0)
    }

    /// The migrations after `version`, as plain SQL, records included. Another tool can run them in
    /// one transaction on a database that is at `version`. Empty if there are none.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names that PostgreSQL cannot hold.
    pub fn sql_after(config: &Config, version: u32) -> Result<String, Error> {
        let names = Names::new(config)?;
        let text = match version {
            0 => {
                let (schema, record) = (create_schema(&names), create_record(&names));
                format!("{schema};\n{record};\n{};\n", owners::check(&names))
            }
            _ => String::new(),
        };
        let missing = MIGRATIONS.into_iter().filter(|&(number, ..)| i64::from(number) > i64::from(version));
        let text = missing.fold(text, |text, (version, name, template)| {
            format!("{text}\n{}\n{};\n", names.fill(template), record(&names, version, name))
        });
        if text.is_empty() {
            return Ok(text);
        }
        Ok(format!("{PIN_PATH}{text}\n{RESTORE_PATH}"))
    }

    /// SQL that makes two more functions, `revoke_user_sessions` and `revoke_label_sessions`. They are for roles that may end
    /// the sessions of a user or of a label and do nothing else. It is no part of the migrations. Run it as the owner of the
    /// tables. `pg-session migrate --definer` prints it, too.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names that PostgreSQL cannot hold.
    pub fn definer_sql(config: &Config) -> Result<String, Error> {
        Ok(Names::new(config)?.fill(include_str!("../../migrations/definer.sql")))
    }
}

fn create_schema(names: &Names) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {}", names.schema())
}

fn create_record(names: &Names) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (version integer PRIMARY KEY, name text NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())",
        names.migrations()
    )
}

fn record(names: &Names, version: i32, name: &str) -> String {
    format!("INSERT INTO {} (version, name) VALUES ({version}, '{name}')", names.migrations())
}

/// Fails as a serialization failure if other migrations than the `known` ones are applied.
fn check_known(names: &Names, known: i32) -> String {
    format!(
        "DO $pg_session$ BEGIN
             IF (SELECT COALESCE(pg_catalog.max(m.version), 0) FROM {} m) <> {known} THEN
                 RAISE EXCEPTION 'another node has applied migrations' USING ERRCODE = 'serialization_failure';
             END IF;
         END $pg_session$",
        names.migrations()
    )
}

impl Database {
    /// Makes sure that the tables exist and that this role may use them. The transactions see what they waited for.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], [`ErrorKind::Schema`], [`ErrorKind::Permission`] with what to do; [`ErrorKind::Unavailable`] and the like.
    pub(crate) async fn prepare_tables(&self, migrations: Migrations) -> Result<(), Error> {
        match self.prepare_once(migrations).await {
            // A connection was lost, and another one may work. What it has applied is found.
            Err(error) if error.kind() == ErrorKind::Unavailable => self.prepare_once(migrations).await,
            outcome => outcome,
        }
    }

    /// Whether [`prepare_tables`](Self::prepare_tables) would change the database.
    ///
    /// # Errors
    /// As [`prepare_tables`](Self::prepare_tables).
    pub(crate) async fn needs_migrations(&self, migrations: Migrations) -> Result<bool, Error> {
        if migrations != Migrations::Apply {
            return Ok(false);
        }
        let known = async || {
            self.check_role_settings().await?;
            self.known_version().await
        };
        let known = match known().await {
            // As in `prepare_tables`.
            Err(error) if error.kind() == ErrorKind::Unavailable => known().await?,
            outcome => outcome?,
        };
        Ok(known.is_none_or(|known| known < LATEST))
    }

    /// Each database that is made later would have the tables, and the sessions in them.
    async fn refuse_template(&self) -> Result<(), Error> {
        let text = "SELECT d.datname::pg_catalog.text, d.datistemplate FROM pg_catalog.pg_database d
                    WHERE d.datname = pg_catalog.current_database()";
        let row = self.bounded(self.timeout, async |connection| {
            let row = query_row(connection, text, &[]).await?;
            let name: String = row.try_get(0).map_err(unexpected)?;
            let is_template: bool = row.try_get(1).map_err(unexpected)?;
            Ok((name, is_template))
        });
        match row.await.map_err(Failure::into_read_error)? {
            (_, false) => Ok(()),
            (name, true) => {
                let message = format!(
                    "the database {name} is a template, and each CREATE DATABASE would copy the session tables; create a database \
                     (CREATE DATABASE app) and name it in the connection string"
                );
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    /// No table is read before.
    async fn check_role_settings(&self) -> Result<(), Error> {
        let settings = self.bounded(self.timeout, async |connection| {
            role_settings::check(connection).await?;
            role_settings::check_functions(connection).await
        });
        settings.await.map_err(Failure::into_read_error)
    }

    async fn prepare_once(&self, migrations: Migrations) -> Result<(), Error> {
        self.check_role_settings().await?;
        let mut known = self.known_version().await?;
        // A role that may only use the tables can start with `Apply`, too.
        if migrations == Migrations::Apply && known.is_none_or(|known| known < LATEST) {
            self.refuse_template().await?;
            if let Err(error) = self.apply_alone().await {
                return Err(self.explain_creation(error).await);
            }
            known = self.known_version().await?;
        }
        self.check_version(known)?;
        self.check_rights().await
    }

    /// Whether the tables are those of this library.
    ///
    /// # Errors
    /// As those of any statement. [`ErrorKind::Schema`] for tables of another role.
    pub(super) async fn are_tables_current(&self) -> Result<bool, Error> {
        Ok(self.known_version().await? == Some(LATEST))
    }

    /// The version of the tables. `None` if there is no record of it. Nothing is read before its owner is known.
    ///
    /// # Errors
    /// As [`owners::has_record`].
    async fn version(&self, connection: &ClientWrapper) -> Result<Option<i32>, Failure> {
        if !owners::has_record(connection, &self.names).await? {
            return Ok(None);
        }
        self.applied(connection).await.map(Some)
    }

    /// As [`version`](Self::version), with the advice for a role that may not read it.
    async fn known_version(&self) -> Result<Option<i32>, Error> {
        let known = self.bounded(self.timeout, async |connection| self.version(connection).await).await;
        let error = match known {
            Ok(known) => return Ok(known),
            Err(failure) => failure.into_read_error(),
        };
        if error.kind() != ErrorKind::Permission || own_rights::is_own_right(&error) {
            return Err(error);
        }
        let (schema, grants) = (self.names.schema(), self.grants(&self.role().await));
        let message = format!("the role may not use the session tables in schema {schema}; run: {grants}");
        Err(Error::new(ErrorKind::Permission, message).with_source(error))
    }

    /// On a connection taken out of the pool for good. If the future is dropped half-way, the
    /// connection is closed, and the transaction with it. So no user of the pool gets an open
    /// transaction.
    async fn apply_alone(&self) -> Result<(), Error> {
        let timeout = self.timeout * LONG_FACTOR;
        let work = async {
            for _ in 0..MIGRATION_TRIES_MAX {
                let connection =
                    Object::take(self.pool.get().await.map_err(|error| from_pool_error(&error))?);
                match self.apply(&connection).await {
                    Err(failure) if failure.verdict == Verdict::Retryable => {}
                    outcome => return outcome.map_err(Failure::into_read_error),
                }
            }
            // Other nodes have applied something each time. `check_version` says whether it was enough.
            Ok(())
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!(
                    "the migrations did not end within {} s; look in pg_locks for the client that holds a table of the schema, or the \
                     advisory lock {LOCK_KEY} (classid {}), and end it",
                    seconds(timeout),
                    LOCK_KEY >> 32
                );
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    /// Everything in one transaction: half a schema is never left behind. And in one message: a node whose connection
    /// breaks leaves no lock that other nodes would wait for.
    ///
    /// # Errors
    /// A failure with [`Verdict::Retryable`] if another node has applied migrations meanwhile.
    async fn apply(&self, connection: &ClientWrapper) -> Result<(), Failure> {
        let known = self.version(connection).await?.unwrap_or(0);
        // A role that may not create schemas can still apply to one that exists.
        let exists = self.exists(connection).await?;
        // The migrations mean PostgreSQL's own types and operators, whatever another role has created. And they wait for those of
        // other nodes, whatever limit the role has.
        let mut script = format!(
            "BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = 0; SELECT pg_catalog.pg_advisory_xact_lock({LOCK_KEY});\n"
        );
        if !exists {
            script.push_str(&format!("{};\n", create_schema(&self.names)));
        }
        // Another role may have made objects since.
        for statement in
            [create_record(&self.names), owners::check(&self.names), check_known(&self.names, known)]
        {
            script.push_str(&format!("{statement};\n"));
        }
        for (version, name, template) in MIGRATIONS.into_iter().filter(|&(version, ..)| version > known) {
            let text = self.names.fill(template);
            script.push_str(&format!("{text}\n{};\n", record(&self.names, version, name)));
        }
        script.push_str("COMMIT");
        run(connection, &script).await
    }

    async fn exists(&self, connection: &ClientWrapper) -> Result<bool, Failure> {
        let name = self.names.schema();
        let text = "SELECT pg_catalog.to_regnamespace($1) IS NOT NULL";
        query_value(connection, text, &[(&name, Type::TEXT)]).await
    }

    async fn applied(&self, connection: &ClientWrapper) -> Result<i32, Failure> {
        let text = format!("SELECT COALESCE(pg_catalog.max(version), 0) FROM {}", self.names.migrations());
        let rows = connection.query_typed(&text, &[]).await;
        let rows = rows.map_err(|error| self.explain_record(Failure::of_statement(&error)))?;
        rows[0].try_get(0).map_err(unexpected)
    }

    /// The table of another tool may have the name of the record.
    fn explain_record(&self, failure: Failure) -> Failure {
        if !matches!(failure.error.kind(), ErrorKind::Schema | ErrorKind::Database) {
            return failure;
        }
        let message = format!(
            "the table {} is not the record of this library's migrations; rename it, or set `schema` or `table_prefix` to another \
             name",
            self.names.migrations()
        );
        let verdict = failure.verdict;
        Failure { error: Error::new(ErrorKind::Schema, message).with_source(failure.error), verdict }
    }

    fn check_version(&self, known: Option<i32>) -> Result<(), Error> {
        let schema = self.names.schema();
        let message = match known {
            Some(LATEST) => return Ok(()),
            None => format!(
                "there are no session tables in schema {schema}; set `migrations = \"apply\"` once, or run the SQL that \
                 `Migrations::sql` prints"
            ),
            Some(known) if known < LATEST => format!(
                "the session tables in schema {schema} are at version {known}, this library needs {LATEST}; set \
                 `migrations = \"apply\"` once, or run the SQL that `Migrations::sql_after` prints for {known}"
            ),
            Some(known) => format!(
                "the session tables in schema {schema} are at version {known}, made by a newer library than this one \
                 ({LATEST}); upgrade this node"
            ),
        };
        Err(Error::new(ErrorKind::Schema, message))
    }

    /// The error for a role without CREATE names the role that can, and the command.
    async fn explain_creation(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Permission || own_rights::is_own_right(&error) {
            return error;
        }
        let (schema, role) = (self.names.schema(), self.role().await);
        let message = format!(
            "the role may not create the session tables; run: GRANT CREATE ON SCHEMA {schema} TO {role} (ON DATABASE if \
             the schema is missing), or have its owner run the SQL that `Migrations::sql` prints and grant \
             the rest"
        );
        Error::new(ErrorKind::Permission, message).with_source(error)
    }

    /// The connection's role as statements name it.
    async fn role(&self) -> String {
        let text = "SELECT pg_catalog.quote_ident(CURRENT_USER)";
        let role =
            self.bounded(self.timeout, async |connection| query_value::<String>(connection, text, &[]).await);
        // The error that needs the name is worth more than that of this statement.
        role.await.unwrap_or_else(|_| "<role>".to_owned())
    }

    /// The least that a node needs, as statements to run.
    fn grants(&self, role: &str) -> String {
        let (schema, migrations) = (self.names.schema(), self.names.migrations());
        let mut grants =
            format!("GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {migrations} TO {role}");
        for table in self.names.written() {
            grants.push_str(&format!("; GRANT {} ON {table} TO {role}", RIGHTS.join(", ")));
        }
        grants
            .push_str(&format!("; GRANT EXECUTE ON ROUTINE {} TO {role}", self.names.routines().join(", ")));
        grants
    }

    /// Looks before the first request does, and says exactly which GRANT is missing.
    async fn check_rights(&self) -> Result<(), Error> {
        for table in &self.names.written() {
            for right in RIGHTS {
                self.check_right("has_table_privilege", table, right).await?;
            }
        }
        for routine in &self.names.routines() {
            self.check_right("has_function_privilege", routine, "EXECUTE").await?;
        }
        for table in &self.names.written() {
            self.check_row_security(table).await?;
        }
        Ok(())
    }

    /// A policy would hide sessions, which then look ended: a logout would do nothing and say so.
    async fn check_row_security(&self, table: &String) -> Result<(), Error> {
        let text = "SELECT pg_catalog.row_security_active($1)";
        let active = self.bounded(self.timeout, async |connection| {
            query_value::<bool>(connection, text, &[(table, Type::TEXT)]).await
        });
        if !active.await.map_err(Failure::into_read_error)? {
            return Ok(());
        }
        let message = ROW_SECURITY.replace("<role>", &self.role().await);
        Err(Error::new(ErrorKind::Permission, format!("{message} (found on {table})")))
    }

    async fn check_right(&self, inquiry: &str, object: &String, right: &str) -> Result<(), Error> {
        let text = format!("SELECT pg_catalog.{inquiry}($1, $2)");
        let may = self.bounded(self.timeout, async |connection| {
            query_value::<bool>(connection, &text, &[(object, Type::TEXT), (&right, Type::TEXT)]).await
        });
        if may.await.map_err(Failure::into_read_error)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Permission,
            format!("the role lacks {right} on {object}; run: {}", self.grants(&self.role().await)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_migrations_are_those_after_a_version() {
        let config = Config::default();
        let latest = u32::try_from(LATEST).unwrap();
        assert_eq!(Migrations::sql_after(&config, 0).unwrap(), Migrations::sql(&config).unwrap());
        assert_eq!(Migrations::sql_after(&config, latest).unwrap(), "");
        assert_eq!(Migrations::sql_after(&config, u32::MAX).unwrap(), "");
        let last = Migrations::sql_after(&config, latest - 1).unwrap();
        assert!(last.contains(&format!("VALUES ({LATEST}, ")), "{last}");
    }
}
