//! Checks of the server and of the connection's role.

use super::{Check, Finding};
use crate::config::Config;
use crate::postgres::interval;

/// PostgreSQL's `server_version_num` of the oldest version that the library supports.
const VERSION_MIN: u32 = 130_000;
/// The oldest transaction without a finding, as a multiple of `query_timeout`: ten minutes by default.
const TRANSACTION_AGE_FACTOR: u32 = 120;

/// Shares of the notification queue. It is empty but for moments, unless a listener is in a transaction.
const QUEUE_WARNING: f64 = 0.01;
const QUEUE_FAULT: f64 = 0.1;
/// Commits that wait for the lock of commits that notify, without a finding: fewer are a moment's chance.
const NOTIFIERS_MIN: u32 = 4;
/// Autovacuum freezes a table long before, unless something keeps it from that.
const XID_AGE_MAX: u32 = 1_000_000_000;

/// Whether the connection is not encrypted, and comes from another machine.
pub(super) const IS_PLAIN_AND_REMOTE: &str = "EXISTS (
    SELECT FROM pg_catalog.pg_stat_ssl s
    WHERE s.pid = pg_catalog.pg_backend_pid() AND NOT s.ssl AND pg_catalog.inet_client_addr() IS NOT NULL
      AND NOT pg_catalog.inet_client_addr() OPERATOR(pg_catalog.<<=) '127.0.0.0/8'::pg_catalog.inet
      AND pg_catalog.inet_client_addr() <> '::1'::pg_catalog.inet)";

/// `number` is `server_version_num`.
pub(super) fn version(name: &str, number: u32) -> Option<Finding> {
    let message = format!("the server is PostgreSQL {name}");
    let fix = "Upgrade the server to PostgreSQL 13 or newer with pg_upgrade.".to_owned();
    (number < VERSION_MIN).then(|| Check::fault("version", String::new()).finding(message, fix))
}

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let timeout = config.query_timeout.as_millis();
    let age_max = interval(config.query_timeout.saturating_mul(TRANSACTION_AGE_FACTOR));
    vec![
        Check::fault("isolation", format!(
            "SELECT pg_catalog.format('transactions of this role are %s', pg_catalog.current_setting('transaction_isolation')), {}
             WHERE pg_catalog.current_setting('transaction_isolation') <> 'read committed'",
            set("default_transaction_isolation", "''read committed''")
        )),
        Check::fault("replication-role", format!(
            "SELECT 'session_replication_role is not origin, so the triggers of the tables do not run', {}
             WHERE pg_catalog.current_setting('session_replication_role') <> 'origin'",
            set("session_replication_role", "origin")
        )),
        Check::warning("template",
            "SELECT pg_catalog.format('the database %I is a template: each CREATE DATABASE may copy the session tables', d.datname),
                    CASE WHEN d.datname IN ('template0', 'template1')
                         THEN 'Create a database, and name it in the connection string: CREATE DATABASE app;'
                         ELSE pg_catalog.format('ALTER DATABASE %I IS_TEMPLATE false;', d.datname) END
             FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() AND d.datistemplate".to_owned()),
        Check::warning("planner",
            "SELECT pg_catalog.format('%s is off, which makes some plans slow', s.name),
                    CASE s.source WHEN 'user' THEN pg_catalog.format('ALTER ROLE %I RESET %I;', CURRENT_USER, s.name)
                         WHEN 'database' THEN pg_catalog.format('ALTER DATABASE %I RESET %I;', pg_catalog.current_database(), s.name)
                         WHEN 'database user' THEN pg_catalog.format('ALTER ROLE %I IN DATABASE %I RESET %I;',
                             CURRENT_USER, pg_catalog.current_database(), s.name)
                         ELSE pg_catalog.format('ALTER SYSTEM RESET %I; SELECT pg_reload_conf();', s.name) END
             FROM pg_catalog.pg_settings s
             WHERE s.name IN ('enable_nestloop', 'enable_indexscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_sort')
               AND s.setting = 'off'".to_owned()),
        Check::warning("fsync",
            "SELECT pg_catalog.format('%s is off: a crash may destroy the database', s.name),
                    pg_catalog.format('ALTER SYSTEM SET %I = on; SELECT pg_reload_conf();', s.name)
             FROM pg_catalog.pg_settings s WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off'".to_owned()),
        Check::warning("synchronous-commit", format!(
            "SELECT 'synchronous_commit is off: a crash of the server undoes the last logouts', {}
             WHERE pg_catalog.current_setting('synchronous_commit') = 'off'",
            set("synchronous_commit", "on")
        )),
        Check::fault("synchronous-standby",
            "SELECT 'synchronous_standby_names is set, and no synchronous standby is connected: each write waits for one',
                    'Start the standby, or ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();'
             WHERE pg_catalog.current_setting('synchronous_standby_names') <> ''
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_replication r WHERE r.sync_state IN ('sync', 'quorum')
                                  -- Hidden from roles without the rights of pg_monitor.
                                  OR r.state IS NULL)".to_owned()),
        Check::fault("standby-wait",
            "SELECT pg_catalog.format('%s commits have waited for a synchronous standby for up to %s s', w.commits, w.seconds),
                    'Look at the standby: SELECT application_name, state, replay_lag FROM pg_stat_replication; \
                     or do without it: ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();'
             FROM (SELECT pg_catalog.count(*) AS commits, pg_catalog.max(pg_catalog.ceil(pg_catalog.date_part(
                              'epoch', pg_catalog.clock_timestamp() - a.query_start))) AS seconds
                   FROM pg_catalog.pg_stat_activity a
                   WHERE a.wait_event = 'SyncRep' AND a.query_start < pg_catalog.clock_timestamp() - interval '1 second') w
             WHERE w.commits > 0".to_owned()),
        Check::warning("role-timeout", format!(
            "SELECT pg_catalog.format('%s = %s of the role or database is shorter than query_timeout = {timeout} ms', s.name, s.value),
                    pg_catalog.format('ALTER ROLE %I%s SET %I = %L;', CURRENT_USER,
                        CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0
                             THEN pg_catalog.format(' IN DATABASE %I', pg_catalog.current_database()) END, s.name, '{timeout}ms')
             FROM (SELECT DISTINCT ON (pg_catalog.split_part(c.setting, '=', 1)) d.setrole, d.setdatabase,
                          pg_catalog.split_part(c.setting, '=', 1) AS name, pg_catalog.split_part(c.setting, '=', 2) AS value
                   FROM pg_catalog.pg_db_role_setting d CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) AS c (setting)
                   WHERE d.setrole IN (0, CURRENT_USER::pg_catalog.regrole)
                     AND d.setdatabase IN (0, (SELECT b.oid FROM pg_catalog.pg_database b
                                               WHERE b.datname = pg_catalog.current_database()))
                   -- The first counts: of the role in the database, of the role, of the database, of all.
                   ORDER BY pg_catalog.split_part(c.setting, '=', 1), d.setrole = 0, d.setdatabase = 0) s
             JOIN pg_catalog.pg_settings p ON p.name = s.name AND p.unit = 'ms'
             WHERE s.name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout')
               AND CASE WHEN s.value ~ '^[0-9]+$' THEN s.value::pg_catalog.numeric
                        ELSE pg_catalog.date_part('epoch', s.value::pg_catalog.interval)::pg_catalog.numeric * 1000 END
                   BETWEEN 1 AND {timeout} - 1"
        )),
        Check::warning("tls", format!(
            "SELECT 'the connection of the pool is not encrypted, and the server is on another machine',
                    'Set sslmode=verify-full in the connection string.' WHERE {IS_PLAIN_AND_REMOTE}"
        )),
        Check::fault("notification-queue", queue(QUEUE_FAULT, 1.0)),
        Check::warning("notification-queue", queue(QUEUE_WARNING, QUEUE_FAULT)),
        Check::warning("old-transaction", format!(
            "SELECT pg_catalog.format('process %s has been in a transaction for %s minutes; it holds back vacuum and the notification queue',
                        a.pid, pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start) / 60)),
                    pg_catalog.format('SELECT pg_terminate_backend(%s);', a.pid)
             FROM pg_catalog.pg_stat_activity a
             WHERE a.xact_start < pg_catalog.clock_timestamp() - {age_max} AND a.backend_type = 'client backend'
             ORDER BY a.xact_start LIMIT 3"
        )),
        Check::warning("prepared-transaction", format!(
            "SELECT pg_catalog.format('the prepared transaction %L is %s minutes old; it holds back vacuum', p.gid,
                        pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - p.prepared) / 60)),
                    pg_catalog.format('ROLLBACK PREPARED %L;', p.gid)
             FROM pg_catalog.pg_prepared_xacts p
             WHERE p.database = pg_catalog.current_database() AND p.prepared < pg_catalog.clock_timestamp() - {age_max}
             ORDER BY p.prepared LIMIT 3"
        )),
        // The kind of a backend is hidden from other roles without the rights of pg_monitor; user and database are not.
        Check::warning("connections",
            "SELECT pg_catalog.format('%s of %s connections are in use, the most by the role %I', u.used, u.allowed, u.most),
                    pg_catalog.format('ALTER SYSTEM SET max_connections = %s; -- Then restart the server. \
                        Or lower pool_connections_max of the nodes.', u.max * 2)
             FROM (SELECT pg_catalog.count(*) AS used, pg_catalog.mode() WITHIN GROUP (ORDER BY a.usename) AS most, m.max,
                          m.max - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int8
                          - COALESCE(pg_catalog.current_setting('reserved_connections', true)::pg_catalog.int8, 0) AS allowed
                   FROM pg_catalog.pg_stat_activity a,
                        (SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int8 AS max) m
                   WHERE a.usesysid IS NOT NULL AND a.datid IS NOT NULL GROUP BY m.max) u
             WHERE u.used * 10 >= u.allowed * 9".to_owned()),
        Check::warning("notify-lock", format!(
            "SELECT pg_catalog.format('%s commits that notify wait for another one, of any database', w.waiting),
                    'Look for what notifies: SELECT query FROM pg_stat_activity WHERE wait_event_type = ''Lock'' AND wait_event = ''object'';'
             FROM (SELECT pg_catalog.count(*) AS waiting FROM pg_catalog.pg_locks l
                   WHERE l.locktype = 'object' AND l.database = 0 AND l.objid = 0 AND NOT l.granted
                     AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass) w
             WHERE w.waiting >= {NOTIFIERS_MIN}"
        )),
        Check::warning("wraparound", format!(
            "SELECT pg_catalog.format('the database has used %s million transactions since its last freeze; at 2 100 million it stops',
                        pg_catalog.age(d.datfrozenxid) / 1000000),
                    'VACUUM (FREEZE);'
             FROM pg_catalog.pg_database d
             WHERE d.datname = pg_catalog.current_database() AND pg_catalog.age(d.datfrozenxid) > {XID_AGE_MAX}"
        )),
        Check::warning("server-log",
            "SELECT pg_catalog.format('%s = %s writes session ids and values to the server''s log', s.name, s.setting),
                    pg_catalog.format('ALTER SYSTEM SET log_parameter_max_length = 0; SELECT pg_reload_conf();')
             FROM pg_catalog.pg_settings s
             WHERE (s.name = 'log_statement' AND s.setting IN ('mod', 'all')
                    OR s.name IN ('log_min_duration_statement', 'log_min_duration_sample') AND s.setting <> '-1')
               AND pg_catalog.current_setting('log_parameter_max_length', true) IS DISTINCT FROM '0'
             UNION ALL
             SELECT pg_catalog.format('%s = %s writes session ids and values to the server''s log with each error', s.name, s.setting),
                    pg_catalog.format('ALTER SYSTEM SET %s = 0; SELECT pg_reload_conf();', s.name)
             FROM pg_catalog.pg_settings s WHERE s.name = 'log_parameter_max_length_on_error' AND s.setting <> '0'".to_owned()),
    ]
}

/// An SQL text: the statement that gives the role a setting, where one of the role in this database would win.
fn set(name: &str, value: &str) -> String {
    format!(
        "pg_catalog.format('ALTER ROLE %I%s SET {name} = {value};', CURRENT_USER,
            (SELECT pg_catalog.format(' IN DATABASE %I', b.datname)
             FROM pg_catalog.pg_db_role_setting d JOIN pg_catalog.pg_database b ON b.oid = d.setdatabase
             CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) AS c (setting)
             WHERE d.setrole = CURRENT_USER::pg_catalog.regrole AND b.datname = pg_catalog.current_database()
               AND pg_catalog.starts_with(c.setting, '{name}=')))"
    )
}

/// A queue that is used more than `low`, and at most `high`. The client that holds it has a listener and is in a transaction. Which
/// ones have listeners is not known, so the one that is longest in a transaction comes first.
fn queue(low: f64, high: f64) -> String {
    format!(
        "SELECT pg_catalog.format('the notification queue is %s %% full: a listener is in an open transaction; when it is full, all writes fail',
                    pg_catalog.round((u.used * 100)::pg_catalog.numeric)),
                COALESCE(o.statement || ' -- ' || o.client || ' is in a transaction. If the queue stays full, run the doctor again.',
                    'Run the doctor again: no client is in a transaction now.')
         FROM (SELECT pg_catalog.pg_notification_queue_usage() AS used) u
         LEFT JOIN LATERAL (
             SELECT pg_catalog.format('SELECT pg_terminate_backend(%s);', a.pid) AS statement,
                    pg_catalog.translate(pg_catalog.format('%L of the role %L', a.application_name, a.usename), E'\n\r', '  ') AS client
             FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted
             WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.usesysid IS NOT NULL AND a.datid IS NOT NULL
             ORDER BY a.xact_start NULLS LAST, a.backend_start, a.pid LIMIT 1) o ON true
         WHERE u.used > {low} AND u.used <= {high}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_older_than_the_oldest_supported_is_a_fault() {
        assert_eq!(version("13.0", VERSION_MIN), None);
        assert_eq!(version("18beta1", 180_000), None);
        let finding = version("12.22", 120_022).expect("a finding");
        assert_eq!((finding.check, &*finding.message), ("version", "the server is PostgreSQL 12.22"));
    }
}
