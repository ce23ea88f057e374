//! Checks of the session tables: rights, storage, and what is in them.

use super::{Check, repair};
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

/// Tables that are not the library's, or none. Without them, all other [`checks`] would only repeat that.
pub(super) fn none(names: &Names) -> [Check; 2] {
    let schema = literal(&names.plain_schema());
    let (sessions, migrations) = (literal(&names.sessions()), literal(&names.migrations()));
    let record = literal(&format!("{}session_migrations", names.plain_prefix()));
    [
        Check::fault("other-table", format!(
            "SELECT pg_catalog.format('%s is the table of another application: it has no column idle_limited', c.oid::pg_catalog.regclass),
                    'Give the session tables a schema of their own: `schema` in the configuration and --schema of this program, \
                     then run: pg-session migrate --schema ...'
             FROM pg_catalog.pg_class c
             WHERE c.oid = pg_catalog.to_regclass({sessions}) AND c.relkind = 'r'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = c.oid AND a.attname = 'idle_limited' AND NOT a.attisdropped)"
        )),
        Check::fault("missing-table", format!(
            "SELECT pg_catalog.concat(pg_catalog.format('there are no session tables in the schema %I of the database %I',
                        {schema}, pg_catalog.current_database()),
                        '; there are some in: ' || o.schemas),
                    pg_catalog.concat(pg_catalog.format('Run: pg-session migrate --schema %s', {schema}),
                        CASE WHEN o.schemas IS NOT NULL THEN '; or give the schema that has them: --schema' END)
             FROM (SELECT pg_catalog.string_agg(n.nspname::pg_catalog.text, ', ') AS schemas
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relname::pg_catalog.text = {record} AND c.relkind = 'r') o
             WHERE pg_catalog.to_regclass({sessions}) IS NULL AND pg_catalog.to_regclass({migrations}) IS NULL"
        )),
    ]
}

/// Objects of other roles. The other [`checks`] read the tables, so they come after this one.
pub(super) fn owners(names: &Names) -> Check {
    Check::fault("owner", owners::findings(names, &repair::routines(names)))
}

pub(super) fn checks(names: &Names) -> Vec<Check> {
    let migrations = literal(&names.migrations());
    let written = names.written().map(|table| literal(&table)).join(", ");
    let (nodes, audit) = (literal(&names.nodes()), literal(&names.audit()));
    let routines = names.routines().map(|routine| literal(&routine)).join(", ");
    let (sessions, drop_all) = (literal(&names.sessions()), repair::drop_all(names));
    let tables = format!(
        "(SELECT c.* , c.oid::pg_catalog.regclass AS written_as FROM pg_catalog.pg_class c
          WHERE c.oid = ANY (ARRAY(SELECT pg_catalog.to_regclass(t.name) FROM pg_catalog.unnest(ARRAY[{written}]) AS t (name)))) c"
    );
    let with_audit = tables.replace(&written, &format!("{written}, {audit}"));
    let with_record = tables.replace(&written, &format!("{written}, {migrations}"));
    vec![
        Check::fault("missing-table", format!(
            "SELECT pg_catalog.format('there is no table %s', t.name),
                    pg_catalog.concat({drop_all}, ' -- This ends all sessions',
                        CASE WHEN pg_catalog.to_regclass({audit}) IS NOT NULL THEN ' and deletes the audit log' END,
                        '. Then run: pg-session migrate. Then repeat the GRANT statements of docs/operations.md#rights. \
                         Or restore the table from a backup.')
             FROM pg_catalog.unnest(ARRAY[{written}, {audit}, {migrations}]) AS t (name) WHERE pg_catalog.to_regclass(t.name) IS NULL"
        )),
        Check::fault("not-a-table", format!(
            "SELECT pg_catalog.format('%s is a %s, not a table', c.written_as,
                        CASE c.relkind WHEN 'v' THEN 'view' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table'
                             WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'composite type'
                             ELSE c.relkind::pg_catalog.text END),
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
            "SELECT pg_catalog.format('the role %I lacks %s on %s', CURRENT_USER, t.rights, t.names),
                    pg_catalog.format('GRANT %s ON %s TO %I;', t.rights, t.names, CURRENT_USER)
             FROM (SELECT l.rights, pg_catalog.string_agg(l.name, ', ' ORDER BY l.name) AS names
                   FROM (SELECT c.written_as::pg_catalog.text AS name, pg_catalog.string_agg(r.name, ', ' ORDER BY r.n) AS rights
                         FROM {with_record}
                         CROSS JOIN pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS r (name, n)
                         WHERE NOT pg_catalog.has_table_privilege(c.oid, r.name)
                           -- Nodes only read the record of the migrations.
                           AND (r.name = 'SELECT' OR c.oid IS DISTINCT FROM pg_catalog.to_regclass({migrations}))
                         GROUP BY c.written_as) l
                   GROUP BY l.rights) t"
        )),
        Check::fault("function-right", format!(
            "SELECT pg_catalog.format('the role %I may not execute %s', CURRENT_USER,
                        pg_catalog.string_agg(p.proname::pg_catalog.text, ', ' ORDER BY p.proname)),
                    pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %I;', pg_catalog.string_agg(
                        p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ' ORDER BY p.proname), CURRENT_USER)
             FROM pg_catalog.pg_proc p
             WHERE p.oid = ANY (ARRAY(SELECT pg_catalog.to_regprocedure(f.name) FROM pg_catalog.unnest(ARRAY[{routines}]) AS f (name)))
               AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE') HAVING pg_catalog.count(*) > 0"
        )),
        // The code of the functions names what they call, as the migrations write it.
        Check::fault("contract-right", format!(
            "WITH RECURSIVE ours AS (
                 SELECT p.oid, p.proname, p.prosrc, p.prosecdef,
                        pg_catalog.concat({schema}, '.\"', pg_catalog.replace(p.proname::pg_catalog.text, '\"', '\"\"'), '\"(') AS call
                 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = {plain_schema}
                 WHERE pg_catalog.starts_with(p.proname::pg_catalog.text, {prefix} || 'session_')
             ), used AS (
                 SELECT o.oid FROM ours o WHERE pg_catalog.has_function_privilege(o.oid, 'EXECUTE')
                 UNION
                 SELECT c.oid FROM used u JOIN ours o ON o.oid = u.oid AND NOT o.prosecdef
                 JOIN ours c ON pg_catalog.strpos(o.prosrc, c.call) > 0
             )
             SELECT pg_catalog.format('the role %I may execute functions of the SQL contract, but not those that they call: %s', CURRENT_USER,
                        pg_catalog.string_agg(o.proname::pg_catalog.text, ', ' ORDER BY o.proname)),
                    pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %I;', pg_catalog.string_agg(
                        o.oid::pg_catalog.regprocedure::pg_catalog.text, ', ' ORDER BY o.proname), CURRENT_USER)
             FROM ours o JOIN used u ON u.oid = o.oid
             WHERE NOT pg_catalog.has_function_privilege(o.oid, 'EXECUTE') HAVING pg_catalog.count(*) > 0",
            schema = literal(&names.schema()),
            plain_schema = literal(&names.plain_schema()),
            prefix = literal(&names.plain_prefix())
        )),
        Check::fault("public-right", format!(
            "SELECT pg_catalog.format('every role may %s %s', pg_catalog.string_agg(a.privilege_type, ', '), c.written_as),
                    pg_catalog.format('REVOKE ALL ON %s FROM PUBLIC;', c.written_as)
             FROM {with_audit} CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a WHERE a.grantee = 0 GROUP BY c.written_as
             UNION ALL
             SELECT pg_catalog.format('every role may %s columns of %s', pg_catalog.string_agg(DISTINCT a.privilege_type, ', '), c.written_as),
                    pg_catalog.format('REVOKE ALL (%s) ON %s FROM PUBLIC;',
                        pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(t.attname::pg_catalog.text), ', '), c.written_as)
             FROM {with_audit} JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid
             CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) a WHERE a.grantee = 0 GROUP BY c.written_as"
        )),
        Check::fault("visitor-right", format!(
            "SELECT pg_catalog.format('the role %I, which serves visitors over HTTP, may %s %s', r.rolname,
                        pg_catalog.string_agg(a.privilege_type, ', '), c.written_as),
                    pg_catalog.format('REVOKE ALL ON %s FROM %I;', c.written_as, r.rolname)
             FROM {with_audit} CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
             JOIN pg_catalog.pg_roles r ON r.oid = a.grantee AND r.rolname IN ('anon', 'authenticated', 'web_anon')
             WHERE a.grantee <> c.relowner GROUP BY c.written_as, r.rolname
             UNION ALL
             SELECT pg_catalog.format('the role %I, which serves visitors over HTTP, may %s columns of %s', r.rolname,
                        pg_catalog.string_agg(DISTINCT a.privilege_type, ', '), c.written_as),
                    pg_catalog.format('REVOKE ALL (%s) ON %s FROM %I;',
                        pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(t.attname::pg_catalog.text), ', '), c.written_as, r.rolname)
             FROM {with_audit} JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid
             CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) a
             JOIN pg_catalog.pg_roles r ON r.oid = a.grantee AND r.rolname IN ('anon', 'authenticated', 'web_anon')
             GROUP BY c.written_as, r.rolname
             UNION ALL
             SELECT pg_catalog.format('the role %I, which serves visitors over HTTP, is a member of %I, which may read %s',
                        r.rolname, m.rolname, pg_catalog.string_agg(c.written_as::pg_catalog.text, ', ' ORDER BY c.relname)),
                    pg_catalog.format('REVOKE %I FROM %I;', m.rolname, r.rolname)
             FROM {with_audit} CROSS JOIN pg_catalog.pg_roles r
             JOIN pg_catalog.pg_auth_members g ON g.member = r.oid JOIN pg_catalog.pg_roles m ON m.oid = g.roleid
             WHERE r.rolname IN ('anon', 'authenticated', 'web_anon') AND NOT r.rolsuper
               AND pg_catalog.has_any_column_privilege(m.oid, c.oid, 'SELECT')
             GROUP BY r.rolname, m.rolname"
        )),
        Check::fault("foreign-key", format!(
            "SELECT pg_catalog.format('the foreign key %I of %s refers to %s: a session that it names cannot end',
                        o.conname, o.conrelid::pg_catalog.regclass, c.written_as),
                    pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', o.conrelid::pg_catalog.regclass, o.conname)
             FROM {tables} JOIN pg_catalog.pg_constraint o ON o.confrelid = c.oid
             WHERE o.contype = 'f' AND o.confdeltype IN ('a', 'r')"
        )),
        // PostgreSQL names a row to subscribers by its replica identity. Since version 18 it must not have a column that is left out.
        Check::fault("publication", format!(
            "SELECT pg_catalog.format('%s is published without its replica identity, so PostgreSQL rejects updates and deletes', p.written_as),
                    CASE WHEN f.has_none THEN pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY DEFAULT;', p.written_as)
                         ELSE 'Publish sessions, session_attributes and session_labels only, or set publish_generated_columns = stored.' END
             FROM (
                 SELECT c.oid, c.written_as, c.relreplident,
                        pg_catalog.bool_or(pg_catalog.to_jsonb(b) ->> 'pubgencols' = 'n') AS lacks_generated
                 FROM {with_audit} JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_publication_tables t ON t.schemaname = n.nspname AND t.tablename = c.relname
                 JOIN pg_catalog.pg_publication b ON b.pubname = t.pubname AND (b.pubupdate OR b.pubdelete)
                 GROUP BY c.oid, c.written_as, c.relreplident
             ) p
             LEFT JOIN pg_catalog.pg_index i ON i.indrelid = p.oid
                 AND CASE p.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
             CROSS JOIN LATERAL (
                 SELECT p.relreplident <> 'f' AND i.indexrelid IS NULL AS has_none,
                        p.lacks_generated AND EXISTS (
                            SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid AND a.attgenerated <> ''
                                AND (p.relreplident = 'f' OR a.attnum = ANY (i.indkey::pg_catalog.int2[]))) AS is_partial
             ) f
             WHERE f.has_none OR f.is_partial"
        )),
        Check::fault("invalid-index", format!(
            "SELECT pg_catalog.format('the index %s is not valid: no query uses it', i.indexrelid::pg_catalog.regclass),
                    pg_catalog.format('REINDEX INDEX %s;', i.indexrelid::pg_catalog.regclass)
             FROM {tables} JOIN pg_catalog.pg_index i ON i.indrelid = c.oid WHERE NOT i.indisvalid"
        )),
        Check::fault("disabled-trigger", format!(
            "SELECT pg_catalog.format('the trigger %I on %s is disabled: %s', t.tgname, c.written_as,
                        CASE WHEN pg_catalog.starts_with(t.tgname::pg_catalog.text, 'sessions_audit_')
                             THEN 'the audit log does not record the sessions that end'
                             ELSE 'rows of ended sessions stay, and SQL of other clients leaves stale sessions' END),
                    pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I;', c.written_as, t.tgname)
             FROM {tables} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
             WHERE NOT t.tgisinternal AND t.tgenabled IN ('D', 'R') AND NOT pg_catalog.starts_with(t.tgname::pg_catalog.text, 'sessions_replicated')
               AND t.tgname OPERATOR(pg_catalog.<>) 'sessions_check_update'
             UNION ALL
             SELECT pg_catalog.format('the trigger %I on %s does not run for replicated rows, which leave stale sessions', t.tgname, c.written_as),
                    pg_catalog.format('ALTER TABLE %s ENABLE REPLICA TRIGGER %I;', c.written_as, t.tgname)
             FROM {tables} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
             WHERE pg_catalog.starts_with(t.tgname::pg_catalog.text, 'sessions_replicated') AND t.tgenabled NOT IN ('R', 'A')"
        )),
        Check::warning("autovacuum", format!(
            "SELECT pg_catalog.format('autovacuum is off for %s: the table grows without end', c.written_as),
                    pg_catalog.format('ALTER TABLE %s RESET (autovacuum_enabled);', c.written_as)
             FROM {tables} CROSS JOIN LATERAL pg_catalog.pg_options_to_table(c.reloptions) o
             -- As it was written: false, off, no, 0, or the beginning of such a word.
             WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::pg_catalog.bool
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
                    pg_catalog.format('ALTER TABLE %1$s SET (fillfactor = 70); SELECT pg_stat_reset_single_table_counters(%1$L::regclass); \
                        VACUUM (ANALYZE) %1$s; -- The second forgets the updates until now.', c.written_as::pg_catalog.text)
             FROM {tables} JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
             WHERE c.oid = pg_catalog.to_regclass({sessions}) AND s.n_tup_upd >= {UPDATES_MIN} AND s.n_tup_hot_upd * 2 < s.n_tup_upd"
        )),
    ]
}
