//! Checks of the session tables: rights, storage, and what is in them.

use super::Check;
use crate::postgres::names::{Names, literal};
use crate::postgres::owners;

/// Updates that a table must have had before its share of heap-only updates counts.
const UPDATES_MIN: u32 = 1_000;
/// Rows that a table must have before missing statistics count.
const ROWS_MIN: u32 = 1_000;

/// Without this right the names of tables cannot be resolved, so it comes before all [`checks`].
pub(super) fn schema_right(names: &Names) -> Check {
    Check::fault(
        "schema-right",
        format!(
            "SELECT pg_catalog.format('the role %I may not use the schema %I', CURRENT_USER, n.nspname),
                    pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, CURRENT_USER)
             FROM pg_catalog.pg_namespace n
             WHERE n.nspname = {} AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')",
            literal(&names.plain_schema())
        ),
    )
}

/// Objects of other roles. The other [`checks`] read the tables, so they come after this one.
pub(super) fn owners(names: &Names) -> Check {
    Check::fault("owner", owners::findings(names))
}

pub(super) fn checks(names: &Names) -> Vec<Check> {
    let migrations = literal(&names.migrations());
    let written = names.written().map(|table| literal(&table)).join(", ");
    let nodes = literal(&names.nodes());
    let routines = names.routines().map(|routine| literal(&routine)).join(", ");
    let sessions = literal(&names.sessions());
    let tables = format!(
        "(SELECT c.* , c.oid::pg_catalog.regclass AS written_as FROM pg_catalog.pg_class c
          WHERE c.oid = ANY (ARRAY(SELECT pg_catalog.to_regclass(t.name) FROM pg_catalog.unnest(ARRAY[{written}]) AS t (name)))) c"
    );
    vec![
        Check::fault("missing-table", format!(
            "SELECT pg_catalog.format('there is no table %s', t.name), 'Run: pg-session migrate'
             FROM pg_catalog.unnest(ARRAY[{written}, {migrations}]) AS t (name) WHERE pg_catalog.to_regclass(t.name) IS NULL"
        )),
        Check::fault("not-a-table", format!(
            "SELECT pg_catalog.format('%s is a %s, not a table', c.written_as,
                        CASE c.relkind WHEN 'v' THEN 'view' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table'
                             WHEN 'm' THEN 'materialized view' ELSE c.relkind::pg_catalog.text END),
                    'Rename it, then run: pg-session migrate'
             FROM {tables} WHERE c.relkind <> 'r'"
        )),
        Check::fault("unlogged", format!(
            "SELECT pg_catalog.format('%s is unlogged: a crash of the server empties it', c.written_as),
                    pg_catalog.format('ALTER TABLE %s SET LOGGED;', c.written_as)
             FROM {tables} WHERE c.relpersistence = 'u' AND c.oid IS DISTINCT FROM pg_catalog.to_regclass({nodes})"
        )),
        Check::fault("row-security", format!(
            "SELECT pg_catalog.format('row-level security is on for %s: it hides sessions, which then look ended', c.written_as),
                    pg_catalog.format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY;', c.written_as)
             FROM {tables} WHERE c.relrowsecurity"
        )),
        Check::fault("table-right", format!(
            "SELECT pg_catalog.format('the role %I lacks %s on %s', CURRENT_USER, r.right_name, c.written_as),
                    pg_catalog.format('GRANT %s ON %s TO %I;', r.right_name, c.written_as, CURRENT_USER)
             FROM {tables} CROSS JOIN pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (right_name)
             WHERE NOT pg_catalog.has_table_privilege(c.oid, r.right_name)"
        )),
        Check::fault("function-right", format!(
            "SELECT pg_catalog.format('the role %I may not execute %s', CURRENT_USER, p.oid::pg_catalog.regprocedure),
                    pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %I;', p.oid::pg_catalog.regprocedure, CURRENT_USER)
             FROM pg_catalog.pg_proc p
             WHERE p.oid = ANY (ARRAY(SELECT pg_catalog.to_regprocedure(f.name) FROM pg_catalog.unnest(ARRAY[{routines}]) AS f (name)))
               AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"
        )),
        Check::fault("public-right", format!(
            "SELECT pg_catalog.format('every role may %s %s', pg_catalog.string_agg(a.privilege_type, ', '), c.written_as),
                    pg_catalog.format('REVOKE ALL ON %s FROM PUBLIC;', c.written_as)
             FROM {tables} CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a WHERE a.grantee = 0 GROUP BY c.written_as"
        )),
        Check::fault("visitor-right", format!(
            "SELECT pg_catalog.format('the role %I, which serves visitors over HTTP, may %s %s', r.rolname,
                        pg_catalog.string_agg(a.privilege_type, ', '), c.written_as),
                    pg_catalog.format('REVOKE ALL ON %s FROM %I;', c.written_as, r.rolname)
             FROM {tables} CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
             JOIN pg_catalog.pg_roles r ON r.oid = a.grantee AND r.rolname IN ('anon', 'authenticated', 'web_anon')
             WHERE a.grantee <> c.relowner GROUP BY c.written_as, r.rolname"
        )),
        Check::fault("invalid-index", format!(
            "SELECT pg_catalog.format('the index %s is not valid: no query uses it', i.indexrelid::pg_catalog.regclass),
                    pg_catalog.format('REINDEX INDEX %s;', i.indexrelid::pg_catalog.regclass)
             FROM {tables} JOIN pg_catalog.pg_index i ON i.indrelid = c.oid WHERE NOT i.indisvalid"
        )),
        Check::fault("disabled-trigger", format!(
            "SELECT pg_catalog.format('the trigger %I on %s is disabled: rows of ended sessions stay, and SQL of other clients leaves stale sessions', t.tgname, c.written_as),
                    pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I;', c.written_as, t.tgname)
             FROM {tables} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
             WHERE NOT t.tgisinternal AND t.tgenabled IN ('D', 'R') AND t.tgname OPERATOR(pg_catalog.<>) 'sessions_check_update'"
        )),
        Check::warning("autovacuum", format!(
            "SELECT pg_catalog.format('autovacuum is off for %s: the table grows without end', c.written_as),
                    pg_catalog.format('ALTER TABLE %s RESET (autovacuum_enabled);', c.written_as)
             FROM {tables} WHERE c.reloptions OPERATOR(pg_catalog.&&) ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off']
             UNION ALL
             SELECT 'autovacuum is off for the server', 'ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf();'
             WHERE pg_catalog.current_setting('autovacuum') = 'off'"
        )),
        Check::warning("statistics", format!(
            "SELECT pg_catalog.format('%s has %s rows and was never analysed: plans may be slow', c.written_as, s.n_live_tup),
                    pg_catalog.format('ANALYZE %s;', c.written_as)
             FROM {tables} JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
             WHERE s.n_live_tup >= {ROWS_MIN} AND s.last_analyze IS NULL AND s.last_autoanalyze IS NULL"
        )),
        Check::warning("dead-rows", format!(
            "SELECT pg_catalog.format('%s has %s dead rows and %s live ones', c.written_as, s.n_dead_tup, s.n_live_tup),
                    pg_catalog.format('VACUUM %s;', c.written_as)
             FROM {tables} JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
             WHERE s.n_dead_tup >= 10 * {ROWS_MIN} AND s.n_dead_tup > 2 * s.n_live_tup"
        )),
        Check::warning("hot-updates", format!(
            "SELECT pg_catalog.format('only %s %% of the updates of %s touch no index', s.n_tup_hot_upd * 100 / s.n_tup_upd, c.written_as),
                    'Drop indexes that are not the library''s, and set the fillfactor back to 70.'
             FROM {tables} JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
             WHERE c.oid = pg_catalog.to_regclass({sessions}) AND s.n_tup_upd >= {UPDATES_MIN} AND s.n_tup_hot_upd * 2 < s.n_tup_upd"
        )),
    ]
}
