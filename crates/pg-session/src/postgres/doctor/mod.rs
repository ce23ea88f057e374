//! Checks of a server and its session tables, for `pg-session doctor`.
//!
//! Each check is a query that changes no table. It returns a row for each finding: what was found, and the statement that fixes
//! it. A check that the role may not run is a finding itself.

mod flush;
mod locks;
mod nodes;
mod pages;
mod repair;
mod server;
pub(crate) mod servers;
mod shape;
mod tables;

use std::time::{Duration, SystemTime};

use super::failure::{self, Failure};
use super::{Database, names, statement, unexpected};
use crate::clock::wall_now;
use crate::config::Config;
use crate::error::{Error, ErrorKind, chain};

/// How far the clocks of the database and of this machine may differ without a finding.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(5);
/// How long the doctor waits for a connection, and for a listener.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Of errors of connections, with their causes.
const CONNECTION_PAGE: &str = "docs/connection-errors.md#connections";

/// What [`Builder::diagnose`](crate::Builder::diagnose) found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The name of the check, for example `row-security`. It does not change between versions.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, as a sentence.
    pub message: String,
    /// The statement, or the setting, that fixes it.
    pub fix: String,
    /// The page of the documentation about it, from the root of the repository.
    pub page: &'static str,
}

impl Finding {
    /// No statement can be sent.
    pub(crate) fn of_connection(error: &Error) -> Self {
        let text = chain(error).replace('\n', " ");
        let check = Check::fault("connection", String::new());
        if failure::is_without_primary(error) {
            let fix = "Give the address of the primary. If it is one, look at default_transaction_read_only of the role and \
                       the database: ALTER ROLE ... RESET default_transaction_read_only;";
            return check.finding(text, fix.to_owned());
        }
        let fix = match error.kind() {
            ErrorKind::Timeout => {
                "Look at the load of the server and at its network: SELECT * FROM pg_stat_activity;"
            }
            ErrorKind::Unavailable => {
                "Look at host and port of the address, at the network, and whether the server runs."
            }
            _ => "Do what the message says: it names the setting, or the statement.",
        };
        Finding { page: CONNECTION_PAGE, ..check.finding(text, fix.to_owned()) }
    }

    /// A node cannot start, although no check says why.
    pub(crate) fn at_start(message: &str) -> Self {
        let fix = "Change the setting that the message names.".to_owned();
        Check::fault("start", String::new()).finding(message.replace('\n', " "), fix)
    }

    /// The listener has the address of the pool, which leads through a pooler.
    pub(crate) fn pooler() -> Self {
        let message =
            "the address leads through a connection pooler, which loses the listener's notifications"
                .to_owned();
        let fix = "Give the listener PostgreSQL's own address: --listen-url, or `listen_on_url`.".to_owned();
        Check::fault("pooler", String::new()).finding(message, fix)
    }
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Sessions do not work, or a promise of the library does not hold.
    Fault,
    /// It works, but something will be slow, lost or visible.
    Warning,
}

struct Check {
    name: &'static str,
    severity: Severity,
    /// Returns rows `(message, fix)`.
    sql: String,
}

impl Check {
    fn fault(name: &'static str, sql: String) -> Self {
        Self { name, severity: Severity::Fault, sql }
    }

    fn warning(name: &'static str, sql: String) -> Self {
        Self { name, severity: Severity::Warning, sql }
    }

    fn finding(&self, message: String, fix: String) -> Finding {
        let fix = line_by_line(fix);
        Finding { check: self.name, severity: self.severity, message, fix, page: pages::page(self.name) }
    }
}

/// Each statement on a line of its own: some do not run in one transaction with others. The code of a function stays as it is. So
/// does what is behind `--`: it may quote a client's name, which must not become a statement.
fn line_by_line(fix: String) -> String {
    if fix.starts_with("CREATE ") {
        return fix;
    }
    let (statements, comment) = fix.split_at(fix.find("--").unwrap_or(fix.len()));
    let begins = ["SELECT ", "ALTER ", "DROP ", "VACUUM "];
    let on_a_line = |text: String, begin: &&str| text.replace(&format!("; {begin}"), &format!(";\n{begin}"));
    begins.iter().fold(statements.to_owned(), on_a_line) + comment
}

impl Database {
    /// Runs all checks, in the order in which they are to be fixed.
    ///
    /// # Errors
    /// Only if the server does not answer.
    pub(crate) async fn diagnose(&self, config: &Config) -> Result<Vec<Finding>, Error> {
        // Without a connection to a primary there is nothing to check.
        let clock = match self.learn_clock().await {
            Err(error) if error.kind() != ErrorKind::Config => return Err(error),
            clock => clock,
        };
        let mut findings = self.check_server_version().await?;
        for check in server::checks(config) {
            findings.extend(self.run_check(&check).await?);
        }
        // The role has settings with which no statement is sent.
        if let Err(error) = clock {
            return if findings.is_empty() { Err(error) } else { Ok(findings) };
        }
        findings.extend(self.check_flush().await?);
        let schema_right = self.run_check(&tables::schema_right(&self.names)).await?;
        if !schema_right.is_empty() {
            findings.extend(schema_right);
            return Ok(findings);
        }
        // The other checks would wait for the same locks.
        let locks = self.check_locks().await?;
        if !locks.is_empty() {
            findings.extend(locks);
            return Ok(findings);
        }
        for check in tables::none(&self.names) {
            let none = self.run_check(&check).await?;
            if !none.is_empty() {
                findings.extend(none);
                return Ok(findings);
            }
        }
        let owners = self.run_check(&tables::owners(&self.names)).await?;
        if !owners.is_empty() {
            findings.extend(owners);
            return Ok(findings);
        }
        for check in tables::checks(&self.names) {
            findings.extend(self.run_check(&check).await?);
        }
        // The other checks read the tables.
        if findings
            .iter()
            .any(|finding| ["missing-table", "not-a-table", "table-right"].contains(&finding.check))
        {
            return Ok(findings);
        }
        let settings = self.check_settings().await?;
        let is_locked = settings.iter().any(|finding| finding.check == "lock");
        findings.extend(settings);
        if is_locked {
            return Ok(findings);
        }
        if findings.iter().all(|finding| finding.severity != Severity::Fault) {
            findings.extend(self.check_nodes(config).await?);
        }
        findings.extend(self.check_shape().await?);
        findings.extend(self.check_clock());
        Ok(findings)
    }

    async fn check_server_version(&self) -> Result<Vec<Finding>, Error> {
        let sql = "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')";
        let rows = self.rows_of(sql).await.map_err(Failure::into_read_error)?;
        let version = |(name, number): &(String, String)| server::version(name, number.parse().ok()?);
        Ok(rows.iter().filter_map(version).collect())
    }

    async fn run_check(&self, check: &Check) -> Result<Vec<Finding>, Error> {
        let rows = match self.rows_of(&check.sql).await {
            Ok(rows) => rows,
            Err(failure) => return self.refused(check, failure),
        };
        rows.into_iter().map(|(message, fix)| Ok(check.finding(message, fix))).collect()
    }

    /// A check that the server refuses is a finding.
    fn refused(&self, check: &Check, failure: Failure) -> Result<Vec<Finding>, Error> {
        if failure.is_lost() {
            return Err(failure.into_read_error());
        }
        if let Some(lock) = locks::of_failure(&failure) {
            return Ok(vec![lock]);
        }
        let message = format!("the check {} did not run: {}", check.name, chain(&failure.error));
        let message = message.replace('\n', " ");
        Ok(vec![check.finding(message, "Look at the cause.".to_owned())])
    }

    /// Without them no function of the SQL contract works.
    async fn check_settings(&self) -> Result<Vec<Finding>, Error> {
        let table = self.names.settings();
        let check = Check::warning(
            "settings",
            format!(
                "SELECT 'the settings for the SQL functions are missing', {}
             WHERE pg_catalog.to_regclass({}) IS NOT NULL AND NOT EXISTS (SELECT FROM {table})",
                names::literal(&self.settings_statement()),
                names::literal(&table)
            ),
        );
        self.run_check(&check).await
    }

    /// In a transaction, which limits the wait for locks on every connection, also behind a pooler.
    async fn rows_of(&self, sql: &str) -> Result<Vec<(String, String)>, Failure> {
        let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", locks::LOCK_WAIT.as_millis());
        let work = async |connection: &deadpool_postgres::Object| {
            statement::run(connection, &begin).await?;
            let rows = connection.query_typed(sql, &[]).await;
            // After an error, it rolls back.
            statement::run(connection, "COMMIT").await?;
            let rows = rows.map_err(|error| Failure::of_statement(&error))?;
            let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
            rows.iter().map(pair).collect::<Result<Vec<_>, tokio_postgres::Error>>().map_err(unexpected)
        };
        self.bounded(self.timeout, work).await
    }

    fn check_clock(&self) -> Option<Finding> {
        clock(SystemTime::from(self.policy.clock.database_now()), wall_now())
    }
}

fn clock(there: SystemTime, here: SystemTime) -> Option<Finding> {
    let (difference, direction) = match here.duration_since(there) {
        Ok(difference) => (difference, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    (difference > CLOCK_DIFFERENCE_MAX).then(|| {
        let message =
            format!("the clock of this machine is {} s {direction} the database's", difference.as_secs());
        let fix =
            "Synchronise the clock that is wrong: chronyc makestep. Sessions use the database's.".to_owned();
        Check::warning("clock", String::new()).finding(message, fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_seconds_are_a_finding() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(43_200);
        assert_eq!(clock(noon, noon + CLOCK_DIFFERENCE_MAX), None);
        assert_eq!(clock(noon, noon - CLOCK_DIFFERENCE_MAX), None);
        let message = |here| clock(noon, here).map(|finding| finding.message).unwrap_or_default();
        let hour = Duration::from_secs(3_600);
        assert_eq!(message(noon + hour), "the clock of this machine is 3600 s ahead of the database's");
        assert_eq!(message(noon - hour), "the clock of this machine is 3600 s behind the database's");
    }

    #[test]
    fn each_statement_of_a_fix_has_a_line() {
        let fix =
            |text: &str| Check::warning("fsync", String::new()).finding(String::new(), text.to_owned()).fix;
        assert_eq!(
            fix("ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();"),
            "ALTER SYSTEM SET fsync = on;\nSELECT pg_reload_conf();"
        );
        for same in [
            "VACUUM (FREEZE);",
            "CREATE FUNCTION f() AS 'BEGIN; SELECT 1; END';",
            "Restart it; then look.",
            "SELECT 1; -- '; DROP TABLE sessions;' is a client",
        ] {
            assert_eq!(fix(same), same);
        }
    }

    #[test]
    fn the_page_about_the_doctor_lists_each_check() {
        let page = include_str!("../../../../../docs/doctor.md");
        let anchors: Vec<String> = [
            ("operations.md", include_str!("../../../../../docs/operations.md")),
            ("runbooks.md", include_str!("../../../../../docs/runbooks.md")),
        ]
        .into_iter()
        .flat_map(|(name, text)| {
            let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
            headings.map(move |heading| format!("docs/{name}#{}", heading.to_lowercase().replace(' ', "-")))
        })
        .collect();
        for name in pages::names() {
            assert!(page.contains(&format!("| `{name}` |")), "docs/doctor.md lacks {name}");
            assert!(
                anchors.iter().any(|anchor| anchor == pages::page(name)),
                "there is no {}",
                pages::page(name)
            );
            assert!(
                page.contains(&format!("]({})", pages::page(name).trim_start_matches("docs/"))),
                "{name}"
            );
        }
        let runbooks = include_str!("../../../../../docs/runbooks.md");
        let page_of =
            |section: &&str| section.lines().next().unwrap_or_default().to_lowercase().replace(' ', "-");
        for section in runbooks.split("\n## ").skip(1) {
            let leads_here = format!("docs/runbooks.md#{}", page_of(&section));
            for name in pages::names().filter(|name| pages::page(name) == leads_here) {
                assert!(section.contains(&format!("`{name}`")), "the runbook {leads_here} lacks {name}");
            }
        }
        let config = Config::default();
        let names = names::Names::new(&config).unwrap_or_else(|error| panic!("{error}"));
        for check in server::checks(&config).iter().chain(&tables::checks(&names)) {
            assert!(pages::names().any(|name| name == check.name), "{} has no page", check.name);
        }
    }
}
